//! What the operator is told: the ready line, and one banner per change.

use std::io::Write;
use std::net::SocketAddr;

use openclaw_tailscale::BackendState;

use crate::config::{Bind, Gateway, TailscaleMode};
use crate::domain::{Phase, TailnetState};
use crate::readiness::{Fault, Readiness};

/// The one line on stdout.
pub(super) fn ready(listening: &[SocketAddr]) {
    let listen: Vec<String> = listening.iter().map(SocketAddr::to_string).collect();
    let line = serde_json::json!({ "listen": listen, "pid": std::process::id() });
    // Nobody may be reading.
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "ready {line}").and_then(|()| stdout.flush());
    tracing::info!(listen = listen.join(", "), "ready");
}

/// Until Tailscale has answered, a way in that needs it does not work.
pub(super) fn not_asked_yet(gateway: &Gateway, readiness: &Readiness) {
    if needs_tailnet(gateway) {
        let detail = "Tailscale has not answered yet".to_owned();
        readiness.fail(CODES[1], Fault { detail, fix: None });
    }
}

/// Whether a way in that needs the tailnet is configured.
fn needs_tailnet(gateway: &Gateway) -> bool {
    gateway.bind == Bind::Tailnet || gateway.tailscale.mode != TailscaleMode::Off
}

/// Says once what is wrong with Tailscale, and once that it is over.
#[derive(Default)]
pub(super) struct Banner {
    said: Option<String>,
}

const CODES: [&str; 2] = ["whois_unavailable", "tailscale_not_running"];

impl Banner {
    pub(super) fn say(&mut self, state: &TailnetState, gateway: &Gateway, readiness: &Readiness) {
        let fault = match &state.phase {
            Phase::Running(_) => None,
            Phase::Unknown => return,
            Phase::Down { detail, fix, .. } => {
                Some((CODES[0], Fault { detail: detail.clone(), fix: fix.clone() }))
            }
            Phase::NotRunning { state } => {
                let fix = state.as_error().and_then(|error| error.fix().map(str::to_owned));
                let detail = format!("Tailscale is {}", state.as_str());
                Some((CODES[1], Fault { detail, fix: fix.or_else(|| Some("tailscale up".into())) }))
            }
        };
        // Where no way in needs the tailnet it is no fault.
        let needed = needs_tailnet(gateway);
        for code in CODES {
            if fault.as_ref().is_none_or(|(now, _)| *now != code) {
                readiness.clear(code);
            }
        }
        match fault {
            Some((code, fault)) if needed => {
                // Before the log says so: whoever reads it there may ask here.
                readiness.fail(code, fault.clone());
                let text = format!(
                    "{}{}",
                    fault.detail,
                    fault.fix.as_deref().map(|fix| format!(" -- to mend it: {fix}")).unwrap_or_default()
                );
                let starting = matches!(&state.phase, Phase::NotRunning { state } if matches!(state, BackendState::Starting | BackendState::NoState));
                if self.said.as_ref() != Some(&text) {
                    if starting {
                        tracing::warn!(code, "tailnet identity is not on yet: {text}");
                    } else {
                        tracing::error!(code, "tailnet identity is off: {text}. Loopback keeps working");
                    }
                    self.said = Some(text);
                }
            }
            _ => {
                if self.said.take().is_some() {
                    tracing::info!("Tailscale is back; tailnet identity is on");
                }
            }
        }
    }
}
