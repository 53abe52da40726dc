//! What a failed call means, from its exit code and what it wrote on standard error.
//!
//! The wording is upstream's (1.102.3, recorded in `fixtures/tailscale`), matched as
//! loosely as is safe: a sentence that is not known stays [`Error::Failed`].

use crate::text::printable;
use crate::{BackendState, Error};

/// The most of another program's words that an error carries, in bytes.
const SHOWN: usize = 400;

/// The error that a non-zero `code` and `stderr` describe.
pub(crate) fn classify(command: &'static str, code: i32, stderr: &[u8]) -> Error {
    let said = String::from_utf8_lossy(stderr);
    let folded = said.to_ascii_lowercase();
    let lines = || folded.lines().map(str::trim);
    let detail = || printable(stderr, SHOWN);

    // Bad flags print the whole usage text, so they go first: no word in there
    // is about the daemon.
    if code == 2 {
        return Error::BadArgument { command, detail: detail() };
    }
    // `... local Tailscale daemon for ...`, `... local tailscaled; ...`,
    // `... local tailscaled (which appears ...`, macOS: `... local Tailscale service; ...`
    if folded.contains("failed to connect to local tailscale") {
        return Error::DaemonDown;
    }
    // The second is the daemon's own wording, which other releases pass on.
    if lines().any(|line| line == "peer not found" || line.ends_with("no match for ip:port")) {
        return Error::NotFound;
    }
    if lines().any(|line| line.contains("access denied") || line.contains("401 unauthorized")) {
        return Error::Denied { command, detail: detail() };
    }
    if let Some(error) = lines().find_map(not_running) {
        return error;
    }
    let wrong = ["400 bad request", "missing argument", "too many arguments", "unknown subcommand"];
    if lines().any(|line| wrong.iter().any(|words| line.contains(words))) {
        return Error::BadArgument { command, detail: detail() };
    }
    Error::Failed { command, code, stderr: detail() }
}

/// The line that a node prints that is not running, in lower case.
fn not_running(line: &str) -> Option<Error> {
    let state = match line {
        "tailscale is stopped." => BackendState::Stopped,
        "logged out." => BackendState::NeedsLogin,
        "machine is not yet approved by tailnet admin." => BackendState::NeedsMachineAuth,
        _ => {
            let unexpected = line.strip_prefix("unexpected state: ");
            let no_address = line.strip_prefix("no current tailscale ips; state: ");
            named(unexpected.or(no_address)?)
        }
    };
    state.as_error()
}

/// The state whose name is `folded`, in lower case.
fn named(folded: &str) -> BackendState {
    let known = [
        BackendState::NoState,
        BackendState::InUseOtherUser,
        BackendState::NeedsLogin,
        BackendState::NeedsMachineAuth,
        BackendState::Stopped,
        BackendState::Starting,
        BackendState::Running,
    ];
    let found = known.into_iter().find(|state| state.as_str().eq_ignore_ascii_case(folded));
    found.unwrap_or_else(|| BackendState::Other(printable(folded.as_bytes(), 64)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::{errors_of, recording};

    /// The codes of what a command said in a transcript, one per run of it.
    fn codes(file: &str, command: &str, exit: i32) -> Vec<&'static str> {
        let runs = errors_of(&recording(file), command);
        assert!(!runs.is_empty(), "{command} is not in {file}");
        runs.iter().map(|said| classify("x", exit, said.as_bytes()).code()).collect()
    }

    #[test]
    fn recorded_failures_of_whois_are_told_apart() {
        let whois =
            |args: &str, exit| codes("whois-errors.txt", &format!("$ tailscale whois{args}"), exit).remove(0);
        assert_eq!(whois(" 100.64.0.99", 1), "tailscale_peer_not_found");
        assert_eq!(whois(" 100.100.100.100", 1), "tailscale_peer_not_found");
        assert_eq!(whois(" 127.0.0.1:1234", 1), "tailscale_peer_not_found");
        for args in ["", " 100.64.0.2 100.64.0.3", " ''", " laptop", " 999.1.1.1"] {
            assert_eq!(whois(args, 1), "tailscale_bad_argument", "{args}");
        }
        assert_eq!(whois(" --bogus 100.64.0.2", 2), "tailscale_bad_argument");
    }

    #[test]
    fn recorded_failures_of_other_states_are_told_apart() {
        let whois = "$ tailscale whois 100.64.0.1";
        let down = "tailscale_daemon_down";
        // Stopped (answers, nothing on stderr), logged out, daemon gone.
        assert_eq!(codes("states.txt", whois, 1)[1..], ["tailscale_peer_not_found", down]);
        assert_eq!(codes("states.txt", "$ tailscale ip", 1)[1..], ["tailscale_logged_out", down]);
        assert_eq!(codes("states.txt", "$ tailscale status --json", 1), [down]);
        assert_eq!(codes("states.txt", "$ tailscale serve status --json", 1)[2..], [down]);
        assert_eq!(
            codes("states.txt", "$ tailscale serve --bg --http=80 9000", 1),
            ["tailscale_stopped", "tailscale_logged_out", down]
        );
    }

    #[test]
    fn sentences_from_the_source_are_told_apart() {
        for (said, code) in [
            ("Access denied: whois access denied\n\nUse 'sudo ...'", "tailscale_denied"),
            ("sending serve config: 401 Unauthorized: must be root, or ...", "tailscale_denied"),
            ("failed to connect to local Tailscale service; is Tailscale running?", "tailscale_daemon_down"),
            (
                "failed to connect to local tailscaled; it doesn't appear to be running (sudo systemctl start tailscaled ?)",
                "tailscale_daemon_down",
            ),
            ("unexpected state: NoState", "tailscale_not_ready"),
            ("Machine is not yet approved by tailnet admin.", "tailscale_not_ready"),
            ("no current Tailscale IPs; state: Starting", "tailscale_not_ready"),
            ("Warning: client version differs\npeer not found", "tailscale_peer_not_found"),
            ("404 Not Found: no match for IP:port", "tailscale_peer_not_found"),
            ("tailscale: unknown subcommand: whois", "tailscale_bad_argument"),
            ("context deadline exceeded", "tailscale_failed"),
            ("", "tailscale_failed"),
        ] {
            assert_eq!(classify("x", 1, said.as_bytes()).code(), code, "{said}");
        }
    }

    #[test]
    fn unknown_words_are_kept_short_and_harmless() {
        let mut said = b"boom \x1b[2J\xff".to_vec();
        said.extend([b'x'; 5000]);
        let Error::Failed { code, stderr, .. } = classify("whois", 3, &said) else {
            panic!("not a failure");
        };
        assert_eq!(code, 3);
        assert!(stderr.starts_with("boom \\u{1b}[2J\u{fffd}x"), "{stderr}");
        assert!(stderr.len() <= SHOWN + "…".len());
    }

    #[test]
    fn every_mending_command_belongs_to_its_error() {
        let denied = classify("x", 1, b"Access denied: x");
        assert_eq!(denied.fix(), Some("sudo tailscale set --operator=$USER"));
        assert_eq!(classify("x", 1, b"Logged out.").fix(), Some("tailscale up"));
        assert_eq!(classify("x", 1, b"peer not found").fix(), None);
        assert!(Error::DaemonDown.fix().is_some());
    }
}
