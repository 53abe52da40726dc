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
