//! The sample app of `fixtures/`, as a process of its own.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::Client;

const PROGRAM: &str = env!("CARGO_BIN_EXE_sample-app");

/// A running sample app. It ends with the test.
pub(crate) struct SampleApp {
    child: Child,
    listen: String,
}

impl SampleApp {
    /// On a free port of loopback.
    #[track_caller]
    pub(crate) fn start() -> Self {
        Self::with(&[], None)
    }

    /// The same, as another user; takes root.
    #[track_caller]
    pub(crate) fn of_user(uid: u32) -> Self {
        Self::with(&[], Some(uid))
    }

    /// On a unix socket.
    #[track_caller]
    pub(crate) fn at(path: &Path) -> Self {
        Self::with(&["--unix", path.to_str().unwrap()], None)
    }

    #[track_caller]
    fn with(args: &[&str], uid: Option<u32>) -> Self {
        let mut command = Command::new(PROGRAM);
        if let Some(uid) = uid {
            command.uid(uid).gid(uid).current_dir("/");
        }
        let mut child = command
            .args(args)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let json = line.strip_prefix("ready ").unwrap_or_else(|| panic!("no ready line: {line:?}"));
        let ready: Value = serde_json::from_str(json).unwrap();
        Self { child, listen: ready["listen"].as_str().unwrap().to_owned() }
    }

    /// What `--upstream` takes.
    pub(crate) fn flag(&self) -> &str {
        &self.listen
    }

    /// A client that goes past the gateway.
    pub(crate) fn direct(&self) -> Client {
        Client::to(self.listen.parse().unwrap())
    }

    /// Lets go what waits at a gate.
    pub(crate) fn release(&self, gate: &str) {
        assert_eq!(self.direct().get(&format!("/release/{gate}")).status, 200);
    }

    /// How many wait at a gate, or listen to events of this name (`sse NAME`).
    pub(crate) fn waiting(&self, gate: &str) -> u64 {
        self.direct().get("/holding").json()[gate].as_u64().unwrap_or(0)
    }

    /// Sends an event to those who listen; how many those are.
    pub(crate) fn push(&self, name: &str, data: &str) -> usize {
        let answer = self.direct().get(&format!("/sse-push/{name}?data={data}"));
        answer.text().trim().parse().unwrap()
    }
}

impl Drop for SampleApp {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
