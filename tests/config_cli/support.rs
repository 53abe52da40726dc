//! A home for one test, and what a command printed there.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use openclaw::config::{Env, GatewayFlags, Loaded, load};

/// A home that goes with the test.
pub(crate) struct Home {
    dir: tempfile::TempDir,
    vars: Vec<(String, String)>,
}

/// What a command did.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Home {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), vars: Vec::new() }
    }

    pub(crate) fn with_config(text: &str) -> Self {
        let home = Self::new();
        home.write(".openclaw/config.json", text);
        home
    }

    pub(crate) fn var(mut self, name: &str, value: &str) -> Self {
        self.vars.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.path().join(".openclaw/config.json")
    }

    pub(crate) fn text(&self) -> String {
        std::fs::read_to_string(self.config()).unwrap_or_default()
    }

    /// Writes a file with mode 0600 into directories of mode 0700.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path().join(name);
        let dir = path.parent().unwrap();
        std::fs::create_dir_all(dir).unwrap();
        if dir != self.path() {
            self.chmod(dir, 0o700);
        }
        std::fs::write(&path, text).unwrap();
        self.chmod(&path, 0o600);
        path
    }

    pub(crate) fn chmod(&self, path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    pub(crate) fn mode(&self, name: &str) -> u32 {
        std::fs::metadata(self.path().join(name)).unwrap().permissions().mode() & 0o7777
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_openclaw"));
        command.env_clear().env("HOME", self.path()).current_dir(self.path()).stdin(Stdio::null());
        command.envs(self.vars.iter().map(|(name, value)| (name, value)));
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Done {
        Done::of(self.command().args(args).output().unwrap())
    }

    pub(crate) fn run_with_stdin(&self, args: &[&str], input: &str) -> Done {
        let mut command = self.command();
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        Done::of(child.wait_with_output().unwrap())
    }

    /// Runs a command of the guide that must succeed.
    #[track_caller]
    pub(crate) fn ok(&self, args: &[&str]) -> Done {
        let done = self.run(args);
        assert_eq!(done.code, 0, "{args:?}: {done:?}");
        done
    }

    /// Runs a command that must be refused, with the file untouched.
    #[track_caller]
    pub(crate) fn refused(&self, args: &[&str]) -> Done {
        let before = self.text();
        let done = self.run(args);
        assert_eq!(done.code, 1, "{args:?}: {done:?}");
        assert_eq!(self.text(), before, "{args:?} changed the file");
        done
    }

    /// Starts the gateway, which must refuse.
    #[track_caller]
    pub(crate) fn start_refused(&self, args: &[&str]) -> String {
        let done = self.run(&[&["gateway"], args].concat());
        assert_eq!(done.code, 78, "{args:?}: {done:?}");
        assert_eq!(done.stdout, "");
        done.stderr
    }

    /// Loads the configuration as the gateway does.
    pub(crate) fn load(&self, flags: &GatewayFlags) -> Result<Loaded, String> {
        load(flags, &self.env()).map_err(|error| error.to_string())
    }

    pub(crate) fn env(&self) -> Env {
        let home = ("HOME".to_owned(), self.path().display().to_string());
        Env::from_vars(self.vars.iter().cloned().chain([home])).in_dir(self.path())
    }
}

impl Done {
    fn of(output: std::process::Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap()
    }
}
