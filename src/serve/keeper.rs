//! Keeps what is published in line with what is wanted, for as long as the gateway runs.
//!
//! It looks whenever the wanted mounts, the tailnet or the Serve configuration change, a
//! session ends, or a wait is over; one that failed waits longer each time. A mount that
//! somebody takes away again and again is published more and more rarely: they may have a
//! reason. It never gives up, and never ends the process.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;

use super::account::Account;
use super::apply::{Settled, converge};
use super::backoff::Backoff;
use super::choose::{Choice, Ingress, Options, choose};
use super::edit_lock::EditLock;
use super::hands::{Hands, TailscaleHands};
use super::journal::Journal;
use super::places::{FindTailscale, Places};
use super::plan::{NodeFacts, Route};
use super::shown::{another_gateway, fought, status_of, tell, waiting};
use super::status::{ServeStatus, Trouble};
use super::wanted::{Wanted, may_publish, node_of, routes};
use crate::domain::{Running, ServeFacts, TailnetState};

/// When a mount that was just published is looked at once more.
const SOON: Duration = Duration::from_secs(2);
/// When one that is there is, though nothing was heard of a change.
const NOW_AND_THEN: Duration = Duration::from_secs(30);
/// Between two looks at whether we are the only gateway of this state directory.
const ATTEND: Duration = Duration::from_secs(5);
/// How long a stop waits for what lives as long as we do to be gone.
const LET_GO: Duration = Duration::from_secs(2);

/// The keeper, seen from outside.
pub struct KeeperHandle {
    /// What is wanted.
    pub wanted: watch::Sender<Wanted>,
    /// How it stands.
    pub status: watch::Receiver<ServeStatus>,
    stop: Option<oneshot::Sender<bool>>,
    stopped: tokio::task::JoinHandle<()>,
}

impl KeeperHandle {
    /// Ends it. What lives as long as we do goes at once; what outlives us stays, unless
    /// `undo`.
    pub async fn stop(mut self, undo: bool, limit: Duration) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(undo);
        }
        if tokio::time::timeout(limit, &mut self.stopped).await.is_err() {
            self.stopped.abort();
            tracing::warn!("the Serve route could not be taken away in time; the next start looks again");
        }
    }
}

/// The keeper.
pub struct Keeper<J> {
    find: FindTailscale,
    journal: J,
    places: Places,
    state: Arc<ArcSwap<TailnetState>>,
    changed: watch::Receiver<u64>,
    wanted: watch::Receiver<Wanted>,
    status: watch::Sender<ServeStatus>,
    hands: Option<TailscaleHands>,
    ended: Arc<Notify>,
    backoff: Backoff,
    again: Option<Instant>,
    /// What was chosen last.
    chosen: Option<Ingress>,
    /// tailscaled refused a unix target; by which one.
    unix_refused: Option<openclaw_tailscale::DaemonProcess>,
    account: Account,
}

impl<J: Journal + Send + Sync + 'static> Keeper<J> {
    /// Starts one on the runtime around.
    pub fn start(
        find: FindTailscale,
        journal: J,
        places: Places,
        state: Arc<ArcSwap<TailnetState>>,
        changed: watch::Receiver<u64>,
        wanted: Wanted,
    ) -> KeeperHandle {
        let (status, status_of) = watch::channel(waiting(&wanted));
        let (wanted, wanted_of) = watch::channel(wanted);
        let (stop, stopping) = oneshot::channel();
        let keeper = Self {
            find,
            journal,
            places,
            state,
            changed,
            wanted: wanted_of,
            status,
            hands: None,
            ended: Arc::default(),
            backoff: Backoff::default(),
            again: None,
            chosen: None,
            unix_refused: None,
            account: Account::default(),
        };
        let stopped = tokio::spawn(keeper.run(stopping));
        KeeperHandle { wanted, status: status_of, stop: Some(stop), stopped }
    }

    async fn run(mut self, mut stopping: oneshot::Receiver<bool>) {
        loop {
            self.changed.mark_unchanged();
            self.wanted.mark_unchanged();
            self.look().await;
            let again = async {
                match self.again {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let ended = self.ended.clone();
            let undo = tokio::select! {
                stop = &mut stopping => Some(stop.unwrap_or(false)),
                changed = self.changed.changed() => changed.is_err().then_some(false),
                changed = self.wanted.changed() => changed.is_err().then_some(false),
                () = ended.notified() => None,
                () = again => None,
            };
            if let Some(undo) = undo {
                if undo {
                    self.undo().await;
                }
                if let Some(mut hands) = self.hands.take() {
                    hands.let_go(LET_GO).await;
                }
                return;
            }
        }
    }

    /// One look: what is wanted, what is there, and what can be done now.
    async fn look(&mut self) {
        self.again = None;
        let wanted = self.wanted.borrow().clone();
        if !self.places.attended.load(Ordering::Acquire) {
            // Its routes are in the same journal, and would look like leftovers of ours.
            self.again = Some(Instant::now() + ATTEND);
            self.publish(another_gateway(&wanted));
            return;
        }
        let state = self.state.load_full();
        let (Some(running), Some(facts)) = (state.running(), state.serve_facts()) else {
            // Looked at again when Tailscale says something else.
            let mut status = waiting(&wanted);
            status.looked = self.is_idle(&wanted);
            self.publish(status);
            return;
        };
        if self.is_idle(&wanted) {
            self.publish(ServeStatus { looked: true, ..ServeStatus::default() });
            return;
        }
        let status = match node_of(running) {
            Some(node) => self.look_at(&wanted, running, facts, &node).await,
            None => {
                let trouble = Trouble::new("serve_no_name", "this node has no name on the tailnet yet");
                let trouble = trouble.fix("turn MagicDNS on: https://login.tailscale.com/admin/dns");
                ServeStatus { trouble: vec![trouble], ..waiting(&wanted) }
            }
        };
        self.publish(status);
    }

    /// Whether there is nothing to keep and nothing to clear away.
    fn is_idle(&self, wanted: &Wanted) -> bool {
        wanted.is_empty()
            && self.hands.is_none()
            && self.journal.entries().is_ok_and(|entries| entries.is_empty())
    }

    async fn look_at(
        &mut self,
        wanted: &Wanted,
        running: &Running,
        facts: &ServeFacts,
        node: &NodeFacts,
    ) -> ServeStatus {
        if self.unix_refused.is_some() && self.unix_refused != facts.daemon {
            self.unix_refused = None;
        }
        let _lock = match EditLock::take(&self.places.state_dir).await {
            Ok(lock) => lock,
            Err(error) => {
                self.try_again();
                let trouble = Trouble::new("serve_edit_locked", error.to_string());
                return ServeStatus { trouble: vec![trouble], ..waiting(wanted) };
            }
        };
        loop {
            let choice = self.choose(running, facts);
            self.chosen.clone_from(&choice.ingress);
            let routes = routes(wanted, &choice);
            let Some(settled) = self.settle(&routes, running, node).await else {
                self.try_again();
                return waiting(wanted);
            };
            let settled = match settled {
                Ok(settled) => settled,
                Err(trouble) => {
                    self.try_again();
                    return ServeStatus { trouble: vec![trouble], ..waiting(wanted) };
                }
            };
            if settled.unix_refused && self.unix_refused.is_none() {
                self.unix_refused = facts.daemon;
                tracing::info!("tailscaled lets this user serve no unix socket; trying the loopback ingress");
                continue;
            }
            self.account.note(&routes, &settled, Instant::now());
            let status = status_of(wanted, &choice, &settled, node);
            if status.mounts.iter().all(|mount| mount.served) && settled.trouble.is_empty() {
                self.backoff.reset();
                // What was published and taken away before the watcher saw it is no change
                // to the watcher.
                let after = if settled.published.is_empty() { NOW_AND_THEN } else { SOON };
                self.again = (!wanted.is_empty()).then(|| Instant::now() + after);
            } else {
                self.try_again();
            }
            return status;
        }
    }

    fn choose(&self, running: &Running, facts: &ServeFacts) -> Choice {
        let doors = self.places.doors.load();
        let options = Options {
            unix: doors.unix.clone(),
            loopback: doors.loopback,
            our_uid: self.places.our_uid,
            unix_refused: self.unix_refused.is_some(),
            trust_local_users: self.places.trust_local_users,
            knows_owners: cfg!(target_os = "linux"),
            before: self.chosen.clone(),
        };
        choose(&options, running, facts)
    }

    /// `None` while there is no Tailscale.
    async fn settle(
        &mut self,
        routes: &[Route],
        running: &Running,
        node: &NodeFacts,
    ) -> Option<Result<Settled, Trouble>> {
        let tailscale = (self.find)()?;
        let has_program = tailscale.path().is_some();
        let hands = match self.hands.take() {
            Some(mut hands) => {
                hands.use_tailscale(tailscale);
                self.hands.insert(hands)
            }
            None => {
                let hands = TailscaleHands::new(tailscale, self.places.tie.clone(), self.ended.clone());
                self.hands.insert(hands)
            }
        };
        hands.keep_sessions(routes);
        let (account, now) = (&self.account, Instant::now());
        let may = |route: &Route| {
            may_publish(route, running, has_program)?;
            if account.is_held_back(route, now) { Err(fought()) } else { Ok(()) }
        };
        let settled = converge(routes, node, hands, &self.journal, may).await;
        if routes.is_empty() && hands.held().is_empty() {
            self.hands = None;
        }
        Some(settled)
    }

    fn try_again(&mut self) {
        self.again = Some(Instant::now() + self.backoff.after_failure());
    }

    async fn undo(&mut self) {
        if !self.places.attended.load(Ordering::Acquire) {
            return;
        }
        let state = self.state.load_full();
        let Some(node) = state.running().and_then(|running| node_of(running)) else {
            if !self.is_idle(&Vec::new()) {
                tracing::warn!(
                    "Tailscale does not run, so the Serve route stays; the next start looks again"
                );
            }
            return;
        };
        let Some(tailscale) = (self.find)() else { return };
        let lock = EditLock::take(&self.places.state_dir).await;
        if let Err(error) = &lock {
            tracing::warn!(%error, "the Serve route stays; the next start looks again");
            return;
        }
        let mut hands = match self.hands.take() {
            Some(hands) => hands,
            None => TailscaleHands::new(tailscale, self.places.tie.clone(), self.ended.clone()),
        };
        hands.keep_sessions(&[]);
        match super::undo(&node, &mut hands, &self.journal).await {
            Ok(settled) => {
                for (_, trouble) in &settled.trouble {
                    tracing::warn!(code = trouble.code, "the Serve route stays: {}", trouble.detail);
                }
            }
            Err(trouble) => {
                tracing::warn!(code = trouble.code, "the Serve route stays: {}", trouble.detail);
            }
        }
    }

    /// Tells others, and the log once per change.
    fn publish(&self, status: ServeStatus) {
        let before = self.status.borrow().clone();
        if before != status {
            tell(&before, &status);
            self.status.send_replace(status);
        }
    }
}
