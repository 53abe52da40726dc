//! `/_openclaw/metrics`: for this machine itself and for admins, and nobody else.

use super::support::*;

const PATH: &str = "/_openclaw/metrics";

#[track_caller]
fn value(text: &str, name: &str) -> f64 {
    let line = text.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
    let line = line.unwrap_or_else(|| panic!("{name} is not in\n{text}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn metrics_are_for_this_machine_and_admins() {
    let (app, tailnet) = (Upstream::echo(), Tailnet::new());
    let config = r#"{gateway: {access: {allow: ["bob@example.com"]}}}"#;
    let gateway = Setup::on(&tailnet).upstream(&app).token(TOKEN).config(config).start_on_tailnet();
    gateway.peer(BOB).get(PATH).assert_refused(403, "role_required");
    gateway.peer(NOBODYS).get(PATH).assert_refused(401, "peer_unknown");
    gateway.local().host("evil.example").get(PATH).assert_refused(401, "token_missing");
    gateway.local().with("X-Forwarded-For", "192.0.2.1").get(PATH).assert_refused(401, "token_missing");
    gateway.local().request("POST", PATH, b"").assert_refused(401, "token_missing");
    gateway.local().bearer(TOKEN).request("POST", PATH, b"").assert_refused(405, "method_not_allowed");
    assert_eq!(gateway.peer(ALICE).get("/x").status, 200);

    for client in [gateway.local(), gateway.peer(ALICE), gateway.local().host("evil.example").bearer(TOKEN)] {
        let answer = client.get(PATH);
        assert_eq!(answer.status, 200);
        assert!(answer.header("content-type").unwrap().starts_with("application/openmetrics-text"));
    }
    until("it is ready", || gateway.local().get("/readyz").status == 200);
    let text = gateway.local().get(PATH).text();
    assert!(value(&text, r#"openclaw_requests_total{reason="ok"}"#) >= 4.0);
    assert_eq!(value(&text, r#"openclaw_requests_total{reason="role_required"}"#), 1.0);
    assert_eq!(value(&text, r#"openclaw_requests_total{reason="peer_unknown"}"#), 1.0);
    assert_eq!((value(&text, "openclaw_ready"), value(&text, "openclaw_tailscale_running")), (1.0, 1.0));
    assert!(!text.contains("certificate_not_after_seconds{") && text.ends_with("# EOF\n"));
    for word in ["bob", "alice", "127.100", TOKEN, "/x"] {
        assert!(!text.contains(word), "{word}: {text}");
    }
    assert_eq!(app.connections(), 1, "none of it is the app's");

    tailnet.set(&["backend=Stopped"]);
    until("it is not ready", || gateway.local().get("/readyz").status == 503);
    let text = gateway.local().get(PATH).text();
    assert_eq!(value(&text, r#"openclaw_fault{code="tailscale_not_running"}"#), 1.0);
    assert_eq!((value(&text, "openclaw_ready"), value(&text, "openclaw_tailscale_running")), (0.0, 0.0));
}

#[test]
fn threat_099_the_end_of_the_certificate_is_a_metric() {
    let (app, pair) = (Upstream::echo(), Pair::ending(&["localhost", "127.0.0.1"], 13));
    let dir = TlsDir::with(&pair);
    let gateway =
        Setup::new().upstream(&app).token(TOKEN).config(format!("{{gateway: {{{}}}}}", dir.config())).start();
    let scrape = |trusted: &Pair| {
        let config = client_config(&[trusted], &["http/1.1"]);
        let mut wire = TlsWire::open(gateway.loopback(), "localhost", &config).unwrap();
        // With the token: before Tailscale is known, this machine alone is not enough.
        let bearer = format!("Authorization: Bearer {TOKEN}");
        let request =
            format!("GET {PATH} HTTP/1.1\r\nHost: localhost:{}\r\n{bearer}\r\n\r\n", gateway.port());
        wire.request(request.as_bytes()).text()
    };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    let left = |text: &str| value(text, r#"openclaw_certificate_not_after_seconds{source="files"}"#) - now;
    let text = scrape(&pair);
    assert!((left(&text) / 86_400.0).floor() == 13.0, "{text}");
    assert_eq!(value(&text, r#"openclaw_warning{code="certificate_expires_soon"}"#), 1.0);
    assert_eq!(value(&text, "openclaw_ready"), 1.0, "a warning is no fault");

    let next = Pair::ending(&["localhost", "127.0.0.1"], 60);
    dir.put(&next.cert, &next.key);
    let config = client_config(&[&pair, &next], &["http/1.1"]);
    until("the next one is shown", || {
        TlsWire::open(gateway.loopback(), "localhost", &config).unwrap().certificate() == next.der().to_vec()
    });
    until("the warning is over", || !scrape(&next).contains("certificate_expires_soon"));
    assert!((left(&scrape(&next)) / 86_400.0).floor() == 60.0);
}

#[test]
fn threat_016_a_raw_forward_to_this_port_is_not_this_machine() {
    let (tailnet, app) = (Tailnet::new(), Upstream::echo());
    let daemon = StandIn::of(&tailnet, &["stranger"]);
    let config = format!("{{gateway: {{tailscale: {{socket: {}, client: 'auto'}}}}}}", daemon.socket());
    let gateway = Setup::on(&tailnet).upstream(&app).token(TOKEN).config(config).start_on_tailnet();
    let local = gateway.local();
    until("nothing forwards here", || local.get(PATH).status == 200);
    tailnet.set(&[&format!(r#"serve={{"TCP":{{"443":{{"TCPForward":"127.0.0.1:{}"}}}}}}"#, gateway.port())]);
    until("the forward is there", || daemon.try_listener(443, "stranger").is_some());
    let through = Client::to(daemon.listener(443, "stranger")).host(&gateway.loopback().to_string());
    until("the metrics are not for the internet", || through.get(PATH).status == 401);
    through.get(PATH).assert_refused(401, "token_missing");
    if may_switch_user("threat_016") {
        // Whoever is not tailscaled is this machine all the same.
        let metrics = speak_as(NOBODY, gateway.loopback(), &local.bytes("GET", PATH, b""));
        assert_eq!(metrics.status, 200, "{}", metrics.text());
    }
    tailnet.set(&["fault.status=hang"]);
    until("it is not ready", || through.get("/readyz").status == 503);
    assert_eq!(through.get("/readyz").json(), serde_json::json!({"ready": false}), "nothing of why");
    assert_eq!(app.connections(), 0);
}
