//! Each test runs `/bin/sh -c` in the binary's place. Nothing here waits for a fixed
//! time before it asserts: it waits for a state, with a generous end.

use std::path::PathBuf;
use std::time::Instant as Clock;

use super::*;
use crate::test_support::block_on;

/// Long enough for a machine that is busy; tests that pass do not wait for it.
const PATIENCE: Duration = Duration::from_secs(60);

fn patient() -> Limits {
    Limits { timeout: PATIENCE, ..Limits::default() }
}

/// Runs a shell script; `$1` is `file`.
async fn sh(script: &str, file: &Path, limits: Limits) -> Result<Vec<u8>, Error> {
    let args = ["-c".into(), script.into(), "sh".into(), file.into()];
    run(Call { name: "test", program: Path::new("/bin/sh"), args: &args, limits: &limits }).await
}

fn shell(script: &str, limits: Limits) -> Result<Vec<u8>, Error> {
    block_on(sh(script, Path::new("/dev/null"), limits))
}

fn start(program: &Path) -> Result<Vec<u8>, Error> {
    block_on(run(Call { name: "test", program, args: &[], limits: &patient() }))
}

/// The pids that a script wrote, one a line, once there are `count` whole lines.
fn pids(file: &Path, count: usize) -> Option<Vec<i32>> {
    let text = std::fs::read_to_string(file).ok()?;
    let whole = text.matches('\n').count() >= count;
    whole.then(|| text.lines().map(|line| line.parse().unwrap()).collect())
}

/// Whether a process still does anything. One that is dead but not reaped by *its*
/// parent (whoever inherits orphans here) does not.
fn runs(pid: i32) -> bool {
    if cfg!(target_os = "linux") {
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
            return false;
        };
        let state = stat.rsplit(')').next().and_then(|rest| rest.trim().chars().next());
        !matches!(state, Some('Z' | 'X'))
    } else {
        rustix::process::test_kill_process(Pid::from_raw(pid).unwrap()).is_ok()
    }
}

/// Whether a process exists, be it as a zombie.
fn exists(pid: i32) -> bool {
    rustix::process::test_kill_process(Pid::from_raw(pid).unwrap()).is_ok()
}

#[track_caller]
fn until(what: &str, mut state: impl FnMut() -> bool) {
    let end = Clock::now() + PATIENCE;
    while !state() {
        assert!(Clock::now() < end, "never: {what}");
        block_on(async { sleep(Duration::from_millis(5)).await });
    }
}

/// Writes its pid and then a child's, both deaf to polite signals, and goes on for ever.
const DEAF: &str = r#"trap '' TERM INT HUP; echo $$ >> "$1"
    sh -c 'trap "" TERM INT HUP; echo $$ >> "$1"; while :; do sleep 1; done' sh "$1" &
    while :; do sleep 1; done"#;

#[test]
fn a_call_that_takes_too_long_is_killed_with_its_children() {
    let dir = tempfile::tempdir().unwrap();
    // A limit that passes before the script has begun proves nothing: try a longer one.
    for attempt in 0..7 {
        let file = dir.path().join(attempt.to_string());
        let timeout = Duration::from_millis(250 << attempt);
        let error = block_on(sh(DEAF, &file, Limits { timeout, ..patient() })).unwrap_err();
        assert!(matches!(error, Error::TimedOut { command: "test", after } if after == timeout));
        if let Some(pids) = pids(&file, 2) {
            until("the group is gone", || !pids.iter().any(|pid| runs(*pid)));
            return;
        }
    }
    panic!("the script never began");
}

#[test]
fn a_call_that_is_given_up_is_killed_with_its_children_and_reaped() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pids");
    block_on(async {
        let call = sh(DEAF, &file, patient());
        let begun = async {
            while pids(&file, 2).is_none() {
                sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            result = call => panic!("it ended: {result:?}"),
            () = begun => {}
        }
        // Dropped now. Tokio reaps while its runtime runs.
        let pids = pids(&file, 2).unwrap();
        let end = Clock::now() + PATIENCE;
        while exists(pids[0]) || runs(pids[1]) {
            assert!(Clock::now() < end, "never: the leader is reaped and its child gone");
            sleep(Duration::from_millis(5)).await;
        }
    });
}

#[test]
fn the_process_is_reaped_after_every_ending() {
    let dir = tempfile::tempdir().unwrap();
    let large = Limits { stdout_bytes: 10, ..patient() };
    for (name, script, limits) in [
        ("ok", "echo $$ > \"$1\"; echo ok", patient()),
        ("failed", "echo $$ > \"$1\"; exit 3", patient()),
        ("killed", "echo $$ > \"$1\"; kill -9 $$", patient()),
        ("too large", "echo $$ > \"$1\"; exec yes", large),
        ("held open", "echo $$ > \"$1\"; sleep 1000 & exit 0", patient()),
    ] {
        let file = dir.path().join(name);
        // In a runtime that is gone afterwards, so nothing is left for tokio to do.
        let _ = block_on(sh(script, &file, limits));
        assert!(!exists(pids(&file, 1).unwrap()[0]), "{name}");
    }
}

#[test]
fn output_held_open_by_a_grandchild_does_not_hold_up_the_call() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pids");
    let script = r#"sleep 1000 & echo $! > "$1"; echo '{"ok": 1}'; exit 0"#;
    let out = block_on(sh(script, &file, patient())).unwrap();
    assert_eq!(out, b"{\"ok\": 1}\n");
    let grandchild = pids(&file, 1).unwrap()[0];
    until("the grandchild is gone", || !runs(grandchild));
}

#[test]
fn a_failure_with_output_held_open_is_still_told() {
    let error = shell("sleep 1000 & echo 'peer not found' >&2; exit 1", patient()).unwrap_err();
    assert!(error.is_not_found(), "{error}");
}

#[test]
#[cfg(target_os = "linux")]
fn a_grandchild_that_left_the_group_does_not_hold_up_the_call() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pids");
    let script = r#"setsid sh -c 'echo $$ > "$1"; exec sleep 1000' sh "$1" & 
        while ! [ -s "$1" ]; do :; done; echo out"#;
    let out = block_on(sh(script, &file, patient())).unwrap();
    assert_eq!(out, b"out\n");
    let escaped = Pid::from_raw(pids(&file, 1).unwrap()[0]).unwrap();
    rustix::process::kill_process(escaped, Signal::KILL).unwrap();
}

#[test]
fn a_process_that_closes_its_output_and_stays_is_timed_out() {
    let limits = Limits { timeout: Duration::from_millis(300), ..patient() };
    let error = shell("exec >&- 2>&-; while :; do sleep 1; done", limits).unwrap_err();
    assert!(matches!(error, Error::TimedOut { .. }), "{error}");
}

#[test]
fn endless_standard_error_is_cut_off() {
    let error = shell("exec yes >&2", patient()).unwrap_err();
    assert!(matches!(error, Error::TooLarge { limit, .. } if limit == 64 << 10), "{error}");
}

#[test]
fn fifty_megabytes_of_output_are_cut_off() {
    let error = shell("head -c 52428800 /dev/zero", patient()).unwrap_err();
    assert!(matches!(error, Error::TooLarge { limit, .. } if limit == 4 << 20), "{error}");
}

#[test]
fn the_limit_itself_is_not_too_much() {
    let limits = Limits { stdout_bytes: 1000, stderr_bytes: 1000, ..patient() };
    let out = shell("head -c 1000 /dev/zero; head -c 1000 /dev/zero >&2", limits).unwrap();
    assert_eq!(out.len(), 1000);
    for script in ["head -c 1001 /dev/zero", "head -c 1001 /dev/zero >&2"] {
        let error = shell(script, limits).unwrap_err();
        assert!(matches!(error, Error::TooLarge { limit: 1000, .. }), "{error}");
    }
}

#[test]
fn much_on_both_outputs_does_not_deadlock() {
    let limits = Limits { stderr_bytes: 1 << 20, ..patient() };
    let script = "for i in 1 2 3 4 5; do head -c 200000 /dev/zero >&2; head -c 200000 /dev/zero; done";
    assert_eq!(shell(script, limits).unwrap().len(), 1_000_000);
}

#[test]
fn a_signal_from_elsewhere_is_told() {
    let error = shell("kill -9 $$", patient()).unwrap_err();
    assert!(matches!(error, Error::Killed { command: "test", signal: 9 }), "{error}");
}

#[test]
fn a_binary_that_is_missing_or_not_executable_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let missing = start(&dir.path().join("none")).unwrap_err();
    assert_eq!(missing.code(), "tailscale_not_installed");
    let below_a_file = start(Path::new("/dev/null/tailscale")).unwrap_err();
    assert_eq!(below_a_file.code(), "tailscale_not_installed");
    let plain: PathBuf = dir.path().join("plain");
    std::fs::write(&plain, "#!/bin/sh\n").unwrap();
    assert_eq!(start(&plain).unwrap_err().code(), "tailscale_not_executable");
    assert_eq!(start(dir.path()).unwrap_err().code(), "tailscale_not_executable");
}

#[test]
fn nothing_of_our_environment_is_inherited() {
    let out = String::from_utf8(start(Path::new("/usr/bin/env")).unwrap()).unwrap();
    assert!(std::env::vars_os().count() > 5, "this test has nothing to leak");
    for line in out.lines() {
        let (name, value) = line.split_once('=').unwrap();
        match name {
            "PATH" => assert!(value.split(':').all(|entry| entry.starts_with('/'))),
            "LANG" | "LC_ALL" => assert_eq!(value, "C"),
            "HOME" => {}
            "TAILSCALE_BE_CLI" if cfg!(target_os = "macos") => assert_eq!(value, "1"),
            _ => panic!("inherited: {line}"),
        }
    }
}

#[test]
fn there_is_no_input_and_the_directory_is_the_root() {
    assert_eq!(shell("cat; pwd", patient()).unwrap(), b"/\n");
}

#[test]
fn a_warning_beside_an_answer_is_ignored() {
    let script = r#"echo 'Warning: client version "A" != tailscaled server version "B"' >&2; echo x"#;
    assert_eq!(shell(script, patient()).unwrap(), b"x\n");
}

#[test]
fn arguments_are_passed_as_they_are() {
    let args = ["-c", "printf '%s|' \"$@\"", "sh", "a b", "$(id)", ";id", "--foo", ""];
    let args = args.map(OsString::from);
    let call = Call { name: "test", program: Path::new("/bin/sh"), args: &args, limits: &patient() };
    assert_eq!(block_on(run(call)).unwrap(), b"a b|$(id)|;id|--foo||");
}
