//! Who a request belongs to, and who is let in.

use super::support::*;

#[test]
fn threat_005_a_forged_login_of_a_direct_peer_is_a_mismatch_and_never_reaches_the_app() {
    let (tailnet, app) = (Tailnet::new(), Upstream::echo());
    let gateway = Setup::on(&tailnet).upstream(&app).token(TOKEN).start_on_tailnet();
    let forged = gateway.peer(BOB).with("Tailscale-User-Login", "alice@example.com").get("/");
    forged.assert_refused(401, "tailscale_user_mismatch");
    gateway.peer(BOB).get("/").assert_refused(403, "not_allowed");
    assert_eq!(app.requests().len(), 0, "a refused request reached the app");
    let alice = gateway.peer(ALICE).get("/").seen();
    assert_eq!(alice.login().as_deref(), Some("alice@example.com"));
    let same = gateway.peer(ALICE).with("Tailscale-User-Login", "alice@example.com").get("/").seen();
    assert_eq!(same.all("tailscale-user-login"), ["alice@example.com"]);
}

#[test]
fn threat_001_one_identity_on_http_websocket_and_event_streams() {
    let (tailnet, app) = (Tailnet::new(), Upstream::echo());
    let gateway = Setup::on(&tailnet).upstream(&app).token(TOKEN).start_on_tailnet();
    let origin = format!("http://{}", gateway.tailnet());
    let bob = gateway.peer(BOB).with("Origin", &origin);
    bob.get("/").assert_refused(403, "not_allowed");
    bob.get("/sse").assert_refused(403, "not_allowed");
    bob.websocket("/ws").unwrap_err().assert_refused(403, "not_allowed");
    bob.h2("GET", "/").assert_refused(403, "not_allowed");
    bob.get("/_openclaw/whoami").assert_refused(403, "not_allowed");
    assert_eq!(app.connections(), 0);

    let alice = gateway.peer(ALICE).with("Origin", &origin);
    assert_eq!(alice.get("/").seen().login().as_deref(), Some("alice@example.com"));
    assert_eq!(alice.h2("GET", "/").seen().login().as_deref(), Some("alice@example.com"));
    let mut stream = alice.open();
    stream.send(&alice.bytes("GET", "/sse", b""));
    let event = String::from_utf8(stream.through(b"\n\n")).unwrap();
    assert!(event.contains(r#"["tailscale-user-login","alice@example.com"]"#), "{event}");
    let mut socket = alice.websocket("/ws").unwrap();
    let seen = socket.read().unwrap().into_text().unwrap().to_string();
    assert!(seen.contains(r#"["tailscale-user-login","alice@example.com"]"#), "{seen}");
    assert_eq!(alice.get("/_openclaw/whoami").json()["login"], "alice@example.com");
}

#[test]
fn threat_002_a_second_user_that_forges_a_whole_serve_request_is_nobody() {
    const ME: &str = "threat_002";
    if !may_switch_user(ME) {
        return;
    }
    let (tailnet, app) = (Tailnet::new(), Upstream::echo());
    let daemon = Tailscaled::beside(&tailnet);
    let socket = daemon.socket().display();
    tailnet.give_to(NOBODY);
    let gateway = Setup::on(&tailnet)
        .upstream(&app)
        .token(TOKEN)
        .uid(NOBODY)
        .config(format!("{{gateway: {{tailscale: {{socket: {:?}}}}}}}", socket.to_string()))
        .start_on_tailnet();
    let port = gateway.port();
    let route = format!(
        r#"serve={{"TCP":{{"443":{{"HTTPS":true}}}},"Web":{{"gw.tailnet-example.test:443":{{"Handlers":{{"/":{{"Proxy":"http://127.0.0.1:{port}"}}}}}}}}}}"#
    );
    tailnet.set(&[&route]);
    let serve = gateway
        .local()
        .host("gw.tailnet-example.test")
        .with("X-Forwarded-For", ALICE)
        .with("X-Forwarded-Host", "gw.tailnet-example.test")
        .with("X-Forwarded-Proto", "https")
        .with("Tailscale-User-Login", "alice@example.com")
        .with("Tailscale-User-Name", "Alice Example")
        .with("Tailscale-Headers-Info", "https://tailscale.com/s/serve-headers");
    // This process is tailscaled here, so its own request is Serve's, once the
    // gateway has read the route.
    until("Serve is attested", || serve.get("/").status == 200);
    assert_eq!(serve.get("/").seen().login().as_deref(), Some("alice@example.com"));

    let forged = speak_as(NOBODY - 1, gateway.loopback(), &serve.bytes("GET", "/forged", b""));
    forged.assert_refused(401, "serve_peer_unattested");
    let own_user = speak_as(NOBODY, gateway.loopback(), &serve.bytes("GET", "/forged", b""));
    own_user.assert_refused(401, "serve_peer_unattested");
    assert!(gateway.log().contains("socket_is_not_daemons"), "the log names the condition");
    let paths = app.requests().iter().filter(|request| request.starts_with(b"GET /forged")).count();
    assert_eq!(paths, 0, "a forged request reached the app");
    // With the token it is a holder of the token, and still not Alice.
    let with_token = speak_as(NOBODY - 1, gateway.loopback(), &serve.bearer(TOKEN).bytes("GET", "/t", b""));
    assert_eq!(with_token.seen().login(), None);
}
