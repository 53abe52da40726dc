//! What a page of another site can do with a person's identity: nothing.

use super::support::*;

fn on_tailnet() -> (Tailnet, Upstream, Gateway) {
    let (tailnet, app) = (Tailnet::new(), Upstream::echo());
    let gateway = Setup::on(&tailnet).upstream(&app).token(TOKEN).start_on_tailnet();
    (tailnet, app, gateway)
}

#[test]
fn threat_029_a_foreign_page_opens_no_websocket_as_the_person() {
    let (_tailnet, app, gateway) = on_tailnet();
    let alice = gateway.peer(ALICE);
    let refused = alice.with("Origin", "https://evil.example").websocket("/ws").unwrap_err();
    refused.assert_refused(403, "origin_not_allowed");
    assert_eq!(app.connections(), 0, "the app heard of it");
    alice.with("Origin", &format!("http://{}", gateway.tailnet())).websocket("/ws").unwrap();
}

#[test]
fn threat_030_an_origin_is_ours_in_every_byte_or_not_at_all() {
    let (_tailnet, app, gateway) = on_tailnet();
    let named = gateway.peer(ALICE).host(&format!("gw.tailnet-example.test:{}", gateway.port()));
    let port = gateway.port();
    for origin in [
        "null".to_owned(),
        String::new(),
        format!("http://gw.tailnet-example.test.evil.com:{port}"),
        format!("https://gw.tailnet-example.test:{port}"),
        "http://gw.tailnet-example.test".to_owned(),
        format!("http://gw.tailnet-example.test:{}", port.wrapping_add(1)),
        format!("http://alice@gw.tailnet-example.test:{port}"),
        format!("http://GW.tailnet-example.test:{port}"),
        format!("HTTP://gw.tailnet-example.test:{port}"),
        format!("http://gw.tailnet-example.test.:{port}"),
        format!("http://gw.tailnet-ex\u{e4}mple.test:{port}"),
        format!("http://gw.tailnet-example.test:{port}/"),
        format!("http://evil.example http://gw.tailnet-example.test:{port}"),
    ] {
        let refused = named.with("Origin", &origin).websocket("/ws");
        let refused = refused.err().unwrap_or_else(|| panic!("{origin:?} was let in"));
        refused.assert_refused(403, "origin_not_allowed");
        let two =
            named.with("Origin", &format!("http://gw.tailnet-example.test:{port}")).with("Origin", &origin);
        two.websocket("/ws").unwrap_err().assert_refused(403, "origin_not_allowed");
    }
    // No Origin: a program. It has a secret, or no business here.
    named.websocket("/ws").unwrap_err().assert_refused(403, "origin_not_allowed");
    let browser = named.with("Sec-Fetch-Mode", "websocket").with("Sec-Fetch-Site", "cross-site");
    browser.websocket("/ws").unwrap_err().assert_refused(403, "origin_not_allowed");
    assert_eq!(app.connections(), 0);
    named.bearer(TOKEN).websocket("/ws").unwrap();
    named.with("Origin", &format!("http://gw.tailnet-example.test:{port}")).websocket("/ws").unwrap();
}

#[test]
fn threat_030_a_route_may_admit_programs_but_no_browser() {
    let (tailnet, app) = (Tailnet::new(), Upstream::echo());
    let config = format!(
        r#"{{gateway: {{routes: {{app: {{path: "/", upstream: "{}", guard: {{nonBrowserUpgrade: true}}}}}}}}}}"#,
        app.flag()
    );
    let gateway = Setup::on(&tailnet).token(TOKEN).config(config).start_on_tailnet();
    let alice = gateway.peer(ALICE);
    let browser = alice.with("Sec-Fetch-Mode", "websocket").with("Sec-Fetch-Site", "same-origin");
    browser.websocket("/ws").unwrap_err().assert_refused(403, "origin_not_allowed");
    let foreign = alice.with("Origin", "http://evil.example");
    foreign.websocket("/ws").unwrap_err().assert_refused(403, "origin_not_allowed");
    assert_eq!(app.connections(), 0);
    alice.websocket("/ws").unwrap();
}

#[test]
fn threat_031_other_sites_change_nothing_in_proxied_apps_either() {
    let (_tailnet, app, gateway) = on_tailnet();
    let alice = gateway.peer(ALICE);
    let own = format!("http://{}", gateway.tailnet());
    for method in ["POST", "PUT", "PATCH", "DELETE", "PROPFIND", "post"] {
        for site in ["cross-site", "same-site", "something-new"] {
            let client = alice.with("Sec-Fetch-Site", site).with("Content-Type", "text/plain");
            client.request(method, "/no", b"x").assert_refused(403, "cross_site");
            client.with("Origin", &own).request(method, "/no", b"x").assert_refused(403, "cross_site");
        }
        for origin in ["https://evil.example", "null", "http://gw.tailnet-example.test"] {
            let client = alice.with("Origin", origin).with("Content-Type", "multipart/form-data; boundary=x");
            client.request(method, "/no", b"x").assert_refused(403, "origin_not_allowed");
        }
        let own_api = alice.with("Origin", "https://evil.example");
        own_api.request(method, "/_openclaw/whoami", b"x").assert_refused(403, "origin_not_allowed");
    }
    assert_eq!(app.connections(), 0);
    alice.request("POST", "/", b"a program").seen();
    alice.with("Origin", &own).with("Sec-Fetch-Site", "same-origin").request("POST", "/", b"x").seen();
    alice.with("Sec-Fetch-Site", "cross-site").get("/link").seen();
    // A secret is no ambient identity: whoever sends it means it.
    let script = gateway.local().bearer(TOKEN).with("Origin", "https://elsewhere.example");
    script.with("Sec-Fetch-Site", "cross-site").request("POST", "/", b"x").seen();
}

#[test]
fn threat_032_only_our_own_names_are_served_to_an_identity() {
    let (_tailnet, app, gateway) = on_tailnet();
    let (alice, port) = (gateway.peer(ALICE), gateway.port());
    for host in [
        "evil.example".to_owned(),
        format!("evil.example:{port}"),
        format!("127.0.0.1:{port}.evil.com"),
        "127.100.0.1.nip.io".to_owned(),
        "gw.tailnet-example.test.evil.com".to_owned(),
        "evil-gw.tailnet-example.test".to_owned(),
        "phone.tailnet-example.test".to_owned(),
        "localhost".to_owned(),
        BOB.to_owned(),
        "0.0.0.0".to_owned(),
    ] {
        let answer = alice.host(&host).get("/");
        assert!(matches!(answer.status, 421 | 400), "{host}: {} {}", answer.status, answer.text());
        assert!(matches!(
            alice.host(&host).with("Origin", &format!("http://{host}")).request("POST", "/", b"x").status,
            421 | 400
        ));
    }
    let head = |lines: &str| format!("GET {lines}Connection: close\r\n\r\n");
    let own = gateway.tailnet();
    for lines in [
        "/ HTTP/1.1\r\n".to_owned(),
        format!("/ HTTP/1.1\r\nHost: {own}\r\nHost: {own}\r\n"),
        format!("/ HTTP/1.1\r\nHost: {own}\r\nHost: evil.example\r\n"),
        format!("http://evil.example/ HTTP/1.1\r\nHost: {own}\r\n"),
        format!("http://{own}/ HTTP/1.1\r\nHost: evil.example\r\n"),
        format!("/ HTTP/1.1\r\nHost: {own}@evil.example\r\n"),
        "/ HTTP/1.1\r\nHost: \r\n".to_owned(),
    ] {
        let answer = alice.raw(head(&lines));
        assert!(matches!(answer.status, 400 | 421), "{lines:?}: {} {}", answer.status, answer.text());
    }
    let mismatch = alice.with("host", "evil.example").h2("GET", "/");
    assert!(matches!(mismatch.status, 400 | 421), "{}", mismatch.status);
    assert_eq!(app.connections(), 0);
    for host in ["gw.tailnet-example.test", "gw", GW, &own.to_string(), "GW.Tailnet-Example.TEST.", "gw:80"] {
        alice.host(host).get("/").seen();
    }
}

#[test]
fn threat_033_a_rebound_name_gets_nothing_with_the_persons_identity() {
    let (_tailnet, app, gateway) = on_tailnet();
    // The page of rebound.evil.example, whose name now points here: to the browser
    // it is same-origin, so there is no Origin and no cross-site mark.
    let host = format!("rebound.evil.example:{}", gateway.port());
    let page = gateway.peer(ALICE).host(&host).with("Sec-Fetch-Site", "same-origin");
    page.get("/").assert_refused(421, "host_not_allowed");
    page.get("/_openclaw/whoami").assert_refused(421, "host_not_allowed");
    let origin = page.with("Origin", &format!("http://{host}"));
    origin.request("POST", "/", b"x").assert_refused(421, "host_not_allowed");
    origin.websocket("/ws").unwrap_err().assert_refused(421, "host_not_allowed");
    assert_eq!(app.connections(), 0);
    // On this machine, in mode none, everything is ambient too.
    let (tailnet, app) = (Tailnet::new(), Upstream::echo());
    let gateway = Setup::new().tailscale(&tailnet).upstream(&app).flag("--auth", "none").start();
    until("Tailscale is known", || gateway.local().get("/").status == 200);
    let before = app.requests().len();
    let page = gateway.local().host(&format!("rebound.evil.example:{}", gateway.port()));
    page.get("/").assert_refused(421, "host_not_allowed");
    assert_eq!(app.requests().len(), before);
}

#[test]
fn threat_103_only_a_true_loopback_name_is_ours_on_loopback() {
    let (tailnet, app) = (Tailnet::new(), Upstream::echo());
    let gateway = Setup::new().tailscale(&tailnet).upstream(&app).flag("--auth", "none").start();
    until("Tailscale is known", || gateway.local().get("/").status == 200);
    let before = app.requests().len();
    for host in [
        "127.evil.com",
        "localhost.evil.com",
        "0",
        "0x7f.1",
        "127.1",
        "2130706433",
        "127.0.0.2",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "0.0.0.0",
        "localhost.localdomain",
    ] {
        let answer = gateway.local().host(host).get("/");
        assert!(matches!(answer.status, 400 | 421), "{host}: {} {}", answer.status, answer.text());
    }
    assert_eq!(app.requests().len(), before);
    for host in ["localhost", "127.0.0.1", "LOCALHOST", "localhost."] {
        gateway.local().host(&format!("{host}:{}", gateway.port())).get("/").seen();
    }
}

#[test]
fn threat_034_an_app_that_lets_every_page_read_does_not_do_so_for_an_identity() {
    let tailnet = Tailnet::new();
    let app = Upstream::answering(
        "HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\naccess-control-allow-private-network: true\r\n\
         Access-Control-Allow-Credentials: true\r\nAccess-Control-Expose-Headers: X\r\nTiming-Allow-Origin: *\r\n\
         Content-Length: 2\r\n\r\nok",
    );
    let gateway = Setup::on(&tailnet).upstream(&app).token(TOKEN).start_on_tailnet();
    let permissions = |answer: &Answer| {
        let names = answer.headers.iter().map(|(name, _)| name.to_ascii_lowercase());
        names.filter(|name| name.starts_with("access-control") || name.starts_with("timing")).count()
    };
    let alice = gateway.peer(ALICE);
    let own = format!("http://{}", gateway.tailnet());
    for (header, value) in [
        ("Origin", "https://evil.example"),
        ("Origin", "null"),
        ("Sec-Fetch-Site", "cross-site"),
        ("Sec-Fetch-Site", "same-site"),
    ] {
        let page = alice.with(header, value);
        assert_eq!(permissions(&page.get("/")), 0, "{header}: {value}");
        let preflight = page
            .with("Access-Control-Request-Method", "POST")
            .with("Access-Control-Request-Private-Network", "true")
            .request("OPTIONS", "/", b"");
        assert_eq!(permissions(&preflight), 0, "{header}: {value}: {preflight:?}");
    }
    // Neither do pages of our own ever give such a permission.
    let whoami = alice.with("Origin", "https://evil.example").get("/_openclaw/whoami");
    assert_eq!((whoami.status, permissions(&whoami)), (200, 0));
    // The app's own page, a program, and whoever sends a secret get the app's answer.
    assert_eq!(permissions(&alice.with("Origin", &own).with("Sec-Fetch-Site", "same-origin").get("/")), 5);
    assert_eq!(permissions(&alice.get("/")), 5);
    assert_eq!(
        permissions(&gateway.local().bearer(TOKEN).with("Origin", "https://evil.example").get("/")),
        5
    );
}

#[test]
fn threat_035_own_paths_are_read_only_whatever_the_request_pretends() {
    let (_tailnet, app, gateway) = on_tailnet();
    let alice = gateway.peer(ALICE);
    for method in ["POST", "PUT", "PATCH", "DELETE", "PROPFIND"] {
        assert_eq!(alice.request(method, "/_openclaw/whoami", b"").status, 405, "{method}");
        let override_ = alice.with("X-HTTP-Method-Override", "GET");
        assert_eq!(override_.request(method, "/_openclaw/whoami?_method=GET", b"").status, 405, "{method}");
    }
    let pretends = alice.with("X-HTTP-Method-Override", "DELETE");
    assert_eq!(pretends.get("/_openclaw/whoami?_method=DELETE").status, 200);
    assert_eq!(app.connections(), 0);
}

#[test]
fn threat_036_every_page_of_ours_runs_nothing_and_is_framed_by_nobody() {
    let (tailnet, app) = (Tailnet::new(), Upstream::echo());
    let gateway = Setup::on(&tailnet).upstream(&app).token(TOKEN).start_on_tailnet();
    let empty = Setup::on(&tailnet).token(TOKEN).start_on_tailnet();
    tailnet.set(&[r#"users.bob.name="<img src=x onerror=alert(1)>\u202e\u001b[31m""#]);
    let wants = |client: Client| client.with("Accept", "text/html");
    for (what, answer) in [
        ("refused", wants(gateway.peer(BOB)).get("/")),
        ("no credential", wants(gateway.local()).get("/")),
        ("bad path", wants(gateway.peer(ALICE)).get("/a%2fb")),
        ("wrong host", wants(gateway.peer(ALICE)).host("evil.example").get("/")),
        ("nothing behind", wants(empty.peer(ALICE)).get("/")),
    ] {
        let header =
            |name: &str| answer.header(name).unwrap_or_else(|| panic!("{what}: no {name}: {answer:?}"));
        assert!(header("content-type").starts_with("text/html"), "{what}: {answer:?}");
        let policy = header("content-security-policy");
        for part in ["default-src 'none'", "frame-ancestors 'none'"] {
            assert!(policy.contains(part), "{what}: {policy}");
        }
        let scripts = ["script-src", "unsafe-eval", "default-src 'unsafe"];
        assert!(scripts.iter().all(|part| !policy.contains(part)), "{what}: {policy}");
        assert_eq!(header("x-content-type-options"), "nosniff", "{what}");
        assert_eq!(header("referrer-policy"), "no-referrer", "{what}");
        assert_eq!(header("x-frame-options"), "DENY", "{what}");
        assert_eq!(header("cross-origin-opener-policy"), "same-origin", "{what}");
        assert_eq!(header("cross-origin-resource-policy"), "same-origin", "{what}");
        let text = answer.text();
        for odd in ["<script", "<img", "onerror=alert(1)>", "\u{202e}", "\u{1b}"] {
            assert!(!text.contains(odd), "{what}: {odd:?} in {text}");
        }
    }
}
