//! Whether a grant would be given now.

use super::grant::{Grant, unix_now};
use super::shared::{Settings, Shared};
use crate::authn::Verdict;
use crate::authn::secret::Secrets;
use crate::authz::{self, Question};
use crate::config::AuthMode;
use crate::domain::addr::is_in;
use crate::domain::{Exposure, Phase, Principal, Reason, TailnetState};
use crate::ingress::Via;

/// Decides again, by the configuration and tailnet of now. `now` is who the
/// device turned out to be; without it, who it was.
///
/// # Errors
///
/// Why what is open must be closed.
pub(super) fn recheck(
    grant: &Grant,
    now: Option<Principal>,
    shared: &Shared,
    settings: &Settings,
    state: &TailnetState,
) -> Result<(), Reason> {
    let auth = &settings.config.gateway.auth;
    match &grant.principal {
        Principal::User(_) | Principal::Node(_) => {
            if !auth.allow_tailscale {
                return Err(Reason::TokenMissing);
            }
            // A daemon that cannot be asked for a while takes no right away; one
            // that says it is logged out or stopped does.
            if matches!(state.phase, Phase::NotRunning { .. }) {
                return Err(Reason::TailscaleNotRunning);
            }
        }
        Principal::SecretHolder { .. } if !Secrets::same(&grant.settings.secrets, &settings.secrets) => {
            return Err(Reason::TokenMismatch);
        }
        Principal::SecretHolder { .. } | Principal::Public => {}
        Principal::Proxy(user) => {
            let proxy = auth.trusted_proxy.as_ref();
            if !proxy.is_some_and(|proxy| proxy.allow_users.contains(&user.name)) {
                return Err(Reason::TrustedProxyUserNotAllowed);
            }
            let proxies = &settings.config.gateway.trusted_proxies;
            if !grant.peer.is_some_and(|peer| is_in(proxies, peer)) {
                return Err(Reason::TrustedProxyUntrustedSource);
            }
        }
        Principal::Local if auth.mode != AuthMode::None => return Err(Reason::TokenMissing),
        Principal::Local if state.loopback_exposure() == Exposure::Yes => {
            return Err(Reason::ModeNoneExposed);
        }
        Principal::Local => {}
    }
    let route = settings.router.named(grant.route.name.as_str()).ok_or(Reason::NoRoute)?;
    let principal = now.unwrap_or_else(|| grant.principal.clone());
    let running = state.running();
    // Without a running tailnet nobody owns anything, and nothing can be said
    // about a member: what was decided while it ran stands.
    if running.is_none() && matches!(principal, Principal::User(_) | Principal::Node(_)) {
        return Ok(());
    }
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
        now: unix_now(),
    };
    authz::decide(route, question).map(drop)
}

/// Whether the internet may still come in there. True of what did not come by Funnel.
///
/// # Errors
///
/// The grant has ended, or the route is not public any more.
pub(super) fn still_open(grant: &Grant, shared: &Shared, settings: &Settings) -> Result<(), Reason> {
    if grant.via != Via::Funnel {
        return Ok(());
    }
    let route = settings.router.named(grant.route.name.as_str()).ok_or(Reason::NoRoute)?;
    let open = grant.opened_at.as_deref().is_some_and(|path| shared.is_open(route, path));
    if open { Ok(()) } else { Err(Reason::NotPublic) }
}

/// Who a device is now, from what `whois` said of its address.
///
/// # Errors
///
/// It is somebody else, or nobody. That Tailscale could not be asked is neither; that
/// it was not even tried, for want of a place, keeps no right.
pub(super) fn still_is(before: &Principal, verdict: &Verdict) -> Result<Principal, Reason> {
    match verdict {
        Ok(now) if now.is_same(before) => Ok(now.clone()),
        Ok(_) => Err(Reason::UserIdChanged),
        Err(Reason::WhoisUnavailable | Reason::TailscaleNotRunning) => Ok(before.clone()),
        Err(reason) => Err(*reason),
    }
}
