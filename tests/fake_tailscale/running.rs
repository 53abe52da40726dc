//! Processes that a test starts and that end with it: the daemon, the app.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::fake::{Fake, PROGRAM};

pub(crate) struct Running {
    child: Child,
    pub(crate) ready: Value,
}

impl Running {
    #[track_caller]
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        out.read_line(&mut line).unwrap();
        let ready = line.strip_prefix("ready ").expect("a ready line");
        let ready = serde_json::from_str(ready).unwrap();
        Self { child, ready }
    }

    pub(crate) fn daemon(fake: &Fake, callers: &[&str]) -> Self {
        let mut command = Command::new(PROGRAM);
        command.args(["fake", "daemon", "--dir"]).arg(fake.dir());
        for caller in callers {
            command.args(["--as", caller]);
        }
        Self::start(&mut command)
    }

    pub(crate) fn app(args: &[&str]) -> Self {
        Self::start(Command::new(env!("CARGO_BIN_EXE_sample-app")).args(args))
    }

    /// Where the app listens.
    pub(crate) fn listen(&self) -> String {
        self.ready["listen"].as_str().unwrap().to_owned()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The stand-in's listener for a port and a caller, as it is now.
#[track_caller]
pub(crate) fn listener(fake: &Fake, port: u16, caller: &str) -> String {
    try_listener(fake, port, caller).unwrap_or_else(|| panic!("{caller} has no listener on {port}"))
}

pub(crate) fn try_listener(fake: &Fake, port: u16, caller: &str) -> Option<String> {
    let text = std::fs::read_to_string(fake.dir().join("daemon.json")).unwrap();
    let json: Value = serde_json::from_str(&text).unwrap();
    let (web, tcp) = (json["http"].as_array().unwrap(), json["tcp"].as_array().unwrap());
    let served = format!("gw:{port}");
    let mut all = web.iter().chain(tcp);
    let entry = all.find(|e| e["serve"] == served.as_str() && e["as"] == caller)?;
    Some(entry["listen"].as_str().unwrap().to_owned())
}
