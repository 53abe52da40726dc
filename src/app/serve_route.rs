//! The Serve route of the configuration: its ingresses, its keeper, and what is said of it.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use openclaw_tailscale::Tie;
use tokio::sync::watch;

use crate::config::{Config, Gateway, ServeScheme, TailscaleMode};
use crate::domain::TailnetState;
use crate::readiness::{Fault, Readiness};
use crate::serve::{DesiredMount, Keeper, KeeperHandle, Places, ServeStatus, Wanted};
use crate::state_db::StateDb;
use crate::watch::Finder;

/// How long taking the route away may hold up a stop.
const UNDO: Duration = Duration::from_secs(15);

/// The subcommand of this program that ties a child to its parent's life.
pub(crate) const TIED: &str = "__tied";

/// The mounts that the configuration asks for.
pub(crate) fn wanted(gateway: &Gateway) -> Wanted {
    let tailscale = &gateway.tailscale;
    if tailscale.mode == TailscaleMode::Off {
        return Vec::new();
    }
    vec![DesiredMount {
        https: tailscale.serve.scheme == ServeScheme::Https,
        port: tailscale.serve.port,
        path: tailscale.serve.path.clone(),
        funnel: false,
    }]
}

/// This program, as the helper that ties what it starts to its own life. By the link
/// that stays right when the file is replaced by a newer one.
pub(crate) fn tie() -> Tie {
    let this = if cfg!(target_os = "linux") {
        PathBuf::from("/proc/self/exe")
    } else {
        std::env::current_exe().unwrap_or_else(|_| PathBuf::from("openclaw"))
    };
    Tie { program: this, args: vec![OsString::from(TIED)] }
}

/// The keeper and what was last said of it.
pub(super) struct ServeRoute {
    handle: KeeperHandle,
    failing: BTreeSet<&'static str>,
    /// Whether there is an ingress that Serve could lead to.
    has_ingress: bool,
}

impl ServeRoute {
    /// Starts the keeper. Also where no route is wanted: an earlier run may have left one.
    pub(super) fn start(
        config: &Config,
        ingresses: (Option<PathBuf>, Option<u16>),
        finder: Arc<Finder>,
        journal: Arc<Option<StateDb>>,
        state: Arc<ArcSwap<TailnetState>>,
        changed: watch::Receiver<u64>,
    ) -> Self {
        let (unix, loopback) = ingresses;
        let has_ingress = unix.is_some() || loopback.is_some();
        let places = Places {
            unix,
            loopback,
            our_uid: rustix::process::geteuid().as_raw(),
            trust_local_users: config.gateway.tailscale.trust_local_users,
            state_dir: config.state_dir.clone(),
            tie: tie(),
        };
        let find = Box::new(move || finder.tailscale());
        let handle = Keeper::start(find, journal, places, state, changed, wanted(&config.gateway));
        Self { handle, failing: BTreeSet::new(), has_ingress }
    }

    /// Waits for something new to report.
    pub(super) async fn changed(&mut self) {
        if self.handle.status.changed().await.is_err() {
            // It never ends by itself.
            std::future::pending().await
        }
    }

    /// Follows a changed configuration. A mode that was off needs its ingress first, which
    /// is bound at start.
    pub(super) fn reconfigure(&self, gateway: &Gateway) {
        if self.has_ingress {
            let wanted = wanted(gateway);
            self.handle.wanted.send_if_modified(|now| {
                let changed = *now != wanted;
                *now = wanted;
                changed
            });
        }
    }

    /// Puts what is wrong on `/readyz`, and takes off what is over.
    pub(super) fn report(&mut self, readiness: &Readiness) {
        let status: ServeStatus = self.handle.status.borrow_and_update().clone();
        let mut failing = BTreeSet::new();
        for trouble in status.troubles() {
            // The first of a kind is named.
            if failing.insert(trouble.code) {
                let fault = Fault { detail: trouble.detail.clone(), fix: trouble.fix.clone() };
                readiness.fail(trouble.code, fault);
            }
        }
        for over in self.failing.difference(&failing) {
            readiness.clear(over);
        }
        self.failing = failing;
    }

    /// Ends it; takes the route away where the configuration says so.
    pub(super) async fn stop(self, reset_on_exit: bool) {
        self.handle.stop(reset_on_exit, UNDO).await;
    }
}
