//! What can go wrong with one question to Tailscale.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::BackendState;

/// Why a call of `tailscale`, or the same question to the LocalAPI, gave no answer.
///
/// `command` is the short name of the call (`whois`, `status`, ...), never its
/// arguments; a question to the LocalAPI has the name of the call that asks the same. Text that another program printed is trimmed, cut to 400 bytes, and
/// its control characters are escaped, so that it can be logged as it is.
///
/// `Clone`, because one look-up may be shared by many waiting requests.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no file at the binary's path (any more).
    #[error("tailscale is not installed at {}", path.display())]
    NotInstalled {
        /// Where it was expected.
        path: PathBuf,
    },
    /// The file exists, but the system will not run it.
    #[error("{} cannot be executed", path.display())]
    NotExecutable {
        /// The file.
        path: PathBuf,
    },
    /// The process could not be started or watched for another reason.
    #[error("could not run {}", path.display())]
    Spawn {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: Arc<io::Error>,
    },
    /// The LocalAPI socket is there, but cannot be used, or the connection broke
    /// before the answer was whole.
    #[error("could not use the socket {}", path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: Arc<io::Error>,
    },
    /// Another user of this machine could be the one who answers at the LocalAPI
    /// socket, so nothing was asked.
    #[error("not asking at {}, where uid {uid} answers: {}", path.display(), reasons.join("; "))]
    Untrusted {
        /// The socket.
        path: PathBuf,
        /// The user who listens there.
        uid: u32,
        /// What is wrong with its place.
        reasons: Vec<String>,
    },
    /// tailscaled does not answer on its socket.
    #[error("tailscaled is not running")]
    DaemonDown,
    /// The node is logged out (`NeedsLogin`).
    #[error("this machine is logged out of Tailscale")]
    LoggedOut,
    /// Tailscale was switched off with `tailscale down`.
    #[error("Tailscale is stopped")]
    Stopped,
    /// The backend is in a state in which the call cannot be answered, other than
    /// logged out or stopped.
    #[error("Tailscale is not ready, its state is {state}")]
    NotReady {
        /// The state that it named.
        state: BackendState,
    },
    /// `whois` knows no such peer. A node without a network map (logged out, just
    /// started) says the same, so it proves absence only while `Running`.
    #[error("peer not found")]
    NotFound,
    /// The daemon refused this user.
    #[error("tailscaled denied `{command}`: {detail}")]
    Denied {
        /// Which call.
        command: &'static str,
        /// What it said.
        detail: String,
    },
    /// The tailnet issues no certificates: HTTPS is not enabled for it.
    #[error("HTTPS certificates are not enabled for this tailnet")]
    HttpsDisabled,
    /// This node can have a certificate, but not for that name.
    #[error("this node can have no certificate for {domain}: {detail}")]
    NotCertDomain {
        /// The name.
        domain: String,
        /// What the daemon said.
        detail: String,
    },
    /// The certificate authority has made too many certificates for that name lately.
    #[error("too many certificates were asked for: {detail}")]
    RateLimited {
        /// What was said.
        detail: String,
    },
    /// Only the LocalAPI can do that, and it is not used.
    #[error("`{command}` takes tailscaled's socket, and only the tailscale program is used")]
    LocalApiOnly {
        /// Which call.
        command: &'static str,
    },
    /// This tailscaled cannot do that yet, or does not say its version.
    #[error("`{command}` in this form takes tailscaled {needs} or later")]
    TooOld {
        /// Which call.
        command: &'static str,
        /// The first release that can.
        needs: &'static str,
    },
    /// The daemon ended what it would have told until somebody ends it: it stops, or
    /// the session was taken away.
    #[error("tailscaled ended `{command}`")]
    StreamEnded {
        /// Which call.
        command: &'static str,
    },
    /// The call took longer than its limit; its process group was killed, or the
    /// connection closed.
    #[error("`tailscale {command}` did not finish within {} ms", after.as_millis())]
    TimedOut {
        /// Which call.
        command: &'static str,
        /// The limit that was in force.
        after: Duration,
    },
    /// Something else killed the process.
    #[error("`tailscale {command}` was killed by signal {signal}")]
    Killed {
        /// Which call.
        command: &'static str,
        /// The signal's number.
        signal: i32,
    },
    /// The output (or a document handed to a parser) exceeded its limit.
    #[error("`tailscale {command}` printed more than {limit} bytes")]
    TooLarge {
        /// Which call.
        command: &'static str,
        /// The limit that was in force, in bytes.
        limit: usize,
    },
    /// The output is text, but not one whole JSON object.
    #[error("`tailscale {command}` did not print one JSON object: {detail}")]
    NotJson {
        /// Which call.
        command: &'static str,
        /// What is wrong with it.
        detail: String,
    },
    /// The output is not text: invalid UTF-8, a NUL byte, or, where lines were
    /// expected, something else.
    #[error("`tailscale {command}` printed garbage: {detail}")]
    Garbage {
        /// Which call.
        command: &'static str,
        /// What is wrong with it.
        detail: String,
    },
    /// The output is JSON, but a field is missing, of the wrong type, or holds
    /// something that cannot be so.
    #[error("`tailscale {command}` printed an unexpected `{field}`: {detail}")]
    WrongShape {
        /// Which call.
        command: &'static str,
        /// The field, as a dotted path.
        field: String,
        /// What is wrong with it.
        detail: String,
    },
    /// The call itself was wrong: an address without meaning, or a flag that this
    /// release of `tailscale` does not know.
    #[error("`tailscale {command}` was called wrongly: {detail}")]
    BadArgument {
        /// Which call.
        command: &'static str,
        /// What was wrong.
        detail: String,
    },
    /// It exited with a failure that none of the above describes.
    #[error("`tailscale {command}` failed with exit code {code}: {stderr}")]
    Failed {
        /// Which call.
        command: &'static str,
        /// The exit code.
        code: i32,
        /// What it printed on standard error.
        stderr: String,
    },
    /// The LocalAPI answered with a status that none of the above describes.
    #[error("tailscaled answered `{command}` with status {status}: {detail}")]
    Status {
        /// Which call.
        command: &'static str,
        /// The HTTP status.
        status: u16,
        /// What it said.
        detail: String,
    },
}

impl Error {
    /// A stable name for logs, `doctor` and JSON; never changes with the wording.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotInstalled { .. } => "tailscale_not_installed",
            Self::NotExecutable { .. } => "tailscale_not_executable",
            Self::Spawn { .. } => "tailscale_spawn_failed",
            Self::Socket { .. } => "tailscale_socket_failed",
            Self::Untrusted { .. } => "tailscale_socket_untrusted",
            Self::DaemonDown => "tailscale_daemon_down",
            Self::LoggedOut => "tailscale_logged_out",
            Self::Stopped => "tailscale_stopped",
            Self::NotReady { .. } => "tailscale_not_ready",
            Self::NotFound => "tailscale_peer_not_found",
            Self::Denied { .. } => "tailscale_denied",
            Self::HttpsDisabled => "tailscale_https_disabled",
            Self::NotCertDomain { .. } => "tailscale_not_cert_domain",
            Self::RateLimited { .. } => "tailscale_rate_limited",
            Self::LocalApiOnly { .. } => "tailscale_localapi_only",
            Self::TooOld { .. } => "tailscale_too_old",
            Self::StreamEnded { .. } => "tailscale_stream_ended",
            Self::TimedOut { .. } => "tailscale_timed_out",
            Self::Killed { .. } => "tailscale_killed",
            Self::TooLarge { .. } => "tailscale_output_too_large",
            Self::NotJson { .. } => "tailscale_output_not_json",
            Self::Garbage { .. } => "tailscale_output_garbage",
            Self::WrongShape { .. } => "tailscale_output_wrong_shape",
            Self::BadArgument { .. } => "tailscale_bad_argument",
            Self::Failed { .. } | Self::Status { .. } => "tailscale_failed",
        }
    }

    /// Whether the daemon answered, and the answer was that it knows no such peer.
    /// Every other error means that nobody was asked, or that the answer was lost.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound)
    }

    /// What mends it, where there is one thing to name: mostly a command.
    #[must_use]
    pub fn fix(&self) -> Option<&'static str> {
        match self {
            Self::NotInstalled { .. } => Some("see https://tailscale.com/download"),
            Self::DaemonDown | Self::Killed { .. } => Some(DAEMON_FIX),
            // It answers, and the certificate authority takes its time.
            Self::TimedOut { command: "cert", .. } => None,
            // It is there and does not answer: starting it again does nothing.
            Self::TimedOut { .. } => Some("sudo systemctl restart tailscaled"),
            Self::LoggedOut | Self::Stopped => Some("tailscale up"),
            Self::NotReady { state } => match state {
                BackendState::NoState | BackendState::Starting => Some("tailscale wait"),
                BackendState::NeedsLogin | BackendState::Stopped => Some("tailscale up"),
                BackendState::InUseOtherUser
                | BackendState::NeedsMachineAuth
                | BackendState::Running
                | BackendState::Other(_) => None,
            },
            Self::Untrusted { .. } => Some(
                "keep tailscaled's socket where only root can write: tailscaled --socket=/run/tailscale/tailscaled.sock",
            ),
            Self::TooOld { .. } => Some("sudo tailscale update"),
            Self::HttpsDisabled => Some("enable HTTPS at https://login.tailscale.com/admin/dns"),
            Self::NotCertDomain { .. } => {
                Some("use one of the CertDomains that `tailscale status --json --peers=false` lists")
            }
            Self::RateLimited { .. } => {
                Some("try again tomorrow, and keep tailscaled's state directory until then")
            }
            Self::Denied { command: "cert", .. } => Some(
                "sudo tailscale set --operator=$USER, or TS_PERMIT_CERT_UID=$USER in tailscaled's environment",
            ),
            Self::Denied { .. } => Some("sudo tailscale set --operator=$USER"),
            Self::NotExecutable { .. }
            | Self::Spawn { .. }
            | Self::Socket { .. }
            | Self::NotFound
            | Self::TooLarge { .. }
            | Self::NotJson { .. }
            | Self::Garbage { .. }
            | Self::WrongShape { .. }
            | Self::BadArgument { .. }
            | Self::LocalApiOnly { .. }
            | Self::StreamEnded { .. }
            | Self::Failed { .. }
            | Self::Status { .. } => None,
        }
    }

    pub(crate) fn wrong_shape(
        command: &'static str,
        field: impl Into<String>,
        detail: impl Into<String>,
    ) -> Self {
        Self::WrongShape { command, field: field.into(), detail: detail.into() }
    }
}

#[cfg(target_os = "macos")]
const DAEMON_FIX: &str = "open -a Tailscale";
#[cfg(not(target_os = "macos"))]
const DAEMON_FIX: &str = "sudo systemctl start tailscaled";
