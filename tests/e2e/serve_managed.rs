//! Mode serve: the gateway publishes itself, and nothing of anybody else's moves.

use super::support::*;

#[test]
fn threat_069_others_routes_are_byte_for_byte_the_same_through_start_kill_stop_and_undo() {
    for client in BOTH {
        let world = Published::by(client);
        world.neighbours();
        let before = world.text();
        let mut gateway = world.start();
        let socket = world.target().unwrap();
        assert!(socket.starts_with("unix:") && socket.ends_with("serve.sock"), "{socket}");
        let others = world.of_others();
        gateway.signal(rustix::process::Signal::KILL);
        gateway.wait();
        assert_eq!(world.of_others(), others, "{client}: after a kill");
        gateway.start_again();
        gateway.wait_for_log("serve enabled: ");
        assert_eq!((world.target(), world.of_others()), (Some(socket.clone()), others.clone()), "{client}");
        // A stop leaves it: the socket is nobody else's to bind.
        gateway.stop();
        assert_eq!((world.target(), world.of_others()), (Some(socket), others), "{client}: after a stop");
        // The next one, without Serve, takes away what is ours.
        let gateway = world.setup("off").home_of(&gateway).start();
        until("ours is gone", || world.target().is_none());
        assert_eq!(world.text(), before, "{client}: after mode off");
        assert!(!world.tailnet.calls("serve-reset").iter().any(|_| true));
        drop(gateway);
    }
}

#[test]
fn reset_on_exit_takes_away_exactly_ours() {
    for client in BOTH {
        let world = Published::by(client).with("resetOnExit: true, serve: {scheme: 'http'}");
        world.neighbours();
        let before = world.text();
        let mut gateway = world.start();
        assert_ne!(world.text(), before);
        assert!(gateway.stop().success());
        assert_eq!(world.text(), before, "{client}");
    }
}

#[test]
fn a_start_is_all_it_takes_and_each_request_is_its_own_person() {
    for client in BOTH {
        let world = Published::by(client);
        let gateway = world.start();
        await_ready(&gateway);
        gateway.wait_for_log(&format!("serve enabled: http://{HOST}/"));
        world.person("bobpc").get("/no").assert_refused(403, "not_allowed");
        world.person("ci").get("/no").assert_refused(403, "tagged_node_not_listed");
        let forged = world.person("bobpc").with("Tailscale-User-Login", "alice@example.com");
        forged.get("/no").assert_refused(403, "not_allowed");
        assert!(!world.app.requests().iter().any(|request| request.starts_with(b"GET /no")));
        assert_eq!(world.person("phone").get("/").seen().login().as_deref(), Some("alice@example.com"));
        assert_eq!(gateway.request_line("/")["via"], "serve");
    }
}

#[test]
fn threat_069_what_is_in_the_way_is_named_left_alone_and_waited_for() {
    let taken: [(&[&str], &str, &[&str]); 3] = [
        (
            &["serve", "--bg", "--http=80", "http://127.0.0.1:9000"],
            "leads to http://127.0.0.1:9000",
            &["serve", "--http=80", "--set-path=/", "off"],
        ),
        (
            &["serve", "--bg", "--tcp=80", "tcp://127.0.0.1:22"],
            "TCP forward to 127.0.0.1:22",
            &["serve", "--tcp=80", "off"],
        ),
        (
            &["serve", "--bg", "--https=80", "http://127.0.0.1:9000"],
            "speaks https",
            &["serve", "--https=80", "off"],
        ),
    ];
    for client in BOTH {
        for (theirs, named, off) in taken {
            let world = Published::by(client);
            world.they(theirs);
            let before = world.text();
            let mut gateway = world.setup("serve").start();
            let (detail, fix) = await_failing(&gateway, "serve_conflict");
            assert!(detail.contains(named), "{detail}");
            assert!(fix.contains("gateway.tailscale.serve.port"), "{fix}");
            gateway.wait_for_log(named);
            assert_eq!(world.text(), before, "{client} {theirs:?}");
            assert!(gateway.lives());
            world.they(off);
            gateway.wait_for_log("serve enabled: ");
            await_ready(&gateway);
        }
    }
}

#[test]
fn each_refusal_has_its_code_its_mend_and_an_end() {
    // What is played, the code on /readyz, a part of the fix, and how it is over.
    let rows: [(&str, &str, &str, &str, &str); 9] = [
        ("cli", "permissions=denied", "serve_denied", "--operator", "permissions=root"),
        ("localapi", "permissions=denied", "serve_denied", "--operator", "permissions=root"),
        (
            "cli",
            "features.configLocked=true",
            "serve_locked",
            "configuration file",
            "features.configLocked=false",
        ),
        (
            "localapi",
            "features.configLocked=true",
            "serve_locked",
            "configuration file",
            "features.configLocked=false",
        ),
        ("cli", "fault.serve=etag-conflict", "serve_raced", "", "fault.serve=none"),
        ("localapi", "fault.serve=etag-conflict", "serve_raced", "", "fault.serve=none"),
        ("cli", "fault.serve=exit:0:", "serve_not_verified", "", "fault.serve=none"),
        ("cli", "fault.serve=killed-by-signal:SEGV", "tailscale_killed", "", "fault.serve=none"),
        ("cli", "fault.serve=exit:1:something new", "tailscale_failed", "", "fault.serve=none"),
    ];
    let done: Vec<_> = rows
        .map(|(client, fault, code, mend, over)| {
            std::thread::spawn(move || {
                let world = Published::by(client);
                world.neighbours();
                let before = world.text();
                world.tailnet.set(&[fault]);
                let mut gateway = world.setup("serve").start();
                let (_, fix) = await_failing(&gateway, code);
                assert!(fix.contains(mend), "{client} {fault}: {fix}");
                gateway.wait_for_line(code, |line| line.contains(code) && line.contains("\"warn\""));
                assert_eq!(world.text(), before, "{client} {fault}");
                assert_eq!(gateway.local().bearer(TOKEN).get("/here").status, 200, "loopback serves");
                assert!(gateway.lives());
                world.tailnet.set(&[over]);
                gateway.wait_for_log("serve enabled: ");
                await_ready(&gateway);
            })
        })
        .into_iter()
        .collect();
    done.into_iter().for_each(|row| row.join().unwrap());
}

#[test]
fn a_configuration_that_cannot_be_read_is_not_edited() {
    for kind in ["garbage", "truncated", "empty", "wrong-shape:array"] {
        let world = Published::by("cli");
        world.neighbours();
        let (others, edits) = (world.of_others(), world.tailnet.calls("serve").len());
        world.tailnet.set(&[&format!("fault.serve-status={kind}")]);
        let mut gateway = world.setup("serve").start();
        gateway.wait_for_log("the Serve configuration could not be read");
        // What leads to our port is not known, so nobody is told details without a secret.
        assert_eq!(gateway.local().get("/readyz").status, 503);
        assert_eq!(gateway.local().bearer(TOKEN).get("/here").status, 200, "loopback serves");
        assert!(gateway.lives());
        assert_eq!(world.tailnet.calls("serve").len(), edits, "{kind}: something was edited");
        world.tailnet.set(&["fault.serve-status=none"]);
        gateway.wait_for_log("serve enabled: ");
        await_ready(&gateway);
        assert_eq!(world.of_others(), others, "{kind}");
    }
}

#[test]
fn a_command_line_that_is_newer_than_the_daemon_works() {
    let versions = r#"version={client: "1.104.0-t0123456789ab-gabcdef012345", daemon: "1.102.3-t0123456789ab-gabcdef012345"}"#;
    let world = Published::on(Tailnet::new().with(&[versions]), "cli");
    world.neighbours();
    let others = world.of_others();
    let gateway = world.start();
    await_ready(&gateway);
    assert_eq!(world.person("phone").get("/").seen().login().as_deref(), Some("alice@example.com"));
    assert_eq!(world.of_others(), others);
}

#[test]
fn one_lost_race_is_run_again() {
    for client in BOTH {
        let world = Published::by(client);
        world.tailnet.set(&["fault.serve=etag-conflict-once"]);
        let gateway = world.start();
        await_ready(&gateway);
        assert!(!gateway.log().contains("serve_raced"), "{}", gateway.log());
    }
}

#[test]
fn a_consent_link_is_shown_and_nothing_hangs_on_it() {
    for feature in ["consent-blocks", "consent-exits-0"] {
        let world = Published::by("cli").with("serve: {scheme: 'https'}");
        world.tailnet.set(&["self.nodeCaps={}", &format!("features.https={feature}")]);
        let before = world.text();
        let mut gateway = world.setup("serve").start();
        let (_, fix) = await_failing(&gateway, "serve_consent_needed");
        assert!(fix.contains("https://login.tailscale.com/f/serve?node="), "{fix}");
        assert!(fix.contains("Funnel"), "the page's Funnel box is spoken of: {fix}");
        gateway.wait_for_log("https://login.tailscale.com/f/serve?node=");
        assert_eq!(world.text(), before);
        assert!(gateway.lives());
        // Somebody clicks.
        world.tailnet.set(&["self.nodeCaps={https: null}", "features.https=enabled"]);
        gateway.wait_for_log(&format!("serve enabled: https://{HOST}/"));
        await_ready(&gateway);
    }
}

#[test]
fn https_that_nobody_offers_or_certifies_is_explained() {
    let world = Published::by("cli").with("serve: {scheme: 'https'}");
    world.tailnet.set(&["self.nodeCaps={}", "features.https=unsupported-501"]);
    let gateway = world.setup("serve").start();
    let (_, fix) = await_failing(&gateway, "serve_not_offered");
    assert!(fix.contains("gateway.tailscale.serve.scheme http"), "{fix}");
    let world = Published::by("localapi").with("serve: {scheme: 'https'}");
    world.tailnet.set(&["tailnet.certDomains=[]"]);
    let gateway = world.setup("serve").start();
    await_failing(&gateway, "serve_https_off");
    assert_eq!(world.tailnet.calls("serve").len(), 0, "nothing is run that could not work");
}

#[test]
fn tailscale_that_comes_up_later_is_enough() {
    for client in BOTH {
        let world = Published::by(client);
        world.tailnet.set(&["backend=NeedsLogin"]);
        let gateway = world.setup("serve").start();
        await_failing(&gateway, "tailscale_not_running");
        await_failing(&gateway, "serve_pending");
        assert_eq!(world.tailnet.calls("serve").len(), 0, "{client}");
        world.tailnet.set(&["backend=Running"]);
        gateway.wait_for_log("serve enabled: ");
        await_ready(&gateway);
    }
}

#[test]
fn a_route_that_vanishes_comes_back_and_more_rarely_each_time() {
    let world = Published::by("localapi");
    let gateway = world.start();
    let mut taken = 0;
    until("it is published more rarely", || {
        if world.target().is_some() && failing(&gateway).is_empty() {
            taken += 1;
            world.they(&["serve", "--http=80", "--set-path=/", "off"]);
        }
        failing(&gateway).iter().any(|(code, ..)| code == "serve_taken_away")
    });
    assert!(taken >= 3, "it was given up after {taken}");
    gateway.wait_for_log("taken away again and again");
    until("it comes back all the same", || world.target().is_some());
}

#[test]
fn a_route_that_somebody_changed_is_theirs_from_then_on() {
    for client in BOTH {
        let world = Published::by(client);
        let mut gateway = world.start();
        world.they(&["serve", "--bg", "--http=80", "http://127.0.0.1:9000"]);
        let theirs = world.text();
        let (detail, _) = await_failing(&gateway, "serve_conflict");
        assert!(detail.contains("127.0.0.1:9000"), "{detail}");
        gateway.stop();
        assert_eq!(world.text(), theirs, "{client}");
        let gateway = world.setup("off").home_of(&gateway).start();
        until("the journal is clear", || {
            gateway.log().contains("\"ready\"") && world.tailnet.calls("serve-status").len() > 3
        });
        assert_eq!(world.text(), theirs, "{client}: undone is only what is ours");
    }
}

#[test]
fn threat_006_a_funnel_that_somebody_opens_is_told_and_lets_nobody_in() {
    let world = Published::by("localapi").with("serve: {scheme: 'https'}");
    let mut gateway = world.start();
    world.they(&["funnel", "--bg", "--https=443", "--set-path=/theirs", "http://127.0.0.1:9000"]);
    let theirs = world.text();
    let (detail, _) = await_failing(&gateway, "serve_made_public");
    assert!(detail.contains(&format!("{HOST}:443")), "{detail}");
    gateway.wait_for_log("serve_made_public");
    assert_eq!(world.text(), theirs, "their Funnel stays as it is");
    gateway.stop();
    assert_eq!(world.text(), theirs);
}

#[test]
fn a_changed_configuration_moves_the_route_and_mode_off_takes_it_away() {
    for client in BOTH {
        let world = Published::by(client);
        world.neighbours();
        let before = world.text();
        let gateway = world.start();
        let moved = world.config("serve").replace("scheme: 'http'", "scheme: 'http', port: 8080, path: '/x'");
        gateway.write_config(&moved);
        gateway.wait_for_log(&format!("serve enabled: http://{HOST}:8080/x/"));
        until("the old place is left", || world.target().is_none());
        gateway.write_config(&world.config("off"));
        until("all of it is gone", || world.text() == before);
        await_ready(&gateway);
    }
}

#[test]
fn a_path_is_stripped_by_serve_and_not_put_back() {
    let world = Published::by("cli").with("serve: {scheme: 'http', path: '/x'}");
    let _gateway = world.start();
    let seen = world.person("phone").get("/x/y").seen();
    assert_eq!(seen.target(), "/y");
    assert_eq!(world.person("phone").get("/y").status, 404, "Serve has no such mount");
}

#[test]
fn what_cannot_be_written_down_is_not_published() {
    let world = Published::by("cli");
    // A directory in the database's place: nobody can write there, root included.
    let setup = world.setup("serve").home_with(|home| {
        std::fs::create_dir_all(home.join(".openclaw/state/tailnet-gateway.db/in-the-way")).unwrap();
    });
    let mut gateway = setup.start();
    let (_, fix) = await_failing(&gateway, "serve_journal_not_writable");
    assert!(!fix.is_empty());
    assert_eq!(world.target(), None);
    assert!(gateway.lives());
}

#[test]
fn a_second_gateway_of_the_same_state_directory_edits_nothing() {
    let world = Published::by("localapi");
    let mut gateway = world.start();
    let target = world.target().unwrap();
    // One without Serve must not take the first one's route for a leftover of its own.
    for mode in ["off", "serve"] {
        let dir = tempfile::tempdir_in(gateway.state_dir()).unwrap();
        let config = dir.path().join("other.json");
        std::fs::write(&config, world.config(mode)).unwrap();
        std::fs::set_permissions(&config, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let second = Setup::on(&world.tailnet)
            .upstream(&world.app)
            .token(TOKEN)
            .env("OPENCLAW_CONFIG_PATH", &config)
            .env("RUNTIME_DIRECTORY", dir.path().join("run"))
            .home_of(&gateway)
            .start_on_tailnet();
        for _ in 0..50 {
            assert_eq!(second.peer(ALICE).get("/").status, 200, "it knows the tailnet by now");
        }
        second.wait_for_log("another gateway uses this state directory");
        if mode == "serve" {
            until("that is said", || {
                let ready = second.local().get("/readyz").json();
                ready["failing"]
                    .as_array()
                    .is_some_and(|faults| faults.iter().any(|fault| fault["code"] == "serve_other_gateway"))
            });
        }
        assert_eq!(world.target().as_ref(), Some(&target), "{mode}");
        drop(second);
        assert_eq!(world.target().as_ref(), Some(&target), "{mode}: after its end");
    }
    assert!(gateway.stop().success());
}

#[test]
fn a_mode_that_was_off_is_switched_on_by_a_reload() {
    for client in BOTH {
        let world = Published::by(client);
        world.neighbours();
        let before = world.text();
        let mut gateway = world.setup("off").start();
        await_ready(&gateway);
        for _ in 0..2 {
            gateway.write_config(&world.config("serve"));
            until("it is published", || world.target().is_some());
            await_ready(&gateway);
            // The first request may come before the watcher has seen the route.
            until("a person comes in", || {
                world.person("phone").try_get("/").is_some_and(|answer| answer.status == 200)
            });
            world.person("bobpc").get("/no").assert_refused(403, "not_allowed");
            let forged = world.person("bobpc").with("Tailscale-User-Login", "alice@example.com");
            forged.get("/no").assert_refused(403, "not_allowed");
            gateway.write_config(&world.config("off"));
            until("it is taken away", || world.text() == before);
            await_ready(&gateway);
        }
        assert!(!gateway.log().contains("after a restart"), "{}", gateway.log());
        assert!(gateway.lives());
    }
}

#[test]
fn threat_002_a_loopback_ingress_that_a_reload_opens_is_watched_from_the_start() {
    if !may_switch_user("threat_002") {
        return;
    }
    let world = Published::on_loopback("localapi");
    let gateway = world.setup("off").start();
    await_ready(&gateway);
    gateway.write_config(&world.config("serve"));
    gateway.wait_for_log("serve enabled: ");
    let to = world.target().unwrap().strip_prefix("http://").unwrap().to_owned();
    until("Serve is attested", || {
        world.person("phone").try_get("/").is_some_and(|answer| answer.status == 200)
    });
    world.as_root(|world| world.they(&["serve", "--bg", "--tcp=2222", &format!("tcp://{to}")]));
    until("the forward is noticed", || world.person("phone").get("/poll").status == 401);
    let raw = Client::to(world.daemon.listener(2222, "bobpc")).host(HOST);
    let forged = raw.with("X-Forwarded-For", ALICE).with("X-Forwarded-Host", HOST);
    let forged = forged.with("Tailscale-User-Login", "alice@example.com").get("/no");
    forged.assert_refused(401, "serve_peer_unattested");
}

#[test]
fn a_reload_that_cannot_have_its_ingress_changes_nothing() {
    use std::os::unix::fs::PermissionsExt;
    let world = Published::by("localapi");
    let dir = tailnet::private_dir();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o777)).unwrap();
    let mut gateway = world.setup("off").env("RUNTIME_DIRECTORY", dir.path()).start();
    await_ready(&gateway);
    let more = ", allowedHosts: ['else.example']}}";
    gateway.write_config(&world.config("serve").replace("}}}}", &format!("}}}}{more}")));
    let line = gateway.wait_for_log("the changed configuration is refused");
    assert!(line.contains(dir.path().canonicalize().unwrap().to_str().unwrap()), "{line}");
    await_ready(&gateway);
    assert_eq!(world.target(), None);
    assert!(gateway.lives());
    // Mended, it takes effect with the next change of the file.
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o700)).unwrap();
    gateway.write_config(&world.config("serve"));
    gateway.wait_for_log("serve enabled: ");
    await_ready(&gateway);
}
