//! What all workers share, and the one snapshot a request sees of it.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Instant, SystemTime};

use arc_swap::{ArcSwap, ArcSwapOption};
use http::HeaderName;
use tokio::sync::watch;

use super::grant::unix_now;
use super::router::Router;
use crate::authn::IdentityCache;
use crate::authn::secret::Secrets;
use crate::authz::pins::Pins;
use crate::config::{AuthMode, Config, TailscaleMode};
use crate::domain::tailnet::in_tailscale_range;
use crate::domain::{AskDaemon, Exposure, FreshFacts, FunnelGrants, HttpsSite, Now, Route, TailnetState};
use crate::ingress::{IngressFacts, Tls, Via};
use crate::limits::{Limiter, Subject};
use crate::metrics::{Counts, Seen, render};
use crate::readiness::{Fault, Readiness};
use crate::telemetry::Style;

/// A configuration with what follows from it, made once and swapped whole: no
/// request is served under half of one (threat rule 100).
pub struct Settings {
    /// The configuration.
    pub config: Config,
    /// The digests of its secrets.
    pub secrets: Secrets,
    /// Its routes.
    pub router: Router,
}

impl Settings {
    /// Prepares a configuration.
    pub fn new(config: Config) -> Self {
        let secrets = Secrets::new(&config.gateway.auth);
        let router = Router::new(config.gateway.routes.clone());
        Self { config, secrets, router }
    }

    /// The user header, in mode trusted-proxy.
    pub fn user_header(&self) -> Option<&HeaderName> {
        let auth = &self.config.gateway.auth;
        match auth.mode {
            AuthMode::TrustedProxy => auth.trusted_proxy.as_ref().map(|proxy| &proxy.user_header),
            _ => None,
        }
    }

    /// Whose budget a wrong secret of this request is charged to. Loopback is
    /// exempt only where nothing but a local process can be behind it.
    pub fn subject(&self, facts: &IngressFacts, state: &TailnetState) -> Subject {
        let gateway = &self.config.gateway;
        let exempt = facts.local_direct
            && gateway.auth.rate_limit.exempt_loopback
            && gateway.tailscale.mode == TailscaleMode::Off
            && gateway.trusted_proxies.is_empty()
            && state.loopback_exposure() == Exposure::No;
        match (facts.client, facts.via) {
            _ if exempt => Subject::Exempt,
            // Tailnet peers share one /64, so each counts by itself; but a LAN host
            // that reaches a tailnet address does not.
            (Some(client), Via::Tailnet | Via::Serve) if in_tailscale_range(client.ip()) => {
                Subject::Tailnet(client)
            }
            (Some(client), _) => Subject::Client(client),
            (None, _) => Subject::Unattributed,
        }
    }
}

/// Everything the workers share.
pub struct Shared {
    /// The configuration in force.
    pub settings: ArcSwap<Settings>,
    /// The tailnet.
    pub state: Arc<ArcSwap<TailnetState>>,
    /// Wakes on every change of it.
    pub changed: watch::Receiver<u64>,
    /// Identities.
    pub identities: IdentityCache,
    /// Asks which process tailscaled is, without waiting.
    pub daemon: Box<dyn AskDaemon>,
    /// Has what is known of Serve read again.
    pub fresh: Arc<dyn FreshFacts>,
    /// Lockouts.
    pub limiter: Arc<Limiter>,
    /// Pins.
    pub pins: Pins,
    /// What is open to the internet. Looked at for Funnel requests only.
    pub funnel: ArcSwap<FunnelGrants>,
    /// What works and what does not.
    pub readiness: Arc<Readiness>,
    /// Where HTTPS on the tailnet is, while the plain port sends people there.
    pub https: Arc<ArcSwapOption<HttpsSite>>,
    /// The certificate that handshakes show, and where it is from.
    pub certificate: Arc<ArcSwapOption<(&'static str, Tls)>>,
    /// Requests by how they ended.
    pub counts: Counts,
    /// When the process started.
    pub started: SystemTime,
    /// This host's own addresses; `None` where they could not be read yet.
    pub own_addresses: ArcSwapOption<Vec<IpAddr>>,
    /// Our uid.
    pub our_uid: u32,
    /// How request lines look.
    pub log_style: Style,
    /// Set when the gateway stops.
    pub draining: AtomicBool,
}

impl Shared {
    /// Whether a route may be reached through Funnel at a canonical path, right now:
    /// compared with the clock each time, not with whether a timer was on time.
    pub fn is_open(&self, route: &Route, path: &str) -> bool {
        let now = Now { unix: unix_now(), instant: Instant::now() };
        self.funnel.load().admit(route, path, now)
    }

    /// What a Prometheus reads.
    pub(super) fn metrics_text(&self) -> String {
        let codes = |faults: Vec<(&'static str, Fault)>| faults.into_iter().map(|(code, _)| code).collect();
        let certificate = self.certificate.load_full().and_then(|certificate| {
            let facts = certificate.1.facts()?;
            Some((certificate.0, facts.not_before, facts.not_after))
        });
        let seen = Seen {
            version: env!("CARGO_PKG_VERSION"),
            started: self.started,
            ready: self.readiness.is_ready() && !self.is_draining(),
            faults: codes(self.readiness.faults()),
            warnings: codes(self.readiness.warnings()),
            tailscale: self.state.load().running().is_some(),
            certificate,
        };
        render(&seen, &self.counts)
    }

    /// Whether the gateway is stopping.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}
