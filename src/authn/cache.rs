//! Identities by address: one look-up however many wait, and never a stale one.
//!
//! Two levels. [`IdentityCache`] is shared by all workers and asks Tailscale;
//! [`WorkerCache`] belongs to one worker and answers the warm path without a
//! lock. Answers live 60 s, failures 5 s. An answer that is used is renewed
//! before it ends, so an active peer waits once. Everything is forgotten when the
//! epoch rises: another profile, another daemon, a changed netmap.

mod admission;
mod worker;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use lru::LruCache;
use openclaw_tailscale::{CapMap, Error, Whois, WhoisSource};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};

pub use worker::WorkerCache;

use self::admission::Admission;
use super::network;
use crate::domain::{Principal, Reason, TailnetState};

/// Who is behind an address, or why that cannot be said.
pub type Verdict = Result<Principal, Reason>;

/// How long an answer is believed.
pub const ANSWER_TTL: Duration = Duration::from_secs(60);
/// How long a failure is.
pub const FAILURE_TTL: Duration = Duration::from_secs(5);
/// From this age on, a used answer is renewed in the background.
pub const RENEW_AFTER: Duration = Duration::from_secs(45);
/// Addresses kept: more than can be connected, so that none of those is forgotten.
const CAPACITY: usize = 16_384;
/// Look-ups at once.
const LOOKUPS: usize = 8;
/// Look-ups at once about devices that are connected.
const REFRESHES: usize = 3;
/// How long an address waits for its turn before it is told to come back.
const MAX_WAIT: Duration = Duration::from_secs(2);

/// How often a question is asked anew because the world changed before the answer:
/// tailscaled then tells of changes faster than it answers.
const WORLDS: usize = 4;

/// An answer with its age.
#[derive(Clone)]
pub struct Answer {
    /// The answer.
    pub verdict: Verdict,
    /// When it was given.
    pub at: Instant,
    /// The epoch it belongs to.
    pub epoch: u64,
}

impl Answer {
    fn ttl(&self) -> Duration {
        match self.verdict {
            Ok(_) => ANSWER_TTL,
            Err(_) => FAILURE_TTL,
        }
    }

    fn is_fresh(&self, now: Instant, epoch: u64) -> bool {
        self.epoch == epoch && now.saturating_duration_since(self.at) < self.ttl()
    }
}

enum Entry {
    /// A look-up is under way; everybody waits for the same one.
    Asking { answer: watch::Receiver<Option<Answer>>, epoch: u64 },
    /// An answer; `renewing` while a newer one is under way.
    Known { answer: Answer, renewing: bool },
}

struct Inner {
    source: Arc<dyn WhoisSource>,
    state: Arc<ArcSwap<TailnetState>>,
    entries: Mutex<LruCache<IpAddr, Entry>>,
    admission: Admission,
    lookups: Arc<Semaphore>,
    socket_lookups: Arc<Semaphore>,
    /// Refreshes under way, and how many may run.
    refreshing: Mutex<HashMap<IpAddr, watch::Receiver<Option<Answer>>>>,
    refreshes: Semaphore,
    /// Where look-ups run: the control thread, which reaps child processes.
    control: Handle,
    /// Raised when an address turned out to be somebody else, or nobody: workers
    /// then forget what they remember.
    revision: AtomicU64,
}

/// The shared cache.
#[derive(Clone)]
pub struct IdentityCache(Arc<Inner>);

impl IdentityCache {
    /// A cache that asks `source`, running its look-ups on `control`.
    pub fn new(source: Arc<dyn WhoisSource>, state: Arc<ArcSwap<TailnetState>>, control: Handle) -> Self {
        let capacity = NonZeroUsize::new(CAPACITY).unwrap_or(NonZeroUsize::MIN);
        Self(Arc::new(Inner {
            source,
            state,
            entries: Mutex::new(LruCache::new(capacity)),
            admission: Admission::new(),
            lookups: Arc::new(Semaphore::new(LOOKUPS)),
            socket_lookups: Arc::new(Semaphore::new(LOOKUPS)),
            refreshing: Mutex::default(),
            refreshes: Semaphore::new(REFRESHES),
            control,
            revision: AtomicU64::new(0),
        }))
    }

    /// Who is behind a tailnet address. The caller has checked that it is worth
    /// asking about and that Tailscale runs.
    pub async fn identify(&self, ip: IpAddr) -> Answer {
        for _ in 0..WORLDS {
            let state = self.0.state.load_full();
            let epoch = state.epoch;
            let now = Instant::now();
            let waiting = match self.step(ip, epoch, now) {
                Step::Known(answer) => return answer,
                Step::Wait(receiver) => receiver,
                Step::New => self.ask(ip, epoch),
            };
            match wait(waiting).await {
                // The world changed while we waited: ask again.
                Some(answer) if answer.epoch != self.0.state.load().epoch => continue,
                Some(answer) => return answer,
                None => break,
            }
        }
        let epoch = self.0.state.load().epoch;
        Answer { verdict: Err(Reason::WhoisUnavailable), at: Instant::now(), epoch }
    }

    /// The same, from an answer that is at most so old, where Tailscale can be
    /// asked: for whoever still has something open. They pass by the newcomers' gate
    /// and use up none of its places, so this never says [`Reason::WhoisBusy`]
    /// however many are connected; it waits for a turn instead.
    pub async fn identify_at_most(&self, ip: IpAddr, age: Duration) -> Answer {
        let mut last = None;
        for _ in 0..WORLDS {
            let epoch = self.0.state.load().epoch;
            let known = match self.step(ip, epoch, Instant::now()) {
                Step::Known(answer) => Some(answer),
                Step::Wait(receiver) => wait(receiver).await.filter(|answer| answer.epoch == epoch),
                Step::New => None,
            };
            let known = known.filter(|answer| !matches!(answer.verdict, Err(Reason::WhoisBusy)));
            if let Some(known) = &known
                && (known.verdict.is_err() || known.at.elapsed() < age)
            {
                return known.clone();
            }
            let asked = wait(self.refresh(ip, epoch)).await;
            let current = self.0.state.load().epoch;
            last = match (asked, known) {
                // It could not be asked: what is known lives out its time.
                (Some(Answer { verdict: Err(Reason::WhoisUnavailable), .. }) | None, Some(known)) => {
                    return known;
                }
                (Some(fresh), _) if fresh.epoch == current => return fresh,
                // The world changed while we waited: ask again.
                (asked, _) => asked.or(last),
            };
        }
        let epoch = self.0.state.load().epoch;
        last.unwrap_or(Answer { verdict: Err(Reason::WhoisUnavailable), at: Instant::now(), epoch })
    }

    /// Asks again about an address, once for all workers, and a few addresses at a
    /// time: newcomers have look-ups of their own.
    fn refresh(&self, ip: IpAddr, epoch: u64) -> watch::Receiver<Option<Answer>> {
        let mut refreshing = self.0.refreshing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(under_way) = refreshing.get(&ip) {
            return under_way.clone();
        }
        let (sender, receiver) = watch::channel(None);
        refreshing.insert(ip, receiver.clone());
        let this = self.clone();
        self.0.control.spawn(async move {
            let turn = this.0.refreshes.acquire().await;
            let verdict = this.0.settle(this.0.whois(ip).await);
            drop(turn);
            let answer = Answer { verdict, at: Instant::now(), epoch };
            if !matches!(answer.verdict, Err(Reason::WhoisUnavailable)) {
                this.store(ip, answer.clone());
            }
            this.0.refreshing.lock().unwrap_or_else(PoisonError::into_inner).remove(&ip);
            // Nobody may be waiting any more.
            let _ = sender.send(Some(answer));
        });
        receiver
    }

    /// Who is behind a loopback socket of tailscaled's: a miss costs the daemon
    /// 180 ms, so never cached and at most eight at once (threat rule 28).
    pub async fn identify_socket(&self, socket: SocketAddr) -> Verdict {
        let permit = tokio::time::timeout(MAX_WAIT, self.0.socket_lookups.clone().acquire_owned()).await;
        let Ok(Ok(permit)) = permit else { return Err(Reason::WhoisBusy) };
        let inner = self.0.clone();
        let asked = self.0.control.spawn(async move {
            let _permit = permit;
            inner.settle(inner.source.whois_tcp(socket).await)
        });
        asked.await.unwrap_or(Err(Reason::WhoisUnavailable))
    }

    /// Changes when what workers remember may be wrong.
    pub fn revision(&self) -> u64 {
        self.0.revision.load(Ordering::Acquire)
    }

    /// Addresses that are known now, for tests and the readiness report.
    pub fn len(&self) -> usize {
        self.entries().len()
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn step(&self, ip: IpAddr, epoch: u64, now: Instant) -> Step {
        let mut entries = self.entries();
        let renew = match entries.get_mut(&ip) {
            Some(Entry::Asking { answer, epoch: asked_in }) if *asked_in == epoch => {
                return Step::Wait(answer.clone());
            }
            Some(Entry::Known { answer, renewing }) if answer.is_fresh(now, epoch) => {
                let old = now.saturating_duration_since(answer.at) >= RENEW_AFTER;
                let renew = old && !*renewing && answer.verdict.is_ok();
                *renewing |= renew;
                Some((answer.clone(), renew))
            }
            _ => None,
        };
        drop(entries);
        match renew {
            Some((answer, renew)) => {
                if renew {
                    self.renew(ip, epoch);
                }
                Step::Known(answer)
            }
            None => Step::New,
        }
    }

    /// Starts the one look-up for an address, or joins the one under way.
    fn ask(&self, ip: IpAddr, epoch: u64) -> watch::Receiver<Option<Answer>> {
        let (sender, receiver) = watch::channel(None);
        let known;
        {
            let mut entries = self.entries();
            if let Some(Entry::Asking { answer, epoch: asked_in }) = entries.get(&ip)
                && *asked_in == epoch
            {
                return answer.clone();
            }
            // Whoever was a peer a moment ago is no new address: neither a changed
            // world nor a failing daemon uses up the places of real newcomers.
            known = match entries.peek(&ip) {
                Some(Entry::Known { answer, .. }) => !matches!(answer.verdict, Err(Reason::PeerUnknown)),
                Some(Entry::Asking { .. }) => true,
                None => false,
            };
            entries.put(ip, Entry::Asking { answer: receiver.clone(), epoch });
        }
        let this = self.clone();
        self.0.control.spawn(async move {
            // Admission is the look-up's business, not the waiters': five hundred
            // requests of one peer are one new address.
            let answer = if known || this.0.admission.admit(MAX_WAIT).await {
                this.look_up(ip, epoch).await
            } else {
                Answer { verdict: Err(Reason::WhoisBusy), at: Instant::now(), epoch }
            };
            this.store(ip, answer.clone());
            // Nobody may be waiting any more.
            let _ = sender.send(Some(answer));
        });
        receiver
    }

    fn renew(&self, ip: IpAddr, epoch: u64) {
        let this = self.clone();
        self.0.control.spawn(async move {
            let answer = this.look_up(ip, epoch).await;
            match answer.verdict {
                // Tailscale could not be asked: the old answer lives out its time.
                Err(Reason::WhoisUnavailable | Reason::WhoisBusy) => this.renewal_failed(ip),
                _ => this.store(ip, answer),
            }
        });
    }

    /// One look-up, on the control thread whoever asks: it reaps child processes.
    async fn look_up(&self, ip: IpAddr, epoch: u64) -> Answer {
        let inner = self.0.clone();
        let asked = self.0.control.spawn(async move {
            let permit = tokio::time::timeout(MAX_WAIT, inner.lookups.acquire()).await;
            match permit {
                Ok(Ok(_permit)) => inner.settle(inner.whois(ip).await),
                _ => Err(Reason::WhoisBusy),
            }
        });
        let verdict = asked.await.unwrap_or(Err(Reason::WhoisUnavailable));
        Answer { verdict, at: Instant::now(), epoch }
    }

    fn store(&self, ip: IpAddr, answer: Answer) {
        let mut entries = self.entries();
        let busy = matches!(answer.verdict, Err(Reason::WhoisBusy));
        if answer.epoch == self.0.state.load().epoch && !busy {
            let before = match entries.peek(&ip) {
                Some(Entry::Known { answer, .. }) if answer.verdict.is_ok() => Some(&answer.verdict),
                _ => None,
            };
            if before.is_some_and(|before| !is_same(before, &answer.verdict)) {
                self.0.revision.fetch_add(1, Ordering::Release);
            }
            warn_of_grants(before, &answer.verdict);
            entries.put(ip, Entry::Known { answer, renewing: false });
        } else {
            // Asked in another world, or not asked at all: the next one asks.
            entries.pop(&ip);
        }
    }

    fn renewal_failed(&self, ip: IpAddr) {
        if let Some(Entry::Known { renewing, .. }) = self.entries().get_mut(&ip) {
            *renewing = false;
        }
    }

    fn entries(&self) -> MutexGuard<'_, LruCache<IpAddr, Entry>> {
        self.0.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether two verdicts name the same person or machine, with the same standing and
/// the same grants.
fn is_same(before: &Verdict, now: &Verdict) -> bool {
    match (before, now) {
        (Ok(before), Ok(now)) => before.is_same(now) && before.grants() == now.grants(),
        _ => false,
    }
}

/// Says that a peer's grants are ignored, when that is news.
fn warn_of_grants(before: Option<&Verdict>, now: &Verdict) {
    let ignored = |verdict: &Verdict| verdict.as_ref().ok()?.grants()?.ignored().map(str::to_owned);
    if let (Ok(principal), Some(why)) = (now, ignored(now))
        && before.and_then(ignored).as_ref() != Some(&why)
    {
        let who = principal.label();
        let capability = crate::domain::grants::CAPABILITY;
        tracing::warn!(event = "grants_ignored", %who, capability, why, "the tailnet's grants to a peer are ignored");
    }
}

enum Step {
    Known(Answer),
    Wait(watch::Receiver<Option<Answer>>),
    New,
}

async fn wait(mut receiver: watch::Receiver<Option<Answer>>) -> Option<Answer> {
    let answer = receiver.wait_for(Option::is_some).await.ok()?;
    answer.clone()
}

impl Inner {
    /// Asks about an address. What the tailnet's grants give a peer depends on the
    /// address that it connects to, and the plain question is answered for this node's
    /// first, an IPv4 one. Who comes by IPv6 connects to the IPv6 one; where that
    /// cannot be asked about, no grant counts (threat rule 27).
    async fn whois(&self, ip: IpAddr) -> Result<Whois, Error> {
        if ip.to_canonical().is_ipv4() {
            return self.source.whois(ip).await;
        }
        let to = self.state.load().running().and_then(|own| own.ips.iter().copied().find(IpAddr::is_ipv6));
        if let Some(to) = to {
            match self.source.whois_at(ip, to).await {
                Err(error) if !error.is_not_found() => {}
                answer => return answer,
            }
        }
        let plain = self.source.whois(ip).await?;
        Ok(Whois { cap_map: CapMap::default(), ..plain })
    }

    /// What an answer, or its absence, means. A look-up that could not be made is
    /// never "nobody" (threat rule 9).
    fn settle(&self, answer: Result<Whois, Error>) -> Verdict {
        match answer {
            Ok(whois) => match self.state.load().running() {
                Some(running) => network::principal(&whois, running),
                None => Err(Reason::TailscaleNotRunning),
            },
            Err(error) if error.is_not_found() => Err(Reason::PeerUnknown),
            Err(error) => {
                tracing::warn!(error = %error, code = error.code(), "whois failed");
                Err(Reason::WhoisUnavailable)
            }
        }
    }
}

#[cfg(test)]
mod tests;
