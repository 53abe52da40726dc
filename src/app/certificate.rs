//! The certificate of the ordinary port, and the names a self-signed one is for.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use super::{StartError, locate_options, own_addresses};
use crate::certs::judge_expiry;
use crate::certs::self_signed::{self, Ensured, SelfSigned};
use crate::config::{Bind, Config, Gateway};
use crate::domain::Running;
use crate::ingress::{Tls, TlsFiles};
use crate::readiness::{Fault, Readiness};
use crate::telemetry;
use crate::watch::{Finder, node_now};

/// How long the making of a pair waits for Tailscale to say this node's name.
const ASK_NAMES: Duration = Duration::from_secs(3);
const NOT_RELOADED: &str = "certificate_not_reloaded";

/// Where the certificate of the ordinary port comes from.
pub(super) enum Certificate {
    /// There is none: plain text.
    Absent,
    /// Files of the operator's.
    Files(Tls),
    /// Files of ours.
    SelfSigned(SelfSigned, Tls, Ensured),
}

impl Certificate {
    /// Reads it; a self-signed one is made where there never was one.
    pub(super) async fn open(config: &Config, finder: &Finder) -> Result<Self, StartError> {
        let gateway = &config.gateway;
        if let Some(pair) = self_signed_of(config) {
            // Only a new one needs to know the names of now.
            let node = if pair.is_made() { None } else { node_now(finder, ASK_NAMES).await };
            let (tls, ensured) =
                pair.ensure(&names(gateway, node.as_ref())).map_err(StartError::SelfSigned)?;
            if ensured == Ensured::Made {
                tracing::info!(
                    cert = %pair.files().cert.display(),
                    "a self-signed certificate was made; clients trust it by its file, its fingerprint or its key"
                );
                if node.is_none() {
                    tracing::warn!(
                        "Tailscale was not running: the certificate lacks the tailnet's names; once it runs: openclaw tls renew"
                    );
                }
            }
            let this = Self::SelfSigned(pair, tls, ensured);
            this.say();
            return Ok(this);
        }
        let Some(files) = &gateway.tls else { return Ok(Self::Absent) };
        let tls = Tls::load(TlsFiles { cert: files.cert_path.clone(), key: files.key_path.clone() })?;
        if let Some(mode) = tls.files().exposed_key_mode() {
            tracing::warn!(path = %files.key_path.display(), mode = format!("{mode:o}"), "others can read the key");
        }
        let this = Self::Files(tls);
        this.say();
        Ok(this)
    }

    /// What the ordinary port shows.
    pub(super) fn tls(&self) -> Option<&Tls> {
        match self {
            Self::Absent => None,
            Self::Files(tls) | Self::SelfSigned(_, tls, _) => Some(tls),
        }
    }

    /// Whether it was made just now.
    pub(super) fn is_made(&self) -> bool {
        matches!(self, Self::SelfSigned(_, _, Ensured::Made))
    }

    /// The same with the word for its source.
    pub(super) fn in_use(&self) -> Option<(&'static str, Tls)> {
        let source = if matches!(self, Self::SelfSigned(..)) { "self" } else { "files" };
        self.tls().map(|tls| (source, tls.clone()))
    }

    /// The log's line about what is shown from now on.
    fn say(&self) {
        if let Some(facts) = self.tls().and_then(Tls::facts) {
            tracing::info!(
                fingerprint = facts.fingerprint_text(),
                key_pin = facts.key_pin_text(),
                names = facts.names().join(", "),
                not_after = facts.not_after_text(),
                "serving TLS with this certificate"
            );
        }
    }

    /// Takes over files that changed on disk. A broken or mismatched pair leaves
    /// the old one in use (threat rule 99).
    pub(super) fn reload(&self, readiness: &Readiness) {
        let Some(tls) = self.tls() else { return };
        let before = tls.facts();
        match tls.reload() {
            Ok(()) => {
                readiness.clear(NOT_RELOADED);
                if tls.facts() != before {
                    self.say();
                }
            }
            Err(error) => {
                let detail = telemetry::chain(&error);
                tracing::error!(
                    error = detail,
                    "the changed certificate is refused; the old one stays in use"
                );
                readiness.fail(NOT_RELOADED, Fault { detail, fix: None });
            }
        }
        self.look(readiness);
    }

    /// Looks at the clock: a self-signed certificate is made anew for its key before
    /// it ends, of any other the operator is told 14 days ahead.
    pub(super) fn look(&self, readiness: &Readiness) {
        let Some(tls) = self.tls() else { return };
        let now = SystemTime::now();
        if let Self::SelfSigned(pair, ..) = self
            && let Some(facts) = tls.facts().filter(|facts| self_signed::is_due(facts, now))
        {
            // With the names it has: nobody asked for others.
            match pair.renew(&facts.names()).map(|_| tls.reload()) {
                Ok(Ok(())) => {
                    tracing::warn!(
                        "the self-signed certificate was near its end and was made anew for the same key: pins of \
                         the key go on working, pins of the fingerprint need the new one"
                    );
                    self.say();
                }
                Ok(Err(error)) => {
                    tracing::error!(error = telemetry::chain(&error), "the new certificate cannot be used")
                }
                Err(error) => {
                    tracing::error!(error = telemetry::chain(&error), "no new certificate could be made")
                }
            }
        }
        let source = tls.files().cert.display().to_string();
        judge_expiry(&source, tls.facts().as_ref(), "replace the certificate and its key", now, readiness);
    }
}

/// The self-signed pair, where that is what is configured.
pub fn self_signed_of(config: &Config) -> Option<SelfSigned> {
    let files = config.gateway.tls.as_ref().filter(|_| config.gateway.tls_self_signed)?;
    let files = TlsFiles { cert: files.cert_path.clone(), key: files.key_path.clone() };
    Some(SelfSigned::new(files, &config.state_dir))
}

/// The names a self-signed certificate of now would be for. Asks Tailscale, and
/// waits a few seconds at most.
pub fn names_now(config: &Config) -> std::io::Result<Vec<String>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let finder = Finder::new(locate_options(&config.gateway));
    let node = runtime.block_on(node_now(&finder, ASK_NAMES));
    Ok(names(&config.gateway, node.as_ref()))
}

/// Every name and address under which clients may come.
fn names(gateway: &Gateway, node: Option<&Running>) -> Vec<String> {
    let mut names = Vec::new();
    if let Some(name) = node.and_then(|node| node.dns_name.as_ref()) {
        names.push(name.as_str().to_owned());
        names.push(name.short().to_owned());
    }
    names.extend(rustix::system::uname().nodename().to_str().ok().map(str::to_ascii_lowercase));
    names.push("localhost".to_owned());
    let hosts = gateway.routes.iter().filter_map(|route| route.host.as_deref());
    let hosts = hosts.chain(gateway.allowed_hosts.iter().map(String::as_str));
    names.extend(hosts.map(|host| host.split(':').next().unwrap_or(host).to_owned()));
    let mut addresses: Vec<IpAddr> = node.map(|node| node.ips.clone()).unwrap_or_default();
    addresses.extend([IpAddr::from([127, 0, 0, 1]), IpAddr::V6(std::net::Ipv6Addr::LOCALHOST)]);
    match gateway.bind {
        Bind::Custom(host) => addresses.push(host.into()),
        Bind::Lan | Bind::Auto => addresses.extend(own_addresses().unwrap_or_default()),
        Bind::Loopback | Bind::Tailnet => {}
    }
    names.extend(addresses.iter().filter(|address| !address.is_unspecified()).map(IpAddr::to_string));
    let mut seen = std::collections::HashSet::new();
    names.retain(|name| !name.is_empty() && seen.insert(name.clone()));
    names
}
