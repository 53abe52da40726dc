//! The loopback ingress: published for as long as the gateway lives, and used by Serve
//! alone. The ways to forge of the Serve contract, each tried.

use std::net::SocketAddr;

use super::support::*;

/// Where Serve is pointed at.
fn ingress(world: &Published) -> SocketAddr {
    let target = world.target().unwrap();
    target.strip_prefix("http://").unwrap_or_else(|| panic!("{target}")).parse().unwrap()
}

/// Everything that Serve sends for the owner.
fn as_alice(to: SocketAddr) -> Client {
    Client::to(to)
        .host(HOST)
        .with("X-Forwarded-For", ALICE)
        .with("X-Forwarded-Host", HOST)
        .with("Tailscale-User-Login", "alice@example.com")
        .with("Tailscale-User-Name", "Alice")
}

/// Whether another user is closed on without a word.
fn is_closed_for(uid: u32, to: SocketAddr, bytes: &[u8]) -> bool {
    speak_bytes_as(uid, to, bytes).is_empty()
}

fn nobody_reached_the_app(world: &Published, path: &str) {
    let mark = format!("GET {path}");
    assert!(!world.app.requests().iter().any(|request| request.starts_with(mark.as_bytes())), "{path}");
}

#[test]
fn threat_069_a_claim_on_loopback_ends_with_the_gateway_however_it_ends() {
    if !may_switch_user("threat_069") {
        return;
    }
    for client in BOTH {
        let world = Published::on_loopback(client);
        world.as_root(|world| world.neighbours_elsewhere());
        let (before, others) = (world.text(), world.of_others());
        let mut gateway = world.start();
        assert_ne!(ingress(&world).port(), gateway.port(), "never the ordinary port");
        assert_eq!(world.of_others(), others, "{client}");
        gateway.signal(rustix::process::Signal::KILL);
        gateway.wait();
        until("the claim is gone with it", || world.text() == before);
        gateway.start_again();
        gateway.wait_for_log("serve enabled: ");
        gateway.stop();
        until("it is gone after a stop", || world.text() == before);
    }
}

#[test]
fn a_claim_on_loopback_brings_people_in_each_as_themselves() {
    if !may_switch_user("loopback claim") {
        return;
    }
    for client in BOTH {
        let world = Published::on_loopback(client);
        let gateway = world.start();
        until("Serve is attested", || world.person("phone").try_get("/").is_some_and(|a| a.status == 200));
        await_ready(&gateway);
        assert_eq!(world.person("phone").get("/").seen().login().as_deref(), Some("alice@example.com"));
        assert_eq!(gateway.request_line("/")["via"], "serve");
        world.person("bobpc").get("/no").assert_refused(403, "not_allowed");
        world.person("ci").get("/no").assert_refused(403, "tagged_node_not_listed");
        let forged = world.person("bobpc").with("Tailscale-User-Login", "alice@example.com");
        forged.get("/no").assert_refused(403, "not_allowed");
        nobody_reached_the_app(&world, "/no");
    }
}

#[test]
fn threat_002_no_other_user_gets_a_word_out_of_the_loopback_ingress() {
    if !may_switch_user("threat_002") {
        return;
    }
    let world = Published::on_loopback("localapi");
    let gateway = world.start();
    let to = ingress(&world);
    until("Serve is attested", || world.person("phone").try_get("/").is_some_and(|a| a.status == 200));
    let forged = as_alice(to).bytes("GET", "/forged", b"");
    for uid in [NOBODY - 1, NOBODY] {
        // The gateway's own user is nobody special either. Even with the token.
        let with_token = as_alice(to).bearer(TOKEN).bytes("GET", "/forged", b"");
        for bytes in [&forged, &with_token] {
            assert!(is_closed_for(uid, to, bytes), "uid {uid} was answered");
            leave_as(uid, to, bytes);
        }
    }
    gateway.wait_for_log("socket_is_not_daemons");
    assert_eq!(world.person("phone").get("/last").status, 200);
    nobody_reached_the_app(&world, "/forged");
}

#[test]
fn threat_002_each_way_to_make_tailscaled_connect_takes_the_identity_away() {
    if !may_switch_user("threat_002") {
        return;
    }
    let world = Published::on_loopback("localapi");
    let gateway = world.start();
    let to = ingress(&world);
    let came_in = || world.person("phone").try_get("/").is_some_and(|answer| answer.status == 200);
    until("Serve is attested", came_in);
    let forward: [&str; 4] = ["serve", "--bg", "--tcp=2222", &format!("tcp://{to}")];
    // What is changed, its name in the log and on /readyz, and what mends it.
    let rows = [(r#"prefs={"RunSSH": true}"#, "tailscale_ssh", r#"prefs={"RunSSH": false}"#)];
    for (change, condition, mend) in rows {
        world.tailnet.set(&[change]);
        until(condition, || world.person("phone").get("/poll").status == 401);
        gateway.wait_for_log(condition);
        await_failing(&gateway, "serve_identity_off");
        world.tailnet.set(&[mend]);
        until("it is mended", came_in);
    }
    world.as_root(|world| world.they(&forward));
    until("the forward is noticed", || world.person("phone").get("/poll").status == 401);
    let (detail, _) = await_failing(&gateway, "serve_identity_off");
    assert!(detail.contains("raw TCP"), "{detail}");
    let raw = Client::to(world.daemon.listener(2222, "bobpc"));
    let forged = raw.host(HOST).with("X-Forwarded-For", ALICE).with("X-Forwarded-Host", HOST);
    let forged = forged.with("Tailscale-User-Login", "alice@example.com").get("/no");
    forged.assert_refused(401, "serve_peer_unattested");
    nobody_reached_the_app(&world, "/no");
    world.as_root(|world| world.they(&["serve", "--tcp=2222", "off"]));
    until("it is mended", came_in);
    await_ready(&gateway);
}

#[test]
fn threat_002_a_daemon_that_dials_for_others_gives_no_identity() {
    if !may_switch_user("threat_002") {
        return;
    }
    let world = Published::on_loopback_with("localapi", &["--socks5-server=127.0.0.1:0"]);
    let gateway = world.start();
    let (detail, fix) = await_failing(&gateway, "serve_identity_off");
    assert!(detail.contains("SOCKS") && fix.contains("--socks5-server"), "{detail} {fix}");
    until("it is decided", || world.person("phone").get("/poll").status == 401);
    gateway.wait_for_log("dials_for_others");
    assert_eq!(world.person("phone").bearer(TOKEN).get("/").status, 200, "the token still counts");
    nobody_reached_the_app(&world, "/no");
}

#[test]
fn threat_028_without_tun_a_direct_peer_is_itself_and_serve_on_loopback_nobody() {
    if !may_switch_user("threat_028") {
        return;
    }
    let world = Published::on_loopback("localapi");
    world.tailnet.set(&["tun=false"]);
    let gateway = world.start();
    let to = ingress(&world);
    // Loopback is nobody's own here, so `/readyz` keeps the details to itself.
    gateway.wait_for_line("why", |line| line.contains("serve_identity_off") && line.contains("userspace"));
    assert_eq!(gateway.local().get("/readyz").status, 503);
    world.tailnet.set(&[&format!(r#"standIn.direct={{"phone": "{to}", "bobpc": "{to}"}}"#)]);
    let direct = |who: &str| Client::to(world.daemon.direct(who)).host(&to.to_string());
    until("a direct peer is known", || direct("phone").try_get("/").is_some_and(|a| a.status == 200));
    direct("bobpc").get("/no").assert_refused(403, "not_allowed");
    let forged =
        direct("bobpc").with("Tailscale-User-Login", "alice@example.com").with("X-Forwarded-For", ALICE);
    let forged = forged.get("/no");
    assert!(matches!(forged.status, 401 | 403), "{}", forged.text());
    let through_serve = world.person("phone").get("/no");
    assert_eq!(through_serve.status, 401, "{}", through_serve.text());
    nobody_reached_the_app(&world, "/no");
}

#[test]
fn threat_069_an_operator_keeps_the_right_to_edit() {
    if !may_switch_user("threat_069") {
        return;
    }
    // The gateway is root here, and somebody else the operator: no unix target.
    let world = Published::by("localapi");
    world.tailnet.set(&[r#"prefs={"OperatorUser": "alice"}"#]);
    let gateway = world.start();
    assert!(world.target().unwrap().starts_with("http://127.0.0.1:"), "{:?}", world.target());
    let (detail, fix) = await_failing(&gateway, "serve_identity_off");
    assert!(detail.contains("operator") && detail.contains("our own user"), "{detail}");
    assert!(!fix.is_empty());
    // A unix target of somebody else's is nothing that we would add to.
    world.tailnet.set(&[r#"prefs={"OperatorUser": ""}"#]);
    until("it moves to the unix ingress", || {
        world.target().is_some_and(|target| target.starts_with("unix:"))
    });
    await_ready(&gateway);
}

#[test]
fn threat_069_somebody_elses_session_to_our_old_port_is_theirs() {
    if !may_switch_user("threat_069") {
        return;
    }
    for client in BOTH {
        let world = Published::on_loopback(client);
        let mut gateway = world.start();
        await_ready(&gateway);
        let target = world.target().unwrap();
        gateway.signal(rustix::process::Signal::KILL);
        gateway.wait();
        until("the claim has ended", || world.target().is_none());
        // The journal still has this port, and somebody leads people to it: not us.
        let theirs = TheirSession::start(&world, &["serve", "--http=80", &target]);
        until("their session serves", || world.target().is_some());
        let before = world.text();
        gateway.start_again();
        let (detail, _) = await_failing(&gateway, "serve_conflict");
        assert!(detail.contains("another program's session"), "{detail}");
        assert_eq!(world.text(), before, "{client}");
        theirs.interrupt();
        gateway.wait_for_log("serve enabled: ");
        await_ready(&gateway);
    }
}
