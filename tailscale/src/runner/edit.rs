//! Runs the commands that edit, whose output is read as it comes: they may wait for a
//! person for ever, or are meant to go on.

use std::path::PathBuf;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::process::{ChildStderr, ChildStdin, ChildStdout};
use tokio::time::{Instant, timeout_at};

use super::{Call, Group, spawn};
use crate::serve_edit::{ConsentWatch, EditError, failed};
use crate::serve_session::Tie;
use crate::{Error, failure};

/// What a helper exits with that cannot become the program, as shells do.
pub(crate) const NO_SUCH_PROGRAM: i32 = 127;
pub(crate) const CANNOT_BE_RUN: i32 = 126;

/// The longest line that is read; what is longer is no link.
const LINE: u64 = 4096;

/// Runs an edit to its end, or to the link that somebody has to click.
pub(crate) async fn run_edit(call: Call<'_>, tie: &Tie) -> Result<(), EditError> {
    let deadline = Instant::now() + call.limits.timeout;
    let mut process = Process::start_tied(&call, tie, deadline).await?;
    match timeout_at(deadline, process.ended()).await {
        Ok(result) => result,
        Err(_) => {
            process.group.end(&call).await;
            Err(Error::TimedOut { command: call.name, after: call.limits.timeout }.into())
        }
    }
}

/// A command that is under way. Dropping it kills everything it started.
pub(crate) struct Process {
    group: Group,
    name: &'static str,
    program: PathBuf,
    /// Held open for whoever ends when it closes.
    _stdin: Option<ChildStdin>,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    limits: super::Limits,
}

impl Process {
    /// Starts it so that it ends with us, however we end.
    pub(crate) async fn start_tied(call: &Call<'_>, tie: &Tie, deadline: Instant) -> Result<Self, EditError> {
        let args = tie.args_for(call);
        let tied = Call { program: &tie.program, args: &args, ..*call };
        // Where the kernel does not see to it, the helper notices that its input ends.
        let stdin = if cfg!(target_os = "linux") { Stdio::null } else { Stdio::piped };
        let mut child = spawn(&tied, stdin, deadline).await?;
        let stdin = child.stdin.take();
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        Ok(Self {
            group: Group { child },
            name: call.name,
            program: call.program.to_owned(),
            _stdin: stdin,
            stdout,
            stderr,
            limits: *call.limits,
        })
    }

    /// Its pid, while it lives.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.group.child.id()
    }

    /// Waits until it has ended, or shows a link. Its output is read all the while, so
    /// that it never waits for us.
    pub(crate) async fn ended(&mut self) -> Result<(), EditError> {
        let (stdout, stderr) = (self.stdout.take(), self.stderr.take());
        let mut said = Vec::new();
        let consent = {
            let (out, rest) = (lines(stdout), keep(stderr, &mut said, self.limits.stderr_bytes));
            // Over with the link, or with both.
            let reading = async {
                let out = async { out.await.map_or(Ok(()), Err) };
                tokio::try_join!(out, async {
                    rest.await;
                    Ok(())
                })
                .err()
            };
            tokio::select! {
                biased;
                link = reading => link,
                () = self.group.left_open(self.limits.pipe_grace) => {
                    self.group.kill();
                    None
                }
            }
        };
        if let Some(url) = consent {
            let call = Call { name: self.name, program: &self.program, args: &[], limits: &self.limits };
            self.group.end(&call).await;
            return Err(EditError::Consent { url });
        }
        let status = self.group.child.wait().await;
        let status = status.map_err(|error| super::not_started(&self.program, error))?;
        match (status.code(), std::os::unix::process::ExitStatusExt::signal(&status)) {
            (Some(0), _) => Ok(()),
            (Some(code), _) => Err(self.meaning(code, &said)),
            (None, signal) => {
                Err(Error::Killed { command: self.name, signal: signal.unwrap_or_default() }.into())
            }
        }
    }

    fn meaning(&self, code: i32, said: &[u8]) -> EditError {
        match code {
            NO_SUCH_PROGRAM => return Error::NotInstalled { path: self.program.clone() }.into(),
            CANNOT_BE_RUN => return Error::NotExecutable { path: self.program.clone() }.into(),
            _ => {}
        }
        // Nothing was said: the plain reading is all there is.
        if said.is_empty() {
            failure::classify(self.name, code, said).into()
        } else {
            failed(self.name, code, said)
        }
    }
}

/// Reads lines until the link or the end. What follows the link is not read: the
/// command is ended there.
async fn lines(pipe: Option<impl AsyncRead + Unpin>) -> Option<String> {
    let mut pipe = BufReader::new(pipe?);
    let mut watch = ConsentWatch::default();
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut pipe).take(LINE).read_until(b'\n', &mut line).await {
            Ok(read) if read > 0 => {
                if let Some(url) = watch.line(&line) {
                    return Some(url);
                }
            }
            Ok(_) | Err(_) => return None,
        }
    }
}

/// Keeps the first `limit` bytes, and reads the rest so that the pipe never fills.
async fn keep(pipe: Option<impl AsyncRead + Unpin>, into: &mut Vec<u8>, limit: usize) {
    let Some(mut pipe) = pipe else { return };
    let mut chunk = [0; 4096];
    while let Ok(read) = pipe.read(&mut chunk).await {
        if read == 0 {
            return;
        }
        let room = limit.saturating_sub(into.len()).min(read);
        into.extend_from_slice(&chunk[..room]);
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::path::Path;
    use std::time::Duration;

    use super::*;
    use crate::Limits;
    use crate::test_support::block_on;

    fn edit(script: &str, limits: Limits) -> Result<(), EditError> {
        edit_with("/bin/sh", script, limits)
    }

    fn edit_with(program: &str, script: &str, limits: Limits) -> Result<(), EditError> {
        let args: [OsString; 2] = ["-c".into(), script.into()];
        // In the helper's place, a shell that becomes what it is told to.
        let tie = Tie {
            program: "/bin/sh".into(),
            args: ["-c", "shift; exec \"$@\"", "tie"].map(OsString::from).into(),
        };
        let call = Call { name: "serve", program: Path::new(program), args: &args, limits: &limits };
        block_on(run_edit(call, &tie))
    }

    fn patient() -> Limits {
        Limits { timeout: Duration::from_secs(60), ..Limits::default() }
    }

    const ASKS: &str = "echo; echo 'Serve is not enabled on your tailnet.'; echo 'To enable, visit:'; echo; \
                        echo '         https://login.tailscale.com/f/serve?node=n1'; ";

    #[test]
    fn a_link_ends_the_command_that_would_wait_for_ever() {
        for rest in ["sleep 3600", "trap '' TERM; while :; do sleep 1; done", "exit 0"] {
            match edit(&format!("{ASKS}{rest}"), patient()) {
                Err(EditError::Consent { url }) => {
                    assert_eq!(url, "https://login.tailscale.com/f/serve?node=n1");
                }
                other => panic!("{rest}: {other:?}"),
            }
        }
    }

    #[test]
    fn one_that_says_nothing_is_ended_in_time() {
        let limits = Limits { timeout: Duration::from_millis(200), ..Limits::default() };
        for script in ["sleep 3600", "yes", "yes >&2", "trap '' TERM; sleep 3600"] {
            let answer = edit(script, limits);
            assert!(matches!(answer, Err(EditError::Call(Error::TimedOut { .. }))), "{script}: {answer:?}");
        }
    }

    #[test]
    fn full_pipes_block_nobody_and_the_reason_is_kept() {
        let script =
            "head -c 300000 /dev/zero; echo 'etag mismatch' >&2; head -c 300000 /dev/zero >&2; exit 1";
        assert!(matches!(edit(script, patient()), Err(EditError::Raced)));
    }

    #[test]
    fn a_child_that_keeps_the_output_open_holds_up_nobody() {
        assert!(edit("sleep 3600 & exit 0", patient()).is_ok());
        assert!(matches!(
            edit("sleep 3600 & echo 'serve config denied' >&2; exit 1", patient()),
            Err(EditError::Denied)
        ));
    }

    #[test]
    fn a_program_that_is_gone_or_cannot_be_run_is_named() {
        let answer = edit_with("/nonexistent/tailscale", "", patient());
        assert!(matches!(answer, Err(EditError::Call(Error::NotInstalled { .. }))), "{answer:?}");
        let answer = edit_with("/etc/passwd", "", patient());
        assert!(matches!(answer, Err(EditError::Call(Error::NotExecutable { .. }))), "{answer:?}");
    }

    #[test]
    fn a_signal_is_told_from_an_exit() {
        let answer = edit("kill -SEGV $$", patient());
        assert!(matches!(answer, Err(EditError::Call(Error::Killed { signal: 11, .. }))), "{answer:?}");
        assert!(matches!(edit("exit 1", patient()), Err(EditError::Call(Error::Failed { code: 1, .. }))));
        assert!(edit("true", patient()).is_ok());
    }
}
