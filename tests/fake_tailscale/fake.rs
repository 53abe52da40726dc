//! A directory with a scenario and a `tailscale` in it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_fake-tailscale");

pub(crate) struct Fake {
    dir: TempDir,
}

#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
    /// None when a signal ended it.
    pub(crate) code: Option<i32>,
}

impl Ran {
    pub(crate) fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.stdout).expect("JSON on stdout")
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            stdout: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            code: output.status.code(),
        }
    }
}

impl Fake {
    /// With a scenario of `fixtures/scenarios`.
    pub(crate) fn with(name: &str) -> Self {
        let path = repo().join("fixtures/scenarios").join(format!("{name}.json5"));
        Self::playing(&std::fs::read_to_string(path).unwrap())
    }

    pub(crate) fn playing(scenario: &str) -> Self {
        let dir = tempfile::tempdir_in(private_place()).unwrap();
        std::fs::write(dir.path().join("scenario.json5"), scenario).unwrap();
        let program = dir.path().join("tailscale");
        if is_private(Path::new(PROGRAM).parent().unwrap()) {
            std::os::unix::fs::symlink(PROGRAM, program).unwrap();
        } else {
            std::fs::copy(PROGRAM, program).unwrap();
        }
        Self { dir }
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The command as the gateway runs it: no environment, no stdin.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.dir().join("tailscale"));
        command.args(args).env_clear().stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    #[must_use]
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        self.command(args).output().unwrap().into()
    }

    /// Runs a tool call, which has to succeed.
    pub(crate) fn tool(&self, what: &str, args: &[&str]) -> String {
        let ran = self.try_tool(what, args);
        assert_eq!(ran.code, Some(0), "fake {what} {args:?}: {}", ran.stderr);
        ran.out()
    }

    pub(crate) fn try_tool(&self, what: &str, args: &[&str]) -> Ran {
        let mut command = Command::new(PROGRAM);
        command.args(["fake", what, "--dir"]).arg(self.dir()).args(args);
        command.stdin(Stdio::null()).output().unwrap().into()
    }

    pub(crate) fn set(&self, pairs: &[&str]) {
        self.tool("set", pairs);
    }

    pub(crate) fn calls(&self) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(self.dir().join("calls.ndjson")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Waits for something to come true; the state decides, not the time.
    #[track_caller]
    pub(crate) fn until(&self, what: &str, mut come: impl FnMut() -> bool) {
        let began = std::time::Instant::now();
        while !come() {
            assert!(began.elapsed().as_secs() < 20, "waited in vain until {what}");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}

/// Root runs no program and asks no socket where others can write, such as below /tmp.
fn private_place() -> PathBuf {
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let others = ["/run", "/var/lib", "/opt"].map(PathBuf::from);
    std::iter::once(target.clone()).chain(others).find(|dir| is_private(dir)).unwrap_or(target)
}

/// Whether it would do for us.
fn is_private(dir: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let others_cannot = |meta: std::fs::Metadata| meta.mode() & 0o022 == 0 && meta.uid() == 0;
    !rustix::process::geteuid().is_root()
        || dir.ancestors().all(|dir| std::fs::metadata(dir).is_ok_and(others_cannot))
}

pub(crate) fn repo() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn recording(name: &str) -> String {
    let path = repo().join("fixtures/tailscale/1.102.3").join(name);
    std::fs::read_to_string(path).unwrap()
}
