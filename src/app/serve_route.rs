//! The Serve route of the configuration: its ingresses, its keeper, and what is said of it.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use arc_swap::ArcSwap;
use openclaw_tailscale::Tie;
use tokio::sync::watch;

use crate::config::{Config, Gateway, ServeScheme, TailscaleMode};
use crate::domain::{FunnelRefusal, TailnetState};
use crate::funnel::Publication;
use crate::readiness::{Fault, Readiness};
use crate::serve::{
    CONFLICT, DesiredMount, Doors, IDENTITY_OFF, Keeper, KeeperHandle, PENDING, Places, ServeStatus, Trouble,
    Wanted,
};
use crate::state_db::StateDb;
use crate::watch::Finder;

/// How long taking the route away may hold up a stop.
const UNDO: Duration = Duration::from_secs(15);

/// The subcommand of this program that ties a child to its parent's life.
pub(crate) const TIED: &str = "__tied";

/// The mounts that the configuration asks for, and those that are to be open to the
/// internet: Funnel is per port, and a port that is not Serve's has a mount for it alone.
pub(crate) fn wanted(gateway: &Gateway, public: &BTreeSet<u16>) -> Wanted {
    let tailscale = &gateway.tailscale;
    if tailscale.mode == TailscaleMode::Off {
        return Vec::new();
    }
    let serve = &tailscale.serve;
    let https = serve.scheme == ServeScheme::Https;
    let mut wanted = vec![DesiredMount {
        https,
        port: serve.port,
        path: serve.path.clone(),
        funnel: https && public.contains(&serve.port),
    }];
    wanted.extend(public.iter().filter(|port| **port != serve.port).map(|port| DesiredMount {
        https: true,
        port: *port,
        path: serve.path.clone(),
        funnel: true,
    }));
    wanted
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

/// What this process has of what Serve needs.
pub(super) struct Here {
    /// Where Serve can lead.
    pub(super) doors: Arc<ArcSwap<Doors>>,
    /// Whether no other gateway attends to the state directory.
    pub(super) attended: Arc<AtomicBool>,
}

/// The keeper and what was last said of it.
pub(super) struct ServeRoute {
    handle: KeeperHandle,
    failing: BTreeSet<&'static str>,
    /// Where Serve can lead, if anywhere.
    doors: Arc<ArcSwap<Doors>>,
}

impl ServeRoute {
    /// Starts the keeper. Also where no route is wanted: an earlier run may have left one.
    pub(super) fn start(
        config: &Config,
        here: Here,
        finder: Arc<Finder>,
        journal: Arc<Option<StateDb>>,
        public: &BTreeSet<u16>,
        state: Arc<ArcSwap<TailnetState>>,
        changed: watch::Receiver<u64>,
    ) -> Self {
        let Here { doors, attended } = here;
        let places = Places {
            doors: doors.clone(),
            our_uid: rustix::process::geteuid().as_raw(),
            trust_local_users: config.gateway.tailscale.trust_local_users,
            state_dir: config.state_dir.clone(),
            tie: tie(),
            attended,
        };
        let find = Box::new(move || finder.tailscale());
        let handle = Keeper::start(find, journal, places, state, changed, wanted(&config.gateway, public));
        Self { handle, failing: BTreeSet::new(), doors }
    }

    /// Waits for something new to report.
    pub(super) async fn changed(&mut self) {
        if self.handle.status.changed().await.is_err() {
            // It never ends by itself.
            std::future::pending().await
        }
    }

    /// Follows a changed configuration. A mode that was off needs its ingress first.
    pub(super) fn reconfigure(&self, gateway: &Gateway, public: &BTreeSet<u16>) {
        if self.doors.load().any() {
            let wanted = wanted(gateway, public);
            self.handle.wanted.send_if_modified(|now| {
                let changed = *now != wanted;
                *now = wanted;
                changed
            });
        }
    }

    /// How it gets on with opening a port to the internet.
    pub(super) fn publication(&self, port: u16) -> Publication {
        if !self.doors.load().any() {
            return Publication::Failed(FunnelRefusal {
                reason: "there is no Serve ingress yet".into(),
                fix: Some(
                    "openclaw config set gateway.tailscale.mode serve, or see the gateway's log".into(),
                ),
            });
        }
        // What is wanted may be newer than what was looked at.
        let wanted = self.handle.wanted.borrow().iter().any(|mount| mount.port == port && mount.funnel);
        publication(&self.handle.status.borrow(), port, wanted)
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

/// How a port that is to be open, or to be closed, stands.
fn publication(status: &ServeStatus, port: u16, wanted: bool) -> Publication {
    let suffix = format!(":{port}");
    let mut public = status.mounts.iter().filter(|mount| mount.funnel);
    let mount = public.find(|mount| mount.host_port.ends_with(&suffix));
    let trouble = mount.and_then(|mount| mount.trouble.iter().find(|trouble| trouble.code != PENDING));
    // A Serve that knows nobody publishes and takes back as well as any other.
    let of_all = status.trouble.iter().find(|trouble| trouble.code != IDENTITY_OFF);
    let refusal =
        |trouble: &Trouble| FunnelRefusal { reason: trouble.detail.clone(), fix: trouble.fix.clone() };
    match (mount, wanted) {
        (None, false) if status.looked && of_all.is_none() => Publication::Closed,
        (Some(mount), true) if mount.served && trouble.is_none() => Publication::Published,
        (_, true) if trouble.is_some_and(|trouble| trouble.code == CONFLICT) => {
            trouble.map_or(Publication::Pending(None), |trouble| Publication::Failed(refusal(trouble)))
        }
        _ => Publication::Pending(trouble.or(of_all).map(refusal)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::MountStatus;

    fn status(funnel: bool, served: bool, trouble: &[Trouble]) -> ServeStatus {
        let mount = MountStatus {
            url: "https://gw/".into(),
            host_port: "gw:443".into(),
            path: "/".into(),
            funnel,
            served,
            by_hand: false,
            trouble: trouble.to_vec(),
        };
        ServeStatus { mounts: vec![mount], trouble: Vec::new(), looked: true }
    }

    #[test]
    fn threat_060_open_is_what_was_seen_to_be_open_since_it_was_wanted() {
        let other = Trouble::new("serve_denied", "access denied");
        let waits = Trouble::new(PENDING, "not yet");
        for (status, port, wanted) in [
            (status(false, true, &[]), 443, true),
            (status(true, false, &[waits]), 443, true),
            (status(true, true, &[]), 8443, true),
            (status(true, true, &[]), 3, true),
            (status(true, true, &[]), 443, false),
            (ServeStatus::default(), 443, false),
            (ServeStatus { trouble: vec![other.clone()], ..status(false, true, &[]) }, 443, false),
        ] {
            let answer = publication(&status, port, wanted);
            assert!(matches!(answer, Publication::Pending(_)), "{status:?} {port} {wanted}: {answer:?}");
        }
        let denied = publication(&status(true, true, &[other]), 443, true);
        assert!(matches!(denied, Publication::Pending(Some(_))), "{denied:?}");
        let conflict = publication(&status(true, false, &[Trouble::new(CONFLICT, "theirs")]), 443, true);
        assert!(matches!(conflict, Publication::Failed(_)), "{conflict:?}");
        assert_eq!(publication(&status(true, true, &[]), 443, true), Publication::Published);
        let nobody = Trouble::new(IDENTITY_OFF, "tailscaled is our uid");
        for trouble in [Vec::new(), vec![nobody]] {
            let closed = ServeStatus { trouble, ..status(false, true, &[]) };
            assert_eq!(publication(&closed, 443, false), Publication::Closed);
        }
    }
}
