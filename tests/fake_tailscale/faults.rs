//! Faults do what their names say.

use std::io::{BufReader, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::Child;

use rustix::process::{Pid, Signal, kill_process, kill_process_group, test_kill_process_group};

use crate::fake::{Fake, Ran};

const WHOIS: [&str; 3] = ["whois", "--json", "100.64.0.3"];

fn faulty(kind: &str) -> (Fake, Ran) {
    let fake = Fake::with("lab");
    fake.set(&[&format!("fault.whois={kind}")]);
    let ran = fake.run(&WHOIS);
    (fake, ran)
}

#[test]
fn spoiled_answers_still_exit_0() {
    let right = Fake::with("lab").run(&WHOIS).stdout;
    for (kind, check) in [
        ("garbage", (|out, _| serde_json::from_slice::<serde_json::Value>(out).is_err()) as Check),
        ("truncated", |out, right| out.len() * 2 <= right.len() && !out.is_empty()),
        ("empty", |out, _| out.is_empty()),
        ("nul", |out, right| out.contains(&0) && out.len() == right.len() + 1),
        ("invalid-utf8", |out, _| std::str::from_utf8(out).is_err()),
        ("wrong-shape:null", |out, _| out == b"null\n"),
        ("wrong-shape:array", |out, _| out == b"[]\n"),
        ("gui-sentence", |out, _| out.starts_with(b"The Tailscale GUI failed to start: ")),
    ] {
        let (_fake, ran) = faulty(kind);
        assert_eq!(ran.code, Some(0), "{kind}");
        assert!(check(&ran.stdout, &right), "{kind}: {}", ran.out());
    }
}

type Check = fn(&[u8], &[u8]) -> bool;

#[test]
fn an_answer_without_profile_is_whole_otherwise() {
    let (_fake, ran) = faulty("wrong-shape:no-user-profile");
    let json = ran.json();
    assert!(json["Node"].is_object() && json.get("UserProfile").is_none());
    assert!(json.get("CapMap").is_some());
}

#[test]
fn exit_and_signal_are_reported_as_such() {
    let (_fake, ran) = faulty("exit:3:something broke");
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(3), "something broke\n"));
    let fake = Fake::with("crash");
    let output = fake.command(&["whois", "127.100.0.3"]).output().unwrap();
    assert_eq!(output.status.signal(), Some(11));
}

#[test]
fn a_daemon_that_is_down_for_one_command_only() {
    let fake = Fake::with("lab");
    fake.set(&["downPause=0s", "fault.whois=down*1"]);
    let ran = fake.run(&WHOIS);
    assert!(ran.stderr.contains("not running? Error: dial unix"), "{}", ran.stderr);
    assert_eq!(fake.run(&WHOIS).code, Some(0), "only once");
}

#[test]
fn a_gate_holds_one_address_while_others_pass() {
    let fake = Fake::with("lab");
    fake.set(&["fault.whois@100.64.0.2=gate:alice"]);
    let held = fake.command(&["whois", "100.64.0.2"]).spawn().unwrap();
    fake.until("it has started", || !fake.calls().is_empty());
    assert_eq!(fake.run(&WHOIS).code, Some(0));
    // What has changed meanwhile is what the held call answers.
    fake.set(&["peer.phone.user=bob"]);
    fake.tool("release", &["alice"]);
    let ran: Ran = held.wait_with_output().unwrap().into();
    assert!(ran.out().contains("bob@example.com"), "{}", ran.out());
}

fn spawn_in_group(fake: &Fake, args: &[&str]) -> Child {
    fake.command(args).process_group(0).spawn().unwrap()
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap()
}

#[test]
fn a_hang_that_ignores_term_needs_kill() {
    let fake = Fake::with("lab");
    fake.set(&["fault.whois=hang-ignoring-term"]);
    let mut child = spawn_in_group(&fake, &WHOIS);
    fake.until("it ignores the signal", || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        let caught = status.lines().find_map(|l| l.strip_prefix("SigCgt:\t")).unwrap();
        u64::from_str_radix(caught, 16).unwrap() & (1 << 14) != 0
    });
    kill_process(pid(&child), Signal::TERM).unwrap();
    assert_eq!(child.try_wait().unwrap(), None);
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
}

#[test]
fn a_plain_hang_ends_with_term() {
    let fake = Fake::with("lab");
    fake.set(&["fault.whois=hang"]);
    let mut child = spawn_in_group(&fake, &WHOIS);
    fake.until("it has started", || !fake.calls().is_empty());
    kill_process(pid(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(15));
    let ended = fake.calls().iter().filter(|c| c["event"] == "ended").count();
    assert_eq!(ended, 0, "a call that hangs has no end");
}

#[test]
fn a_child_holds_the_pipes_until_the_group_is_killed() {
    let fake = Fake::with("lab");
    fake.set(&["fault.whois=holds-pipes"]);
    let mut child = spawn_in_group(&fake, &WHOIS);
    let group = pid(&child);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(test_kill_process_group(group).is_ok(), "somebody is left in the group");
    kill_process_group(group, Signal::KILL).unwrap();
    // Ends only now that nobody holds the other end.
    let mut out = String::new();
    child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    assert!(out.contains("bob@example.com"));
}

#[test]
fn too_much_output_comes_to_an_end_or_not() {
    let (_fake, ran) = faulty("huge-stdout");
    assert!(ran.stdout.len() > 50 << 20);
    let fake = Fake::with("lab");
    for pipe in ["stdout", "stderr"] {
        fake.set(&[&format!("fault.whois=endless-{pipe}")]);
        let mut child = fake.command(&WHOIS).spawn().unwrap();
        let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let mut some = vec![0; 1 << 20];
        match pipe {
            "stdout" => BufReader::new(out).read_exact(&mut some).unwrap(),
            _ => BufReader::new(err).read_exact(&mut some).unwrap(),
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

#[test]
fn serve_conflicts_once_then_works() {
    let fake = Fake::with("lab");
    fake.set(&["fault.serve=etag-conflict-once"]);
    let args = ["serve", "--bg", "9000"];
    let ran = fake.run(&args);
    let expected = "Another client is changing the serve config; please try again.\n\
                    sending serve config: Preconditions failed: etag mismatch\n";
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(1), expected));
    assert_eq!(fake.run(&["serve", "status", "--json"]).out(), "{}\n");
    assert_eq!(fake.run(&args).code, Some(0));
}

#[test]
fn who_may_not_write_is_told_what_would_help() {
    let fake = Fake::with("lab");
    fake.set(&["permissions=denied"]);
    let ran = fake.run(&["serve", "--bg", "18789"]);
    let expected = "sending serve config: Access denied: serve config denied\n\n\
                    Use 'sudo tailscale serve --bg 18789'.\n\
                    To not require root, use 'sudo tailscale set --operator=$USER' once.\n";
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(1), expected));
    fake.set(&["permissions=operator-no-sudo"]);
    let ran = fake.run(&["serve", "--bg", "unix:/run/gw.sock"]);
    assert!(ran.stderr.starts_with("sending serve config: 401 Unauthorized: must be root"));
    // Judged on the whole: with somebody else's entry nothing goes any more.
    fake.set(&["permissions=root"]);
    assert_eq!(fake.run(&["serve", "--bg", "--https=8443", "unix:/other"]).code, Some(0));
    fake.set(&["permissions=operator-no-sudo"]);
    assert_eq!(fake.run(&["serve", "--bg", "18789"]).code, Some(1));
}

#[test]
fn https_consent_in_its_three_forms() {
    let fake = Fake::with("lab");
    let args = ["serve", "--bg", "18789"];
    let nothing = || fake.run(&["serve", "status", "--json"]).out() == "{}\n";

    fake.set(&["features.https=consent-exits-0"]);
    let ran = fake.run(&args);
    assert_eq!(ran.code, Some(0));
    assert!(ran.out().contains("Serve is not enabled on your tailnet."), "{}", ran.out());
    assert!(nothing());

    fake.set(&["features.https=unsupported-501"]);
    let ran = fake.run(&args);
    assert!(ran.stderr.starts_with("error enabling https feature: error 501 Not Implemented"));
    assert_eq!(fake.run(&["serve", "--bg", "--http=80", "18789"]).code, Some(0));
    assert_eq!(fake.run(&["serve", "--http=80", "off"]).code, Some(0));

    fake.set(&["features.https=approved-after:clicked"]);
    let child = fake.command(&args).spawn().unwrap();
    fake.until("it waits", || fake.calls().iter().any(|c| c["event"] == "started"));
    assert!(nothing());
    fake.tool("release", &["clicked"]);
    let ran: Ran = child.wait_with_output().unwrap().into();
    assert!(ran.out().contains("Success.\nAvailable within your tailnet:"), "{}", ran.out());
    assert!(!nothing());

    fake.set(&["features.https=consent-blocks"]);
    let mut child = fake.command(&args).spawn().unwrap();
    let mut shown = [0; 40];
    child.stdout.as_mut().unwrap().read_exact(&mut shown).unwrap();
    assert_eq!(child.try_wait().unwrap(), None, "it blocks");
    fake.set(&["daemon=down"]);
    assert_eq!(child.wait().unwrap().code(), Some(1));
}

#[test]
fn a_version_that_differs_is_a_warning_on_stderr() {
    let fake = Fake::with("lab");
    fake.set(&[r#"version={client: "1.103.0", daemon: "1.102.3"}"#]);
    let ran = fake.run(&["status", "--json", "--peers=false"]);
    assert_eq!(ran.json()["Version"], "1.102.3");
    let warning = "Warning: client version \"1.103.0\" != tailscaled server version \"1.102.3\"\n";
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), warning));
    assert_eq!(fake.run(&["version"]).stderr, "");
}
