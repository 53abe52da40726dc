//! Listeners on tailnet addresses, which come and go.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use super::https_listeners::HttpsListeners;
use super::listen;
use crate::config::Bind;
use crate::domain::TailnetState;
use crate::ingress::{Binder, ListenerKey, Tls, Workers};
use crate::readiness::{Fault, Readiness};

/// What is bound on the tailnet, and what should be.
pub(super) struct TailnetListeners {
    bind: Bind,
    port: u16,
    binder: Binder,
    tls: Option<Tls>,
    bound: BTreeSet<SocketAddr>,
    missing: bool,
    https: Option<HttpsListeners>,
}

impl TailnetListeners {
    pub(super) fn new(
        bind: Bind,
        port: u16,
        binder: Binder,
        tls: Option<Tls>,
        https: Option<HttpsListeners>,
    ) -> Self {
        Self { bind, port, binder, tls, bound: BTreeSet::new(), missing: false, https }
    }

    /// Whether an address that should be bound is not yet.
    pub(super) fn wants_retry(&self) -> bool {
        self.missing || self.https.as_ref().is_some_and(HttpsListeners::wants_retry)
    }

    /// Ends when the node has another certificate than before; never without one.
    pub(super) async fn certificate_changed(&mut self) {
        match &mut self.https {
            Some(https) => https.certificate_changed().await,
            None => std::future::pending().await,
        }
    }

    /// Binds what appeared, lets go of what is ours no more. While Tailscale is
    /// down everything stays as it is.
    pub(super) fn follow(&mut self, state: &TailnetState, workers: &Workers, readiness: &Readiness) {
        if let Some(https) = &mut self.https {
            https.follow(state, workers, readiness);
        }
        let Some(wanted) = listen::tailnet(self.bind, self.port, state) else { return };
        let wanted: BTreeSet<SocketAddr> = wanted.iter().map(|wanted| wanted.addr).collect();
        for gone in self.bound.difference(&wanted) {
            tracing::info!(listen = %gone, "the tailnet address is gone; not listening there any more");
            workers.remove(&ListenerKey::Tcp(*gone));
        }
        self.bound.retain(|addr| wanted.contains(addr));
        let mut faults = Vec::new();
        for addr in &wanted {
            if self.bound.contains(addr) {
                continue;
            }
            match self.binder.bind(*addr) {
                Ok(bound) => {
                    workers.add_tcp(bound, self.tls.as_ref());
                    tracing::info!(listen = %addr, "listening on the tailnet");
                    self.bound.insert(*addr);
                }
                Err(error) => faults.push(error.to_string()),
            }
        }
        self.missing = !faults.is_empty();
        if self.missing {
            let detail = faults.join("; ");
            let fault = Fault { detail: detail.clone(), fix: None };
            if readiness.fail("tailnet_address_not_bound", fault) {
                tracing::warn!(detail, "not listening on the tailnet yet; trying again every second");
            }
        } else {
            readiness.clear("tailnet_address_not_bound");
        }
    }
}
