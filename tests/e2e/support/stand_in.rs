//! The fake's daemon: one process with a LocalAPI socket and Serve, as tailscaled is.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::Tailnet;
use super::tailnet::fake;

/// A running stand-in. It ends with the test.
pub(crate) struct StandIn {
    child: Child,
    ready: Value,
    report: PathBuf,
}

impl StandIn {
    /// Starts it. Besides `source` it listens for these callers on every served
    /// port: `funnel`, `stranger`, or a peer's name in the scenario.
    #[track_caller]
    pub(crate) fn of(tailnet: &Tailnet, callers: &[&str]) -> Self {
        Self::start(tailnet, callers, &[], None)
    }

    /// The same with more options on its command line, as tailscaled has them.
    #[track_caller]
    pub(crate) fn with_options(tailnet: &Tailnet, callers: &[&str], options: &[&str]) -> Self {
        Self::start(tailnet, callers, options, None)
    }

    /// The same as another user, who has to be able to write to the tailnet's
    /// directory. Takes root.
    #[track_caller]
    pub(crate) fn as_user(tailnet: &Tailnet, uid: u32) -> Self {
        Self::start(tailnet, &[], &[], Some(uid))
    }

    #[track_caller]
    fn start(tailnet: &Tailnet, callers: &[&str], options: &[&str], uid: Option<u32>) -> Self {
        let mut command = Command::new(fake());
        command.args(["fake", "daemon", "--dir"]).arg(tailnet.dir());
        command.arg("--socket").arg(tailnet.dir().join("tailscaled.sock"));
        for caller in callers {
            command.args(["--as", caller]);
        }
        command.args(options);
        if let Some(uid) = uid {
            command.uid(uid).gid(uid);
        }
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready = line.strip_prefix("ready ").unwrap_or_else(|| panic!("no ready line: {line:?}"));
        let ready = serde_json::from_str(ready).unwrap();
        Self { child, ready, report: tailnet.dir().join("daemon.json") }
    }

    /// `gateway.tailscale.socket`, as it is written in a configuration.
    pub(crate) fn socket(&self) -> String {
        self.ready["socket"].to_string()
    }

    /// Where a caller reaches a served port.
    #[track_caller]
    pub(crate) fn listener(&self, port: u16, caller: &str) -> SocketAddr {
        let report = || std::fs::read_to_string(&self.report).unwrap_or_default();
        self.try_listener(port, caller)
            .unwrap_or_else(|| panic!("{caller} has no listener on {port}: {}", report()))
    }

    /// The same where the port may not be served.
    pub(crate) fn try_listener(&self, port: u16, caller: &str) -> Option<SocketAddr> {
        let json: Value = serde_json::from_str(&std::fs::read_to_string(&self.report).ok()?).ok()?;
        let served = format!("gw:{port}");
        let lists = ["http", "tcp", "direct"].map(|list| json[list].as_array().cloned());
        let mut entries = lists.iter().flatten().flatten();
        let entry = entries.find(|entry| entry["serve"] == served.as_str() && entry["as"] == caller)?;
        entry["listen"].as_str()?.parse().ok()
    }

    /// Where connections of a userspace-networking peer are taken.
    #[track_caller]
    pub(crate) fn direct(&self, peer: &str) -> SocketAddr {
        let json: Value = serde_json::from_str(&std::fs::read_to_string(&self.report).unwrap()).unwrap();
        let entry = json["direct"].as_array().unwrap().iter().find(|entry| entry["as"] == peer);
        let entry = entry.unwrap_or_else(|| panic!("{peer} has no direct way: {json}"));
        entry["listen"].as_str().unwrap().parse().unwrap()
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
