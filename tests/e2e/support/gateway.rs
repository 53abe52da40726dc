//! The built gateway as a child process.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use super::tailnet::{fake, private_dir};
use super::{Client, GW, LIMIT, Tailnet, Upstream};

const PROGRAM: &str = env!("CARGO_BIN_EXE_openclaw");

/// How a gateway is to be started.
#[must_use = "this only says how a gateway is to be started"]
pub(crate) struct Setup {
    flags: Vec<OsString>,
    config: Option<String>,
    env: Vec<(String, OsString)>,
    uid: Option<u32>,
    open_files: Option<u32>,
    home: Option<Arc<TempDir>>,
}

impl Setup {
    /// On any free port of loopback, with an empty home and environment.
    pub(crate) fn new() -> Self {
        Self::bare().flag("--port", "0")
    }

    /// The same without a port.
    pub(crate) fn bare() -> Self {
        Self { flags: Vec::new(), config: None, env: Vec::new(), uid: None, open_files: None, home: None }
    }

    /// `--bind tailnet`, with this `tailscale`.
    pub(crate) fn on(tailnet: &Tailnet) -> Self {
        Self::new().flag("--bind", "tailnet").tailscale(tailnet)
    }

    /// This `tailscale`; bound wherever the rest says.
    pub(crate) fn tailscale(self, tailnet: &Tailnet) -> Self {
        self.flag("--tailscale-bin", tailnet.bin())
    }

    pub(crate) fn flag(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.flags.extend([name.into(), value.into()]);
        self
    }

    pub(crate) fn upstream(self, upstream: &Upstream) -> Self {
        let flag = upstream.flag();
        self.flag("--upstream", flag)
    }

    pub(crate) fn token(self, token: &str) -> Self {
        self.flag("--token", token)
    }

    /// The configuration file's text.
    pub(crate) fn config(mut self, text: impl Into<String>) -> Self {
        self.config = Some(text.into());
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    /// As another user; takes root.
    pub(crate) fn uid(mut self, uid: u32) -> Self {
        self.uid = Some(uid);
        self
    }

    /// With at most so many open files.
    pub(crate) fn open_files(mut self, most: u32) -> Self {
        self.open_files = Some(most);
        self
    }

    /// With the home of an earlier gateway, state and all.
    pub(crate) fn home_of(mut self, other: &Gateway) -> Self {
        self.home = Some(Arc::clone(&other.home));
        self
    }

    /// With a home that is prepared before the first start.
    pub(crate) fn home_with(mut self, prepare: impl FnOnce(&Path)) -> Self {
        let home = self.make_home();
        prepare(home.path());
        self.home = Some(home);
        self
    }

    /// Starts it and waits for its ready line.
    #[track_caller]
    pub(crate) fn start(self) -> Gateway {
        let home = self.make_home();
        let running = match self.spawn(home.path()) {
            Ok(running) => running,
            Err(exited) => panic!("the gateway did not start: {exited:?}"),
        };
        Gateway { setup: self, home, running }
    }

    /// Starts it, waits until it listens on the tailnet.
    #[track_caller]
    pub(crate) fn start_on_tailnet(self) -> Gateway {
        let gateway = self.start();
        gateway.await_tailnet();
        gateway
    }

    /// Starts what is expected to refuse, and waits for its end.
    #[track_caller]
    pub(crate) fn refuse(self) -> Exited {
        let home = self.make_home();
        match self.spawn(home.path()) {
            Ok(running) => panic!("the gateway was to refuse, and runs: {:?}", running.ready),
            Err(exited) => exited,
        }
    }

    fn make_home(&self) -> Arc<TempDir> {
        let home = self.home.clone().unwrap_or_else(|| Arc::new(private_dir()));
        let state = home.path().join(".openclaw");
        if !state.exists() {
            std::fs::create_dir(&state).unwrap();
            private(&state, 0o700);
        }
        if let Some(config) = &self.config {
            write_config(&state, config);
        }
        if let Some(uid) = self.uid {
            give_away(home.path(), uid);
        }
        home
    }

    fn gateway_command(&self, home: &Path) -> Command {
        let mut command = match self.open_files {
            None => Command::new(PROGRAM),
            Some(most) => {
                let mut shell = Command::new("/bin/sh");
                shell.args(["-c", &format!("ulimit -n {most} && exec \"$0\" \"$@\""), PROGRAM]);
                shell
            }
        };
        command.arg("gateway").args(&self.flags).current_dir(home);
        // Never the machine's own: a test does not depend on whether there is one.
        if self.flags.iter().all(|flag| flag != "--tailscale-bin") {
            command.arg("--tailscale-bin").arg(idle_tailscale(home));
        }
        command.env_clear().env("HOME", home).env("OPENCLAW_HOME", home).env("PATH", "/usr/bin:/bin");
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        if let Some(uid) = self.uid {
            command.uid(uid).gid(uid);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn spawn(&self, home: &Path) -> Result<Running, Exited> {
        let mut child = self.gateway_command(home).spawn().unwrap();
        let log = Log::follow(child.stderr.take().unwrap());
        let (tell, ready) = mpsc::channel();
        let stdout = child.stdout.take().unwrap();
        std::thread::spawn(move || {
            let mut stdout = BufReader::new(stdout);
            let mut line = String::new();
            let _ = stdout.read_line(&mut line);
            let _ = tell.send(line);
            let mut rest = String::new();
            let _ = stdout.read_to_string(&mut rest);
            let _ = tell.send(rest);
        });
        let mut child = Owned(child);
        let Ok(line) = ready.recv_timeout(LIMIT) else {
            panic!("no ready line; the gateway said:\n{}", log.text());
        };
        let Some(json) = line.strip_prefix("ready ") else {
            let status = child.wait(&log);
            return Err(Exited { code: status.code(), stdout: line, stderr: log.finished() });
        };
        let ready: Value = serde_json::from_str(json).unwrap();
        assert_eq!(ready["pid"], child.0.id(), "the ready line names another process");
        let listen: Vec<SocketAddr> = ready["listen"]
            .as_array()
            .unwrap()
            .iter()
            .map(|addr| addr.as_str().unwrap().parse().unwrap())
            .collect();
        Ok(Running { child, log, ready: listen })
    }
}

fn private(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn write_config(state: &Path, text: &str) {
    use std::os::unix::fs::MetadataExt;
    // By a rename, as editors do, and with the old file's owner.
    let (path, fresh) = (state.join("config.json"), state.join("config.json.new"));
    std::fs::write(&fresh, text).unwrap();
    private(&fresh, 0o600);
    let owner = std::fs::metadata(state).unwrap().uid();
    std::os::unix::fs::chown(&fresh, Some(owner), None).unwrap();
    std::fs::rename(fresh, path).unwrap();
}

fn give_away(path: &Path, uid: u32) {
    std::os::unix::fs::lchown(path, Some(uid), Some(uid)).unwrap();
    if path.is_dir() && !path.is_symlink() {
        for entry in std::fs::read_dir(path).unwrap() {
            give_away(&entry.unwrap().path(), uid);
        }
    }
}

/// What a command printed.
#[derive(Debug)]
pub(crate) struct Printed {
    /// None when a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// How a gateway that did not start ended.
#[derive(Debug)]
pub(crate) struct Exited {
    /// None when a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A child that does not outlive its test.
struct Owned(Child);

impl Owned {
    #[track_caller]
    fn wait(&mut self, log: &Log) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            assert!(began.elapsed() < LIMIT, "the gateway does not end; it said:\n{}", log.text());
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Running {
    child: Owned,
    log: Log,
    ready: Vec<SocketAddr>,
}

/// A running gateway. It is killed with the test, and says what it logged when
/// the test fails.
pub(crate) struct Gateway {
    setup: Setup,
    home: Arc<TempDir>,
    running: Running,
}

impl Gateway {
    /// The addresses of the ready line.
    pub(crate) fn listen(&self) -> &[SocketAddr] {
        &self.running.ready
    }

    /// The port, the same on every address.
    pub(crate) fn port(&self) -> u16 {
        self.running.ready[0].port()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.running.child.0.id()
    }

    /// `~/.openclaw`.
    pub(crate) fn state_dir(&self) -> PathBuf {
        self.home.path().join(".openclaw")
    }

    /// 127.0.0.1 with the port.
    pub(crate) fn loopback(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port()))
    }

    /// The gateway's tailnet address with the port.
    pub(crate) fn tailnet(&self) -> SocketAddr {
        SocketAddr::new(GW.parse().unwrap(), self.port())
    }

    /// A client on this machine, over 127.0.0.1.
    pub(crate) fn local(&self) -> Client {
        Client::to(self.loopback())
    }

    /// A client at an address of the tailnet that dials the gateway's.
    pub(crate) fn peer(&self, from: &str) -> Client {
        Client::to(self.tailnet()).from(from.parse().unwrap())
    }

    /// Waits until it listens on the tailnet. The port may be a client's for a
    /// moment; the gateway then says that it is not listening yet, and tries again.
    #[track_caller]
    pub(crate) fn await_tailnet(&self) {
        self.wait_for_log("\"listening on the tailnet\"");
    }

    /// Waits for a log line that contains this.
    #[track_caller]
    pub(crate) fn wait_for_log(&self, part: &str) -> String {
        self.wait_for_line(part, |line| line.contains(part))
    }

    /// Waits for a log line that fits, those of the past included.
    #[track_caller]
    pub(crate) fn wait_for_line(&self, what: &str, fits: impl Fn(&str) -> bool) -> String {
        let log = &self.running.log;
        let Some(line) = log.wait(&fits) else {
            panic!("no log line: {what}");
        };
        line
    }

    /// Everything logged so far.
    pub(crate) fn log(&self) -> String {
        self.running.log.text()
    }

    /// The request lines so far, as JSON.
    pub(crate) fn requests(&self) -> Vec<Value> {
        let log = self.log();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["msg"] == "request").collect()
    }

    /// Waits for the request line of a path, the latest one.
    #[track_caller]
    pub(crate) fn request_line(&self, path: &str) -> Value {
        let is = |line: &str| {
            serde_json::from_str::<Value>(line)
                .is_ok_and(|line| line["msg"] == "request" && line["path"] == path)
        };
        self.wait_for_line(&format!("request line of {path}"), is);
        self.requests().into_iter().rev().find(|line| line["path"] == path).unwrap()
    }

    /// Replaces the configuration file by a rename.
    pub(crate) fn write_config(&self, text: &str) {
        write_config(&self.state_dir(), text);
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.running.child.0), signal).unwrap();
    }

    /// Another command of the program, with the same home.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args(args).env_clear().env("HOME", self.home.path());
        command.env("OPENCLAW_HOME", self.home.path()).stdin(Stdio::null());
        command
    }

    /// Runs it.
    pub(crate) fn openclaw(&self, args: &[&str]) -> Printed {
        let done = self.command(args).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Printed { code: done.status.code(), stdout: text(done.stdout), stderr: text(done.stderr) }
    }

    /// Whether it still runs.
    pub(crate) fn lives(&mut self) -> bool {
        self.running.child.0.try_wait().unwrap().is_none()
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let running = &mut self.running;
        running.child.wait(&running.log)
    }

    /// SIGTERM, and its end.
    #[track_caller]
    pub(crate) fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait()
    }

    /// Stops it and starts it again: the same flags, the same home, another port.
    #[track_caller]
    pub(crate) fn restart(&mut self) {
        self.stop();
        self.start_again();
    }

    /// Starts it again after its end.
    #[track_caller]
    pub(crate) fn start_again(&mut self) {
        self.running = match self.setup.spawn(self.home.path()) {
            Ok(running) => running,
            Err(exited) => panic!("the gateway did not start again: {exited:?}"),
        };
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            // A test that polled in vain leaves thousands of lines that say the same.
            let lines: Vec<_> = log.lines().collect();
            let shown = lines[lines.len().saturating_sub(200)..].join("\n");
            eprintln!("--- what the gateway logged, {} lines:\n{shown}\n---", lines.len());
        }
    }
}

#[derive(Default)]
struct Lines {
    lines: Vec<String>,
    ended: bool,
}

/// The lines on stderr, collected by a thread.
#[derive(Clone)]
struct Log(Arc<(Mutex<Lines>, Condvar)>);

impl Log {
    fn follow(stderr: impl Read + Send + 'static) -> Self {
        let log = Self(Arc::new((Mutex::new(Lines::default()), Condvar::new())));
        let ours = log.clone();
        std::thread::spawn(move || {
            let mut stderr = BufReader::new(stderr);
            let mut line = Vec::new();
            while stderr.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                ours.lines().lines.push(text);
                ours.0.1.notify_all();
                line.clear();
            }
            ours.lines().ended = true;
            ours.0.1.notify_all();
        });
        log
    }

    fn wait(&self, fits: &dyn Fn(&str) -> bool) -> Option<String> {
        let began = Instant::now();
        let mut looked_at = 0;
        loop {
            // Not under the lock: what `fits` does may make more lines.
            let (fresh, ended) = {
                let lines = self.lines();
                (lines.lines[looked_at..].to_vec(), lines.ended)
            };
            if let Some(line) = fresh.iter().find(|line| fits(line)) {
                return Some(line.clone());
            }
            looked_at += fresh.len();
            if ended && fresh.is_empty() {
                return None;
            }
            let left = LIMIT.checked_sub(began.elapsed())?;
            let nothing_new = |lines: &mut Lines| lines.lines.len() == looked_at && !lines.ended;
            let waited = self.0.1.wait_timeout_while(self.lines(), left, nothing_new);
            drop(waited.unwrap_or_else(PoisonError::into_inner));
        }
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The text once the process has closed its end.
    fn finished(&self) -> String {
        let lines = self.lines();
        drop(self.0.1.wait_timeout_while(lines, LIMIT, |lines| !lines.ended).unwrap());
        self.text()
    }

    fn text(&self) -> String {
        let lines = self.lines();
        lines.lines.iter().map(|line| format!("{line}\n")).collect()
    }
}

/// A `tailscale` that runs, and publishes nothing.
fn idle_tailscale(home: &Path) -> PathBuf {
    let dir = home.join("idle-tailscale");
    let bin = dir.join("tailscale");
    if !dir.exists() {
        std::fs::create_dir(&dir).unwrap();
        let scenario = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/scenarios/user.json5");
        std::fs::copy(scenario, dir.join("scenario.json5")).unwrap();
        std::os::unix::fs::symlink(fake(), &bin).unwrap();
        private(&dir, 0o777);
    }
    bin
}
