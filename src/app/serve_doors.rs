//! The Serve ingresses: bound where Serve or Funnel is wanted, at the start or when a
//! changed configuration wants it, and kept for as long as the process lives.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::StartError;
use crate::config::{Config, Env, TailscaleMode};
use crate::domain::{CleanSince, TailnetState};
use crate::ingress::{Binder, Bound, UnixIngress, Workers, serve_dir};
use crate::serve::Doors;
use crate::watch::Interest;

/// What is bound, for whoever has to know.
pub(super) struct ServeDoors {
    binder: Binder,
    /// What the watcher looks for in the Serve configuration.
    interest: Arc<ArcSwap<Interest>>,
    /// Where the keeper can have Serve lead.
    doors: Arc<ArcSwap<Doors>>,
}

/// Bound, and not yet listened at.
pub(super) struct BoundDoors {
    unix: UnixIngress,
    loopback: Bound,
}

impl ServeDoors {
    pub(super) fn new(binder: Binder) -> Self {
        Self { binder, interest: Arc::default(), doors: Arc::default() }
    }

    pub(super) fn interest(&self) -> Arc<ArcSwap<Interest>> {
        self.interest.clone()
    }

    pub(super) fn doors(&self) -> Arc<ArcSwap<Doors>> {
        self.doors.clone()
    }

    /// The ordinary port, which Serve routes and forwards are compared with.
    pub(super) fn know_port(&self, port: u16) {
        self.interest.store(Arc::new(Interest { port, ..(**self.interest.load()).clone() }));
    }

    /// Binds them where they are wanted and not there: the unix socket, and a loopback port
    /// of its own for where that cannot be used.
    pub(super) fn bind(&self, config: &Config, env: &Env) -> Result<Option<BoundDoors>, StartError> {
        if config.gateway.tailscale.mode == TailscaleMode::Off || self.doors.load().any() {
            return Ok(None);
        }
        let dir = serve_dir(|name| env.get(name).map(Into::into), &config.state_dir);
        let unix = UnixIngress::bind(&dir)?;
        let loopback = self.binder.bind((Ipv4Addr::LOCALHOST, 0).into())?;
        Ok(Some(BoundDoors { unix, loopback }))
    }

    /// Listens at them, and tells everybody.
    pub(super) fn open(&self, bound: BoundDoors, workers: &Workers, state: &ArcSwap<TailnetState>) {
        let path: PathBuf = bound.unix.path().to_owned();
        let port = bound.loopback.addr().port();
        // Before anybody is taken in: what leads there is looked for from now on, and what
        // was seen so far says nothing of it.
        let ordinary = self.interest.load().port;
        let interest = Interest { port: ordinary, unix: Some(path.clone()), ingress: Some(port) };
        self.interest.store(Arc::new(interest));
        state.rcu(|before| TailnetState {
            clean_since: CleanSince { unix: None, ingress: None, ..before.clean_since },
            ..TailnetState::clone(before)
        });
        tracing::info!(path = %path.display(), "the Serve ingress is ready");
        workers.add_unix(bound.unix);
        workers.add_serve_loopback(bound.loopback);
        self.doors.store(Arc::new(Doors { unix: Some(path), loopback: Some(port) }));
    }
}
