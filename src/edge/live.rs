//! What is open for whom, and ending it when the right to it is taken away.
//!
//! A WebSocket or a stream was decided on once and may live for days. So each
//! worker looks again at everything that is open: at once when the configuration
//! or the tailnet changed, and every five seconds at who the devices are (rulings
//! 6; threat rules 49, 50 and 52). Whoever would be refused now is closed, nobody
//! else.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::pipeline::Conn;
use super::shared::{Settings, Shared};
use crate::authn::secret::Secrets;
use crate::authz::{self, Question};
use crate::config::AuthMode;
use crate::domain::{Phase, Principal, Reason, Role, Route, TailnetState};
use crate::ingress::Via;
use crate::proxy::CloseReason;

/// How often everything open is looked at.
const GLANCE: Duration = Duration::from_millis(500);
/// How long an answer may go on after the gateway was told to stop.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// How old an identity may be while something is open on it.
const IDENTITY_AGE: Duration = Duration::from_secs(5);

/// On what something was opened.
#[derive(Clone)]
pub(super) struct Grant {
    /// Whose it is.
    pub(super) principal: Principal,
    /// By which way.
    pub(super) via: Via,
    /// The address that `whois` was asked about.
    pub(super) asked: Option<IpAddr>,
    /// The route; looked up again by its name, since a reload makes new ones.
    pub(super) route: Arc<Route>,
    /// Whether it asked for an upgrade: a WebSocket does not end by itself.
    pub(super) upgrade: bool,
    /// The secrets that were in force.
    pub(super) settings: Arc<Settings>,
}

/// The connections of one worker on which something was opened.
#[derive(Default)]
pub(super) struct Live {
    conns: RefCell<Vec<Weak<Conn>>>,
    settings: RefCell<Option<Arc<Settings>>>,
    state: RefCell<Option<Arc<TailnetState>>>,
    identities_at: Cell<Option<Instant>>,
}

impl Live {
    /// Remembers a connection.
    pub(super) fn watch(&self, conn: &Rc<Conn>) {
        self.conns.borrow_mut().push(Rc::downgrade(conn));
    }

    /// Looks again, for ever. Runs on the worker's own runtime.
    pub(super) async fn run(self: Rc<Self>, shared: Arc<Shared>) {
        loop {
            tokio::time::sleep(GLANCE).await;
            if shared.is_draining() {
                return self.drain().await;
            }
            self.look(&shared).await;
        }
    }

    /// The gateway stops: WebSockets are told at once, answers get a little time.
    async fn drain(&self) {
        let open = |all: bool| {
            let conns = self.conns.borrow();
            let open = conns.iter().filter_map(Weak::upgrade).filter(|conn| conn.has_open());
            open.filter(|conn| all || conn.grant().is_some_and(|grant| grant.upgrade)).collect::<Vec<_>>()
        };
        open(false).iter().for_each(|conn| conn.close(CloseReason::Draining));
        tokio::time::sleep(LAST_WORDS).await;
        open(true).iter().for_each(|conn| conn.close(CloseReason::Draining));
    }

    async fn look(&self, shared: &Shared) {
        let (settings, state) = (shared.settings.load_full(), shared.state.load_full());
        let changed = !same(&self.settings, &settings) | !same(&self.state, &state);
        let due = self.identities_at.get().is_none_or(|at| at.elapsed() >= IDENTITY_AGE);
        if !changed && !due {
            return;
        }
        if due {
            self.identities_at.set(Some(Instant::now()));
        }
        let open: Vec<Rc<Conn>> = {
            let mut conns = self.conns.borrow_mut();
            conns.retain(|conn| conn.strong_count() > 0);
            conns.iter().filter_map(Weak::upgrade).filter(|conn| conn.has_open()).collect()
        };
        for conn in open {
            let Some(grant) = conn.grant() else { continue };
            if let Err(reason) = recheck(&grant, shared, &settings, &state).await {
                tracing::info!(
                    conn = conn.id(),
                    who = %grant.principal.label(),
                    reason = reason.code(),
                    event = "revoked",
                    "what was open is closed"
                );
                conn.close(CloseReason::Revoked);
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

/// Whether the grant would be given now.
async fn recheck(
    grant: &Grant,
    shared: &Shared,
    settings: &Settings,
    state: &TailnetState,
) -> Result<(), Reason> {
    let principal = match &grant.principal {
        Principal::User(_) | Principal::Node(_) => still_is(grant, shared, settings, state).await?,
        Principal::SecretHolder { .. } => {
            if !Secrets::same(&grant.settings.secrets, &settings.secrets) {
                return Err(Reason::TokenMismatch);
            }
            grant.principal.clone()
        }
        Principal::Proxy(user) => {
            let proxy = settings.config.gateway.auth.trusted_proxy.as_ref();
            if !proxy.is_some_and(|proxy| proxy.allow_users.contains(&user.name)) {
                return Err(Reason::TrustedProxyUserNotAllowed);
            }
            grant.principal.clone()
        }
        Principal::Local if settings.config.gateway.auth.mode != AuthMode::None => {
            return Err(Reason::TokenMissing);
        }
        Principal::Local if state.loopback_is_exposed() => return Err(Reason::ModeNoneExposed),
        Principal::Local | Principal::Public => grant.principal.clone(),
    };
    let route = settings.router.named(grant.route.name.as_str()).ok_or(Reason::NoRoute)?;
    let running = state.running();
    let pinned = match (&principal, running) {
        (Principal::User(user), Some(running)) => shared.pins.of(&running.tailnet, user.login.as_str()),
        _ => None,
    };
    let question = Question {
        principal,
        via: grant.via,
        access: &settings.config.gateway.access,
        owner: running.and_then(|running| running.owner.as_ref()),
        pinned,
        now: super::pipeline::unix_now(),
    };
    authz::decide(route, question).map(|permit| debug_assert!(permit.role() >= Role::User))
}

/// Who the device is now. While Tailscale cannot be asked, what is open stays: a
/// daemon that restarts takes no right away. One that says it is logged out or
/// stopped does.
async fn still_is(
    grant: &Grant,
    shared: &Shared,
    settings: &Settings,
    state: &TailnetState,
) -> Result<Principal, Reason> {
    if !settings.config.gateway.auth.allow_tailscale {
        return Err(Reason::TokenMissing);
    }
    match &state.phase {
        Phase::NotRunning { .. } => return Err(Reason::TailscaleNotRunning),
        Phase::Unknown | Phase::Down { .. } => return Ok(grant.principal.clone()),
        Phase::Running(_) => {}
    }
    // A loopback socket of userspace networking cannot be asked about cheaply;
    // its peer is known by the connection, which ends with the peer.
    let Some(ip) = grant.asked else { return Ok(grant.principal.clone()) };
    match shared.identities.identify_at_most(ip, IDENTITY_AGE).await.verdict {
        Ok(now) if is_same(&grant.principal, &now) => Ok(now),
        Ok(_) => Err(Reason::UserIdChanged),
        Err(Reason::WhoisUnavailable | Reason::WhoisBusy) => Ok(grant.principal.clone()),
        Err(reason) => Err(reason),
    }
}

fn is_same(before: &Principal, now: &Principal) -> bool {
    match (before, now) {
        (Principal::User(before), Principal::User(now)) => {
            before.login == now.login && before.user_id == now.user_id && before.node_id == now.node_id
        }
        (Principal::Node(before), Principal::Node(now)) => {
            before.node_id == now.node_id && before.tags == now.tags
        }
        _ => false,
    }
}
