//! Whether the gateway runs, and what it says of itself.

use std::net::SocketAddr;

use serde_json::Value;

use super::{Finding, Level};
use crate::ingress::CertFacts;

/// What was seen of the gateway's own port.
pub enum Gateway {
    /// Nothing can be asked: there is no usable configuration, or any free port.
    NotAsked {
        /// Why.
        why: String,
    },
    /// Nobody listens there.
    Nobody {
        /// Where.
        addr: SocketAddr,
    },
    /// Somebody does, who does not answer like a gateway.
    Other {
        /// Where.
        addr: SocketAddr,
        /// What came.
        detail: String,
    },
    /// A program of another user listens there. It was not asked: what it says may be
    /// anything.
    OfAnotherUser {
        /// Where.
        addr: SocketAddr,
        /// Whose it is.
        uid: u32,
    },
    /// It answered `/readyz`.
    Answers {
        /// Where.
        addr: SocketAddr,
        /// The answer.
        ready: Value,
        /// The certificate it showed, where it speaks TLS.
        shown: Option<CertFacts>,
    },
}

pub(super) fn findings(seen: &Gateway) -> Vec<Finding> {
    match seen {
        Gateway::NotAsked { why } => vec![Finding::new(Level::Info, "gateway_not_asked", why)],
        Gateway::Nobody { addr } => {
            let detail = format!("no gateway runs at {addr}");
            vec![Finding::new(Level::Warning, "gateway_not_running", detail).fix("openclaw gateway")]
        }
        Gateway::Other { addr, detail } => {
            let detail = format!("what listens at {addr} does not answer like this gateway: {detail}");
            vec![
                Finding::new(Level::Error, "gateway_not_answering", detail)
                    .fix("stop the other program, or set gateway.port"),
            ]
        }
        Gateway::OfAnotherUser { addr, uid } => {
            let detail = format!(
                "what listens at {addr} belongs to uid {uid}, not to us, to root or to the owner of these files, and was not asked"
            );
            vec![Finding::new(Level::Error, "gateway_of_another_user", detail).fix(format!(
                "where the gateway runs as uid {uid}, run openclaw doctor as that user; else stop that program"
            ))]
        }
        Gateway::Answers { addr, ready, .. } => of_answer(*addr, ready),
    }
}

/// What it says is failing, in its own codes.
fn of_answer(addr: SocketAddr, ready: &Value) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (key, level) in [("failing", Level::Error), ("warnings", Level::Warning)] {
        for fault in ready[key].as_array().into_iter().flatten() {
            let text = |field: &str| fault[field].as_str().unwrap_or_default();
            let mut finding = Finding::new(level, text("code"), text("detail"));
            finding.fix = fault["fix"].as_str().map(str::to_owned);
            findings.push(finding);
        }
    }
    for funnel in ready["funnel"].as_array().into_iter().flatten() {
        findings.push(of_funnel(funnel));
    }
    let is_ready = ready["ready"] == true;
    if is_ready {
        findings.insert(0, Finding::new(Level::Ok, "gateway", format!("the gateway at {addr} is ready")));
    } else if findings.is_empty() {
        // Not from this machine itself, in its eyes.
        let detail = format!("the gateway at {addr} is not ready and does not say why to us");
        findings.push(Finding::new(Level::Error, "gateway_not_ready", detail).fix("look at its log"));
    }
    findings
}

/// What is open to the internet is no fault, and is always said; what stays open, or lets
/// everybody in, is said louder.
fn of_funnel(funnel: &Value) -> Finding {
    let url = funnel["url"].as_str().unwrap_or_default();
    let until = match funnel["until"].as_str() {
        Some(until) => format!("until {until}"),
        None => "without an end".to_owned(),
    };
    let open = funnel["open"] == true;
    let whom =
        if open { "everybody, without token or password" } else { "whoever has the token or password" };
    let mild = !open && funnel["until"].is_string();
    let level = if mild { Level::Info } else { Level::Warning };
    Finding::new(level, "funnel_open", format!("{url} is open to the internet {until}, for {whom}"))
        .fix("openclaw funnel off --all")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(ready: Value) -> Vec<(Level, String, Option<String>)> {
        let addr = "127.0.0.1:18789".parse().unwrap();
        let findings = findings(&Gateway::Answers { addr, ready, shown: None });
        findings.into_iter().map(|finding| (finding.level, finding.code, finding.fix)).collect()
    }

    #[test]
    fn threat_060_what_is_open_to_the_internet_is_always_said() {
        let open = |until: Value, open: bool| {
            let found =
                of(json!({"ready": true, "funnel": [{"url": "https://gw/x", "until": until, "open": open}]}));
            found.into_iter().find(|(_, code, _)| code == "funnel_open").map(|(level, ..)| level)
        };
        assert_eq!(open(json!("2026-11-25T02:00:00Z"), false), Some(Level::Info));
        assert_eq!(open(json!("2026-11-25T02:00:00Z"), true), Some(Level::Warning));
        assert_eq!(open(json!(null), false), Some(Level::Warning));
        assert!(of(json!({"ready": true})).iter().all(|(_, code, _)| code != "funnel_open"));
    }

    #[test]
    fn what_readyz_says_is_a_finding_each() {
        let fault = json!({"code": "tailscale_not_running", "detail": "Stopped", "fix": "tailscale up"});
        assert_eq!(
            of(json!({"ready": false, "failing": [fault]})),
            [(Level::Error, "tailscale_not_running".to_owned(), Some("tailscale up".to_owned()))]
        );
        let soon = json!({"code": "certificate_expires_soon", "detail": "", "fix": null});
        let found = of(json!({"ready": true, "warnings": [soon]}));
        assert_eq!(found.iter().map(|found| found.0).collect::<Vec<_>>(), [Level::Ok, Level::Warning]);
        assert_eq!(of(json!({"ready": false}))[0].0, Level::Error, "not ready is never fine");
    }
}
