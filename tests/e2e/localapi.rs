//! Tailscale asked at its socket: who is believed there, what happens when it is gone,
//! and that the program is left alone while it answers.

use std::os::unix::fs::PermissionsExt;

use super::support::*;

/// `gateway` with this client, asking at this daemon's socket.
fn config(daemon: &StandIn, client: &str) -> String {
    format!("{{gateway: {{tailscale: {{socket: {}, client: \"{client}\"}}}}}}", daemon.socket())
}

struct World {
    tailnet: Tailnet,
    app: Upstream,
    daemon: StandIn,
    gateway: Gateway,
}

/// A daemon that serves the LocalAPI, and a program that needs it.
fn asking(client: &str) -> World {
    let tailnet = Tailnet::new().with(&["requireSocket=true"]);
    let (app, daemon) = (Upstream::echo(), StandIn::of(&tailnet, &[]));
    let config = config(&daemon, client);
    let gateway = Setup::on(&tailnet).upstream(&app).token(TOKEN).config(config).start_on_tailnet();
    World { tailnet, app, daemon, gateway }
}

#[test]
fn a_socket_that_another_user_planted_is_not_asked() {
    if !may_switch_user("a_socket_that_another_user_planted_is_not_asked") {
        return;
    }
    let (tailnet, planted, app) = (Tailnet::new(), Tailnet::new(), Upstream::echo());
    std::fs::set_permissions(planted.dir(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let daemon = StandIn::as_user(&planted, NOBODY);
    for client in ["auto", "localapi"] {
        let gateway = Setup::on(&tailnet).upstream(&app).token(TOKEN).config(config(&daemon, client)).start();
        let line = gateway.wait_for_log("where uid 65534 answers");
        assert!(line.contains("can be written by everybody"), "{line}");
        until("it says so", || gateway.local().get("/readyz").status == 503);
        assert!(gateway.peer(ALICE).try_open().is_err(), "it listens where a stranger told it to");
        gateway.local().bearer(TOKEN).get("/").seen();
    }
    assert_eq!(planted.calls("*").len(), 0, "the planted socket was asked");
    assert_eq!(tailnet.calls("*").len(), 0, "the program would have asked the planted socket");
}

#[test]
fn a_lookup_at_the_socket_that_fails_is_503_and_the_program_is_not_asked() {
    let faults = [
        "garbage",
        "truncated",
        "empty",
        "nul",
        "invalid-utf8",
        "wrong-shape:null",
        "wrong-shape:array",
        "wrong-shape:no-user-profile",
        "huge-stdout",
        "killed-by-signal:SEGV",
        "exit:1:boom",
        "denied",
        "down",
        "hang",
    ];
    let (tailnet, app) = (Tailnet::with_failing_lookups(&faults), Upstream::echo());
    let daemon = StandIn::of(&tailnet, &[]);
    let config = config(&daemon, "auto");
    let gateway = Setup::on(&tailnet).upstream(&app).token(TOKEN).config(config).start_on_tailnet();
    for (number, fault) in faults.iter().enumerate() {
        let answer = gateway.peer(&format!("127.100.1.{number}")).get("/");
        let refused = answer.status == 503 && answer.text().contains("\"whois_unavailable\"");
        assert!(refused, "{fault}: {} {}", answer.status, answer.text());
    }
    assert_eq!(app.connections(), 0);
    gateway.peer(ALICE).get("/").seen();
    assert_eq!(tailnet.calls_via("cli", "*"), 0);
}

#[test]
fn a_peer_is_identified_at_the_socket_without_starting_a_process() {
    for client in ["auto", "localapi"] {
        let world = asking(client);
        let gateway = &world.gateway;
        let seen = gateway.peer(ALICE).get("/").seen();
        assert_eq!(seen.login().as_deref(), Some("alice@example.com"));
        gateway.peer(BOB).get("/").assert_refused(403, "not_allowed");
        gateway.peer(CI).get("/").assert_refused(403, "tagged_node_not_listed");
        // Nobody is an answer, too.
        gateway.peer(NOBODYS).get("/").assert_refused(401, "peer_unknown");
        // Once more for whoever was asked about before the bus was heard.
        assert!((4..=8).contains(&world.tailnet.calls_via("localapi", "whois")));
        assert_eq!(world.tailnet.calls_via("cli", "*"), 0, "{client}");
        assert_eq!(world.app.requests().len(), 1);
    }
}

#[test]
fn client_cli_asks_the_program_alone() {
    let world = asking("cli");
    world.gateway.peer(ALICE).get("/").seen();
    assert_eq!(world.tailnet.calls_via("cli", "whois"), 1);
    assert_eq!(world.tailnet.calls_via("localapi", "*"), 0);
}

#[test]
fn a_configured_program_without_a_socket_is_asked_alone() {
    let (tailnet, app) = (Tailnet::new(), Upstream::echo());
    let gateway = Setup::on(&tailnet).upstream(&app).token(TOKEN).start_on_tailnet();
    gateway.peer(ALICE).get("/").seen();
    assert_eq!(tailnet.calls_via("cli", "whois"), 1);
}

#[test]
fn a_daemon_that_answers_needs_no_program() {
    for client in ["localapi", "auto"] {
        let (tailnet, app) = (Tailnet::new(), Upstream::echo());
        std::fs::remove_file(tailnet.bin()).unwrap();
        let daemon = StandIn::of(&tailnet, &[]);
        let config = config(&daemon, client);
        let gateway = Setup::on(&tailnet).upstream(&app).token(TOKEN).config(config).start_on_tailnet();
        gateway.wait_for_log("no tailscale program is used");
        assert_eq!(gateway.log().contains("the tailscale program cannot be used"), client == "auto");
        gateway.peer(ALICE).get("/").seen();
    }
}

#[test]
fn a_daemon_that_ends_takes_every_identity_with_it_and_brings_it_back() {
    for client in ["auto", "localapi"] {
        let World { tailnet, app: _app, daemon, mut gateway } = asking(client);
        gateway.peer(ALICE).get("/").seen();
        // Once the bus is heard everybody is asked about again; not while it ends.
        until("she is asked about again", || {
            gateway.peer(ALICE).get("/").seen();
            tailnet.calls("whois").len() >= 2
        });
        drop(daemon);
        until("it is noticed", || gateway.peer(ALICE).get("/").status == 503);
        let asked = tailnet.calls("whois").len();
        gateway.peer(ALICE).get("/").assert_refused(503, "whois_unavailable");
        gateway.peer(CAROL).get("/").assert_refused(503, "whois_unavailable");
        assert_eq!(tailnet.calls("whois").len(), asked, "a daemon that is gone is not asked");
        gateway.local().bearer(TOKEN).get("/").seen();
        let _daemon = StandIn::of(&tailnet, &[]);
        until("it has recovered", || gateway.peer(ALICE).get("/").status == 200);
        let only_socket = tailnet.calls_via("cli", "whois") == 0;
        assert!(only_socket, "{client}: the program was asked who it is");
        assert!(gateway.lives());
    }
}

#[test]
fn without_the_socket_the_program_is_asked_and_with_it_no_more() {
    // A program that does without the socket.
    let (tailnet, app) = (Tailnet::new(), Upstream::echo());
    let config = format!(
        "{{gateway: {{tailscale: {{socket: {:?}}}}}}}",
        tailnet.dir().join("tailscaled.sock").display().to_string()
    );
    let gateway = Setup::on(&tailnet).upstream(&app).token(TOKEN).config(config).start_on_tailnet();
    gateway.peer(ALICE).get("/").seen();
    assert_eq!(tailnet.calls_via("cli", "whois"), 1);
    let _daemon = StandIn::of(&tailnet, &[]);
    until("the socket is asked", || tailnet.calls_via("localapi", "status") > 1);
    gateway.peer(CAROL).get("/").assert_refused(403, "not_allowed");
    assert_eq!(tailnet.calls_via("cli", "whois"), 1);
    assert!(tailnet.calls_via("localapi", "whois") >= 1);
}

#[test]
fn a_daemon_that_is_stopped_by_a_signal_is_waited_for() {
    let World { tailnet, gateway, .. } = &asking("auto");
    gateway.peer(ALICE).get("/").seen();
    tailnet.set(&["daemon=hung"]);
    until("it is noticed", || gateway.peer(ALICE).get("/").status == 503);
    gateway.local().bearer(TOKEN).get("/").seen();
    tailnet.set(&["daemon=up"]);
    until("it has recovered", || gateway.peer(ALICE).get("/").status == 200);
    assert_eq!(tailnet.calls_via("cli", "*"), 0);
}

#[test]
fn the_socket_is_asked_more_often_than_the_program_would_be() {
    let World { tailnet, gateway, .. } = &asking("auto");
    gateway.peer(ALICE).get("/").seen();
    let asked = tailnet.calls("status").len();
    until("it is asked five times more", || tailnet.calls("status").len() >= asked + 5);
    let calls = tailnet.calls("status");
    let at = |call: &serde_json::Value| std::time::Duration::from_nanos(call["at"].as_u64().unwrap());
    let took = at(&calls[asked + 4]) - at(&calls[asked]);
    // The program would be asked every five seconds.
    assert!(took < std::time::Duration::from_secs(16), "four rounds took {took:?}");
    tailnet.set(&["backend=Stopped"]);
    until("it is noticed", || gateway.peer(ALICE).get("/").status == 503);
    gateway.peer(ALICE).get("/").assert_refused(503, "tailscale_not_running");
}

/// `cargo test --test e2e localapi::how_long -- --ignored --nocapture`
#[test]
#[ignore = "measures, and says so"]
fn how_long_a_cold_lookup_takes() {
    use openclaw_tailscale::{ClientMode, LocateOptions, Tailscale};
    const ROUNDS: usize = 200;
    let tailnet = Tailnet::new();
    let daemon = StandIn::of(&tailnet, &[]);
    let socket: String = serde_json::from_str(&daemon.socket()).unwrap();
    let client = |client| {
        let (bin, socket) = (Some(tailnet.bin()), Some(socket.clone().into()));
        Tailscale::locate(LocateOptions { bin, socket, client, ..LocateOptions::default() })
            .unwrap()
            .tailscale
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let both = [ClientMode::LocalApi, ClientMode::Cli].map(|mode| (mode, client(mode)));
    let mut took = [Vec::new(), Vec::new()];
    // In turns, so that both meet the same machine.
    for _ in 0..ROUNDS {
        for ((_, tailscale), took) in both.iter().zip(&mut took) {
            let began = std::time::Instant::now();
            runtime.block_on(tailscale.whois(ALICE.parse().unwrap())).unwrap();
            took.push(began.elapsed());
        }
    }
    for ((mode, _), took) in both.iter().zip(&mut took) {
        took.sort_unstable();
        let (half, most) = (took[ROUNDS / 2], took[ROUNDS * 99 / 100]);
        eprintln!("{mode:?}: median {half:?}, 99 of 100 within {most:?}");
    }
}
