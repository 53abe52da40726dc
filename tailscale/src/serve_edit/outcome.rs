//! What an edit of the Serve configuration can end in, from what `serve` printed.

use crate::Error;
use crate::text::printable;

/// The most of another program's words that an error carries, in bytes.
const SHOWN: usize = 400;

/// Why an edit was not made, or is not known to have been made. Whatever it says, only
/// reading the configuration again tells what is published now.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum EditError {
    /// HTTPS or Funnel is off for the tailnet; its owner has to consent at a link.
    #[error("Tailscale waits for somebody to allow it at {url}")]
    Consent {
        /// The link, as printed.
        url: String,
    },
    /// The control server has no such feature (a self-hosted one).
    #[error("the control server does not offer this: {detail}")]
    NotOffered {
        /// What was printed.
        detail: String,
    },
    /// Funnel is not allowed for this node or port.
    #[error("Funnel is not available: {detail}")]
    FunnelUnavailable {
        /// What was printed.
        detail: String,
    },
    /// The caller is neither root nor the operator.
    #[error("tailscaled does not let this user change what is served")]
    Denied,
    /// A unix socket or a path is published, by this edit or by somebody else, which
    /// takes root or an operator with sudo. The daemon judges the whole configuration.
    #[error("tailscaled wants root, or an operator with sudo, while a unix socket or a path is served")]
    NotAdmin,
    /// Somebody changed the configuration at the same moment. Worth another try.
    #[error("somebody else is changing the Serve configuration")]
    Raced,
    /// The port is taken, in the daemon's words.
    #[error("the port is taken: {detail}")]
    PortTaken {
        /// What was printed.
        detail: String,
    },
    /// Somebody's Funnel is on for the site, so that it would be public.
    #[error("somebody's Funnel is on for {site}: it would be open to the internet")]
    Public {
        /// The site, `name:port`.
        site: String,
    },
    /// tailscaled does not accept the configuration.
    #[error("tailscaled does not accept this Serve configuration: {detail}")]
    Invalid {
        /// What it said.
        detail: String,
    },
    /// There is no such mount to take away.
    #[error("there is no such mount")]
    NoSuchMount,
    /// tailscaled runs from a configuration file and takes no changes.
    #[error("tailscaled's own configuration file forbids changes")]
    Locked,
    /// Incoming connections are blocked on this node.
    #[error("Funnel cannot be on while incoming connections are blocked (shields up)")]
    ShieldsUp,
    /// This `tailscale` does not know the command in this form.
    #[error("this tailscale does not understand the command: {detail}")]
    OldProgram {
        /// What was printed.
        detail: String,
    },
    /// Any other failure, as with every call.
    #[error(transparent)]
    Call(#[from] Error),
}

impl EditError {
    /// A stable name for logs and JSON.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Consent { .. } => "serve_consent_needed",
            Self::NotOffered { .. } => "serve_not_offered",
            Self::FunnelUnavailable { .. } => "funnel_unavailable",
            Self::Denied => "serve_denied",
            Self::NotAdmin => "serve_needs_root",
            Self::Raced => "serve_raced",
            Self::PortTaken { .. } => "serve_port_taken",
            Self::Public { .. } => "serve_site_public",
            Self::Invalid { .. } => "serve_invalid",
            Self::NoSuchMount => "serve_no_such_mount",
            Self::Locked => "serve_locked",
            Self::ShieldsUp => "funnel_shields_up",
            Self::OldProgram { .. } => "serve_program_too_old",
            Self::Call(error) => error.code(),
        }
    }

    /// What mends it, where there is one thing to name: a command or a page.
    #[must_use]
    pub fn fix(&self) -> Option<String> {
        match self {
            Self::Consent { url } => {
                Some(format!("open {url} (its Funnel box is ticked: clear it unless you want Funnel)"))
            }
            Self::NotOffered { .. } => Some("openclaw config set gateway.tailscale.serve.scheme http".into()),
            Self::FunnelUnavailable { .. } => Some("see https://tailscale.com/s/no-funnel".into()),
            Self::Denied => Some("sudo tailscale set --operator=$USER".into()),
            Self::NotAdmin => Some("run the gateway as root, or let its user run sudo tailscale".into()),
            Self::Locked => Some("put the route into tailscaled's configuration file".into()),
            Self::ShieldsUp => Some("tailscale set --shields-up=false".into()),
            Self::OldProgram { .. } => Some("update Tailscale to 1.52 or later".into()),
            Self::Raced => Some("try again".into()),
            Self::PortTaken { .. } => Some("tailscale serve status says by whom; choose another port".into()),
            Self::Public { .. } => {
                Some("choose another port, or have that Funnel turned off (tailscale funnel status)".into())
            }
            Self::Invalid { .. } | Self::NoSuchMount => None,
            Self::Call(error) => error.fix().map(|fix| fix.to_string()),
        }
    }
}

/// The outcomes that only edits have; `None` for what any call may end in.
pub(super) fn classify_edit(stderr: &[u8]) -> Option<EditError> {
    let folded = String::from_utf8_lossy(stderr).to_ascii_lowercase();
    let says = |words: &str| folded.contains(words);
    let detail = || printable(stderr, SHOWN);
    if says("etag mismatch") {
        return Some(EditError::Raced);
    }
    if says("must be root") || says("local admin to serve") {
        return Some(EditError::NotAdmin);
    }
    if says("serve config denied") {
        return Some(EditError::Denied);
    }
    if says("listener already exists for port")
        || says("is already serving")
        || says("already serving tcp")
        || says("currently serving tcp")
        || says("already serving web")
    {
        return Some(EditError::PortTaken { detail: detail() });
    }
    if says("handler does not exist") {
        return Some(EditError::NoSuchMount);
    }
    if says("config file is locked") {
        return Some(EditError::Locked);
    }
    if says("shields-up is enabled") {
        return Some(EditError::ShieldsUp);
    }
    if says("funnel not available") || says("not allowed for funnel") {
        return Some(EditError::FunnelUnavailable { detail: detail() });
    }
    if says("501 not implemented") {
        return Some(EditError::NotOffered { detail: detail() });
    }
    let old = [
        "invalid argument format",
        "invalid number of arguments",
        "cli for serve and funnel has changed",
        "flag provided but not defined",
        "unknown subcommand",
    ];
    old.iter().any(|words| says(words)).then(|| EditError::OldProgram { detail: detail() })
}
