//! A played tailnet: a directory with a scenario and a `tailscale` in it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use serde_json::Value;
use tempfile::TempDir;

const FAKE: &str = env!("CARGO_BIN_EXE_fake-tailscale");

/// The gateway's own node in `loopback-tailnet.json5`.
pub(crate) const GW: &str = "127.100.0.1";
/// The owner's phone.
pub(crate) const ALICE: &str = "127.100.0.2";
/// A colleague, not on any list unless a test says so.
pub(crate) const BOB: &str = "127.100.0.3";
/// A machine tagged `tag:ci`.
pub(crate) const CI: &str = "127.100.0.4";
/// A person of another tailnet.
pub(crate) const EVE: &str = "127.100.0.5";
/// A device of Bob's whose key has expired.
pub(crate) const EXPIRED: &str = "127.100.0.6";
/// A jailed one.
pub(crate) const JAILED: &str = "127.100.0.7";
/// One that the tailnet lock has not signed.
pub(crate) const UNSIGNED: &str = "127.100.0.8";
/// One that forwards for 192.168.7.0/24.
pub(crate) const ROUTER: &str = "127.100.0.9";
/// A second colleague.
pub(crate) const CAROL: &str = "127.100.0.10";
/// An address of the range that nobody has.
pub(crate) const NOBODYS: &str = "127.100.0.200";

/// A directory that nobody else can write to, nor to anything above it: run as
/// root, the gateway uses no program and no socket elsewhere, such as below /tmp.
/// Below the target directory, unless the whole checkout lies in such a place.
pub(crate) fn private_dir() -> TempDir {
    static BASE: LazyLock<PathBuf> = LazyLock::new(|| {
        let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        std::fs::create_dir_all(&target).unwrap();
        let others = ["/run", "/var/lib", "/opt"].map(PathBuf::from);
        let root = rustix::process::geteuid().is_root();
        std::iter::once(target.clone()).chain(others).find(|dir| !root || is_safe(dir)).unwrap_or(target)
    });
    let dir = tempfile::tempdir_in(&*BASE).unwrap();
    open_to_other_users(dir.path());
    dir
}

fn is_safe(dir: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    dir.ancestors()
        .all(|dir| std::fs::metadata(dir).is_ok_and(|meta| meta.mode() & 0o022 == 0 && meta.uid() == 0))
}

/// The scripted `tailscale`, in a place the gateway would use it from.
pub(crate) fn fake() -> &'static Path {
    static PLACE: LazyLock<PathBuf> = LazyLock::new(|| {
        let built = Path::new(FAKE);
        if !rustix::process::geteuid().is_root() || is_safe(built.parent().unwrap()) {
            return built.to_owned();
        }
        // One copy, replaced by the next run.
        let dir = private_dir();
        let place = dir.path().with_file_name("openclaw-e2e-tailscale");
        let copy = dir.path().join("copy");
        std::fs::copy(built, &copy).unwrap();
        std::fs::rename(copy, &place).unwrap();
        place
    });
    &PLACE
}

/// Other users may pass through and read; a test may run the gateway as one.
fn open_to_other_users(dir: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// The directory. The fake ends what it hangs in when it is gone.
pub(crate) struct Tailnet {
    dir: TempDir,
}

impl Tailnet {
    /// The people of `loopback-tailnet.json5`: what the address constants mean.
    pub(crate) fn new() -> Self {
        Self::named("loopback-tailnet")
    }

    /// A scenario of `fixtures/scenarios`.
    pub(crate) fn named(name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/scenarios");
        Self::playing(&std::fs::read_to_string(path.join(format!("{name}.json5"))).unwrap())
    }

    /// Alice's phone, and a peer for each fault, whose look-up ends in it: the first
    /// has the address 127.100.1.0. One address each: failures are kept for five
    /// seconds.
    #[track_caller]
    pub(crate) fn with_failing_lookups(faults: &[&str]) -> Self {
        let peers: String = (0..faults.len())
            .map(|n| format!("p{n}: {{ips: [\"127.100.1.{n}\"], user: \"alice\"}},"))
            .collect();
        let tailnet = Self::playing(&format!(
            r#"{{users: {{alice: {{login: "alice@example.com", name: "Alice"}}}},
                self: {{name: "gw", ips: ["{GW}"], user: "alice"}},
                peers: {{fine: {{ips: ["{ALICE}"], user: "alice"}}, {peers}}}}}"#
        ));
        for (number, fault) in faults.iter().enumerate() {
            tailnet.set(&[&format!("fault.whois@127.100.1.{number}={fault}")]);
        }
        tailnet
    }

    /// Any scenario.
    pub(crate) fn playing(scenario: &str) -> Self {
        let dir = private_dir();
        std::fs::write(dir.path().join("scenario.json5"), scenario).unwrap();
        std::os::unix::fs::symlink(fake(), dir.path().join("tailscale")).unwrap();
        Self { dir }
    }

    /// The same, changed before it is played.
    pub(crate) fn with(self, pairs: &[&str]) -> Self {
        self.set(pairs);
        self
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The `tailscale` to give to the gateway.
    pub(crate) fn bin(&self) -> PathBuf {
        self.dir().join("tailscale")
    }

    /// Gives the directory to a user, who can then play in it.
    pub(crate) fn give_to(&self, uid: u32) {
        // Both users lock the state: whoever comes first must not shut the other out.
        std::fs::write(self.dir().join("state.lock"), "").unwrap();
        for entry in std::fs::read_dir(self.dir()).unwrap() {
            std::os::unix::fs::lchown(entry.unwrap().path(), Some(uid), Some(uid)).unwrap();
        }
        std::os::unix::fs::chown(self.dir(), Some(uid), Some(uid)).unwrap();
    }

    /// Changes what is played: `backend=Stopped`, `peer.bobpc.expired=true`,
    /// `fault.whois@127.100.0.2=gate:alice`, `serve={...}`.
    #[track_caller]
    pub(crate) fn set(&self, pairs: &[&str]) {
        self.tool("set", pairs);
    }

    /// Lets go what waits at a gate.
    pub(crate) fn release(&self, gate: &str) {
        self.tool("release", &[gate]);
    }

    #[track_caller]
    fn tool(&self, what: &str, args: &[&str]) {
        let mut command = Command::new(fake());
        command.args(["fake", what, "--dir"]).arg(self.dir()).args(args);
        let done = command.stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "fake {what} {args:?}: {said}");
    }

    /// The calls of one subcommand so far, as they began.
    pub(crate) fn calls(&self, command: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(self.dir().join("calls.ndjson")).unwrap_or_default();
        // The last line may be half written.
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines
            .filter(|call| call["event"] == "started" && (command == "*" || call["command"] == command))
            .collect()
    }

    /// Whether the call with this id has been answered.
    pub(crate) fn has_ended(&self, id: &str) -> bool {
        let text = std::fs::read_to_string(self.dir().join("calls.ndjson")).unwrap_or_default();
        let mut lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.any(|call| call["event"] == "ended" && call["id"] == id)
    }

    /// The calls of one subcommand that came by one way: `cli` or `localapi`.
    pub(crate) fn calls_via(&self, via: &str, command: &str) -> usize {
        self.calls(command).iter().filter(|call| call["via"] == via).count()
    }

    /// How often `whois` was asked about an address.
    pub(crate) fn whois_calls(&self, about: &str) -> usize {
        let asks = |call: &Value| {
            call["argv"].as_array().is_some_and(|argv| argv.iter().any(|word| word.as_str() == Some(about)))
        };
        self.calls("whois").iter().filter(|call| asks(call)).count()
    }
}
