//! One path for the policy and the app; one method; one host.

use super::support::*;

/// `/public` to everybody of the tailnet, `/admin` to Alice, each its own app.
struct Stage {
    _tailnet: Tailnet,
    public: Upstream,
    admin: Upstream,
    gateway: Gateway,
}

impl Stage {
    fn set() -> Self {
        let (tailnet, public, admin) = (Tailnet::new(), Upstream::echo(), Upstream::echo());
        let config = format!(
            r#"{{gateway: {{
                routes: {{
                    public: {{path: "/public", upstream: "{}"}},
                    admin: {{path: "/admin", upstream: "{}", allow: ["alice@example.com"]}},
                }},
                access: {{allow: ["bob@example.com"]}},
            }}}}"#,
            public.flag(),
            admin.flag()
        );
        let gateway = Setup::on(&tailnet).token(TOKEN).config(config).start_on_tailnet();
        Self { _tailnet: tailnet, public, admin, gateway }
    }

    fn bob(&self) -> Client {
        self.gateway.peer(BOB)
    }
}

#[test]
fn threat_037_no_spelling_of_a_path_reaches_another_route() {
    let stage = Stage::set();
    for path in [
        "/public/../admin",
        "/public/%2e%2e/admin",
        "/public/.%2e/admin",
        "/public/..%2fadmin",
        "/public/%2fadmin",
        "/public/..;/admin",
        "/admin%00",
        "/admin%5c",
        "/public%5c..%5cadmin",
        "/public/\\..\\admin",
        "/admin/.",
        "/./admin",
        "/public/%c0%ae%c0%ae/admin",
        "/%c0%afadmin",
        "/public/%",
        "/public/%zz",
    ] {
        let answer = stage.bob().get(path);
        assert_eq!(answer.status, 400, "{path}: {}", answer.text());
    }
    for path in ["/admin", "/%61dmin", "/%61%64min/x", "//admin", "/admin//x", "/admin;x=y", "/admin;x=y/z"] {
        let answer = stage.bob().get(path);
        assert!(matches!(answer.status, 403), "{path}: {} {}", answer.status, answer.text());
    }
    let upper = stage.bob().get("/ADMIN");
    assert_eq!(upper.status, 404, "{}", upper.text());
    assert_eq!(stage.admin.connections(), 0, "Bob reached what is Alice's");
    assert_eq!(stage.public.connections(), 0);
    // What the app sees is what the policy saw.
    let seen = stage.bob().get("/public//a/%61%20b").seen();
    assert_eq!(seen.target(), "/public/a/a%20b");
    assert_eq!(stage.gateway.peer(ALICE).get("/%61dmin/x").seen().target(), "/admin/x");
}

#[test]
fn threat_038_queries_and_fragments_choose_no_route() {
    let stage = Stage::set();
    for path in ["/admin?x=/public/status", "/admin?/public", "/admin/?next=/public/"] {
        assert_eq!(stage.bob().get(path).status, 403, "{path}");
    }
    for path in ["/admin#/public", "/public#/../admin", "/public/#"] {
        let answer = stage.bob().get(path);
        assert_eq!(answer.status, 400, "{path}: {}", answer.text());
    }
    assert_eq!(stage.admin.connections() + stage.public.connections(), 0);
    let seen = stage.bob().get("/public?next=/admin&a=%2F..%2f").seen();
    assert_eq!(seen.target(), "/public?next=/admin&a=%2F..%2f");
}

#[test]
fn threat_039_rules_see_the_real_method() {
    let stage = Stage::set();
    for method in ["CONNECT", "TRACE"] {
        let raw = format!(
            "{method} /public HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            stage.gateway.tailnet()
        );
        let answer = stage.bob().raw(raw);
        assert!(matches!(answer.status, 405 | 400), "{method}: {} {}", answer.status, answer.text());
    }
    let authority = format!(
        "CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
        stage.gateway.tailnet()
    );
    assert!(matches!(stage.gateway.peer(ALICE).raw(authority).status, 405 | 400));
    assert_eq!(stage.public.connections(), 0);
    // Overrides are the app's business and no news to us: the method stays a POST.
    let cross = stage.bob().with("X-HTTP-Method-Override", "GET").with("Sec-Fetch-Site", "cross-site");
    cross.request("POST", "/public", b"x").assert_refused(403, "cross_site");
    let lower = stage.bob().with("Sec-Fetch-Site", "cross-site").request("get", "/public", b"");
    lower.assert_refused(403, "cross_site");
    stage.bob().request("PROPFIND", "/admin", b"").assert_refused(403, "not_allowed");
    assert_eq!(stage.bob().request("PROPFIND", "/public", b"").seen().0["method"], "PROPFIND");
}

#[test]
fn threat_040_hosts_are_brought_into_one_form_before_rules() {
    let (tailnet, a, b) = (Tailnet::new(), Upstream::echo(), Upstream::echo());
    let config = format!(
        r#"{{gateway: {{
            allowedHosts: ["a.b.example.ts.net"],
            routes: {{
                everywhere: {{path: "/", upstream: "{}"}},
                strict: {{host: "a.b.example.ts.net", path: "/", upstream: "{}", allow: ["carol@example.com"]}},
            }},
            access: {{allow: ["bob@example.com"]}},
        }}}}"#,
        a.flag(),
        b.flag()
    );
    let gateway = Setup::on(&tailnet).token(TOKEN).config(config).start_on_tailnet();
    for host in
        ["a.b.example.ts.net", "A.B.Example.TS.NET.", "a.b.example.ts.net:80", "A.b.EXAMPLE.ts.net.:80"]
    {
        gateway.peer(BOB).host(host).get("/").assert_refused(403, "not_allowed");
        gateway.peer(CAROL).host(host).get("/").seen();
    }
    assert_eq!(a.connections(), 0, "the general route took what the strict one has");
    gateway.peer(BOB).get("/").seen();
}

#[test]
fn threat_041_prefixes_end_at_segments() {
    let (tailnet, api, rest) = (Tailnet::new(), Upstream::echo(), Upstream::echo());
    let config = format!(
        r#"{{gateway: {{routes: {{
            api: {{path: "/api", upstream: "{}", allow: ["carol@example.com"]}},
            rest: {{path: "/", upstream: "{}", allow: ["bob@example.com"]}},
        }}}}}}"#,
        api.flag(),
        rest.flag()
    );
    let gateway = Setup::on(&tailnet).token(TOKEN).config(config).start_on_tailnet();
    for path in ["/api", "/api/", "/api/x", "/api?x", "/api;v=1/x"] {
        gateway.peer(BOB).get(path).assert_refused(403, "not_allowed");
        gateway.peer(CAROL).get(path).seen();
    }
    assert_eq!(rest.connections(), 0);
    for path in ["/apix", "/api-v2", "/ap", "/"] {
        gateway.peer(BOB).get(path).seen();
        gateway.peer(CAROL).get(path).assert_refused(403, "not_allowed");
    }
}

#[test]
fn threat_042_one_connection_serves_the_name_it_was_opened_for() {
    let pair = Pair::of(&["a.example.ts.net", "b.example.ts.net"]);
    let (dir, app) = (TlsDir::with(&pair), Upstream::echo());
    let config = format!(
        r#"{{gateway: {{{}, allowedHosts: ["a.example.ts.net", "b.example.ts.net"]}}}}"#,
        dir.config()
    );
    let gateway = Setup::new().upstream(&app).token(TOKEN).config(config).start();
    let trust = client_config(&[&pair], &["http/1.1"]);
    let ask = |server_name: &str, host: &str| {
        let mut wire = TlsWire::open(gateway.loopback(), server_name, &trust).unwrap();
        wire.request(&gateway.local().host(host).bearer(TOKEN).bytes("GET", "/", b""))
    };
    ask("a.example.ts.net", "b.example.ts.net").assert_refused(421, "host_not_allowed");
    ask("b.example.ts.net", "a.example.ts.net").assert_refused(421, "host_not_allowed");
    ask("a.example.ts.net", "evil.example").assert_refused(421, "host_not_allowed");
    assert_eq!(app.connections(), 0);
    let seen = ask("a.example.ts.net", "A.example.ts.net.").seen();
    assert_eq!(seen.header("x-forwarded-proto").as_deref(), Some("https"));
}
