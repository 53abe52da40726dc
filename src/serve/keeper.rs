//! Keeps what is published in line with what is wanted, for as long as the gateway runs.
//!
//! It looks whenever the wanted mounts, the tailnet or the Serve configuration change, a
//! session ends, or a wait is over; one that failed waits longer each time. A mount that
//! somebody takes away again and again is published more and more rarely: they may have a
//! reason. It never gives up, and never ends the process.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use openclaw_tailscale::{Tailscale, Tie};
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;

use super::DesiredMount;
use super::apply::{Settled, converge};
use super::backoff::Backoff;
use super::choose::{Choice, Ingress, Options, choose};
use super::edit_lock::EditLock;
use super::hands::{Hands, TailscaleHands};
use super::journal::Journal;
use super::plan::{NodeFacts, Route, Standing};
use super::status::{MountStatus, ServeStatus, Trouble};
use crate::domain::{Running, ServeFacts, TailnetState};

/// When a mount that was just published is looked at once more.
const SOON: Duration = Duration::from_secs(2);
/// When one that is there is, though nothing was heard of a change.
const NOW_AND_THEN: Duration = Duration::from_secs(30);
/// How long a mount must stay before what went before is forgotten.
const STEADY: Duration = Duration::from_secs(600);
/// So often it may vanish before it is published more rarely.
const PATIENCE: u32 = 2;
/// Between two looks at whether we are the only gateway of this state directory.
const ATTEND: Duration = Duration::from_secs(5);
/// How long a stop waits for what lives as long as we do to be gone.
const LET_GO: Duration = Duration::from_secs(2);
/// The longest wait then.
const RARELY: Duration = Duration::from_secs(300);

/// Finds Tailscale; `None` while it is not there.
pub(super) type FindTailscale = Box<dyn Fn() -> Option<Tailscale> + Send + Sync>;

/// Where Serve can be pointed at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Doors {
    /// The unix ingress, if it is bound.
    pub unix: Option<PathBuf>,
    /// The port of the loopback ingress, if it is bound.
    pub loopback: Option<u16>,
}

impl Doors {
    /// Whether there is any.
    #[must_use]
    pub fn any(&self) -> bool {
        self.unix.is_some() || self.loopback.is_some()
    }
}

/// What the keeper is told once.
pub struct Places {
    /// Where Serve can be pointed at: looked at anew each time, a reload may open them.
    pub doors: Arc<ArcSwap<Doors>>,
    /// Our uid.
    pub our_uid: u32,
    /// `gateway.tailscale.trustLocalUsers`.
    pub trust_local_users: bool,
    /// The state directory, for the lock.
    pub state_dir: PathBuf,
    /// The helper that ties children to our life.
    pub tie: Tie,
    /// Whether this gateway, and no other, attends to the state directory. The journal
    /// speaks for that one alone.
    pub attended: Arc<AtomicBool>,
}

/// What is wanted. Whoever wants a mount adds it.
pub type Wanted = Vec<DesiredMount>;

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
    fights: HashMap<Route, Fight>,
}

/// One route's history.
#[derive(Clone, Copy, Debug, Default)]
struct Fight {
    /// When it was seen first since it was last missing.
    since: Option<Instant>,
    was_there: bool,
    vanished: u32,
    not_before: Option<Instant>,
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
            fights: HashMap::new(),
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
            self.keep_account(&routes, &settled);
            let status = self.status_of(wanted, &choice, &settled, node);
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
        let (fights, now) = (&self.fights, Instant::now());
        let may = |route: &Route| {
            may_publish(route, running, has_program)?;
            match fights.get(route).and_then(|fight| fight.not_before) {
                Some(until) if until > now => Err(fought()),
                _ => Ok(()),
            }
        };
        let settled = converge(routes, node, hands, &self.journal, may).await;
        if routes.is_empty() && hands.held().is_empty() {
            self.hands = None;
        }
        Some(settled)
    }

    fn status_of(
        &self,
        wanted: &Wanted,
        choice: &Choice,
        settled: &Settled,
        node: &NodeFacts,
    ) -> ServeStatus {
        let mut status = ServeStatus { looked: true, ..ServeStatus::default() };
        if !wanted.is_empty() {
            status.trouble.extend(choice.trouble.clone());
        }
        status.trouble.extend(
            settled.trouble.iter().filter(|(route, _)| route.is_none()).map(|(_, trouble)| trouble.clone()),
        );
        for (index, mount) in wanted.iter().enumerate() {
            let mut shown = waiting_for(mount, Some(node));
            if let Some((route, standing)) = settled.plan.standing.get(index) {
                shown.served = matches!(standing, Standing::Ours | Standing::ByHand);
                shown.by_hand = *standing == Standing::ByHand;
                shown.trouble.clear();
                if let Standing::Blocked(conflict) = standing {
                    shown.trouble.push(conflict.into());
                }
                let of_route = settled.trouble.iter().filter(|(of, _)| of.as_ref() == Some(route));
                shown.trouble.extend(of_route.map(|(_, trouble)| trouble.clone()));
                if settled.plan.made_public.contains(route) {
                    shown.trouble.push(made_public(&shown.host_port));
                }
                if !shown.served && shown.trouble.is_empty() {
                    shown.trouble.push(pending());
                }
            }
            status.mounts.push(shown);
        }
        status
    }

    /// Keeps account of routes that vanish: one that was there and had to be published
    /// anew was taken away by somebody.
    fn keep_account(&mut self, routes: &[Route], settled: &Settled) {
        let now = Instant::now();
        self.fights.retain(|route, _| routes.contains(route));
        for (route, standing) in &settled.plan.standing {
            let served = matches!(standing, Standing::Ours | Standing::ByHand);
            let fight = self.fights.entry(route.clone()).or_default();
            // Published anew, or just published and gone before it could be seen.
            let again = settled.published.contains(route);
            if fight.was_there && (again || (!served && fight.since.is_some())) {
                if fight.since.is_some_and(|since| now.duration_since(since) >= STEADY) {
                    fight.vanished = 0;
                }
                fight.vanished += 1;
                fight.since = None;
                if let Some(times) = fight.vanished.checked_sub(PATIENCE).filter(|times| *times > 0) {
                    let wait = Duration::from_secs(5 << times.min(6)).min(RARELY);
                    fight.not_before = Some(now + wait);
                }
            }
            fight.was_there |= served;
            if served && fight.since.is_none() {
                fight.since = Some(now);
            }
        }
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
        if before == status {
            return;
        }
        for mount in &status.mounts {
            let was =
                before.mounts.iter().find(|was| was.host_port == mount.host_port && was.path == mount.path);
            match (was.is_some_and(|was| was.served), mount.served) {
                (false, true) if mount.by_hand => {
                    tracing::info!(url = mount.url, "serve enabled: {} (a route that was there)", mount.url);
                }
                (false, true) => tracing::info!(url = mount.url, "serve enabled: {}", mount.url),
                (true, false) => tracing::warn!(url = mount.url, "serve is gone: {}", mount.url),
                _ => {}
            }
        }
        for gone in before.mounts.iter().filter(|was| {
            was.served
                && !status
                    .mounts
                    .iter()
                    .any(|mount| mount.host_port == was.host_port && mount.path == was.path)
        }) {
            tracing::info!(url = gone.url, "serve disabled: {}", gone.url);
        }
        let known: Vec<&Trouble> = before.troubles().collect();
        for trouble in status.troubles().filter(|trouble| !known.contains(trouble) && trouble.code != PENDING)
        {
            let fix = trouble.fix.as_deref().map(|fix| format!(" -- to mend it: {fix}")).unwrap_or_default();
            tracing::warn!(code = trouble.code, "serve: {}{fix}", trouble.detail);
        }
        self.status.send_replace(status);
    }
}

/// A route that is on its way.
pub const PENDING: &str = "serve_pending";

fn pending() -> Trouble {
    Trouble::new(PENDING, "the Serve route is not published yet")
}

/// Another gateway keeps the routes of this state directory.
fn another_gateway(wanted: &Wanted) -> ServeStatus {
    let mut status = waiting(wanted);
    if !wanted.is_empty() {
        let detail = "another gateway uses this state directory (or its lock cannot be taken), and the Serve route is its business";
        let trouble = Trouble::new("serve_other_gateway", detail);
        status
            .trouble
            .push(trouble.fix("stop the other one, or give this one an OPENCLAW_STATE_DIR of its own"));
    }
    status
}

/// Before anything is known.
fn waiting(wanted: &Wanted) -> ServeStatus {
    let mounts = wanted.iter().map(|mount| waiting_for(mount, None)).collect();
    ServeStatus { mounts, ..ServeStatus::default() }
}

fn waiting_for(mount: &DesiredMount, node: Option<&NodeFacts>) -> MountStatus {
    let route = route(mount, String::new(), false);
    MountStatus {
        url: node.map(|node| route.url(&node.name)).unwrap_or_default(),
        host_port: node.map(|node| node.host_port(mount.port)).unwrap_or_default(),
        path: mount.path.as_str().to_owned(),
        funnel: mount.funnel,
        served: false,
        by_hand: false,
        trouble: vec![pending()],
    }
}

fn made_public(host_port: &str) -> Trouble {
    Trouble::new(
        "serve_made_public",
        format!(
            "{host_port} is open to the internet by somebody's Funnel; requests from there are answered 403 not_public"
        ),
    )
    .fix("tailscale funnel status shows it; close it where it was opened")
}

fn fought() -> Trouble {
    Trouble::new(
        "serve_taken_away",
        "the Serve route was taken away again and again, so it is published again more and more rarely",
    )
    .fix("openclaw config set gateway.tailscale.mode off, or find who takes it away: tailscale serve status")
}

/// The node's facts, once it has a name.
pub(crate) fn node_of(running: &Running) -> Option<NodeFacts> {
    Some(NodeFacts {
        id: running.self_id.as_ref()?.as_str().to_owned(),
        tailnet: running.tailnet.clone(),
        name: running.dns_name.as_ref()?.as_str().trim_end_matches('.').to_owned(),
    })
}

fn route(mount: &DesiredMount, target: String, session: bool) -> Route {
    Route {
        https: mount.https,
        port: mount.port,
        path: mount.path.as_str().to_owned(),
        target,
        session,
        funnel: mount.funnel,
    }
}

/// The wanted mounts with the chosen target; none where there is no ingress.
pub(crate) fn routes(wanted: &[DesiredMount], choice: &Choice) -> Vec<Route> {
    use openclaw_tailscale::ProxyTarget;
    let (target, session) = match &choice.ingress {
        Some(Ingress::Unix(path)) => (ProxyTarget::Unix(path.clone()), false),
        Some(Ingress::Loopback(port)) => (ProxyTarget::Loopback(*port), true),
        None => return Vec::new(),
    };
    let Some(target) = target.as_proxy() else { return Vec::new() };
    wanted.iter().map(|mount| route(mount, target.clone(), session)).collect()
}

/// Whether a route could work. HTTPS that is off for the tailnet is left to the command,
/// which names the link to click; without the command that is all there is to say.
pub(crate) fn may_publish(route: &Route, running: &Running, has_program: bool) -> Result<(), Trouble> {
    const PAGE: &str = "turn HTTPS certificates on: https://login.tailscale.com/admin/dns";
    if !route.https || (!running.attributes.https && has_program) {
        return Ok(());
    }
    if !running.attributes.https {
        return Err(Trouble::new("serve_https_off", "HTTPS is not enabled for this tailnet").fix(PAGE));
    }
    if running.cert_domains.is_empty() {
        let detail = "there are no certificates for this node, so nobody could connect by HTTPS";
        return Err(Trouble::new("serve_https_off", detail).fix(PAGE));
    }
    Ok(())
}
