//! What can go wrong between a gateway that publishes itself and Tailscale, and what
//! proves that nothing worse comes of it.
//!
//! Each test says what happened, what the user saw (log, `/readyz`, exit code), that the
//! process lived and served loopback, and that what others published stayed byte for byte.
//! Modules of this directory are named without their path; `serve_edit` and `runner` are
//! the unit tests in `tailscale/src`, which have the exact sentences of the rows.
//!
//! | `serve` and `funnel` end in | proved by |
//! |---|---|
//! | consent, and the command waits; or exits with 0 and no effect | `serve_managed::a_consent_link_is_shown_and_nothing_hangs_on_it` |
//! | consent that is given while nobody waits any more | [`a_consent_that_is_given_later_is_enough`] |
//! | the control server offers no HTTPS | `serve_managed::https_that_nobody_offers_or_certifies_is_explained` |
//! | Funnel is not allowed, by the tailnet or for the port | `funnel::check` (never tried), `serve_edit::sentences_from_the_source_are_told_apart` |
//! | shields up | [`shields_up_is_named_and_opens_nothing`] |
//! | the bus is lost while waiting | [`each_way_to_lose_the_daemon_is_told_and_waited_for`] |
//! | not running: stopped, logged out, not approved, starting | `serve_managed::tailscale_that_comes_up_later_is_enough`, [`each_state_that_is_not_running_publishes_nothing`] |
//! | the caller is neither root nor operator; a locked daemon; an etag conflict for ever | `serve_managed::each_refusal_has_its_code_its_mend_and_an_end` |
//! | a unix target without root | `serve_ingress` (the loopback ingress is taken) |
//! | the same because of somebody else's entry | [`somebody_elses_unix_entry_is_named_as_what_is_in_the_way`] |
//! | an etag conflict, once | `serve_managed::one_lost_race_is_run_again` |
//! | the port is busy: mount, scheme, raw forward | `serve_managed::threat_069_what_is_in_the_way_is_named_left_alone_and_waited_for` |
//! | the port is busy: background over foreground, foreground over background | [`a_port_that_a_session_holds_and_one_that_a_session_needs`] |
//! | the daemon is down | [`each_way_to_lose_the_daemon_is_told_and_waited_for`] |
//!
//! | Fault | proved by |
//! |---|---|
//! | no program, at start or later; not executable | [`without_the_program_nothing_moves_until_it_is_installed`], [`a_program_that_disappears_leaves_everything_as_it_is`] |
//! | killed by a signal | `serve_managed::each_refusal_has_its_code_its_mend_and_an_end` |
//! | a hang, one that ignores SIGTERM, output without an end | [`a_serve_command_without_an_end_is_ended_and_told`] |
//! | slow; a child that holds the output open | [`a_slow_command_and_a_held_pipe_are_no_fault`] |
//! | garbage, truncated, empty, wrong shape | `serve_managed::a_configuration_that_cannot_be_read_is_not_edited` |
//! | NUL, invalid UTF-8, the sentence of the macOS GUI, 50 MB, output without an end, a hang | [`what_is_no_configuration_is_not_edited`] |
//! | a warning on stderr; a command line newer than the daemon | `serve_managed::a_command_line_that_is_newer_than_the_daemon_works` |
//! | a daemon below the gate of unix targets | `funnel::threat_060_where_serve_ends_with_the_gateway_funnel_does_too` |
//! | somebody's Funnel; a changed mount; a mount that is taken away | `serve_managed::{threat_006_…, a_route_that_somebody_changed_…, a_route_that_vanishes_…}` |
//! | somebody's reset | [`somebodys_reset_takes_the_route_for_a_moment`] |
//! | a raw forward to our port | `serve_ingress::threat_002_each_way_…`, `serve::threat_002_each_condition_…` |
//! | a stale name | [`a_renamed_node_takes_its_route_along`] |
//! | an edit of somebody's between our look and the command | [`an_edit_between_our_look_and_the_command_is_seen`] |
//! | the same while the command runs | [`an_edit_while_the_command_runs_is_kept`] |
//! | SIGKILL of ours | `serve_crash`, `serve/apply/tests.rs` |

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::support::*;

/// Twenty seconds are what one edit may take.
const PATIENCE: Duration = Duration::from_secs(90);

/// That it lives and serves this machine.
#[track_caller]
fn serves(gateway: &mut Gateway) {
    assert!(gateway.lives());
    assert_eq!(gateway.local().bearer(TOKEN).get("/here").status, 200, "loopback serves");
}

#[track_caller]
fn await_failing_within(limit: Duration, gateway: &Gateway, code: &str) {
    until_within(limit, code, || failing(gateway).iter().any(|(known, ..)| known == code));
}

/// Runs each in a thread of its own, at once.
fn all_of<T: Send + 'static>(rows: impl IntoIterator<Item = T>, each: impl Fn(T) + Send + Copy + 'static) {
    let threads: Vec<_> = rows.into_iter().map(|row| std::thread::spawn(move || each(row))).collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn a_serve_command_without_an_end_is_ended_and_told() {
    all_of(["hang", "hang-ignoring-term", "endless-stdout", "endless-stderr"], |kind| {
        let world = Published::by("cli");
        world.neighbours();
        let (before, edits) = (world.text(), world.tailnet.calls("serve").len());
        world.tailnet.set(&[&format!("fault.serve={kind}")]);
        let mut gateway = world.setup("serve").start();
        until("the command runs", || world.tailnet.calls("serve").len() > edits);
        serves(&mut gateway);
        await_failing_within(PATIENCE, &gateway, "tailscale_timed_out");
        let line = gateway.wait_for_line(kind, |line| line.contains("tailscale_timed_out"));
        assert!(line.contains("\"warn\"") && line.contains("serve"), "{line}");
        let pid = world.tailnet.calls("serve")[edits]["pid"].as_u64().unwrap();
        until("nothing of it is left", || !Path::new(&format!("/proc/{pid}/cmdline")).exists());
        assert_eq!(world.text(), before, "{kind}");
        serves(&mut gateway);
        world.tailnet.set(&["fault.serve=none"]);
        // By then another try may hang, for as long as it may.
        until_within(PATIENCE, "it is published", || gateway.log().contains("serve enabled: "));
        await_ready(&gateway);
        assert_eq!(world.of_others(), Published::others_in(&before), "{kind}");
    });
}

#[test]
fn a_slow_command_and_a_held_pipe_are_no_fault() {
    all_of(["slow:3s", "holds-pipes", "holds-pipes:escaped"], |kind| {
        let world = Published::by("cli");
        world.neighbours();
        let others = world.of_others();
        world.tailnet.set(&[&format!("fault.serve={kind}")]);
        let mut gateway = world.start();
        await_ready(&gateway);
        assert!(!gateway.log().contains("serve_not_verified"), "{kind}: {}", gateway.log());
        assert_eq!(world.of_others(), others, "{kind}");
        serves(&mut gateway);
    });
}

#[test]
fn what_is_no_configuration_is_not_edited() {
    let kinds = [
        "nul",
        "invalid-utf8",
        "gui-sentence",
        "huge-stdout",
        "endless-stderr",
        "hang",
        "killed-by-signal:SEGV",
    ];
    all_of(kinds, |kind| {
        let world = Published::by("cli");
        world.neighbours();
        let (others, edits) = (world.of_others(), world.tailnet.calls("serve").len());
        world.tailnet.set(&[&format!("fault.serve-status={kind}")]);
        let mut gateway = world.setup("serve").start();
        gateway.wait_for_log("the Serve configuration could not be read");
        until("it is not ready", || gateway.local().get("/readyz").status == 503);
        serves(&mut gateway);
        assert_eq!(world.tailnet.calls("serve").len(), edits, "{kind}: something was edited");
        world.tailnet.set(&["fault.serve-status=none"]);
        until_within(PATIENCE, kind, || gateway.log().contains("serve enabled: "));
        await_ready(&gateway);
        assert_eq!(world.of_others(), others, "{kind}");
    });
}

/// The program under another name in its directory, where the gateway does not look.
fn hidden(world: &Published) -> PathBuf {
    world.tailnet.dir().join("hidden")
}

#[test]
fn without_the_program_nothing_moves_until_it_is_installed() {
    all_of(["missing", "not executable"], |how| {
        let world = Published::by("cli");
        world.neighbours();
        let (before, hidden, place) = (world.text(), hidden(&world), world.tailnet.bin());
        std::fs::rename(&place, &hidden).unwrap();
        if how == "not executable" {
            std::fs::write(&place, "no program").unwrap();
            std::fs::set_permissions(&place, PermissionsExt::from_mode(0o644)).unwrap();
        }
        let more = format!("bin: '{}', serve: {{scheme: 'http'}}", place.display());
        let world = world.with(&more);
        let mut gateway = world.setup("serve").start();
        let (_, fix) = await_failing(&gateway, "whois_unavailable");
        assert!(fix.contains("install Tailscale"), "{how}: {fix}");
        await_failing(&gateway, "serve_pending");
        gateway
            .wait_for_line(how, |line| line.contains("whois_unavailable") && line.contains("Loopback keeps"));
        // The command says it, too, and edits nothing either.
        let applied = gateway.openclaw(&["tailscale", "serve", "apply", "--json"]);
        let said: Value = serde_json::from_str(&applied.stdout).unwrap();
        assert_eq!((applied.code, &said["ok"]), (Some(1), &Value::Bool(false)), "{how}: {applied:?}");
        assert_eq!(said["error"]["code"], "tailscale_not_installed", "{how}: {said}");
        assert_eq!(world.text_by(&hidden), before, "{how}");
        serves(&mut gateway);
        std::fs::rename(&hidden, &place).unwrap();
        gateway.wait_for_log("serve enabled: ");
        await_ready(&gateway);
        assert_eq!(world.of_others(), Published::others_in(&before), "{how}");
    });
}

#[test]
fn a_program_that_disappears_leaves_everything_as_it_is() {
    let world = Published::by("cli").with("resetOnExit: true, serve: {scheme: 'http'}");
    world.neighbours();
    let before = world.text();
    let mut gateway = world.start();
    await_ready(&gateway);
    let (published, hidden) = (world.text(), hidden(&world));
    std::fs::rename(world.tailnet.bin(), &hidden).unwrap();
    // What leads to our port is not known from now on, so `/readyz` keeps the details.
    gateway
        .wait_for_line("it is told", |line| line.contains("whois_unavailable") && line.contains("\"error\""));
    until("it is not ready", || gateway.local().get("/readyz").status == 503);
    serves(&mut gateway);
    assert_eq!(world.text_by(&hidden), published);
    // It comes back: the route is still ours, and is not published a second time.
    std::fs::rename(&hidden, world.tailnet.bin()).unwrap();
    let edits = world.tailnet.calls("serve").len();
    await_ready(&gateway);
    assert_eq!((world.text(), world.tailnet.calls("serve").len()), (published.clone(), edits));
    // A stop that cannot take it away says so and ends; the next start does.
    std::fs::rename(world.tailnet.bin(), &hidden).unwrap();
    until("it is not ready", || gateway.local().get("/readyz").status == 503);
    assert!(gateway.stop().success());
    assert!(gateway.log().contains("the next start looks again"), "{}", gateway.log());
    assert_eq!(world.text_by(&hidden), published);
    std::fs::rename(&hidden, world.tailnet.bin()).unwrap();
    let _next = world.setup("off").home_of(&gateway).start();
    until("ours is gone", || world.text() == before);
}

#[test]
fn each_way_to_lose_the_daemon_is_told_and_waited_for() {
    let rows = [
        ("daemon=down", "daemon=up", "whois_unavailable"),
        ("daemon=refused", "daemon=up", "whois_unavailable"),
        (
            "fault.serve=exit:1:2026/11/23 11:42:44 lost connection to tailscaled: EOF",
            "fault.serve=none",
            "tailscale_failed",
        ),
        // Between the look and the edit.
        ("fault.serve=down", "fault.serve=none", "tailscale_daemon_down"),
    ];
    all_of(rows, |(breaking, mending, code)| {
        let world = Published::by("cli");
        world.neighbours();
        let before = world.text();
        world.tailnet.set(&[breaking, "downPause=50ms"]);
        let mut gateway = world.setup("serve").start();
        gateway.wait_for_line(code, |line| line.contains(code));
        until("it is not ready", || gateway.local().get("/readyz").status == 503);
        serves(&mut gateway);
        world.tailnet.set(&[mending]);
        gateway.wait_for_log("serve enabled: ");
        await_ready(&gateway);
        assert_eq!(world.of_others(), Published::others_in(&before), "{breaking}");
    });
}

#[test]
fn each_state_that_is_not_running_publishes_nothing() {
    all_of(["Stopped", "NeedsMachineAuth", "NoState", "InUseOtherUser"], |state| {
        let world = Published::by("localapi");
        world.neighbours();
        let before = world.text();
        world.tailnet.set(&[&format!("backend={state}")]);
        let mut gateway = world.setup("serve").start();
        await_failing(&gateway, "tailscale_not_running");
        await_failing(&gateway, "serve_pending");
        gateway.wait_for_log("tailscale_not_running");
        serves(&mut gateway);
        world.tailnet.set(&["backend=Running"]);
        gateway.wait_for_log("serve enabled: ");
        await_ready(&gateway);
        assert_eq!(world.of_others(), Published::others_in(&before), "{state}");
    });
}

#[test]
fn a_consent_that_is_given_later_is_enough() {
    let world = Published::by("cli").with("serve: {scheme: 'https'}");
    world.neighbours();
    let others = world.of_others();
    world.tailnet.set(&["self.nodeCaps={}", "features.https=approved-after:clicked"]);
    let mut gateway = world.setup("serve").start();
    let (_, fix) = await_failing(&gateway, "serve_consent_needed");
    assert!(fix.contains("https://login.tailscale.com/f/serve?node="), "{fix}");
    assert_eq!(world.of_others(), others);
    serves(&mut gateway);
    world.tailnet.release("clicked");
    gateway.wait_for_log(&format!("serve enabled: https://{HOST}/"));
    await_ready(&gateway);
}

#[test]
fn shields_up_is_named_and_opens_nothing() {
    let mut public = Public::start();
    public.tailnet.set(&["features.shieldsUp=true"]);
    let before = public.serve();
    let said = public.refused(&["--for", "2h", "--yes", "--path", "/hooks"]);
    assert!(said.contains("shields up") && said.contains("--shields-up=false"), "{said}");
    assert_eq!(public.serve(), before);
    assert!(public.gateway.lives());
}

#[test]
fn a_port_that_a_session_holds_and_one_that_a_session_needs() {
    for client in BOTH {
        // Background over foreground.
        let world = Published::by(client);
        world.neighbours_elsewhere();
        let theirs = TheirSession::start(&world, &["serve", "--http=80", "http://127.0.0.1:9000"]);
        until("their session serves", || world.text().contains("Foreground"));
        let before = world.text();
        let mut gateway = world.setup("serve").start();
        let (detail, _) = await_failing(&gateway, "serve_conflict");
        assert!(detail.contains("session") && detail.contains("127.0.0.1:9000"), "{detail}");
        assert_eq!(world.text(), before, "{client}");
        serves(&mut gateway);
        theirs.interrupt();
        gateway.wait_for_log("serve enabled: ");
        await_ready(&gateway);
    }
    if !may_switch_user("a_port_that_a_session_needs") {
        return;
    }
    for client in BOTH {
        // Foreground over background: a session wants the port for itself.
        let world = Published::on_loopback(client);
        world.as_root(Published::neighbours);
        let before = world.text();
        let mut gateway = world.setup("serve").start();
        let (detail, _) = await_failing(&gateway, "serve_conflict");
        assert!(detail.contains("/theirs"), "{detail}");
        assert_eq!(world.text(), before, "{client}");
        serves(&mut gateway);
        world.as_root(|world| world.they(&["serve", "--http=80", "--set-path=/theirs", "off"]));
        gateway.wait_for_log("serve enabled: ");
    }
}

#[test]
fn somebody_elses_unix_entry_is_named_as_what_is_in_the_way() {
    if !may_switch_user("somebody_elses_unix_entry") {
        return;
    }
    for client in BOTH {
        let world = Published::on_loopback(client);
        world.as_root(|world| {
            world.neighbours_elsewhere();
            world.they(&["serve", "--bg", "--https=10000", "unix:/run/theirs.sock"]);
        });
        let before = world.text();
        let mut gateway = world.setup("serve").start();
        await_failing(&gateway, "serve_needs_root");
        gateway.wait_for_line(client, |line| line.contains("serve_needs_root") && line.contains("\"warn\""));
        assert_eq!(world.text(), before, "{client}");
        serves(&mut gateway);
        world.as_root(|world| world.they(&["serve", "--https=10000", "off"]));
        gateway.wait_for_log("serve enabled: ");
    }
}

#[test]
fn somebodys_reset_takes_the_route_for_a_moment() {
    for client in BOTH {
        let world = Published::by(client);
        world.neighbours();
        let mut gateway = world.start();
        await_ready(&gateway);
        world.they(&["serve", "reset"]);
        until("it is published again", || world.target().is_some());
        await_ready(&gateway);
        // What was theirs is gone by their own hand, and nobody else's to bring back.
        assert_eq!(Published::others_in(&world.text()), Published::others_in(&ours_alone(&world)));
        serves(&mut gateway);
    }
}

/// What a configuration with nothing but our route would be.
fn ours_alone(world: &Published) -> String {
    let target = world.target().unwrap();
    format!(
        r#"{{"TCP":{{"80":{{"HTTP":true}}}},"Web":{{"{HOST}:80":{{"Handlers":{{"/":{{"Proxy":"{target}"}}}}}}}}}}"#
    )
}

#[test]
fn a_renamed_node_takes_its_route_along() {
    let world = Published::by("localapi");
    world.neighbours_elsewhere();
    let before = world.text();
    let mut gateway = world.start();
    world.tailnet.set(&["self.name=renamed"]);
    gateway.wait_for_log("serve enabled: http://renamed.tailnet-example.test/");
    until("the old name is left", || world.target().is_none());
    await_ready(&gateway);
    serves(&mut gateway);
    gateway.stop();
    let _next = world.setup("off").home_of(&gateway).start();
    until("all of it is gone", || world.text() == before);
}

#[test]
fn an_edit_between_our_look_and_the_command_is_seen() {
    let world = Published::by("cli");
    let theirs = ["serve", "--bg", "--http=80", "http://127.0.0.1:9000"];
    world.they(&theirs);
    let before = world.text();
    let mut gateway = world.setup("serve").start();
    await_failing(&gateway, "serve_conflict");
    // Each look at what is published is followed by a question that takes its time.
    world.tailnet.set(&[r#"latency={"status": "1500ms"}"#]);
    let calls = |command: &str| world.tailnet.calls(command).len();
    // The watcher reads the preferences along with each look; the rest is the keeper's.
    let looks = || calls("serve-status").saturating_sub(calls("debug-prefs"));
    let edits = calls("serve");
    let looked = looks();
    world.they(&["serve", "--http=80", "--set-path=/", "off"]);
    until("the keeper has looked", || looks() > looked);
    let look = world.tailnet.calls("serve-status").last().unwrap()["id"].as_str().unwrap().to_owned();
    until("and has its answer", || world.tailnet.has_ended(&look));
    world.they(&theirs);
    let looked = looks();
    until("it has looked and looked again", || looks() > looked + 2);
    assert_eq!(calls("serve"), edits + 2, "it was edited on an old look");
    assert_eq!(world.text(), before);
    assert!(gateway.lives());
}

#[test]
fn an_edit_while_the_command_runs_is_kept() {
    let world = Published::by("cli");
    world.neighbours();
    world.tailnet.set(&["fault.serve=gate:edit"]);
    let edits = world.tailnet.calls("serve").len();
    let gateway = world.setup("serve").start();
    until("the command runs", || world.tailnet.calls("serve").len() > edits);
    // Theirs is not held, and comes first.
    world.tailnet.set(&["fault.serve=none"]);
    world.they(&["serve", "--bg", "--http=80", "--set-path=/late", "http://127.0.0.1:9002"]);
    let others = world.of_others();
    world.tailnet.release("edit");
    gateway.wait_for_log("serve enabled: ");
    await_ready(&gateway);
    assert_eq!(world.of_others(), others);
    assert!(!gateway.log().contains("serve_others_changed"), "{}", gateway.log());
}
