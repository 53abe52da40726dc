//! Tailscale missing, hanging, lying, changing: the gateway lives, grants nothing
//! that it does not know, and recovers by itself.

use std::os::unix::fs::PermissionsExt;

use super::support::*;

fn on_tailnet() -> (Tailnet, Upstream, Gateway) {
    let (tailnet, app) = (Tailnet::new(), Upstream::echo());
    let gateway = Setup::on(&tailnet).upstream(&app).token(TOKEN).start_on_tailnet();
    (tailnet, app, gateway)
}

#[test]
fn threat_009_a_lookup_that_fails_is_503_and_one_that_finds_nobody_401() {
    let faults = [
        "garbage",
        "truncated",
        "empty",
        "nul",
        "invalid-utf8",
        "wrong-shape:null",
        "wrong-shape:array",
        "wrong-shape:no-user-profile",
        "gui-sentence",
        "huge-stdout",
        "endless-stderr",
        "killed-by-signal:SEGV",
        "exit:1:boom",
        "exit:0:",
        "denied",
        "down",
    ];
    let (tailnet, app) = (Tailnet::with_failing_lookups(&faults), Upstream::echo());
    let gateway = Setup::on(&tailnet).upstream(&app).token(TOKEN).start_on_tailnet();
    for (number, fault) in faults.iter().enumerate() {
        let answer = gateway.peer(&format!("127.100.1.{number}")).get("/");
        let refused = answer.status == 503 && answer.text().contains("\"whois_unavailable\"");
        assert!(refused, "{fault}: {} {}", answer.status, answer.text());
        assert!(answer.header("retry-after").is_some(), "{fault}");
    }
    gateway.peer(NOBODYS).get("/").assert_refused(401, "peer_unknown");
    assert_eq!(app.connections(), 0);
    // The secret needs no Tailscale.
    gateway.peer("127.100.1.0").bearer(TOKEN).get("/").seen();
    gateway.peer(ALICE).get("/").seen();
}

#[test]
fn threat_009_a_lookup_that_hangs_is_ended_and_its_process_with_it() {
    let (tailnet, app, gateway) = on_tailnet();
    tailnet.set(&[&format!("fault.whois@{BOB}=hang-ignoring-term")]);
    gateway.peer(BOB).get("/").assert_refused(503, "whois_unavailable");
    assert_eq!(app.connections(), 0);
    let pid = tailnet.calls("whois")[0]["pid"].as_u64().unwrap();
    until("the process is gone", || !std::path::Path::new(&format!("/proc/{pid}/cmdline")).exists());
    gateway.peer(ALICE).get("/").seen();
}

#[test]
fn threat_051_bob_is_answered_while_alices_lookup_still_hangs() {
    let (tailnet, _app, gateway) = on_tailnet();
    tailnet.set(&[&format!("fault.whois@{ALICE}=gate:alice")]);
    let alice = gateway.peer(ALICE);
    let mut waiting = alice.open();
    waiting.send(&alice.bytes("GET", "/alice", b""));
    until("Alice is looked up", || tailnet.whois_calls(ALICE) == 1);
    gateway.peer(BOB).get("/").assert_refused(403, "not_allowed");
    gateway.local().bearer(TOKEN).get("/").seen();
    assert!(
        !gateway.requests().iter().any(|line| line["path"] == "/alice"),
        "Alice was answered before the gate opened"
    );
    tailnet.release("alice");
    assert_eq!(waiting.answer_to("GET").seen().login().as_deref(), Some("alice@example.com"));
}

#[test]
fn threat_051_five_hundred_first_requests_are_one_lookup() {
    let (tailnet, _app, gateway) = on_tailnet();
    tailnet.set(&[&format!("fault.whois@{ALICE}=gate:alice")]);
    let alice = gateway.peer(ALICE);
    // Idle connections count against their peer; so few per worker, many requests.
    let streams: Vec<Wire> = (0..50)
        .map(|_| {
            let mut wire = alice.open();
            wire.send(&alice.bytes("GET", "/", b""));
            wire
        })
        .collect();
    let many = std::thread::spawn({
        let alice = alice.clone();
        move || alice.h2_many("/", 450)
    });
    until("Alice is looked up", || tailnet.whois_calls(ALICE) >= 1);
    tailnet.release("alice");
    for mut wire in streams {
        assert_eq!(wire.answer_to("GET").status, 200);
    }
    assert_eq!(many.join().unwrap(), vec![200; 450]);
    assert_eq!(tailnet.whois_calls(ALICE), 1);
}

#[test]
fn threat_051_an_address_that_changes_hands_is_asked_about_again() {
    let (tailnet, _app, gateway) = on_tailnet();
    assert_eq!(gateway.peer(ALICE).get("/").seen().login().as_deref(), Some("alice@example.com"));
    // Another profile: the same address is somebody else's there.
    tailnet.set(&["tailnet.name=other.example", r#"peer.phone.user="bob""#]);
    until("the other tailnet is seen", || gateway.peer(ALICE).get("/").status != 200);
    gateway.peer(ALICE).get("/").assert_refused(403, "not_allowed");
}

#[test]
fn threat_061_the_gateway_follows_its_tailnet_address_and_widens_nothing() {
    let (tailnet, _app, gateway) = on_tailnet();
    gateway.peer(ALICE).get("/").seen();
    tailnet.set(&[r#"self.ips=["127.100.0.77"]"#]);
    let moved = std::net::SocketAddr::new("127.100.0.77".parse().unwrap(), gateway.port());
    let alice_there = Client::to(moved).from(ALICE.parse().unwrap());
    until("it listens at the new address", || alice_there.try_open().is_ok());
    until("it has left the old one", || gateway.peer(ALICE).try_open().is_err());
    alice_there.get("/").seen();
    for addr in ["127.0.0.5", "127.100.0.78"] {
        let elsewhere = std::net::SocketAddr::new(addr.parse().unwrap(), gateway.port());
        assert!(Client::to(elsewhere).try_open().is_err(), "{addr}: it listens where it should not");
    }
    // None at all: nothing takes its place.
    tailnet.set(&["self.ips=[]"]);
    until("it has left that one too", || alice_there.try_open().is_err());
    gateway.local().bearer(TOKEN).get("/").seen();
    let elsewhere = std::net::SocketAddr::new("127.0.0.5".parse().unwrap(), gateway.port());
    assert!(Client::to(elsewhere).try_open().is_err());
    tailnet.set(&[&format!(r#"self.ips=["{GW}"]"#)]);
    until("it is back", || gateway.peer(ALICE).try_open().is_ok());
    gateway.peer(ALICE).get("/").seen();
}

/// Starts with a fault, then mends it.
#[track_caller]
fn lives_through(breaking: &str, mending: &str, code: &str) {
    let (tailnet, app) = (Tailnet::new().with(&[breaking]), Upstream::echo());
    let mut gateway = Setup::on(&tailnet).upstream(&app).token(TOKEN).start();
    gateway.local().bearer(TOKEN).get("/").seen();
    gateway.wait_for_log(&format!("\"code\":\"{code}\""));
    until("it says so", || gateway.local().get("/readyz").status == 503);
    assert!(gateway.peer(ALICE).try_open().is_err(), "there is no tailnet address to listen at");
    // Mended, then broken again, then mended: the address stays, the answer tells.
    tailnet.set(&[mending]);
    gateway.await_tailnet();
    gateway.peer(ALICE).get("/").seen();
    until("it is ready", || gateway.local().get("/readyz").status == 200);
    tailnet.set(&[breaking]);
    until("the fault is seen", || gateway.peer(ALICE).get("/").status == 503);
    gateway.peer(ALICE).get("/").assert_refused(503, code);
    gateway.peer(NOBODYS).get("/").assert_refused(503, code);
    gateway.peer(BOB).bearer(TOKEN).get("/").seen();
    gateway.local().bearer(TOKEN).get("/").seen();
    tailnet.set(&[mending]);
    until("it has recovered", || gateway.peer(ALICE).get("/").status == 200);
    assert!(gateway.lives());
}

#[test]
fn threat_062_a_daemon_that_is_down_is_waited_for() {
    lives_through("daemon=down", "daemon=up", "whois_unavailable");
}

#[test]
fn threat_062_stopped_is_503_although_whois_still_answers() {
    lives_through("backend=Stopped", "backend=Running", "tailscale_not_running");
}

#[test]
fn threat_062_logged_out_is_waited_for() {
    lives_through("backend=NeedsLogin", "backend=Running", "tailscale_not_running");
}

#[test]
fn threat_062_a_start_that_takes_its_time_is_waited_for() {
    lives_through("backend=Starting", "backend=Running", "tailscale_not_running");
    lives_through("backend=NoState", "backend=Running", "tailscale_not_running");
}

#[test]
fn threat_062_status_that_is_garbage_is_waited_for() {
    lives_through("fault.status=garbage", "fault.status=none", "whois_unavailable");
}

#[test]
fn threat_062_status_that_hangs_is_waited_for() {
    lives_through("fault.status=hang", "fault.status=none", "whois_unavailable");
}

#[test]
fn threat_062_a_daemon_that_hangs_is_waited_for() {
    lives_through("daemon=hung", "daemon=up", "whois_unavailable");
}

#[test]
fn threat_062_a_daemon_that_ends_takes_every_identity_with_it_at_once() {
    let tailnet = Tailnet::new().with(&["requireSocket=true"]);
    let (app, daemon) = (Upstream::echo(), StandIn::of(&tailnet, &[]));
    let config = format!("{{gateway: {{tailscale: {{socket: {}}}}}}}", daemon.socket());
    let mut gateway = Setup::on(&tailnet).upstream(&app).token(TOKEN).config(config).start_on_tailnet();
    gateway.peer(ALICE).get("/").seen();
    drop(daemon);
    until("it is noticed", || gateway.peer(ALICE).get("/").status == 503);
    let asked = tailnet.calls("whois").len();
    gateway.peer(ALICE).get("/").assert_refused(503, "whois_unavailable");
    gateway.peer(CAROL).get("/").assert_refused(503, "whois_unavailable");
    assert_eq!(tailnet.calls("whois").len(), asked, "a daemon that is gone is not asked");
    gateway.local().bearer(TOKEN).get("/").seen();
    let _daemon = StandIn::of(&tailnet, &[]);
    until("it has recovered", || gateway.peer(ALICE).get("/").status == 200);
    assert!(gateway.lives());
}

#[test]
fn threat_062_without_the_program_the_local_side_serves_until_it_is_installed() {
    let (tailnet, app) = (Tailnet::new(), Upstream::echo());
    let hidden = tailnet.dir().join("hidden");
    std::fs::rename(tailnet.bin(), &hidden).unwrap();
    let mut gateway = Setup::on(&tailnet).upstream(&app).token(TOKEN).start();
    gateway.wait_for_log("\"code\":\"whois_unavailable\"");
    gateway.local().bearer(TOKEN).get("/").seen();
    gateway.local().get("/").assert_refused(401, "token_missing");
    until("it says so", || gateway.local().get("/readyz").status == 503);
    std::fs::rename(&hidden, tailnet.bin()).unwrap();
    gateway.await_tailnet();
    gateway.peer(ALICE).get("/").seen();
    assert!(gateway.lives());
}

#[test]
fn threat_096_a_program_that_others_can_replace_is_not_run_by_root() {
    let tailnet = Tailnet::new();
    let open = tailnet.dir().join("open");
    std::fs::create_dir(&open).unwrap();
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o777)).unwrap();
    std::os::unix::fs::symlink(tailnet::fake(), open.join("tailscale")).unwrap();
    std::fs::copy(tailnet.dir().join("scenario.json5"), open.join("scenario.json5")).unwrap();
    let gateway = Setup::new()
        .flag("--bind", "tailnet")
        .flag("--tailscale-bin", open.join("tailscale"))
        .token(TOKEN)
        .start();
    if rustix::process::geteuid().is_root() {
        gateway.wait_for_log("refusing to run");
        assert!(!open.join("calls.ndjson").exists(), "it was run");
    } else {
        gateway.wait_for_log("the tailscale program is in a weak place");
    }
}

#[test]
fn threat_096_children_get_words_no_shell_no_input_and_no_environment_of_ours() {
    let (tailnet, app) = (Tailnet::new(), Upstream::echo());
    let gateway = Setup::on(&tailnet)
        .upstream(&app)
        .token(TOKEN)
        .env("OPENCLAW_SOMETHING", "x")
        .env("LD_PRELOAD", "")
        .env("TS_DEBUG", "1")
        .start_on_tailnet();
    gateway.peer(ALICE).with("Host2", "; id").get("/$(id);id?--json=--help").seen();
    let calls = tailnet.calls("*");
    assert!(calls.iter().any(|call| call["command"] == "whois"));
    for call in &calls {
        let env = call["env"].to_string();
        for name in ["OPENCLAW", "TS_DEBUG", "LD_PRELOAD", "TOKEN"] {
            assert!(!env.contains(name), "{env}");
        }
        assert_eq!(call["stdin"], "null", "{call}");
        assert_ne!(call["cwd"], gateway.state_dir().parent().unwrap().display().to_string(), "{call}");
        assert!(!call["argv"].to_string().contains("id)"), "{call}");
    }
    let whois = calls.iter().find(|call| call["command"] == "whois").unwrap();
    let argv: Vec<_> =
        whois["argv"].as_array().unwrap().iter().skip(1).map(|word| word.as_str().unwrap()).collect();
    assert_eq!(argv.last(), Some(&ALICE), "{argv:?}");
    assert!(argv.contains(&"whois") && argv.iter().any(|word| word.starts_with("--json")), "{argv:?}");
}

#[test]
fn threat_104_tailnet_addresses_come_from_tailscale_and_not_from_a_range() {
    // 127.100.0.0/24 is in no range of Tailscale's, and its peers are known.
    let (tailnet, app, gateway) = on_tailnet();
    gateway.peer(ALICE).get("/").seen();
    // The other way about: an address of this machine that is no tailnet peer.
    let before = tailnet.calls("whois").len();
    gateway.local().get("/").assert_refused(401, "token_missing");
    let elsewhere = gateway.local().from("127.0.0.9".parse().unwrap());
    elsewhere.get("/").assert_refused(401, "token_missing");
    assert_eq!(tailnet.calls("whois").len(), before, "a loopback address was asked about");
    assert_eq!(app.requests().len(), 1);
}

#[test]
fn no_more_than_eight_lookups_run_at_once() {
    let peers: String =
        (1..=40).map(|n| format!("p{n}: {{ips: [\"127.100.1.{n}\"], user: \"alice\"}},")).collect();
    let scenario = format!(
        r#"{{users: {{alice: {{login: "alice@example.com", name: "Alice"}}}},
            self: {{name: "gw", ips: ["{GW}"], user: "alice"}}, peers: {{{peers}}},
            faults: [{{command: "whois", kind: "gate:all"}}]}}"#
    );
    let (tailnet, app) = (Tailnet::playing(&scenario), Upstream::echo());
    let gateway = Setup::on(&tailnet).upstream(&app).token(TOKEN).start_on_tailnet();
    let waiting: Vec<Wire> = (1..=40)
        .map(|n| {
            let client = gateway.peer(&format!("127.100.1.{n}"));
            let mut wire = client.open();
            wire.send(&client.bytes("GET", "/", b""));
            wire
        })
        .collect();
    until("eight run", || tailnet.calls("whois").len() >= 8);
    // Those that wait longer than two seconds are told to come back.
    until("somebody is told to come back", || {
        gateway.requests().iter().any(|line| line["reason"] == "whois_busy" || line["status"] == 200)
    });
    assert_eq!(tailnet.calls("whois").len(), 8);
    tailnet.release("all");
    for mut wire in waiting {
        let answer = wire.answer_to("GET");
        assert!(matches!(answer.status, 200 | 503), "{}", answer.text());
    }
}
