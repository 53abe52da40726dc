//! Who a request belongs to, and who is let in.

use super::support::*;

fn on_tailnet() -> (Tailnet, Upstream, Gateway) {
    with_access("")
}

/// On the tailnet, with more of `gateway` in the configuration.
fn with_access(config: &str) -> (Tailnet, Upstream, Gateway) {
    let (tailnet, app) = (Tailnet::new(), Upstream::echo());
    let gateway = Setup::on(&tailnet)
        .upstream(&app)
        .token(TOKEN)
        .config(format!("{{gateway: {{{config}}}}}"))
        .start_on_tailnet();
    (tailnet, app, gateway)
}

#[test]
fn threat_001_one_identity_on_http_websocket_and_event_streams() {
    let (_tailnet, app, gateway) = on_tailnet();
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
fn threat_005_a_forged_login_of_a_direct_peer_is_a_mismatch_and_never_reaches_the_app() {
    let (_tailnet, app, gateway) = on_tailnet();
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
fn threat_005_a_direct_peer_that_forwards_for_others_has_no_identity() {
    let (_tailnet, app, gateway) = on_tailnet();
    for (name, value) in [
        ("X-Forwarded-For", "203.0.113.9"),
        ("X-Forwarded-Host", "x"),
        ("Forwarded", "for=203.0.113.9"),
        ("X-Real-IP", "203.0.113.9"),
        ("Via", "1.1 squid"),
    ] {
        gateway.peer(ALICE).with(name, value).get("/").assert_refused(401, "proxied_peer");
        let seen = gateway.peer(ALICE).with(name, value).bearer(TOKEN).get("/").seen();
        assert_eq!(seen.login(), None, "{name}: the secret counts, the identity does not");
    }
    assert_eq!(app.requests().len(), 5);
}

#[test]
fn threat_007_the_gateways_own_tailnet_address_is_not_its_owner() {
    let (tailnet, app, gateway) = on_tailnet();
    gateway.peer(GW).get("/").assert_refused(401, "own_address");
    gateway.peer("127.0.0.1").get("/").assert_refused(401, "own_address");
    let forged = gateway.peer(GW).with("Tailscale-User-Login", "alice@example.com").get("/");
    forged.assert_refused(401, "own_address");
    assert_eq!(app.connections(), 0);
    assert_eq!(tailnet.whois_calls(GW), 0, "whois would name the owner");
    assert_eq!(gateway.peer(GW).bearer(TOKEN).get("/").seen().login(), None);
    assert_eq!(gateway.request_line("/")["via"], "local");
}

#[test]
fn threat_008_nothing_is_inherited_from_a_neighbour_or_an_earlier_request() {
    let (_tailnet, _app, gateway) = on_tailnet();
    gateway.peer(ALICE).get("/").seen();
    gateway.peer(BOB).get("/").assert_refused(403, "not_allowed");
    // One connection: the secret of one request does not carry over to the next.
    let local = gateway.local().with("Connection", "keep-alive");
    let mut wire = local.open();
    wire.send(&local.bearer(TOKEN).bytes("GET", "/with", b""));
    assert_eq!(wire.answer_to("GET").status, 200);
    wire.send(&local.bytes("GET", "/without", b""));
    wire.answer_to("GET").assert_refused(401, "token_missing");
    gateway.local().get("/").assert_refused(401, "token_missing");
}

#[test]
fn threat_016_a_health_checkers_name_opens_nothing() {
    let (_tailnet, app, gateway) = on_tailnet();
    for agent in ["GoogleHC/1.0", "kube-probe/1.31", "Tailscale-Health", "ELB-HealthChecker/2.0"] {
        let client = gateway.local().with("User-Agent", agent);
        client.get("/").assert_refused(401, "token_missing");
        client.get("/healthz/").assert_refused(401, "token_missing");
        client.get("/healthz/x").assert_refused(401, "token_missing");
        client.get("//healthz").assert_refused(401, "token_missing");
        client.request("POST", "/healthz", b"").assert_refused(405, "method_not_allowed");
        assert_eq!(client.get("/healthz").status, 200);
    }
    assert_eq!(app.connections(), 0);
}

#[test]
fn threat_020_entries_match_logins_by_ascii_case_only() {
    for listed in ["xbob@example.com", "bob@example.com.evil", "b\u{f6}b@example.com", "bob@EXAMPLE.co"] {
        let (_tailnet, app, gateway) = with_access(&format!(r#"access: {{allow: ["{listed}"]}}"#));
        gateway.peer(BOB).get("/").assert_refused(403, "not_allowed");
        assert_eq!(app.connections(), 0, "{listed}");
    }
    let (_tailnet, _app, gateway) = with_access(r#"access: {allow: ["Bob@EXAMPLE.com"]}"#);
    gateway.peer(BOB).get("/").seen();
}

#[test]
fn threat_022_a_login_of_another_tailnet_is_another_person() {
    let lists = r#"access: {allow: ["eve@other.example", "*@other.example", "autogroup:member"]}"#;
    let (_tailnet, app, gateway) = with_access(lists);
    gateway.peer(EVE).get("/").assert_refused(403, "shared_user_not_listed");
    assert_eq!(app.connections(), 0);
    let (_tailnet, _app, gateway) =
        with_access(r#"access: {allow: [{who: "eve@other.example", shared: true}]}"#);
    assert_eq!(gateway.peer(EVE).get("/").seen().login().as_deref(), Some("eve@other.example"));
}

#[test]
fn threat_022_a_login_with_another_user_id_is_refused_after_a_restart_too() {
    let (tailnet, app) = (Tailnet::new(), Upstream::echo());
    let setup = Setup::on(&tailnet).upstream(&app).token(TOKEN);
    let mut gateway = setup.config(r#"{gateway: {access: {allow: ["bob@example.com"]}}}"#).start_on_tailnet();
    assert_eq!(gateway.peer(BOB).get("/").seen().login().as_deref(), Some("bob@example.com"));
    tailnet.set(&["user.bob.id=4711"]);
    gateway.restart();
    gateway.await_tailnet();
    gateway.peer(BOB).get("/").assert_refused(403, "user_id_changed");
    tailnet.set(&["user.bob.id=2"]);
    gateway.restart();
    gateway.await_tailnet();
    gateway.peer(BOB).get("/").seen();
}

#[test]
fn threat_023_a_login_that_is_none_matches_no_rule() {
    for login in ["a@b@example.com", "@example.com", "tagged-devices", "device-of-shared-to-user", "bob@"] {
        let tailnet = Tailnet::new().with(&[&format!("user.bob.login={login}")]);
        let app = Upstream::echo();
        let gateway = Setup::on(&tailnet)
            .upstream(&app)
            .token(TOKEN)
            .config(r#"{gateway: {access: {allow: ["*@example.com", "autogroup:member"]}}}"#)
            .start_on_tailnet();
        let answer = gateway.peer(BOB).get("/");
        // 503: an answer that names tagged devices' stand-in for an untagged machine
        // is no answer at all.
        assert!(matches!(answer.status, 401 | 403 | 503), "{login}: {} {}", answer.status, answer.text());
        assert_eq!(app.connections(), 0, "{login} reached the app");
    }
}

#[test]
fn threat_024_a_tagged_machine_matches_tag_rules_only() {
    let (_tailnet, app, gateway) = with_access(
        r#"access: {allow: ["*@example.com", "autogroup:member", "alice@example.com", "tag:other"]}"#,
    );
    gateway.peer(CI).get("/").assert_refused(403, "tagged_node_not_listed");
    assert_eq!(app.connections(), 0);
    gateway.peer(BOB).get("/").seen();
    let (_tailnet, _app, gateway) = with_access(r#"access: {allow: ["tag:ci"]}"#);
    let seen = gateway.peer(CI).get("/").seen();
    assert!(!seen.names().iter().any(|name| name.starts_with("tailscale-")), "{:?}", seen.names());
    assert_eq!(gateway.peer(CI).get("/_openclaw/whoami").json()["tags"][0], "tag:ci");
    gateway.peer(BOB).get("/").assert_refused(403, "not_allowed");
}

#[test]
fn threat_025_roles_that_a_client_names_itself_are_ignored() {
    let app = Upstream::echo();
    let tailnet = Tailnet::new();
    let config = format!(
        r#"{{gateway: {{
            routes: {{app: {{path: "/", upstream: "{}", role: "admin"}}}},
            access: {{allow: ["bob@example.com"]}},
        }}}}"#,
        app.flag()
    );
    let gateway = Setup::on(&tailnet).token(TOKEN).config(config).start_on_tailnet();
    let bob = gateway.peer(BOB);
    bob.get("/").assert_refused(403, "role_required");
    bob.with("X-OpenClaw-Scopes", "operator.admin").get("/").assert_refused(403, "role_required");
    bob.with("X-OpenClaw-Role", "admin")
        .get("/?role=admin&scopes=admin")
        .assert_refused(403, "role_required");
    let body = br#"{"role":"admin","scopes":["operator.admin"]}"#;
    bob.with("Content-Type", "application/json")
        .request("POST", "/", body)
        .assert_refused(403, "role_required");
    assert_eq!(app.connections(), 0);
    gateway.peer(ALICE).get("/").seen();
}

#[test]
fn threat_059_an_empty_list_is_nobody_and_without_the_owner_nobody_at_all() {
    let (_tailnet, app, gateway) = with_access("access: {allow: []}");
    for peer in [BOB, CAROL] {
        gateway.peer(peer).get("/").assert_refused(403, "not_allowed");
    }
    gateway.peer(CI).get("/").assert_refused(403, "tagged_node_not_listed");
    gateway.peer(EVE).get("/").assert_refused(403, "shared_user_not_listed");
    assert_eq!(app.connections(), 0);
    gateway.peer(ALICE).get("/").seen();
    let (_tailnet, app, gateway) = with_access("access: {owner: false, allow: []}");
    gateway.peer(ALICE).get("/").assert_refused(403, "not_allowed");
    assert_eq!(app.connections(), 0);
}

#[test]
fn threat_105_a_node_that_forwards_for_others_needs_an_entry_that_says_so() {
    let (_tailnet, app, gateway) = with_access(r#"access: {allow: ["bob@example.com"]}"#);
    gateway.peer(ROUTER).get("/").assert_refused(403, "via_router");
    assert_eq!(app.connections(), 0);
    gateway.peer(BOB).get("/").seen();
    let (_tailnet, _app, gateway) =
        with_access(r#"access: {allow: [{who: "bob@example.com", viaRouter: true}]}"#);
    gateway.peer(ROUTER).get("/").seen();
}

#[test]
fn threat_110_expired_jailed_and_unsigned_devices_are_refused_though_listed() {
    let (_tailnet, app, gateway) = with_access(r#"access: {allow: ["bob@example.com"]}"#);
    gateway.peer(EXPIRED).get("/").assert_refused(403, "node_expired");
    gateway.peer(JAILED).get("/").assert_refused(403, "node_jailed");
    gateway.peer(UNSIGNED).get("/").assert_refused(403, "node_unsigned");
    assert_eq!(app.connections(), 0);
    gateway.peer(BOB).get("/").seen();
}

#[test]
fn a_secret_decides_first_and_a_refused_identity_may_use_it() {
    let (_tailnet, _app, gateway) = on_tailnet();
    gateway.peer(BOB).get("/").assert_refused(403, "not_allowed");
    assert_eq!(gateway.peer(BOB).bearer(TOKEN).get("/").seen().login(), None);
    let own = gateway.peer(BOB).with("X-OpenClaw-Gateway-Token", TOKEN).get("/").seen();
    assert_eq!(own.login(), None);
    gateway.peer(NOBODYS).get("/").assert_refused(401, "peer_unknown");
    gateway.peer(NOBODYS).bearer(TOKEN).get("/").seen();
    // A wrong own secret is not forgiven because of who sends it.
    gateway
        .peer(ALICE)
        .with("X-OpenClaw-Gateway-Token", "wrong")
        .get("/")
        .assert_refused(401, "token_mismatch");
    // A bearer of the app's own passes on what identity permits.
    let app_bearer = gateway.peer(ALICE).bearer("sk-app").get("/").seen();
    assert_eq!(app_bearer.header("authorization").as_deref(), Some("Bearer sk-app"));
    gateway.peer(ALICE).bearer("sk-app").get("/_openclaw/whoami").assert_refused(401, "token_mismatch");
}

#[test]
fn a_refused_person_gets_a_page_that_says_who_they_are_and_why() {
    let (_tailnet, _app, gateway) = on_tailnet();
    let page = gateway.peer(BOB).with("Accept", "text/html,*/*;q=0.8").get("/");
    assert_eq!(page.status, 403);
    assert!(page.header("content-type").unwrap().starts_with("text/html"), "{page:?}");
    let text = page.text();
    assert!(text.contains("bob@example.com") && text.contains("not_allowed"), "{text}");
    assert!(page.header("content-security-policy").is_some(), "{page:?}");
    let json = gateway.peer(BOB).with("Accept", "application/json").get("/");
    assert_eq!(json.json()["error"]["type"], "forbidden");
    assert_eq!(json.json()["error"]["requestId"].as_str(), json.header("x-request-id"));
}
