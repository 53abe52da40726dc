//! What the app sees of a request's headers: nothing that a client could forge.

use super::support::*;

fn on_tailnet() -> (Tailnet, Upstream, Gateway) {
    let (tailnet, app) = (Tailnet::new(), Upstream::echo());
    let gateway = Setup::on(&tailnet).upstream(&app).token(TOKEN).start_on_tailnet();
    (tailnet, app, gateway)
}

#[test]
fn threat_010_headers_that_the_gateway_has_no_value_for_stay_absent() {
    let tailnet = Tailnet::new().with(&["user.alice.name=\"\"", "user.alice.pic=\"\""]);
    let app = Upstream::echo();
    let config = format!(
        r#"{{gateway: {{
            auth: {{token: "{TOKEN}"}},
            upstream: {{url: "http://{}", identityHeaders: ["tailscale", "x-forwarded-user", "remote-user"]}},
        }}}}"#,
        app.flag()
    );
    let gateway = Setup::on(&tailnet).config(config).start_on_tailnet();
    let forged = |client: Client| {
        client
            .with("X-Webauth-User", "root")
            .with("Remote-Groups", "admins")
            .with("Remote-Email", "root@example.com")
            .with("Tailscale-User-Profile-Pic", "https://evil.example/p.png")
            .with("X-Auth-Request-User", "root")
    };
    let seen = forged(gateway.peer(ALICE)).get("/").seen();
    for name in [
        "x-webauth-user",
        "remote-groups",
        "remote-email",
        "remote-name",
        "tailscale-user-profile-pic",
        "tailscale-app-capabilities",
        "x-auth-request-user",
    ] {
        assert_eq!(seen.all(name), Vec::<String>::new(), "{name}");
    }
    assert_eq!(seen.header("tailscale-user-login").as_deref(), Some("alice@example.com"));
    // The holder of the secret is nobody in particular: no name at all.
    let seen = forged(gateway.local().bearer(TOKEN)).get("/").seen();
    let identity = |name: &String| {
        ["tailscale-", "remote-", "x-webauth-", "x-auth-request-", "x-forwarded-user"]
            .iter()
            .any(|p| name.starts_with(p))
    };
    assert!(!seen.names().iter().any(identity), "{:?}", seen.names());
}

#[test]
fn threat_011_every_spelling_of_a_protected_name_is_removed_or_refused() {
    let (_tailnet, app, gateway) = on_tailnet();
    for name in [
        "Tailscale_User_Login",
        "TAILSCALE-USER_LOGIN",
        "tailscale_user-login",
        "X_Forwarded_For",
        "X_FORWARDED_HOST",
        "REMOTE_USER",
        "Remote-Groups",
        "rEmOtE-uSeR",
        "X_Webauth_User",
        "X_Real_IP",
        "X_Openclaw_Gateway_Token",
        "X_Original_URL",
        "Tailscale-Anything-New",
    ] {
        for client in [gateway.peer(ALICE), gateway.local().bearer(TOKEN)] {
            let answer = client.with(name, "forged-value").get("/");
            if answer.status == 200 {
                let text = answer.text();
                assert!(!text.contains("forged-value"), "{name} reached the app: {text}");
            } else {
                assert!(matches!(answer.status, 400 | 401), "{name}: {} {}", answer.status, answer.text());
            }
        }
    }
    for line in ["Tailscale-User-Login : x", "Tailscale-User-Login\t: x", " Tailscale-User-Login: x"] {
        let raw = format!(
            "GET /space HTTP/1.1\r\nHost: {}\r\n{line}\r\nConnection: close\r\n\r\n",
            gateway.tailnet()
        );
        assert_eq!(gateway.peer(ALICE).raw(raw).status, 400, "{line:?}");
    }
    assert!(!app.requests().iter().any(|request| request.starts_with(b"GET /space")));
}

#[test]
fn threat_012_connection_cannot_name_away_what_the_gateway_sets() {
    let (_tailnet, _app, gateway) = on_tailnet();
    let seen = gateway
        .peer(ALICE)
        .with("Connection", "close, Tailscale-User-Login, X-Forwarded-For, X-Request-Id, Host, X-Hop")
        .with("X-Hop", "1")
        .with("Keep-Alive", "timeout=5")
        .with("Proxy-Authorization", "Basic eDp5")
        .with("TE", "trailers")
        .get("/")
        .seen();
    assert_eq!(seen.login().as_deref(), Some("alice@example.com"));
    assert_eq!(seen.header("x-forwarded-for").as_deref(), Some(ALICE));
    assert!(seen.header("x-request-id").is_some());
    assert_eq!(seen.header("host"), Some(gateway.tailnet().to_string()));
    for gone in ["x-hop", "keep-alive", "proxy-authorization"] {
        assert_eq!(seen.header(gone), None, "{gone}");
    }
}

#[test]
fn threat_013_forwarding_headers_are_rebuilt_or_absent() {
    let (_tailnet, _app, gateway) = on_tailnet();
    let mut client = gateway.local().bearer(TOKEN);
    let names = [
        "X-Forwarded-Prefix",
        "X-Forwarded-Uri",
        "X-Forwarded-Method",
        "X-Forwarded-User",
        "X-Forwarded-For",
        "X-Forwarded-Host",
        "X-Forwarded-Proto",
        "X-Original-URL",
        "X-Original-Host",
        "X-Rewrite-URL",
        "Forwarded",
        "X-Real-IP",
        "True-Client-IP",
        "CF-Connecting-IP",
        "X-Client-IP",
        "X-Request-Id",
    ];
    for name in names {
        client = client.with(name, "203.0.113.77");
    }
    let seen = client.get("/").seen();
    assert!(!seen.0["headers"].to_string().contains("203.0.113.77"), "{}", seen.0);
    assert_eq!(seen.header("x-forwarded-for").as_deref(), Some("127.0.0.1"));
    assert_eq!(seen.header("x-forwarded-proto").as_deref(), Some("http"));
    assert_eq!(seen.header("x-forwarded-host"), Some(gateway.loopback().to_string()));
}

#[test]
fn threat_014_identity_headers_with_two_readings_are_refused() {
    let (_tailnet, app, gateway) = on_tailnet();
    for client in [gateway.peer(ALICE), gateway.local().bearer(TOKEN)] {
        let login = |value: &str| client.with("Tailscale-User-Login", value);
        for client in [
            login("alice@example.com").with("Tailscale-User-Login", "alice@example.com"),
            login("alice@example.com").with("tailscale-user-LOGIN", "bob@example.com"),
            login("alice@example.com,bob@example.com"),
            login(""),
            client.with("X-Forwarded-For", ALICE).with("X-Forwarded-For", BOB),
            client.with("X-Forwarded-For", &format!(", {ALICE}")),
            client.with("X-Forwarded-For", ""),
            client.with("X-Real-IP", ALICE).with("X-Real-IP", BOB),
        ] {
            client.get("/").assert_refused(400, "ambiguous_identity_header");
        }
    }
    assert_eq!(app.connections(), 0);
}

#[test]
fn threat_015_trailers_never_become_headers() {
    let (_tailnet, app, gateway) = on_tailnet();
    let client = gateway
        .peer(ALICE)
        .with("Transfer-Encoding", "chunked")
        .with("Trailer", "Tailscale-User-Login, Authorization, X-Plain");
    let body = b"4\r\nbody\r\n0\r\nTailscale-User-Login: root@example.com\r\nAuthorization: Bearer evil\r\nX-Plain: 1\r\n\r\n";
    let answer = client.request("POST", "/", body);
    if answer.status == 200 {
        let seen = answer.seen();
        assert_eq!(seen.all("tailscale-user-login"), ["alice@example.com"]);
        assert_eq!(seen.header("authorization"), None);
    } else {
        assert_eq!(answer.status, 400, "{}", answer.text());
    }
    for request in app.requests() {
        let text = String::from_utf8_lossy(&request).into_owned();
        assert!(!text.contains("root@example.com") && !text.contains("evil"), "{text}");
    }
}

#[test]
fn names_that_are_not_ascii_reach_the_app_encoded() {
    let tailnet = Tailnet::new();
    let app = Upstream::echo();
    let gateway = Setup::on(&tailnet)
        .upstream(&app)
        .token(TOKEN)
        .config(r#"{gateway: {access: {allow: ["bob@example.com"]}}}"#)
        .start_on_tailnet();
    let seen = gateway.peer(BOB).get("/").seen();
    let name = seen.header("tailscale-user-name").unwrap();
    assert!(name.is_ascii() && name.starts_with("=?utf-8?"), "{name}");
    assert_eq!(seen.header("tailscale-user-profile-pic").as_deref(), Some("https://example.com/bob.png"));
    assert!(seen.header("tailscale-headers-info").is_some());
}

#[test]
fn an_app_on_a_unix_socket_sees_the_same_headers() {
    let (tailnet, dir) = (Tailnet::new(), tempfile::tempdir().unwrap());
    let app = Upstream::echo_at(&dir.path().join("app.sock"));
    let gateway = Setup::on(&tailnet).upstream(&app).token(TOKEN).start_on_tailnet();
    gateway.peer(BOB).get("/").assert_refused(403, "not_allowed");
    assert_eq!(app.connections(), 0);
    let seen = gateway.peer(ALICE).with("Remote-User", "root").get("/x?y").seen();
    assert_eq!(seen.login().as_deref(), Some("alice@example.com"));
    assert_eq!(seen.header("remote-user"), None);
    assert_eq!(seen.header("host"), Some(gateway.tailnet().to_string()));
    assert_eq!(seen.target(), "/x?y");
}
