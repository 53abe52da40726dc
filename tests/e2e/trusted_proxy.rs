//! Mode trusted-proxy: whose word is taken for the user, and for the client.

use tokio_tungstenite::tungstenite::Message;

use super::support::*;

/// A proxy of the tailnet at Carol's address, which is in the list.
fn behind_proxy(more: &str) -> (Tailnet, Upstream, Gateway) {
    let (tailnet, app) = (Tailnet::new(), Upstream::echo());
    let config = format!(
        r#"{{gateway: {{
            auth: {{mode: "trusted-proxy", password: "a-long-e2e-password-8431", trustedProxy: {{
                userHeader: "x-forwarded-user", allowUsers: ["alice@example.com"], {more}
            }}}},
            trustedProxies: ["{CAROL}", "{BOB}"],
        }}}}"#
    );
    let gateway = Setup::on(&tailnet).upstream(&app).config(config).start_on_tailnet();
    (tailnet, app, gateway)
}

#[test]
fn threat_017_this_machine_is_no_trusted_proxy_unless_it_says_so() {
    let (tailnet, app) = (Tailnet::new(), Upstream::echo());
    let config = |proxies: &str, more: &str| {
        format!(
            r#"{{gateway: {{
                auth: {{mode: "trusted-proxy", trustedProxy: {{
                    userHeader: "x-forwarded-user", allowUsers: ["alice@example.com"], {more}
                }}}},
                trustedProxies: [{proxies}],
            }}}}"#
        )
    };
    let user = |client: Client| {
        client.with("X-Forwarded-User", "alice@example.com").with("X-Forwarded-For", "203.0.113.4")
    };
    let loopback = r#""127.0.0.1", "::1""#;
    let no = config(loopback, "allowLoopback: false");
    let gateway = Setup::new().tailscale(&tailnet).upstream(&app).config(no).start();
    until("Tailscale is known", || user(gateway.local()).get("/").status != 503);
    user(gateway.local()).get("/").assert_refused(401, "trusted_proxy_loopback_source");
    // The gateway's own tailnet address, listed.
    let own = format!("\"{GW}\"");
    let gateway = Setup::on(&tailnet).upstream(&app).config(config(&own, "")).start_on_tailnet();
    let answer = user(gateway.peer(GW)).get("/");
    assert_eq!(answer.status, 401, "{}", answer.text());
    assert_eq!(app.connections(), 0);
    // A loopback address listed by hand is consent; the log warns of it.
    let gateway = Setup::new().tailscale(&tailnet).upstream(&app).config(config(loopback, "")).start();
    until("Tailscale is known", || user(gateway.local()).get("/").status == 200);
    assert!(gateway.log().contains("loopback"), "nothing warns that local processes can forge the user");
}

#[test]
fn threat_017_loopback_proxies_and_serve_do_not_go_together() {
    let config = r#"{gateway: {
        auth: {mode: "trusted-proxy", trustedProxy: {
            userHeader: "x-forwarded-user", allowUsers: ["a@example.com"], allowLoopback: true,
        }},
        trustedProxies: ["127.0.0.1"],
    }}"#;
    let refused = Setup::new().flag("--tailscale", "serve").config(config).refuse();
    assert_eq!(refused.code, Some(78), "{}", refused.stderr);
    // Later somebody adds a route by hand.
    let (tailnet, app) = (Tailnet::new(), Upstream::echo());
    let gateway = Setup::new().tailscale(&tailnet).upstream(&app).config(config).start();
    let user =
        gateway.local().with("X-Forwarded-User", "a@example.com").with("X-Forwarded-For", "203.0.113.4");
    until("Tailscale is known", || user.get("/").status == 200);
    tailnet.set(&[&route_to(&format!("http://127.0.0.1:{}", gateway.port()))]);
    until("the route is seen", || user.get("/").status == 503);
    user.get("/").assert_refused(503, "trusted_proxy_unsafe");
}

#[test]
fn threat_017_a_loopback_proxy_is_not_believed_before_serve_is_known() {
    // A route of Serve's to this port may have been there all along, and Serve
    // passes the caller's X-Forwarded-User on.
    let (tailnet, app) = (Tailnet::new().with(&["fault.status=gate:status"]), Upstream::echo());
    let config = r#"{gateway: {
        auth: {mode: "trusted-proxy", trustedProxy: {
            userHeader: "x-forwarded-user", allowUsers: ["a@example.com"], allowLoopback: true,
        }},
        trustedProxies: ["127.0.0.1"],
    }}"#;
    let gateway = Setup::new().tailscale(&tailnet).upstream(&app).config(config).start();
    let user =
        gateway.local().with("X-Forwarded-User", "a@example.com").with("X-Forwarded-For", "203.0.113.4");
    assert_eq!(user.get("/").status, 503);
    assert_eq!(app.connections(), 0);
    tailnet.release("status");
    until("Serve is known", || user.get("/").status == 200);
}

#[test]
fn threat_018_the_client_is_the_rightmost_hop_that_is_no_proxy_of_ours() {
    let (_tailnet, app, gateway) = behind_proxy("");
    let proxy = gateway.peer(CAROL).with("X-Forwarded-User", "alice@example.com");
    let chain = |hops: &str| proxy.with("X-Forwarded-For", hops);
    let long = ["203.0.113.1"; 11].join(", ");
    for hops in ["evil, 203.0.113.4, nonsense", "203.0.113.4, 300.1.1.1", long.as_str(), "unknown"] {
        let answer = chain(hops).get("/no");
        assert_eq!(answer.status, 400, "{hops}: {}", answer.text());
    }
    assert!(!app.requests().iter().any(|request| request.starts_with(b"GET /no")));
    for (hops, client) in [
        ("203.0.113.4", "203.0.113.4".to_owned()),
        ("198.51.100.1, 203.0.113.4", "203.0.113.4".to_owned()),
        (&format!("198.51.100.1, 203.0.113.4, {BOB}"), "203.0.113.4".to_owned()),
    ] {
        let seen = chain(hops).get("/").seen();
        assert_eq!(seen.header("x-forwarded-for"), Some(client), "{hops}");
    }
    let seen = chain("203.0.113.4").with("X-Real-IP", "198.51.100.9").get("/").seen();
    assert_eq!(seen.header("x-forwarded-for").as_deref(), Some("203.0.113.4"), "X-Real-IP is ignored");
}

#[test]
fn threat_019_a_password_is_no_second_way_through_the_proxy() {
    let (_tailnet, app, gateway) = behind_proxy("requiredHeaders: [\"x-proxy-proof\"]");
    let password = "a-long-e2e-password-8431";
    let proxy = gateway.peer(CAROL).with("X-Forwarded-For", "203.0.113.4");
    let named = proxy.with("X-Forwarded-User", "alice@example.com");
    named.bearer(password).get("/").assert_refused(401, "trusted_proxy_missing_header");
    let proven = proxy.with("X-Proxy-Proof", "1");
    proven.bearer(password).get("/").assert_refused(401, "trusted_proxy_user_missing");
    let mallory = proven.with("X-Forwarded-User", "mallory@example.com").bearer(password).get("/");
    mallory.assert_refused(403, "trusted_proxy_user_not_allowed");
    // Not from the list at all; with the password over the tailnet neither.
    let stranger = gateway.peer(ALICE).with("X-Forwarded-User", "alice@example.com");
    stranger.get("/").assert_refused(401, "trusted_proxy_untrusted_source");
    stranger.bearer(password).get("/").assert_refused(401, "trusted_proxy_untrusted_source");
    assert_eq!(app.connections(), 0);
    named.with("X-Proxy-Proof", "1").get("/").seen();
    // Only a process of this machine, by no proxy, may use it.
    gateway.local().bearer(password).get("/").seen();
}

#[test]
fn threat_059_trusted_proxy_without_users_refuses_to_start() {
    for users in ["", "allowUsers: [],"] {
        let config = format!(
            r#"{{gateway: {{auth: {{mode: "trusted-proxy", trustedProxy: {{userHeader: "x-forwarded-user", {users}}}}}, trustedProxies: ["192.0.2.1"]}}}}"#
        );
        let refused = Setup::new().config(config).refuse();
        assert_eq!(refused.code, Some(78), "{}", refused.stderr);
        assert!(refused.stderr.contains("allowUsers"), "{}", refused.stderr);
    }
}

#[test]
fn threat_050_what_a_proxys_user_has_open_ends_with_their_right() {
    let (tailnet, app) = (Tailnet::new(), Upstream::echo());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let config = format!(
        r#"{{gateway: {{
            auth: {{mode: "trusted-proxy", trustedProxy: {{
                userHeader: "x-forwarded-user", allowUsers: ["a@example.com", "b@example.com"],
            }}}},
            trustedProxies: ["{CAROL}"],
            routes: {{app: {{path: "/", upstream: "{}", role: "admin"}}}},
            access: {{allow: [
                {{who: "proxy:a@example.com", role: "admin"}},
                {{who: "proxy:b@example.com", role: "admin", until: {}}},
            ]}},
        }}}}"#,
        app.flag(),
        now + 12
    );
    let gateway = Setup::on(&tailnet).config(config).start_on_tailnet();
    let origin = format!("http://{}", gateway.tailnet());
    let open = |user: &str| {
        let proxy = gateway.peer(CAROL).with("X-Forwarded-For", "203.0.113.4").with("Origin", &origin);
        proxy.with("X-Forwarded-User", user).websocket("/ws").unwrap()
    };
    let (mut stays, mut ends) = (open("a@example.com"), open("b@example.com"));
    loop {
        match ends.read() {
            Ok(Message::Close(Some(frame))) => {
                assert_eq!((u16::from(frame.code), frame.reason.as_str()), (1008, "revoked"));
                break;
            }
            Ok(_) => {}
            Err(error) => panic!("it was not closed: {error}"),
        }
    }
    stays.send("still".into()).unwrap();
    while !matches!(stays.read().unwrap(), Message::Text(text) if text.as_str() == "still") {}
}
