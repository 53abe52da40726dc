//! What is open for whom, and ending it when the right to it is taken away.
//!
//! A WebSocket or a stream was decided on once and may live for days. So each
//! worker looks again at everything that is open: at once when the configuration
//! or the tailnet changed, and at who the devices are when that may have changed, and
//! every five seconds (rulings 6; threat rules 49, 50 and 52). Whoever would be refused
//! now is closed, nobody else.
//!
//! What may outlive its connection's bookkeeping (a tunnel) or share it with
//! others' (a stream of HTTP/2) has an entry of its own. The requests of an
//! HTTP/1.1 connection come one after another and share one.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::budget::{Budgets, Share};
use super::conn::Conn;
use super::grant::{Grant, IDENTITY_AGE};
use super::recheck::{recheck, still_is, still_open};
use super::shared::{Settings, Shared};
use crate::domain::{Principal, Reason, TailnetState};
use crate::ingress::Via;
use crate::proxy::{CloseReason, CloseSignal, Closer};

/// How often everything open is looked at.
const GLANCE: Duration = Duration::from_millis(500);
/// How long an answer may go on after the gateway was told to stop.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// Something open, with the hand that ends it.
struct Open {
    grant: Grant,
    closer: Closer,
    _share: Option<Share>,
}

/// What is open on one worker.
pub(super) struct Live {
    connections: Budgets,
    streams: Budgets,
    open: RefCell<Vec<Open>>,
    conns: RefCell<Vec<Weak<Conn>>>,
    settings: RefCell<Option<Arc<Settings>>>,
    state: RefCell<Option<Arc<TailnetState>>>,
    /// When everybody was last asked about, and in which epoch.
    identities_at: Cell<Option<(Instant, u64)>>,
    /// The addresses that are being asked about, each with the epoch in which. One
    /// that hangs holds up no other, and no question of a later epoch.
    asking: RefCell<HashMap<IpAddr, u64>>,
    /// Whether anything ever came by Funnel.
    public: Cell<bool>,
}

impl Live {
    /// Nothing yet, on a worker with room for so many connections.
    pub(super) fn new(max_connections: usize) -> Self {
        Self {
            connections: Budgets::new(max_connections),
            streams: Budgets::new(max_connections),
            open: RefCell::default(),
            conns: RefCell::default(),
            settings: RefCell::default(),
            state: RefCell::default(),
            identities_at: Cell::default(),
            asking: RefCell::default(),
            public: Cell::default(),
        }
    }

    /// Charges a connection to whoever uses it now, whatever they ask for: one that is
    /// idle, or asks for the gateway's own pages only, takes a place, too.
    ///
    /// # Errors
    ///
    /// Its caller has as much open as they may.
    pub(super) fn charge(
        &self,
        conn: &Conn,
        principal: &Principal,
        client: Option<IpAddr>,
    ) -> Result<(), Reason> {
        let charge = || self.connections.charge(&mut conn.share.borrow_mut(), principal, client);
        charge().or_else(|_| {
            // What has just ended may not have been noticed yet.
            self.prune();
            charge()
        })
    }

    /// Gives a stream of HTTP/2 an entry of its own. Streams are counted apart from
    /// connections: many on one is what HTTP/2 is for.
    ///
    /// # Errors
    ///
    /// Its caller has as much open as they may.
    pub(super) fn enter(
        &self,
        conn: &Conn,
        grant: Grant,
        client: Option<IpAddr>,
    ) -> Result<CloseSignal, Reason> {
        self.charge(conn, &grant.principal, client)?;
        let take = || self.streams.take(&grant.principal, client);
        let share = take().or_else(|_| {
            self.prune();
            take()
        })?;
        Ok(self.add(grant, Some(share)))
    }

    /// The same for a tunnel, which takes its connection's place: it lives on when
    /// what is remembered of the connection is gone.
    ///
    /// # Errors
    ///
    /// Its caller has as much open as they may.
    pub(super) fn tunnel(
        &self,
        conn: &Conn,
        grant: Grant,
        client: Option<IpAddr>,
    ) -> Result<CloseSignal, Reason> {
        self.charge(conn, &grant.principal, client)?;
        let share = conn.share.take();
        Ok(self.add(grant, share))
    }

    fn add(&self, grant: Grant, share: Option<Share>) -> CloseSignal {
        let closer = Closer::default();
        let signal = closer.signal();
        self.open.borrow_mut().push(Open { grant, closer, _share: share });
        signal
    }

    /// Remembers a connection whose requests share one entry, and on what the latest
    /// of it is open.
    ///
    /// # Errors
    ///
    /// Its caller has as much open as they may.
    pub(super) fn reuse(
        &self,
        conn: &Rc<Conn>,
        grant: Grant,
        client: Option<IpAddr>,
    ) -> Result<CloseSignal, Reason> {
        self.charge(conn, &grant.principal, client)?;
        *conn.grant.borrow_mut() = Some(grant);
        if !conn.watched.replace(true) {
            self.conns.borrow_mut().push(Rc::downgrade(conn));
        }
        Ok(conn.closer.borrow().signal())
    }

    /// Notes by which way something came that may stay open.
    pub(super) fn note(&self, via: Via) {
        self.public.set(self.public.get() || via == Via::Funnel);
    }

    /// Looks again, for ever. Runs on the worker's own runtime.
    pub(super) async fn run(self: Rc<Self>, shared: Arc<Shared>) {
        let mut changed = shared.changed.clone();
        loop {
            tokio::select! {
                () = tokio::time::sleep(GLANCE) => {}
                // An error is the end of the gateway; the glance goes on until then.
                told = changed.changed() => if told.is_err() { tokio::time::sleep(GLANCE).await },
            }
            self.prune();
            if shared.is_draining() {
                return self.drain().await;
            }
            self.look(&shared);
        }
    }

    /// Forgets what has ended.
    fn prune(&self) {
        self.open.borrow_mut().retain(|open| open.closer.held() > 0);
        self.conns.borrow_mut().retain(|conn| conn.strong_count() > 0);
    }

    /// The gateway stops: WebSockets are told at once, answers get a little time.
    async fn drain(&self) {
        self.close_where(CloseReason::Draining, |grant| grant.upgrade);
        tokio::time::sleep(LAST_WORDS).await;
        self.close_where(CloseReason::Draining, |_| true);
    }

    fn look(self: &Rc<Self>, shared: &Arc<Shared>) {
        let (settings, state) = (shared.settings.load_full(), shared.state.load_full());
        if self.public.get() {
            // By the clock: the end of a Funnel is no change that anybody makes.
            self.close_refused(|grant| still_open(grant, shared, &settings));
        }
        let changed = !same(&self.settings, &settings) | !same(&self.state, &state);
        let asked = self.identities_at.get();
        let due = asked.is_none_or(|(at, epoch)| at.elapsed() >= IDENTITY_AGE || epoch != state.epoch);
        if changed || due {
            // First what needs no question: a slow `whois` of one device must not
            // keep another's right alive. By the clock, too: a right may have an end
            // (`until`), and not everybody has an address to be asked about.
            self.close_refused(|grant| recheck(grant, None, shared, &settings, &state));
        }
        if due {
            self.identities_at.set(Some((Instant::now(), state.epoch)));
            self.ask(shared, state.epoch);
        }
    }

    /// Asks who the connected devices are now, each for itself.
    fn ask(self: &Rc<Self>, shared: &Arc<Shared>, epoch: u64) {
        let mut addresses: Vec<IpAddr> = self.grants().iter().filter_map(|grant| grant.asked).collect();
        addresses.sort_unstable();
        addresses.dedup();
        let mut asking = self.asking.borrow_mut();
        for ip in addresses {
            if asking.insert(ip, epoch) != Some(epoch) {
                tokio::task::spawn_local(self.clone().ask_about(ip, epoch, shared.clone()));
            }
        }
    }

    async fn ask_about(self: Rc<Self>, ip: IpAddr, epoch: u64, shared: Arc<Shared>) {
        let verdict = shared.identities.identify_at_most(ip, IDENTITY_AGE).await.verdict;
        // By the rules of now, which may have changed while we asked.
        let (settings, state) = (shared.settings.load_full(), shared.state.load_full());
        self.close_refused(|grant| {
            if grant.asked != Some(ip) {
                return Ok(());
            }
            let now = still_is(&grant.principal, &verdict)?;
            recheck(grant, Some(now), &shared, &settings, &state)
        });
        let mut asking = self.asking.borrow_mut();
        if asking.get(&ip) == Some(&epoch) {
            asking.remove(&ip);
        }
    }

    fn grants(&self) -> Vec<Grant> {
        let open = self.open.borrow();
        let conns = self.conns.borrow();
        let of_conns = conns.iter().filter_map(Weak::upgrade).filter_map(|conn| conn.grant());
        open.iter().map(|open| open.grant.clone()).chain(of_conns).collect()
    }

    fn close_refused(&self, decide: impl Fn(&Grant) -> Result<(), Reason>) {
        self.close_where(CloseReason::Revoked, |grant| match decide(grant) {
            Ok(()) => false,
            Err(reason) => {
                tracing::info!(
                    conn = grant.conn,
                    who = %grant.principal.label(),
                    reason = reason.code(),
                    event = "revoked",
                    "what was open is closed"
                );
                true
            }
        });
    }

    fn close_where(&self, why: CloseReason, which: impl Fn(&Grant) -> bool) {
        self.open.borrow_mut().retain(|open| {
            let close = open.closer.held() > 0 && which(&open.grant);
            if close {
                open.closer.close(why);
            }
            !close
        });
        let conns: Vec<Rc<Conn>> = self.conns.borrow().iter().filter_map(Weak::upgrade).collect();
        for conn in conns.iter().filter(|conn| conn.has_open()) {
            if conn.grant().is_some_and(|grant| which(&grant)) {
                conn.close(why);
            }
        }
    }
}

fn same<T>(slot: &RefCell<Option<Arc<T>>>, now: &Arc<T>) -> bool {
    let mut slot = slot.borrow_mut();
    let same = slot.as_ref().is_some_and(|before| Arc::ptr_eq(before, now));
    *slot = Some(now.clone());
    same
}
