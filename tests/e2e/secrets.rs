//! Secrets are compared whole, taken from few places, and never shown.

use super::support::*;

const PASSWORD: &str = "canary-password-7d1e0c93b5";
const CANARY: &str = "canary-token-2f8a6b4490cd71e3";
const APP_BEARER: &str = "canary-app-bearer-99f0";

#[test]
fn threat_053_every_wrong_secret_gets_the_same_answer() {
    let app = Upstream::echo();
    // Not about the lockout, from which loopback is exempt only once Tailscale was asked.
    let many = "{gateway: {auth: {rateLimit: {maxAttempts: 1000}}}}";
    let gateway = Setup::new().upstream(&app).token(TOKEN).config(many).start();
    let flip = |at: usize| {
        let mut bytes = TOKEN.as_bytes().to_vec();
        bytes[at] ^= 1;
        String::from_utf8(bytes).unwrap()
    };
    let wrong = [
        flip(0),
        flip(TOKEN.len() - 1),
        TOKEN[..TOKEN.len() - 1].to_owned(),
        format!("{TOKEN}x"),
        TOKEN.to_uppercase(),
        "x".to_owned(),
        "x".repeat(4096),
    ];
    let shape = |answer: &Answer| {
        let mut json = answer.json();
        json["error"]["requestId"] = "".into();
        (answer.status, json)
    };
    let first = shape(&gateway.local().bearer(&wrong[0]).get("/"));
    assert_eq!((first.0, first.1["error"]["code"].as_str()), (401, Some("token_mismatch")));
    for secret in &wrong {
        assert_eq!(shape(&gateway.local().bearer(secret).get("/")), first, "{secret}");
        assert_eq!(
            shape(&gateway.local().with("X-OpenClaw-Gateway-Token", secret).get("/")),
            first,
            "{secret}"
        );
    }
    assert_eq!(app.connections(), 0);
}

#[test]
fn threat_053_digests_are_compared_in_constant_time_and_nothing_else_is() {
    let source = include_str!("../../src/domain/secret.rs");
    assert!(source.contains("ct_eq"), "the comparison of digests takes the same time for all");
    for (name, text) in
        [("domain/secret.rs", source), ("authn/secret.rs", include_str!("../../src/authn/secret.rs"))]
    {
        let code = text.split("#[cfg(test)]").next().unwrap();
        for forbidden in ["derive(PartialEq", "expose() ==", "== secret", "== presented"] {
            assert!(!code.contains(forbidden), "{name} compares with {forbidden}");
        }
    }
}

#[test]
fn threat_054_urls_cookies_and_basic_carry_no_secret() {
    let app = Upstream::echo();
    let gateway = Setup::new().upstream(&app).token(TOKEN).start();
    let local = gateway.local();
    for target in [
        format!("/?token={TOKEN}"),
        format!("/?password={TOKEN}"),
        format!("/?access_token={TOKEN}"),
        format!("/?X-OpenClaw-Gateway-Token={TOKEN}"),
        format!("/_openclaw/whoami?token={TOKEN}"),
    ] {
        local.get(&target).assert_refused(401, "token_missing");
        local.websocket(&target).unwrap_err().assert_refused(401, "token_missing");
    }
    let basic = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, format!("x:{TOKEN}"));
    local.with("Authorization", &format!("Basic {basic}")).get("/").assert_refused(401, "token_missing");
    local.with("Authorization", TOKEN).get("/").assert_refused(401, "token_missing");
    local.with("Cookie", &format!("token={TOKEN}")).get("/").assert_refused(401, "token_missing");
    local
        .with("Sec-WebSocket-Protocol", TOKEN)
        .websocket("/")
        .unwrap_err()
        .assert_refused(401, "token_missing");
    let fragment = local.get(&format!("/#token={TOKEN}"));
    assert_eq!(fragment.status, 400, "{}", fragment.text());
    assert_eq!(app.connections(), 0);
    assert!(!gateway.log().contains(TOKEN), "a secret of a URL is logged");
}

#[test]
fn threat_055_no_log_and_no_answer_shows_a_secret() {
    let (tailnet, app) = (Tailnet::new(), Upstream::echo());
    let mut shown = String::new();
    let mut keep = |answer: &Answer| {
        shown.push_str(&format!("{:?}\n{}\n", answer.headers, answer.text()));
    };
    let config = r#"{gateway: {log: {level: "debug"}, access: {allow: ["bob@example.com"]}}}"#;
    let mut gateway = Setup::on(&tailnet)
        .upstream(&app)
        .config(config)
        .env("OPENCLAW_GATEWAY_TOKEN", CANARY)
        .start_on_tailnet();
    for client in
        [gateway.local(), gateway.peer(ALICE), gateway.peer(BOB), gateway.peer(EVE), gateway.peer(NOBODYS)]
    {
        for page in ["text/html", "application/json"] {
            let client = client.with("Accept", page);
            // Refusals, which must not repeat what was sent.
            for wrong in [
                client.bearer(&format!("x{CANARY}")).get("/_openclaw/whoami"),
                client.with("X-OpenClaw-Gateway-Token", &format!("{CANARY}x")).get("/nowhere"),
                client.get(&format!("/_openclaw/whoami?token={CANARY}")),
                client.with("Authorization", &format!("Basic {CANARY}")).get("/_openclaw/whoami"),
                client.with("Cookie", &format!("openclaw_session={CANARY}")).get("/_openclaw/whoami"),
                client.raw(format!("GET / HTTP/1.1\r\nHost: x\r\nX-OpenClaw-Gateway-Token: {CANARY}\r\nBad Header: {CANARY}\r\nConnection: close\r\n\r\n")),
                client.bearer(CANARY).get(&format!("/%zz?{CANARY}")),
                client.bearer(CANARY).get("/_openclaw/whoami"),
                client.bearer(CANARY).get("/_openclaw/nothing"),
            ] {
                keep(&wrong);
            }
            // The app's own bearer reaches the app, and no log.
            client.bearer(APP_BEARER).get("/");
            if let Ok(mut socket) = client.bearer(CANARY).websocket("/ws") {
                let text = socket.read().unwrap().into_text().unwrap().to_string();
                assert!(!text.contains(CANARY), "the app saw our secret: {text}");
            }
            // A dead app with our secret on the way.
            client.bearer(CANARY).with("Cookie", &format!("a={APP_BEARER}")).get("/");
        }
    }
    gateway.write_config(&format!(r#"{{gateway: {{auth: {{token: "{CANARY}", nonsense: "{CANARY}"}}}}}}"#));
    gateway.wait_for_log("refused");
    gateway.stop();
    let log = gateway.log();
    let password = Setup::new()
        .upstream(&app)
        .env("OPENCLAW_GATEWAY_PASSWORD", PASSWORD)
        .flag("--auth", "password")
        .start();
    keep(&password.local().bearer(&format!("{PASSWORD}x")).get("/"));
    keep(&password.local().bearer(PASSWORD).get("/_openclaw/whoami"));
    let refused = Setup::new()
        .config(format!(r#"{{gateway: {{auth: {{token: "{CANARY}", password: "{PASSWORD}"}}}}}}"#))
        .refuse();
    let calls: String = tailnet.calls("*").iter().map(|call| call.to_string()).collect();
    for (place, text) in [
        ("the log", log),
        ("the answers", shown),
        ("the log of mode password", password.log()),
        ("the refusal", format!("{}{}", refused.stdout, refused.stderr)),
        ("the environment of children", calls),
    ] {
        for secret in [CANARY, PASSWORD, APP_BEARER] {
            if let Some(line) = text.lines().find(|line| line.contains(secret)) {
                panic!("{place} shows {secret}: {line}");
            }
        }
    }
}

#[test]
fn threat_056_the_app_never_gets_our_secret() {
    let app = Upstream::echo();
    let gateway = Setup::new().upstream(&app).token(TOKEN).start();
    let local = gateway.local();
    for client in [
        local.bearer(TOKEN),
        local.with("X-OpenClaw-Gateway-Token", TOKEN),
        local.with("X-OpenClaw-Gateway-Token", TOKEN).bearer(TOKEN),
    ] {
        client.get("/").seen();
        client.request("POST", "/", b"x").seen();
        let mut socket = client.websocket("/ws").unwrap();
        socket.read().unwrap();
    }
    let both = local.with("X-OpenClaw-Gateway-Token", TOKEN).bearer("sk-app").get("/").seen();
    assert_eq!(both.header("authorization").as_deref(), Some("Bearer sk-app"), "the app's own passes");
    for request in app.requests() {
        let text = String::from_utf8_lossy(&request).into_owned();
        assert!(!text.contains(TOKEN), "{text}");
    }
}

#[test]
fn a_generated_token_is_private_and_goes_with_the_gateway() {
    use std::os::unix::fs::PermissionsExt;
    let app = Upstream::echo();
    let mut gateway = Setup::new().upstream(&app).start();
    let path = gateway.state_dir().join("run/token");
    let token = std::fs::read_to_string(&path).unwrap().trim().to_owned();
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert!(token.len() == 64 && token.bytes().all(|byte| byte.is_ascii_hexdigit()), "{token}");
    gateway.local().bearer(&token).get("/").seen();
    gateway.local().get("/").assert_refused(401, "token_missing");
    assert!(gateway.log().contains(&path.display().to_string()), "the log names where it is");
    assert!(!gateway.log().contains(&token));
    gateway.stop();
    assert!(!path.exists());
}
