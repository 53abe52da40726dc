//! Identity through Tailscale Serve: who may say that a request came that way.

use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::support::*;

#[test]
fn threat_002_a_second_user_that_forges_a_whole_serve_request_is_nobody() {
    if !may_switch_user("threat_002") {
        return;
    }
    let behind = BehindServe::on_tcp();
    let (serve, to) = (behind.alice(), behind.gateway.loopback());
    assert_eq!(
        serve.get("/").seen().login().as_deref(),
        Some("alice@example.com"),
        "Serve itself is believed"
    );
    let forged = speak_as(NOBODY - 1, to, &serve.bytes("GET", "/forged", b""));
    forged.assert_refused(401, "serve_peer_unattested");
    let own_user = speak_as(NOBODY, to, &serve.bytes("GET", "/forged", b""));
    own_user.assert_refused(401, "serve_peer_unattested");
    assert!(behind.gateway.log().contains("socket_is_not_daemons"), "the log names the condition");
    // With the token it is a holder of the token, and still not Alice.
    let with_token = speak_as(NOBODY - 1, to, &serve.bearer(TOKEN).bytes("GET", "/token", b""));
    assert_eq!(with_token.seen().login(), None);
    let reached = behind.app.requests().iter().any(|request| request.starts_with(b"GET /forged"));
    assert!(!reached, "a forged request reached the app");
}

#[test]
fn threat_002_forge_and_close_is_not_taken_for_root() {
    if !may_switch_user("threat_002") {
        return;
    }
    // Closed sockets are listed with uid 0, which here is tailscaled's.
    let behind = BehindServe::on_tcp();
    let request = behind.alice().bytes("GET", "/forged", b"");
    for _ in 0..20 {
        leave_as(NOBODY - 1, behind.gateway.loopback(), &request);
    }
    // The next one shows that those before it have been handled.
    assert_eq!(behind.alice().get("/last").status, 200);
    let reached = behind.app.requests().iter().any(|request| request.starts_with(b"GET /forged"));
    assert!(!reached, "a forged request reached the app");
}

#[test]
fn threat_002_each_condition_that_fails_takes_the_identity_away() {
    if !may_switch_user("threat_002") {
        return;
    }
    let behind = BehindServe::on_tcp();
    let port = behind.gateway.port();
    let sound = route_to(&format!("http://127.0.0.1:{port}"));
    let twice = format!(
        r#"serve={{"TCP":{{"80":{{"HTTP":true}}}},"Web":{{"{HOST}:80":{{"Handlers":{{"/":{{"Proxy":"http://127.0.0.1:{port}"}},"/b":{{"Proxy":"http://localhost:{port}"}}}}}}}}}}"#
    );
    let forwarded = format!(
        r#"serve={{"TCP":{{"80":{{"HTTP":true}},"2222":{{"TCPForward":"127.0.0.1:{port}"}}}},"Web":{{"{HOST}:80":{{"Handlers":{{"/":{{"Proxy":"http://127.0.0.1:{port}"}}}}}}}}}}"#
    );
    for (change, mend, condition) in [
        (twice.as_str(), sound.as_str(), "not_one_web_handler"),
        ("serve=null", &sound, "not_one_web_handler"),
        (&forwarded, &sound, "tcp_forward"),
        (
            "version=1.96.0-t0123456789ab-gabcdef012345",
            "version=1.102.3-t0123456789ab-gabcdef012345",
            "daemon_too_old",
        ),
        (r#"prefs={"RunSSH": true}"#, r#"prefs={"RunSSH": false}"#, "tailscale_ssh"),
    ] {
        behind.tailnet.set(&[change]);
        until(condition, || {
            let answer = behind.alice().get("/");
            answer.status == 401 && behind.gateway.log().contains(condition)
        });
        behind.alice().get("/").assert_refused(401, "serve_peer_unattested");
        behind.tailnet.set(&[mend]);
        until("it is mended", || behind.alice().get("/").status == 200);
    }
}

#[test]
fn threat_003_the_unix_ingress_is_private_and_closes_on_everybody_else() {
    let behind = BehindServe::on_unix();
    let socket = behind.socket();
    let (file, dir) = (socket.metadata().unwrap(), socket.parent().unwrap().metadata().unwrap());
    assert_eq!(file.permissions().mode() & 0o777, 0o600);
    assert_eq!(dir.permissions().mode() & 0o777, 0o700);
    assert_eq!(file.uid(), rustix::process::geteuid().as_raw());
    // A process of the same user that is not tailscaled.
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "serve::asks_on_the_unix_ingress", "--nocapture"])
        .env("E2E_UNIX_INGRESS", socket)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&behind.alice().bytes("GET", "/forged", b"")).unwrap();
    let said = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&said.stdout);
    assert!(said.contains("answer:0 bytes"), "{said}");
    assert!(!behind.app.requests().iter().any(|request| request.starts_with(b"GET /forged")));
    assert_eq!(behind.alice().get("/").seen().login().as_deref(), Some("alice@example.com"));
}

/// The other half of the test above; by itself it does nothing.
#[test]
fn asks_on_the_unix_ingress() {
    let Some(path) = std::env::var_os("E2E_UNIX_INGRESS") else { return };
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut std::io::stdin(), &mut bytes).unwrap();
    let mut wire = Client::open_unix(path.as_ref()).unwrap();
    wire.send(&bytes);
    let line = format!("\nanswer:{} bytes\n", wire.rest().len());
    std::io::stdout().write_all(line.as_bytes()).unwrap();
}

#[test]
fn threat_003_a_directory_that_others_can_write_refuses_to_start() {
    let dir = private_dir();
    let open = dir.path().join("open");
    std::fs::create_dir(&open).unwrap();
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o770)).unwrap();
    let setup = Setup::new().flag("--tailscale", "serve").token(TOKEN);
    let refused = setup.env("RUNTIME_DIRECTORY", open.as_os_str()).refuse();
    assert_eq!(refused.code, Some(78), "{}", refused.stderr);
    assert!(refused.stderr.contains(open.canonicalize().unwrap().to_str().unwrap()), "{}", refused.stderr);
}

#[test]
fn threat_004_identity_headers_by_a_way_that_carries_none_are_dropped_and_never_local() {
    let app = Upstream::echo();
    let gateway = Setup::new().upstream(&app).token(TOKEN).start();
    let forged = gateway.local().with("Tailscale-User-Login", "alice@example.com");
    let answer = forged.get("/");
    // With no Tailscale at all nothing can be said yet; it is never a 200.
    assert!(
        matches!(
            answer.code().as_str(),
            "serve_peer_unattested" | "whois_unavailable" | "serve_state_unknown" | "tailscale_not_running"
        ),
        "{}",
        answer.text()
    );
    assert_eq!(forged.bearer(TOKEN).get("/").seen().login(), None);

    let tailnet = Tailnet::new();
    let gateway = Setup::new().tailscale(&tailnet).upstream(&app).token(TOKEN).start();
    let forged = gateway.local().with("Tailscale-User-Login", "alice@example.com");
    until("Tailscale is known", || forged.get("/").status == 401);
    forged.get("/").assert_refused(401, "serve_peer_unattested");
    assert_eq!(forged.bearer(TOKEN).get("/").seen().login(), None);
    gateway.wait_for_log("serve_peer_unattested");

    let gateway = Setup::new().tailscale(&tailnet).upstream(&app).flag("--auth", "none").start();
    until("Tailscale is known", || gateway.local().get("/").status == 200);
    let forged = gateway.local().with("Tailscale-User-Login", "alice@example.com");
    until("it is decided", || forged.get("/").status != 503);
    forged.get("/").assert_refused(401, "serve_peer_unattested");
    gateway.local().get("/").seen();
}

#[test]
fn threat_006_funnel_reaches_public_routes_only_and_has_no_identity() {
    let open = Upstream::echo();
    let config = format!(
        r#"routes: {{
            private: {{path: "/private", upstream: "{0}"}},
            hook: {{path: "/hook", upstream: "{0}", public: "secret"}},
        }}"#,
        open.flag()
    );
    let tailnet = Tailnet::new();
    let daemon = Tailscaled::beside(&tailnet);
    let socket = format!("{:?}", daemon.socket().display().to_string());
    let config = format!("{{gateway: {{tailscale: {{socket: {socket}, client: 'cli'}}, {config}}}}}");
    let gateway =
        Setup::new().tailscale(&tailnet).flag("--tailscale", "serve").token(TOKEN).config(config).start();
    let line: serde_json::Value =
        serde_json::from_str(&gateway.wait_for_log("the Serve ingress is ready")).unwrap();
    let ingress = Client::unix(line["path"].as_str().unwrap().as_ref())
        .with("X-Forwarded-Host", HOST)
        .with("X-Forwarded-Proto", "https");
    let funnel = ingress.with("X-Forwarded-For", "203.0.113.50").with("Tailscale-Funnel-Request", "?1");
    until("Tailscale is known", || funnel.try_get("/private").is_some_and(|answer| answer.status == 403));
    for client in [
        funnel.clone(),
        funnel.bearer(TOKEN),
        funnel.with("Tailscale-User-Login", "alice@example.com"),
        funnel.instead("X-Forwarded-For", ALICE).with("Tailscale-User-Login", "alice@example.com"),
        funnel.instead("Tailscale-Funnel-Request", "yes"),
    ] {
        let answer = client.with("Connection", "keep-alive").get("/private");
        answer.assert_refused(403, "not_public");
        assert_eq!(answer.header("connection"), Some("close"), "Funnel shares a connection with others");
    }
    // That a route may be public opens nothing yet.
    funnel.bearer(TOKEN).get("/hook").assert_refused(403, "not_public");
    let opened = gateway.openclaw(&["funnel", "--for", "2h", "--path", "/hook"]);
    assert_eq!(opened.code, Some(0), "{opened:?}");
    for client in [
        funnel.clone(),
        funnel.instead("X-Forwarded-For", ALICE).with("Tailscale-User-Login", "alice@example.com"),
    ] {
        client.get("/hook").assert_refused(401, "token_missing");
    }
    assert_eq!(open.connections(), 0);
    let holder = funnel.bearer(TOKEN).with("Tailscale-User-Login", "alice@example.com").get("/hook");
    assert_eq!(holder.seen().login(), None);
    assert_eq!(holder.header("connection"), Some("close"));
}

#[test]
fn threat_014_identity_headers_with_two_readings_are_refused_on_the_ingress() {
    let behind = BehindServe::on_unix();
    let alice = behind.alice();
    for client in [
        alice.with("Tailscale-User-Login", "bob@example.com"),
        alice.with("Tailscale-User-Login", "alice@example.com"),
        alice.instead("Tailscale-User-Login", "alice@example.com, bob@example.com"),
        alice.instead("Tailscale-User-Login", ""),
        alice.with("X-Forwarded-For", BOB),
        alice.instead("X-Forwarded-For", &format!("{ALICE}, {BOB}")),
        alice.instead("X-Forwarded-For", &format!(", {ALICE}")),
        alice.with("X-Forwarded-Host", "other"),
        alice.with("Tailscale-Funnel-Request", "").with("Tailscale-Funnel-Request", "?1"),
    ] {
        client.get("/two").assert_refused(400, "ambiguous_identity_header");
    }
    assert!(!behind.app.requests().iter().any(|request| request.starts_with(b"GET /two")));
}

#[test]
fn threat_020_logins_agree_by_ascii_case_only() {
    let behind = BehindServe::on_unix();
    for login in [
        "bob@example.com",
        "alice@example.com.evil",
        "alice@example.com.",
        "xalice@example.com",
        "alice",
        // Cyrillic a, and its encoded form; a combining accent.
        "\u{430}lice@example.com",
        "=?utf-8?q?=D0=B0lice@example.com?=",
        "alice\u{301}@example.com",
        // Turkish dotless i.
        "al\u{131}ce@example.com",
    ] {
        let answer = behind.person(ALICE, login).get("/no");
        assert!(matches!(answer.status, 400 | 401), "{login}: {} {}", answer.status, answer.text());
    }
    assert!(!behind.app.requests().iter().any(|request| request.starts_with(b"GET /no")));
    let seen = behind.person(ALICE, "ALICE@Example.COM").get("/").seen();
    assert_eq!(seen.login().as_deref(), Some("alice@example.com"), "the login of whois is passed on");
}

#[test]
fn threat_021_an_encoded_login_is_decoded_once_and_encoded_again() {
    let tailnet = Tailnet::new().with(&["user.alice.login=älice@example.com", "user.alice.name=Älice"]);
    let behind = BehindServe::on_unix_with(tailnet, "");
    let sent = |login: &str| behind.person(ALICE, login).get("/q");
    for login in [
        // Encoded twice; line ends and NUL inside.
        "=?utf-8?q?=3D=3Futf-8=3Fq=3F=C3=A4lice@example.com=3F=3D?=",
        "=?utf-8?q?=C3=A4lice@example.com=0D=0AX-Evil:1?=",
        "=?utf-8?q?=C3=A4lice@example.com=00?=",
    ] {
        let answer = sent(login);
        assert_eq!(answer.status, 400, "{login}: {}", answer.text());
    }
    assert!(!behind.app.requests().iter().any(|request| request.starts_with(b"GET /q")));
    let seen = sent("=?utf-8?q?=C3=A4lice@example.com?=").seen();
    let login = seen.login().unwrap();
    assert!(login.is_ascii() && login.starts_with("=?"), "{login}");
    assert!(seen.header("tailscale-user-name").unwrap().is_ascii());
}

#[test]
fn threat_107_serve_names_exactly_one_known_source_or_nobody() {
    let behind = BehindServe::on_unix();
    let alice = behind.alice();
    for (source, status, code) in [
        ("127.0.0.1", 401, "own_address"),
        ("::1", 401, "own_address"),
        (GW, 401, "own_address"),
        (NOBODYS, 401, "peer_unknown"),
        (BOB, 401, "tailscale_user_mismatch"),
        (CI, 401, "tailscale_user_mismatch"),
    ] {
        alice.instead("X-Forwarded-For", source).get("/no").assert_refused(status, code);
    }
    for source in ["unknown", "alice", "127.100.0.2 127.100.0.3", "127.100.0.300", "[::]x"] {
        let answer = alice.instead("X-Forwarded-For", source).get("/no");
        assert!(matches!(answer.status, 400 | 401), "{source}: {} {}", answer.status, answer.text());
    }
    alice.without("X-Forwarded-For").get("/no").assert_refused(401, "serve_peer_unattested");
    alice.without("X-Forwarded-Host").get("/no").assert_refused(401, "serve_peer_unattested");
    alice.without("Tailscale-User-Login").get("/no").assert_refused(401, "tailscale_user_missing");
    behind.person(CI, "alice@example.com").get("/no").assert_refused(401, "tailscale_user_mismatch");
    assert!(!behind.app.requests().iter().any(|request| request.starts_with(b"GET /no")));
    // A port behind the address is how some proxies write it; Serve never does.
    alice.get("/").seen();
}

#[test]
fn threat_032_behind_the_unix_ingress_the_host_is_the_forwarded_one() {
    let behind = BehindServe::on_unix();
    behind
        .alice()
        .instead("X-Forwarded-Host", "evil.example")
        .get("/")
        .assert_refused(421, "host_not_allowed");
    let seen = behind.alice().get("/").seen();
    assert_eq!(seen.header("host").as_deref(), Some(HOST), "the app never sees localhost");
    assert_eq!(seen.header("x-forwarded-proto").as_deref(), Some("https"));
    assert_eq!(seen.header("x-forwarded-for").as_deref(), Some(ALICE));
}

#[test]
fn a_person_comes_in_through_the_stand_in_and_the_internet_does_not() {
    let (tailnet, app) = (Tailnet::new(), Upstream::echo());
    let daemon = StandIn::of(&tailnet, &["phone", "bobpc", "ci", "funnel", "stranger"]);
    let config = format!("{{gateway: {{tailscale: {{socket: {}}}}}}}", daemon.socket());
    let gateway = Setup::new()
        .tailscale(&tailnet)
        .flag("--tailscale", "serve")
        .upstream(&app)
        .token(TOKEN)
        .config(config)
        .start();
    let line: serde_json::Value =
        serde_json::from_str(&gateway.wait_for_log("the Serve ingress is ready")).unwrap();
    tailnet.set(&[&route_to(&format!("unix:{}", line["path"].as_str().unwrap()))]);
    let as_who = |who: &str| Client::to(daemon.listener(80, who)).host(HOST);
    until("Serve is known", || as_who("phone").get("/").status == 200);
    as_who("bobpc").get("/no").assert_refused(403, "not_allowed");
    as_who("ci").get("/no").assert_refused(403, "tagged_node_not_listed");
    let stranger = as_who("stranger").get("/no");
    assert!(matches!(stranger.status, 401 | 403), "{} {}", stranger.status, stranger.text());
    let forged = as_who("bobpc").with("Tailscale-User-Login", "alice@example.com");
    forged.get("/no").assert_refused(403, "not_allowed");
    assert!(!app.requests().iter().any(|request| request.starts_with(b"GET /no")));
    let seen = as_who("phone").with("Tailscale-User-Login", "bob@example.com").get("/").seen();
    assert_eq!(seen.login().as_deref(), Some("alice@example.com"));
    assert_eq!(gateway.request_line("/")["via"], "serve");
}

#[test]
fn threat_028_userspace_sockets_are_asked_about_each_time_with_their_protocol() {
    let (tailnet, app) = (Tailnet::new().with(&["tun=false"]), Upstream::echo());
    let daemon = StandIn::of(&tailnet, &[]);
    let config = format!(
        "{{gateway: {{tailscale: {{socket: {}}}, auth: {{allowTailscale: true}}}}}}",
        daemon.socket()
    );
    // Two uids where there are two, else none: a loopback socket must be tailscaled's.
    let gateway = Setup::new().tailscale(&tailnet).upstream(&app).token(TOKEN).config(config).start();
    let to = gateway.loopback();
    tailnet.set(&[&format!(r#"standIn.direct={{"phone": "{to}", "bobpc": "{to}"}}"#)]);
    let as_who = |who: &str| Client::to(daemon.direct(who)).host(&to.to_string());
    let first = || as_who("phone").get("/").status;
    until("the gateway knows that there is no TUN", || first() == 200);
    as_who("bobpc").get("/no").assert_refused(403, "not_allowed");
    let forged = as_who("bobpc").with("Tailscale-User-Login", "alice@example.com").get("/no");
    assert!(matches!(forged.status, 401 | 403), "{}", forged.text());
    // The round over what is open asks about its tailnet address, now and then.
    let of_sockets = || {
        let calls = tailnet.calls("whois").into_iter().map(|call| call["request"].to_string());
        calls.filter(|asked| !asked.contains("whois?addr=127.100.")).collect::<Vec<_>>()
    };
    let before = of_sockets().len();
    for _ in 0..5 {
        assert_eq!(as_who("phone").get("/").seen().login().as_deref(), Some("alice@example.com"));
    }
    let calls = of_sockets();
    assert_eq!(calls.len() - before, 5, "such an answer is never kept");
    for asked in &calls[before..] {
        assert!(asked.contains("whois?addr=127.0.0.1:") && asked.contains("&proto=tcp"), "{asked}");
    }
    // Loopback is not local here: a process beside it gets nothing.
    let local = gateway.local().get("/no");
    assert_eq!(local.status, 401, "{}", local.text());
    assert!(!app.requests().iter().any(|request| request.starts_with(b"GET /no")));
}

#[test]
fn threat_002_a_connection_that_did_not_begin_as_serves_never_becomes_it() {
    if !may_switch_user("threat_002") {
        return;
    }
    let behind = BehindServe::on_tcp();
    let ask = |client: &Client, target| client.instead("Connection", "keep-alive").bytes("GET", target, b"");
    let mut wire = behind.bare().open();
    wire.send(&ask(&behind.bare(), "/healthz"));
    assert_eq!(wire.answer_to("GET").status, 200);
    wire.send(&ask(&behind.alice(), "/late"));
    wire.answer_to("GET").assert_refused(401, "serve_peer_unattested");
    behind.gateway.wait_for_log("older_than_facts");
    let mut wire = behind.bare().open();
    wire.send(&ask(&behind.alice(), "/early"));
    assert_eq!(wire.answer_to("GET").seen().login().as_deref(), Some("alice@example.com"));
    assert!(!behind.app.requests().iter().any(|request| request.starts_with(b"GET /late")));
}

#[test]
fn threat_106_capabilities_in_a_header_give_nobody_anything() {
    let claims = r#"{"openclaw.ai/cap/gateway":[{"role":"admin"}]}"#;
    let behind = BehindServe::on_unix();
    // Not even over Serve's own connection: whois says what Bob is granted.
    let bob = behind.person(BOB, "bob@example.com").with("Tailscale-App-Capabilities", claims);
    bob.get("/").assert_refused(403, "not_allowed");
    let alice = behind.alice().with("Tailscale-App-Capabilities", claims);
    let seen = alice.get("/").seen();
    assert_eq!(seen.login().as_deref(), Some("alice@example.com"));
    assert_eq!(seen.header("tailscale-app-capabilities"), None, "the app is told nothing of it");
    let twice = alice.with("Tailscale-App-Capabilities", claims);
    twice.get("/").assert_refused(400, "ambiguous_identity_header");
    // And not from a program here.
    let local = behind.gateway.local().with("Tailscale-App-Capabilities", claims);
    assert_eq!(local.get("/").status, 401);
    let holder = local.bearer(TOKEN).get("/").seen();
    assert_eq!(holder.header("tailscale-app-capabilities"), None);
}

#[test]
fn threat_108_serve_without_tls_is_plain_http_and_refused_where_https_is_required() {
    let behind = BehindServe::on_unix();
    let plain = behind.alice().without("X-Forwarded-Proto");
    let seen = plain.get("/").seen();
    assert_eq!(seen.header("x-forwarded-proto").as_deref(), Some("http"));
    // The page's own origin is the http one, and no other.
    plain.with("Origin", &format!("http://{HOST}")).request("POST", "/", b"x").seen();
    let https = plain.with("Origin", &format!("https://{HOST}"));
    https.request("POST", "/", b"x").assert_refused(403, "origin_not_allowed");
    let strict = BehindServe::on_unix_with(Tailnet::new(), "requireHttps: true");
    strict.alice().without("X-Forwarded-Proto").get("/").assert_refused(403, "https_required");
    strict.alice().get("/").seen();
}
