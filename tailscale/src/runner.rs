//! Runs the binary: the only place of the project that starts a process.
//!
//! What it promises, whatever the binary does: an answer or an error within the time
//! limit, bounded memory, no zombie, and nothing left running when a call is given up
//! (time, size, output held open, future dropped). To that end each call is a process
//! group of its own, killed as a whole with SIGKILL, and the leader is only reaped
//! after that, so that the group's number cannot have gone to somebody else. What a
//! call that went well leaves in the background is its own affair.
//!
//! The child sees a minimal environment (`TS_DEBUG_*` would change what the tool does,
//! `OPENCLAW_*` holds secrets), no terminal, and `/` as its directory.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::Error;
use crate::failure::classify;

pub(crate) mod edit;

/// What one call may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Time for the whole call. Default 6 s: with the daemon gone, `tailscale` itself
    /// tries for up to 5 s before it says so.
    pub timeout: Duration,
    /// The same for a certificate, which a certificate authority may have to make
    /// first. Default 2 min.
    pub cert_timeout: Duration,
    /// Standard output, in bytes. Default 4 MiB.
    pub stdout_bytes: usize,
    /// Standard error, in bytes. Default 64 KiB.
    pub stderr_bytes: usize,
    /// How long the output may stay open after the process itself has exited (a
    /// grandchild holds it). Then the rest is killed and what was read is used.
    /// Default 250 ms.
    pub pipe_grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(6),
            cert_timeout: Duration::from_secs(120),
            stdout_bytes: 4 << 20,
            stderr_bytes: 64 << 10,
            pipe_grace: Duration::from_millis(250),
        }
    }
}

/// One call: what to run, and under which name it appears in errors.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call<'a> {
    pub(crate) name: &'static str,
    pub(crate) program: &'a Path,
    pub(crate) args: &'a [OsString],
    pub(crate) limits: &'a Limits,
}

/// Runs it and returns its standard output if it exited with 0.
///
/// Standard error of a success (version warnings) is ignored.
pub(crate) async fn run(call: Call<'_>) -> Result<Vec<u8>, Error> {
    let started = Instant::now();
    let deadline = started + call.limits.timeout;
    let mut group = Group { child: spawn(&call, Stdio::null, deadline).await? };
    let result = match timeout_at(deadline, group.finish(&call)).await {
        Ok(result) => result,
        Err(_) => Err(Error::TimedOut { command: call.name, after: call.limits.timeout }),
    };
    if result.is_err() {
        group.end(&call).await;
    }
    let elapsed_ms = started.elapsed().as_millis();
    tracing::trace!(command = call.name, elapsed_ms, ok = result.is_ok(), "ran tailscale");
    result
}

/// Starts the process. A binary that is just being written (an upgrade) is tried
/// again for as long as the call may take, at most half a second.
async fn spawn(call: &Call<'_>, stdin: fn() -> Stdio, deadline: Instant) -> Result<Child, Error> {
    let patience = deadline.min(Instant::now() + Duration::from_millis(500));
    loop {
        let error = match command(call).stdin(stdin()).spawn() {
            Ok(child) => return Ok(child),
            Err(error) => error,
        };
        if error.kind() == io::ErrorKind::ExecutableFileBusy && Instant::now() < patience {
            sleep(Duration::from_millis(10)).await;
            continue;
        }
        return Err(not_started(call.program, error));
    }
}

fn command(call: &Call<'_>) -> Command {
    let mut command = Command::new(call.program);
    command
        .args(call.args)
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LANG", "C")
        .env("LC_ALL", "C")
        .current_dir("/")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    // The macOS and snap builds look below it for their own files.
    if let Some(home) = std::env::var_os("HOME").filter(|home| Path::new(home).is_absolute()) {
        command.env("HOME", home);
    }
    // Without it the macOS app may open its window instead of answering.
    if cfg!(target_os = "macos") {
        command.env("TAILSCALE_BE_CLI", "1");
    }
    command
}

fn not_started(program: &Path, source: io::Error) -> Error {
    /// "Exec format error", the same number on Linux, macOS and the BSDs.
    const ENOEXEC: i32 = 8;
    let path = program.to_owned();
    match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Error::NotInstalled { path },
        io::ErrorKind::PermissionDenied => Error::NotExecutable { path },
        _ if source.raw_os_error() == Some(ENOEXEC) => Error::NotExecutable { path },
        _ => Error::Spawn { path, source: Arc::new(source) },
    }
}

/// How long a killed process may take to be gone.
const REAPING: Duration = Duration::from_secs(1);

/// A process that leads its own group.
struct Group {
    child: Child,
}

impl Group {
    /// Reads both outputs, then the exit status.
    async fn finish(&mut self, call: &Call<'_>) -> Result<Vec<u8>, Error> {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let (out, err) = (self.child.stdout.take(), self.child.stderr.take());
        {
            let reading = async {
                tokio::try_join!(
                    read(call, out, &mut stdout, call.limits.stdout_bytes),
                    read(call, err, &mut stderr, call.limits.stderr_bytes),
                )
            };
            tokio::select! {
                read = reading => { read?; }
                () = self.left_open(call.limits.pipe_grace) => {
                    self.kill();
                    tracing::debug!(command = call.name, "a child of tailscale kept its output open");
                }
            }
        }
        let status = self.child.wait().await.map_err(|error| not_started(call.program, error))?;
        outcome(call, status, stdout, &stderr)
    }

    /// Returns when the process has exited, unreaped, and `grace` has passed since.
    ///
    /// Polling, because it only matters in the odd case that somebody else holds the
    /// output open: normally the end of the output comes first.
    async fn left_open(&self, grace: Duration) {
        let exited = || {
            let Some(pid) = self.pid() else { return true };
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
            !matches!(rustix::process::waitid(WaitId::Pid(pid), options), Ok(None))
        };
        while !exited() {
            sleep(Duration::from_millis(20)).await;
        }
        sleep(grace).await;
    }

    /// The leader's pid, which is the group's; `None` once it has been reaped.
    fn pid(&self) -> Option<Pid> {
        self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw)
    }

    /// Kills everything in the group, if the leader is still ours to name.
    fn kill(&self) {
        if let Some(pid) = self.pid() {
            // Fails only when nothing is left of it.
            let _ = rustix::process::kill_process_group(pid, Signal::KILL);
        }
    }

    /// Kills the group and reaps the leader; nothing to do if it has been reaped.
    async fn end(&mut self, call: &Call<'_>) {
        self.kill();
        // One that not even SIGKILL ends (a dead disk) must not hold up the caller:
        // tokio reaps it later.
        if !matches!(timeout(REAPING, self.child.wait()).await, Ok(Ok(_))) {
            tracing::debug!(command = call.name, "could not reap tailscale yet");
        }
    }
}

impl Drop for Group {
    /// The way out when the call's future is dropped. Tokio reaps the leader.
    fn drop(&mut self) {
        self.kill();
    }
}

async fn read(
    call: &Call<'_>,
    pipe: Option<impl AsyncRead + Unpin>,
    into: &mut Vec<u8>,
    limit: usize,
) -> Result<(), Error> {
    let Some(pipe) = pipe else { return Ok(()) };
    // One byte more than the limit tells "full" from "too much".
    let mut pipe = pipe.take(limit as u64 + 1);
    pipe.read_to_end(into).await.map_err(|error| not_started(call.program, error))?;
    if into.len() > limit {
        return Err(Error::TooLarge { command: call.name, limit });
    }
    Ok(())
}

fn outcome(call: &Call<'_>, status: ExitStatus, stdout: Vec<u8>, stderr: &[u8]) -> Result<Vec<u8>, Error> {
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(stdout),
        (Some(code), _) => Err(classify(call.name, code, stderr)),
        (None, signal) => Err(Error::Killed { command: call.name, signal: signal.unwrap_or_default() }),
    }
}

#[cfg(test)]
mod tests;
