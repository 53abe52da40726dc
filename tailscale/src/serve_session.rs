//! A mount that lasts as long as a child process: `tailscale serve` without `--bg`.
//!
//! tailscaled takes the mount away when the process that asked for it goes. So the
//! process must go when we go, however we end. On Linux the kernel sees to it: a helper
//! of the caller's own program ([`Tie`], [`exec_tied`]) asks to be killed with its
//! parent, makes sure that it still has that parent, and becomes `tailscale`. Elsewhere
//! the helper stays in between, and kills `tailscale` when its standard input, which we
//! hold, comes to its end.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use tokio::time::{Duration, Instant};

use crate::EditError;
use crate::runner::Call;
use crate::runner::edit::{CANNOT_BE_RUN, NO_SUCH_PROGRAM, Process};

/// The helper that ties a child to its parent's life: a program and the arguments
/// that make it call [`exec_tied`] with what follows them, which is the parent's pid,
/// the program to become, and its arguments.
#[derive(Debug, Clone)]
pub struct Tie {
    /// The program, mostly the caller itself.
    pub program: PathBuf,
    /// The arguments that come first.
    pub args: Vec<OsString>,
}

impl Tie {
    /// The helper's arguments around a call's own.
    pub(crate) fn args_for(&self, call: &Call<'_>) -> Vec<OsString> {
        let mut args = self.args.clone();
        args.push(std::process::id().to_string().into());
        args.push(call.program.into());
        args.extend(call.args.iter().cloned());
        args
    }
}

/// A foreground `tailscale serve`. Dropping it ends it, and with it the mount.
pub struct ServeSession {
    process: Process,
}

impl ServeSession {
    pub(crate) async fn start(call: Call<'_>, tie: &Tie) -> Result<Self, EditError> {
        let process = Process::start_tied(&call, tie, Instant::now() + Duration::from_secs(1)).await?;
        Ok(Self { process })
    }

    /// The pid, while it lives.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.pid()
    }

    /// Waits until it has ended, which means that nothing is served any more. To be
    /// awaited all the while: what it prints is read here.
    ///
    /// # Errors
    /// Why it ended; [`EditError::Consent`] where it waits for somebody to click. Without
    /// an error it was told to end, or its mount was overwritten.
    pub async fn ended(&mut self) -> Result<(), EditError> {
        self.process.ended().await
    }
}

impl std::fmt::Debug for ServeSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServeSession").field("pid", &self.pid()).finish()
    }
}

/// What the helper of a [`Tie`] does: becomes `program`, tied to the life of `parent`.
/// Returns only where that failed: why, and the code to exit with.
#[must_use]
pub fn exec_tied(parent: u32, program: &Path, args: &[OsString]) -> (io::Error, u8) {
    let error = match tied(parent, program, args) {
        Ok(code) => std::process::exit(code),
        Err(error) => error,
    };
    let code = match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => NO_SUCH_PROGRAM,
        io::ErrorKind::PermissionDenied => CANNOT_BE_RUN,
        _ => 1,
    };
    (error, u8::try_from(code).unwrap_or(1))
}

#[cfg(target_os = "linux")]
fn tied(parent: u32, program: &Path, args: &[OsString]) -> io::Result<i32> {
    use std::os::unix::process::CommandExt;
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    // It may have gone before that was in force.
    let now = rustix::process::getppid().and_then(|pid| u32::try_from(pid.as_raw_nonzero().get()).ok());
    if now != Some(parent) {
        return Err(io::Error::other("the process that asked for it is gone"));
    }
    Err(std::process::Command::new(program).args(args).exec())
}

#[cfg(not(target_os = "linux"))]
fn tied(_: u32, program: &Path, args: &[OsString]) -> io::Result<i32> {
    supervise(program, args)
}

/// Runs the program for as long as standard input is open.
#[cfg(not(target_os = "linux"))]
fn supervise(program: &Path, args: &[OsString]) -> io::Result<i32> {
    use std::io::Read;
    let mut child = std::process::Command::new(program).args(args).stdin(Stdio::null()).spawn()?;
    let (over, end) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut rest = [0; 64];
        while matches!(io::stdin().lock().read(&mut rest), Ok(1..)) {}
        let _ = over.send(());
    });
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status.code().unwrap_or(1));
        }
        if end.recv_timeout(Duration::from_millis(100)) != Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            child.kill()?;
            child.wait()?;
            return Ok(1);
        }
    }
}
