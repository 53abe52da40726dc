//! Whether Tailscale can be asked, and how it is doing.

use openclaw_tailscale::{BackendState, Status};

use super::{Finding, Level, Seen};
use crate::config::{Bind, Config, TailscaleMode};

/// What was seen of Tailscale.
pub enum Tailscale {
    /// There is no program and no socket to ask.
    Absent {
        /// Why.
        detail: String,
    },
    /// It did not answer.
    Silent {
        /// Why.
        detail: String,
        /// What mends it.
        fix: Option<String>,
    },
    /// It answered.
    Answers(Box<Status>),
}

pub(super) fn findings(seen: &Seen) -> Vec<Finding> {
    // Where no way in needs it, its absence is none of our business.
    let bad = if seen.config.as_ref().is_some_and(needs_tailnet) { Level::Error } else { Level::Info };
    let finding = match &seen.tailscale {
        Tailscale::Absent { detail } => Finding::new(bad, "tailscale_absent", detail)
            .fix("install Tailscale, or set gateway.tailscale.bin: https://tailscale.com/download"),
        Tailscale::Silent { detail, fix } => {
            Finding { fix: fix.clone(), ..Finding::new(bad, "whois_unavailable", detail) }
        }
        Tailscale::Answers(status) if status.backend_state == BackendState::Running => {
            let name =
                status.self_node.dns_name.as_ref().map_or("a node without a name", |name| name.as_str());
            let detail = format!("Tailscale {} runs as {name}", status.version);
            Finding::new(Level::Ok, "tailscale", detail)
        }
        Tailscale::Answers(status) => {
            let fix = status.backend_state.as_error().and_then(|error| error.fix()).unwrap_or("tailscale up");
            let detail = format!("Tailscale is {}", status.backend_state.as_str());
            Finding::new(bad, "tailscale_not_running", detail).fix(fix)
        }
    };
    vec![finding]
}

/// Whether a way in that needs the tailnet is configured.
fn needs_tailnet(config: &Config) -> bool {
    config.gateway.bind == Bind::Tailnet || config.gateway.tailscale.mode != TailscaleMode::Off
}
