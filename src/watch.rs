//! Keeps the tailnet snapshot true.
//!
//! Asks `status` every five seconds, or every second where the LocalAPI answers and
//! asking costs nothing to speak of, and looks at the daemon's socket every second, so
//! that a daemon that is gone, or another one, is noticed before the next answer. Where
//! it can be heard (`bus`), it is asked as soon as it tells of something; a change of
//! what Serve publishes is never told, so that is read every second.
//! Everything that decides whether a loopback connection can be Serve's
//! is read in the same round. A fault is published, never fatal.

mod bus;
mod facts;

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use openclaw_tailscale::{
    BackendState, DaemonProcess, Error, LocateError, LocateOptions, Tailscale, WhoisFuture, WhoisScope,
    WhoisSource,
};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::domain::{AskDaemon, CleanSince, Exposure, FreshFacts, Phase, Running, ServeView, TailnetState};
use crate::ingress::attest::AtAccept;
use crate::ingress::is_tailscaled_running;

/// Between two answers of `status` of the CLI (rulings 6).
const POLL: Duration = Duration::from_secs(5);
/// The same while the LocalAPI answers, or the daemon does not run yet: it is about to.
const POLL_SOON: Duration = Duration::from_secs(1);
/// Between two rounds of questions that somebody asked for.
const TOGETHER: Duration = Duration::from_millis(200);
/// How long a request waits for what is known of Serve to be read again.
const MAX_READ: Duration = Duration::from_secs(3);
/// Between two looks at the daemon's socket.
const GLANCE: Duration = Duration::from_secs(1);

/// Where Tailscale is found, again and again until it is there.
pub struct Finder {
    options: LocateOptions,
    found: ArcSwap<Option<Tailscale>>,
}

impl Finder {
    /// Looks with these options.
    pub fn new(options: LocateOptions) -> Self {
        Self { options, found: ArcSwap::from_pointee(None) }
    }

    /// Tailscale, if it was found.
    pub fn tailscale(&self) -> Option<Tailscale> {
        Option::clone(&self.found.load())
    }

    /// Looks for it once; the watcher says what is wrong if it is not there.
    pub fn look(&self) {
        let _ = self.find();
    }

    /// Looks for it, unless it was found before.
    fn find(&self) -> Result<Tailscale, LocateError> {
        if let Some(found) = self.tailscale() {
            return Ok(found);
        }
        let located = Tailscale::locate(self.options.clone())?;
        match located.tailscale.path() {
            None => {
                tracing::info!("no tailscale program is used, tailscaled is asked at its socket");
                for warning in &located.warnings {
                    tracing::warn!(warning, "the tailscale program cannot be used");
                }
            }
            Some(path) => {
                for warning in &located.warnings {
                    tracing::warn!(path = %path.display(), warning, "the tailscale program is in a weak place");
                }
            }
        }
        self.found.store(Arc::new(Some(located.tailscale.clone())));
        Ok(located.tailscale)
    }
}

impl AskDaemon for Arc<Finder> {
    fn now(&self) -> Option<DaemonProcess> {
        self.tailscale()?.daemon_process_now().ok()
    }
}

/// The identity source of the cache: Tailscale, once it is found.
pub struct FoundSource(pub Arc<Finder>);

impl WhoisSource for FoundSource {
    fn whois(&self, ip: std::net::IpAddr) -> WhoisFuture<'_> {
        Box::pin(async move { self.found()?.whois(ip).await })
    }

    fn whois_tcp(&self, addr: std::net::SocketAddr) -> WhoisFuture<'_> {
        Box::pin(async move { self.found()?.whois_tcp(addr).await })
    }

    fn whois_at(&self, ip: std::net::IpAddr, to: std::net::IpAddr) -> WhoisFuture<'_> {
        Box::pin(async move { self.found()?.whois_scoped(ip, WhoisScope::Destination(to)).await })
    }
}

impl FoundSource {
    /// Tailscale.
    ///
    /// # Errors
    ///
    /// [`Error::NotInstalled`] until it is found.
    pub fn found(&self) -> Result<Tailscale, Error> {
        self.0.tailscale().ok_or_else(|| Error::NotInstalled { path: PathBuf::from("tailscale") })
    }
}

/// Everything as it is right now, for a command that looks once.
///
/// # Errors
///
/// When Tailscale cannot be found or asked.
pub async fn state_now(finder: &Finder, interest: &Interest) -> Result<TailnetState, Error> {
    let tailscale = finder.find().map_err(|_| Error::NotInstalled { path: PathBuf::from("tailscale") })?;
    let status = tailscale.status().await?;
    let daemon = tailscale.daemon_process().await.ok();
    let serve = facts::serve(&tailscale, daemon, interest, &status.tailscale_ips).await;
    let phase = match status.backend_state.clone() {
        BackendState::Running => Phase::Running(Arc::new(facts::running(&status))),
        state => Phase::NotRunning { state },
    };
    Ok(TailnetState { phase, serve, tun: status.tun, ..TailnetState::unknown() })
}

/// Whether loopback is exposed right now, for a start that must not happen then.
/// `None` where Tailscale does not say so within `limit`: it is looked at again as
/// long as the gateway runs.
pub async fn exposure_now(finder: &Finder, interest: &Interest, limit: Duration) -> Option<Exposure> {
    let tailscale = finder.find().ok()?;
    let look = async {
        let daemon = tailscale.daemon_process().await.ok();
        let status = tailscale.status().await.ok()?;
        let serve = facts::serve(&tailscale, daemon, interest, &status.tailscale_ips).await;
        let phase = Phase::NotRunning { state: status.backend_state };
        Some(TailnetState { phase, serve, tun: status.tun, ..TailnetState::unknown() }.loopback_exposure())
    };
    tokio::time::timeout(limit, look).await.ok()?
}

/// This node as it is right now, for what is made once at a start. `None` where
/// Tailscale does not run or does not say so within `limit`.
pub async fn node_now(finder: &Finder, limit: Duration) -> Option<Running> {
    let tailscale = finder.find().ok()?;
    let status = tokio::time::timeout(limit, tailscale.status()).await.ok()?.ok()?;
    (status.backend_state == BackendState::Running).then(|| facts::running(&status))
}

/// What the watcher needs to know of us.
#[derive(Clone, Debug, Default)]
pub struct Interest {
    /// Our ordinary port, which Serve routes and forwards are compared with.
    pub port: u16,
    /// The unix ingress, if there is one.
    pub unix: Option<PathBuf>,
    /// The port of the loopback ingress, if there is one.
    pub ingress: Option<u16>,
}

/// Publishes snapshots until the process ends.
pub struct Watcher {
    finder: Arc<Finder>,
    state: Arc<ArcSwap<TailnetState>>,
    interest: Arc<ArcSwap<Interest>>,
    /// Raised with every published change, for whoever binds addresses or has
    /// something open.
    changed: watch::Sender<u64>,
    daemon: Option<DaemonProcess>,
    fresh: Arc<Fresh>,
}

/// How old what is known of Serve is, and the way to have it read again.
#[derive(Default)]
pub struct Fresh {
    asked: Notify,
    /// When the last finished round of questions began.
    read_at: watch::Sender<Option<std::time::Instant>>,
}

impl FreshFacts for Fresh {
    fn since(&self, moment: std::time::Instant) -> Pin<Box<dyn Future<Output = bool> + '_>> {
        Box::pin(async move {
            let fresh = |read: &Option<std::time::Instant>| read.is_some_and(|read| read >= moment);
            let mut read_at = self.read_at.subscribe();
            if fresh(&read_at.borrow()) {
                return true;
            }
            self.asked.notify_one();
            let waited = tokio::time::timeout(MAX_READ, read_at.wait_for(fresh)).await;
            matches!(waited, Ok(Ok(_)))
        })
    }
}

impl Watcher {
    /// A watcher; `changed` is raised on every published change.
    pub fn new(
        finder: Arc<Finder>,
        state: Arc<ArcSwap<TailnetState>>,
        interest: Arc<ArcSwap<Interest>>,
        fresh: Arc<Fresh>,
        changed: watch::Sender<u64>,
    ) -> Self {
        Self { finder, state, interest, changed, daemon: None, fresh }
    }

    /// Runs for ever.
    pub async fn run(self) {
        let listener = bus::Listener {
            finder: self.finder.clone(),
            state: self.state.clone(),
            changed: self.changed.clone(),
            fresh: self.fresh.clone(),
        };
        tokio::join!(self.keep_asking(), listener.run());
    }

    async fn keep_asking(mut self) {
        loop {
            let started = Instant::now();
            self.poll(started).await;
            self.fresh.read_at.send_replace(Some(started.into_std()));
            let soon = matches!(self.state.load().phase, Phase::NotRunning { .. })
                || self.finder.tailscale().is_some_and(|tailscale| tailscale.local_api_answers());
            let next = Instant::now() + if soon { POLL_SOON } else { POLL };
            while Instant::now() < next {
                let glance = GLANCE.min(next.saturating_duration_since(Instant::now()));
                tokio::select! {
                    () = tokio::time::sleep(glance) => {}
                    // Somebody needs to know now; all who ask within a moment are
                    // answered together.
                    () = self.fresh.asked.notified() => {
                        tokio::time::sleep_until(started + TOGETHER).await;
                        // A daemon that is gone is said to be at once.
                        self.daemon_changed().await;
                        break;
                    }
                }
                if self.daemon_changed().await {
                    break;
                }
            }
        }
    }

    /// Whether the daemon behind the socket is another one, or gone. Gone is
    /// published at once: the CLI would take seconds to say so.
    async fn daemon_changed(&mut self) -> bool {
        let Some(tailscale) = self.finder.tailscale() else { return false };
        match (tailscale.daemon_process().await, self.daemon) {
            (Ok(now), Some(before)) => now != before,
            (Ok(_), None) => true,
            (Err(_), None) => false,
            (Err(error), Some(_)) => {
                self.daemon = None;
                self.publish(down(&error), ServeView::Unknown, None, Instant::now());
                true
            }
        }
    }

    async fn poll(&mut self, mut began: Instant) {
        let tailscale = match self.finder.find() {
            Ok(tailscale) => tailscale,
            Err(error) => {
                let fix = Some("install Tailscale, or set gateway.tailscale.bin".to_owned());
                let phase = Phase::Down { detail: error.to_string(), fix, gone: nobody_runs() };
                self.publish(phase, ServeView::Unknown, None, began);
                return;
            }
        };
        let daemon = tailscale.daemon_process().await.ok();
        let replaced = matches!((self.daemon, daemon), (Some(before), Some(now)) if before != now);
        // Serve is read in every state: what is configured takes effect the moment
        // the daemon runs.
        let (phase, serve, tun) = match tailscale.status().await {
            Err(error) => (down(&error), ServeView::Unknown, None),
            Ok(status) => {
                let serve = loop {
                    let interest = self.interest.load_full();
                    let serve = facts::serve(&tailscale, daemon, &interest, &status.tailscale_ips).await;
                    if Arc::ptr_eq(&interest, &self.interest.load_full()) {
                        break serve;
                    }
                    // It was not looked for what leads to a listener that is new.
                    began = Instant::now();
                };
                let phase = match status.backend_state.clone() {
                    BackendState::Running => Phase::Running(Arc::new(facts::running(&status))),
                    state => Phase::NotRunning { state },
                };
                (phase, serve, status.tun)
            }
        };
        self.daemon = daemon;
        if replaced {
            // Another daemon knows other people, whatever it says first.
            raise_epoch(&self.state);
        }
        self.publish(phase, serve, tun, began);
    }

    /// Publishes what a read that began then has shown.
    fn publish(&self, phase: Phase, serve: ServeView, tun: Option<bool>, began: Instant) {
        let before = self.state.load_full();
        let same_world = same_world(&before.phase, &phase);
        let same_serve = match (&before.serve, &serve) {
            (ServeView::Unknown, ServeView::Unknown) => true,
            (ServeView::Known(a), ServeView::Known(b)) => a == b,
            _ => false,
        };
        if same_world && same_serve && before.tun == tun && !matches!(phase, Phase::Down { .. }) {
            return;
        }
        let last_ips = match &phase {
            Phase::Running(running) => running.ips.clone(),
            _ => before.last_ips.clone(),
        };
        let epoch = if same_world { before.epoch } else { before.epoch + 1 };
        let was_exposed = match before.loopback_exposure() {
            Exposure::Yes => true,
            Exposure::No => false,
            Exposure::Unknown => before.was_exposed,
        };
        self.state.store(Arc::new(TailnetState {
            phase,
            last_ips,
            clean_since: clean_since(&before, &serve, began),
            serve,
            epoch,
            tun,
            was_exposed,
        }));
        self.changed.send_modify(|count| *count += 1);
    }
}

/// Where the row of clean reads goes on, it began when it did; where it begins, now.
fn clean_since(before: &TailnetState, serve: &ServeView, began: Instant) -> CleanSince {
    let facts = match serve {
        ServeView::Known(facts) => Some(&**facts),
        ServeView::Unknown => None,
    };
    let (now, then) = (AtAccept::now(facts), before.clean_since);
    let since = |clean: bool, then: Option<std::time::Instant>| {
        clean.then(|| then.unwrap_or_else(|| began.into_std()))
    };
    CleanSince {
        loopback: since(now.loopback, then.loopback),
        unix: since(now.unix, then.unix),
        ingress: since(now.ingress, then.ingress),
    }
}

/// Ends every identity that is known.
fn raise_epoch(state: &ArcSwap<TailnetState>) {
    state.rcu(|before| TailnetState { epoch: before.epoch + 1, ..TailnetState::clone(before) });
}

/// Whether identities learned in one phase still hold in the other: the same
/// profile of the same node, by state, version, id, addresses and tailnet.
fn same_world(before: &Phase, now: &Phase) -> bool {
    match (before, now) {
        (Phase::Running(before), Phase::Running(now)) => before == now,
        (Phase::NotRunning { state: before }, Phase::NotRunning { state: now }) => before == now,
        (Phase::Down { .. }, Phase::Down { .. }) | (Phase::Unknown, Phase::Unknown) => true,
        _ => false,
    }
}

fn down(error: &Error) -> Phase {
    let absent = matches!(error, Error::DaemonDown | Error::NotInstalled { .. });
    let gone = absent && nobody_runs();
    Phase::Down { detail: error.to_string(), fix: error.fix().map(str::to_owned), gone }
}

/// Whether there is no daemon at all. That nobody answers at the socket says
/// nothing: it may be another socket, or have been taken away, and the daemon
/// forwards as before.
fn nobody_runs() -> bool {
    is_tailscaled_running() == Some(false)
}
