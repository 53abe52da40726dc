//! Doing something as another user of this machine. Takes root.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Answer, LIMIT};

/// `nobody`.
pub(crate) const NOBODY: u32 = 65534;

/// Whether this test can act as a second user. Where it cannot it says that it
/// was skipped; in CI that is a failure.
#[must_use]
pub(crate) fn may_switch_user(test: &str) -> bool {
    if rustix::process::geteuid().is_root() {
        return true;
    }
    assert!(std::env::var_os("CI").is_none(), "{test} needs root, and CI must not skip it");
    eprintln!("SKIPPED {test}: it takes root to act as a second user");
    false
}

fn another(uid: u32, to: SocketAddr, env: &[(&str, &str)]) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "support::other_user::speaks_for_another_user", "--nocapture"])
        .env_clear()
        .env(TO, to.to_string())
        .envs(env.iter().copied())
        .current_dir("/")
        .uid(uid)
        .gid(uid)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

const TO: &str = "E2E_SPEAK_TO";

/// Sends bytes to an address as another user, and reads until the other side
/// closes. This test binary is started again for it.
#[track_caller]
pub(crate) fn speak_as(uid: u32, to: SocketAddr, bytes: &[u8]) -> Answer {
    Answer::parse(&speak_bytes_as(uid, to, bytes))
}

/// The same with the answer as it came; empty where there was none.
#[track_caller]
pub(crate) fn speak_bytes_as(uid: u32, to: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut child = another(uid, to, &[]);
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    let done = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&done.stdout);
    let answer = said.lines().find_map(|line| line.split_once("answer:").map(|(_, answer)| answer));
    let Some(answer) = answer else {
        panic!("the other user got nothing: {said}{}", String::from_utf8_lossy(&done.stderr));
    };
    STANDARD.decode(answer).unwrap()
}

/// Sends bytes as another user and is gone before an answer.
#[track_caller]
pub(crate) fn leave_as(uid: u32, to: SocketAddr, bytes: &[u8]) {
    let mut child = another(uid, to, &[("E2E_LEAVE", "1")]);
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    assert!(child.wait_with_output().unwrap().status.success());
}

/// A program of another user that answers everybody with the same bytes.
pub(crate) struct TheirServer(Child);

/// Starts one, which listens when this returns.
#[track_caller]
pub(crate) fn answer_as(uid: u32, at: SocketAddr, bytes: &[u8]) -> TheirServer {
    let mut child = another(uid, at, &[("E2E_ANSWER", "1")]);
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
    let listens = said.any(|line| line.is_ok_and(|line| line.contains("listening:")));
    let server = TheirServer(child);
    assert!(listens, "the other user cannot listen at {at}");
    server
}

impl Drop for TheirServer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn answer_everybody(at: SocketAddr, bytes: &[u8]) {
    let listener = TcpListener::bind(at).unwrap();
    std::io::stdout().write_all(b"\nlistening:\n").unwrap();
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(bytes);
    }
}

/// The other half of [`speak_as`]; by itself it does nothing.
#[test]
fn speaks_for_another_user() {
    let Some(to) = std::env::var_os(TO) else { return };
    let to: SocketAddr = to.into_string().unwrap().parse().unwrap();
    let mut bytes = Vec::new();
    std::io::stdin().read_to_end(&mut bytes).unwrap();
    if std::env::var_os("E2E_ANSWER").is_some() {
        return answer_everybody(to, &bytes);
    }
    let mut stream = TcpStream::connect_timeout(&to, LIMIT).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    // It may be closed on at once.
    let _ = stream.write_all(&bytes);
    if std::env::var_os("E2E_LEAVE").is_some() {
        return;
    }
    let mut answer = Vec::new();
    // A reset after the answer is no matter.
    let _ = stream.read_to_end(&mut answer);
    let line = format!("\nanswer:{}\n", STANDARD.encode(answer));
    std::io::stdout().write_all(line.as_bytes()).unwrap();
}
