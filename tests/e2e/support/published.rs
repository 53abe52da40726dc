//! A gateway that manages Serve, and the others whose routes it must leave alone.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::{Client, Gateway, HOST, NOBODY, Setup, StandIn, TOKEN, Tailnet, Upstream};

/// How the gateway asks Tailscale.
pub(crate) const BOTH: [&str; 2] = ["cli", "localapi"];

/// A tailnet with a stand-in daemon and a gateway that is to publish itself there.
pub(crate) struct Published {
    pub(crate) tailnet: Tailnet,
    pub(crate) daemon: StandIn,
    pub(crate) app: Upstream,
    client: &'static str,
    /// More of `gateway.tailscale`.
    more: String,
    as_nobody: bool,
}

impl Published {
    /// By this `gateway.tailscale.client`, over plain HTTP on port 80.
    pub(crate) fn by(client: &'static str) -> Self {
        Self::on(Tailnet::new(), client)
    }

    pub(crate) fn on(tailnet: Tailnet, client: &'static str) -> Self {
        let daemon = StandIn::of(&tailnet, &["phone", "bobpc", "ci", "funnel"]);
        Self { tailnet, daemon, app: Upstream::echo(), client, more: String::new(), as_nobody: false }
    }

    /// The gateway runs as another user than tailscaled, who serves no unix socket.
    /// Takes root.
    pub(crate) fn on_loopback(client: &'static str) -> Self {
        Self::on_loopback_with(client, &[])
    }

    /// The same with more options of the daemon's.
    pub(crate) fn on_loopback_with(client: &'static str, options: &[&str]) -> Self {
        let tailnet = Tailnet::new().with(&["permissions=operator-no-sudo"]);
        let daemon = StandIn::with_options(&tailnet, &["phone", "bobpc", "ci", "funnel"], options);
        tailnet.give_to(NOBODY);
        Self { tailnet, daemon, app: Upstream::echo(), client, more: String::new(), as_nobody: true }
    }

    pub(crate) fn with(mut self, more: &str) -> Self {
        self.more = more.to_owned();
        self
    }

    /// `{gateway: …}` with this mode.
    pub(crate) fn config(&self, mode: &str) -> String {
        let more = if self.more.is_empty() { "serve: {scheme: 'http'}" } else { &self.more };
        format!(
            "{{gateway: {{tailscale: {{socket: {}, client: '{}', mode: '{mode}', {more}}}}}}}",
            self.daemon.socket(),
            self.client
        )
    }

    pub(crate) fn setup(&self, mode: &str) -> Setup {
        let setup = Setup::new().tailscale(&self.tailnet).upstream(&self.app).token(TOKEN);
        let setup = setup.config(self.config(mode));
        if self.as_nobody { setup.uid(NOBODY) } else { setup }
    }

    /// Starts it and waits until it says that it is published.
    #[track_caller]
    pub(crate) fn start(&self) -> Gateway {
        let gateway = self.setup("serve").start();
        gateway.wait_for_log("serve enabled: ");
        gateway
    }

    /// Does what somebody else would: the fake's own command line.
    #[track_caller]
    pub(crate) fn they(&self, args: &[&str]) {
        let mut command = Command::new(self.tailnet.bin());
        let done = command.args(args).stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.success(), "tailscale {args:?}: {said}");
    }

    /// Does it while whoever asks is root, who may serve anything.
    pub(crate) fn as_root(&self, what: impl FnOnce(&Self)) {
        self.tailnet.set(&["permissions=root"]);
        what(self);
        self.tailnet.set(&["permissions=operator-no-sudo"]);
    }

    /// Others' routes: beside ours on the same port, on another port, and raw.
    #[track_caller]
    pub(crate) fn neighbours(&self) {
        self.they(&["serve", "--bg", "--http=80", "--set-path=/theirs", "http://127.0.0.1:9000"]);
        self.neighbours_elsewhere();
    }

    /// Without one on the same port, which a session needs for itself.
    #[track_caller]
    pub(crate) fn neighbours_elsewhere(&self) {
        self.they(&["serve", "--bg", "--https=8443", "http://127.0.0.1:9001"]);
        self.they(&["serve", "--bg", "--tcp=2222", "tcp://127.0.0.1:22"]);
    }

    /// What is published, as text: byte for byte.
    #[track_caller]
    pub(crate) fn text(&self) -> String {
        self.text_by(&self.tailnet.bin())
    }

    /// The same by a program elsewhere in the tailnet's directory.
    #[track_caller]
    pub(crate) fn text_by(&self, program: &Path) -> String {
        let mut command = Command::new(program);
        let done = command.args(["serve", "status", "--json"]).stdin(Stdio::null()).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text()).unwrap()
    }

    /// Where `/` of our site leads, wherever it is nested.
    pub(crate) fn target(&self) -> Option<String> {
        let json = self.json();
        let site = format!("/Web/{HOST}:80/Handlers/~1/Proxy");
        let of = |config: &Value| config.pointer(&site).and_then(Value::as_str).map(str::to_owned);
        let sessions = json["Foreground"].as_object().into_iter().flat_map(|sessions| sessions.values());
        of(&json).or_else(|| sessions.map(of).find_map(|found| found))
    }

    /// The same as text without our mount: what belongs to others.
    #[track_caller]
    pub(crate) fn of_others(&self) -> String {
        Self::others_in(&self.text())
    }

    /// The same of a text.
    pub(crate) fn others_in(text: &str) -> String {
        let mut json: Value = serde_json::from_str(text).unwrap();
        let site = format!("{HOST}:80");
        if let Some(sessions) = json.get_mut("Foreground").and_then(Value::as_object_mut) {
            sessions.retain(|_, session| session["Web"][&site].is_null());
            if sessions.is_empty() {
                json.as_object_mut().unwrap().remove("Foreground");
            }
        }
        if let Some(handlers) = json.pointer_mut(&format!("/Web/{site}/Handlers"))
            && let Some(handlers) = handlers.as_object_mut()
            && handlers
                .get("/")
                .is_some_and(|ours| ours["Proxy"].as_str().unwrap_or("").contains("serve.sock"))
        {
            handlers.remove("/");
        }
        format!("{json:#}")
    }

    /// Somebody who comes through Serve.
    pub(crate) fn person(&self, who: &str) -> Client {
        Client::to(self.daemon.listener(80, who)).host(HOST)
    }
}

/// What `/readyz` says is wrong: code, detail, fix.
pub(crate) fn failing(gateway: &Gateway) -> Vec<(String, String, String)> {
    let answer = gateway.local().get("/readyz").json();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let faults = answer["failing"].as_array().cloned().unwrap_or_default();
    faults.iter().map(|fault| (text(&fault["code"]), text(&fault["detail"]), text(&fault["fix"]))).collect()
}

/// Waits until `/readyz` has this code, and gives its detail and fix.
#[track_caller]
pub(crate) fn await_failing(gateway: &Gateway, code: &str) -> (String, String) {
    let mut found = None;
    super::until(code, || {
        found = failing(gateway).into_iter().find(|(known, ..)| known == code);
        found.is_some()
    });
    let (_, detail, fix) = found.unwrap();
    (detail, fix)
}

/// Waits until nothing is wrong.
#[track_caller]
pub(crate) fn await_ready(gateway: &Gateway) {
    super::until("everything works", || gateway.local().get("/readyz").status == 200);
}

/// Somebody's `tailscale serve` in a terminal.
pub(crate) struct TheirSession(Child);

impl TheirSession {
    /// Starts it; it serves a moment later.
    pub(crate) fn start(world: &Published, args: &[&str]) -> Self {
        let mut command = Command::new(world.tailnet.bin());
        command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().unwrap())
    }

    /// Ctrl+C, and its end.
    pub(crate) fn interrupt(mut self) {
        rustix::process::kill_process(
            rustix::process::Pid::from_child(&self.0),
            rustix::process::Signal::INT,
        )
        .unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for TheirSession {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
