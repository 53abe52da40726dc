//! The certificate on disk and the one that is shown: names, end, and whether the
//! two are the same.

use std::path::PathBuf;
use std::time::SystemTime;

use super::gateway::Gateway;
use super::tailscale::Tailscale;
use super::{Finding, Level, Seen};
use crate::certs::WARN_BEFORE;
use crate::ingress::{CertFacts, Tls};

/// What was seen of the certificate.
pub enum Certificate {
    /// TLS is off.
    Absent,
    /// It is made or asked for by the gateway, which has not run yet.
    NotYet {
        /// Where it will be.
        path: PathBuf,
    },
    /// It cannot be used.
    Broken {
        /// Why.
        detail: String,
    },
    /// It can.
    Loaded {
        /// Where it is.
        path: PathBuf,
        /// Which `gateway.tls.source`.
        source: &'static str,
        /// The pair.
        tls: Tls,
    },
}

pub(super) fn findings(seen: &Seen) -> Vec<Finding> {
    let (path, source, tls) = match &seen.certificate {
        Certificate::Absent => return Vec::new(),
        Certificate::NotYet { path } => {
            let detail = format!("{} is not there yet: the gateway sees to it when it runs", path.display());
            return vec![Finding::new(Level::Info, "certificate_missing", detail)];
        }
        Certificate::Broken { detail } => {
            return vec![Finding::new(Level::Error, "certificate_unusable", detail)];
        }
        Certificate::Loaded { path, source, tls } => (path, source, tls),
    };
    let Some(facts) = tls.facts() else {
        let detail = format!("the certificate in {} cannot be read", path.display());
        return vec![Finding::new(Level::Error, "certificate_unusable", detail)];
    };
    let mut findings = vec![end(&facts, path.display().to_string(), source)];
    findings.extend(wrong_name(seen, tls, source));
    if let Gateway::Answers { shown: Some(shown), .. } = &seen.gateway
        && shown.fingerprint != facts.fingerprint
    {
        let detail = format!(
            "the gateway shows another certificate ({}) than the one in {}",
            shown.fingerprint_text(),
            path.display()
        );
        findings.push(
            Finding::new(Level::Warning, "certificate_not_reloaded", detail)
                .fix("look at the gateway's log for why the new one was refused"),
        );
    }
    findings
}

fn end(facts: &CertFacts, place: String, source: &str) -> Finding {
    let end = facts.not_after_text();
    let (level, code, detail) = match facts.left(SystemTime::now()) {
        None => (Level::Error, "certificate_expired", format!("the certificate in {place} expired at {end}")),
        Some(left) if left <= WARN_BEFORE => {
            let days = left.as_secs() / 86_400;
            let detail = format!("the certificate in {place} expires in {days} days, at {end}");
            (Level::Warning, "certificate_expires_soon", detail)
        }
        Some(_) => {
            let names = facts.names().join(", ");
            let detail = format!("TLS, source {source}: {place}, for {names}, until {end}");
            return Finding::new(Level::Ok, "certificate", detail);
        }
    };
    Finding::new(level, code, detail).fix(match source {
        "self" => "openclaw tls renew",
        "tailscale" => "look at the gateway's log for why Tailscale gives no new one",
        _ => "replace the certificate and its key",
    })
}

/// Clients on the tailnet come by the node's name, or by a name that was configured.
fn wrong_name(seen: &Seen, tls: &Tls, source: &str) -> Option<Finding> {
    let Tailscale::Answers(status) = &seen.tailscale else { return None };
    let gateway = &seen.config.as_ref()?.gateway;
    let name = status.self_node.dns_name.as_ref()?.as_str();
    if gateway.bind != crate::config::Bind::Tailnet {
        return None;
    }
    let configured = gateway.allowed_hosts.iter().map(String::as_str);
    let routes = gateway.routes.iter().filter_map(|route| route.host.as_deref());
    let mut names = std::iter::once(name).chain(configured).chain(routes);
    if names.any(|name| tls.covers(name.split(':').next().unwrap_or(name))) {
        return None;
    }
    let detail = format!("the certificate is not for {name}, so browsers warn of it");
    let fix = match source {
        "self" => "openclaw tls renew",
        "tailscale" => "wait: the gateway asks for a certificate of the new name",
        _ => "use a certificate for that name, or openclaw config set gateway.tls.source tailscale",
    };
    Some(Finding::new(Level::Warning, "certificate_wrong_name", detail).fix(fix))
}
