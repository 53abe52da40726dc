//! Mode trusted-proxy: the user that a listed proxy names.
//!
//! The checks and their order are those of the gateway spec, 3.3, as ruled in
//! rulings 1.10. An empty list of users never means everybody.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue};

use super::SchemeAnswer;
use crate::config::Auth;
use crate::domain::addr::is_loopback;
use crate::domain::{Principal, ProxyUser, Reason, rfc2047};
use crate::ingress::{Evidence, IngressFacts, Via};

/// Reads the proxy's word.
pub fn authenticate(
    facts: &IngressFacts,
    headers: &HeaderMap,
    auth: &Auth,
    own_addresses: Option<&[std::net::IpAddr]>,
) -> SchemeAnswer {
    let failed = |reason: Reason| SchemeAnswer::Failed(reason.into());
    let Some(settings) = &auth.trusted_proxy else {
        return failed(Reason::TrustedProxyUntrustedSource);
    };
    // Tailscale passes X-Forwarded-User of its clients through: it is never a
    // trusted proxy.
    if matches!(facts.via, Via::Serve | Via::Funnel | Via::Userspace) {
        return failed(Reason::TrustedProxyIsTailscaled);
    }
    match facts.evidence {
        Evidence::Proxy => {}
        Evidence::Unavailable(reason) => return failed(reason),
        _ => return failed(Reason::TrustedProxyUntrustedSource),
    }
    let Some(peer) = facts.peer else { return failed(Reason::TrustedProxyUntrustedSource) };
    if is_loopback(peer.ip()) {
        if settings.allow_loopback == Some(false) {
            return failed(Reason::TrustedProxyLoopbackSource);
        }
    } else if own_addresses.is_none_or(|own| own.contains(&peer.ip())) {
        // Also where they could not be read: it might be one.
        return failed(Reason::TrustedProxyLocalInterfaceSource);
    }
    let blank = |value: &HeaderValue| value.as_bytes().trim_ascii().is_empty();
    if settings.required_headers.iter().any(|name| headers.get(name).is_none_or(blank)) {
        return failed(Reason::TrustedProxyMissingHeader);
    }
    let Some(user) = headers.get(&settings.user_header).filter(|value| !blank(value)) else {
        return failed(Reason::TrustedProxyUserMissing);
    };
    let Some(name) = std::str::from_utf8(user.as_bytes()).ok().map(str::trim).filter(|name| sound(name))
    else {
        return failed(Reason::TrustedProxyUserMissing);
    };
    if !settings.allow_users.iter().any(|allowed| allowed == name) {
        return failed(Reason::TrustedProxyUserNotAllowed);
    }
    if facts.client.is_none() {
        return failed(Reason::ProxyAttributionRequired);
    }
    let Some(header) = rfc2047::header_value(name) else { return failed(Reason::TrustedProxyUserMissing) };
    SchemeAnswer::Authenticated(Principal::Proxy(Arc::new(ProxyUser { name: name.to_owned(), header })))
}

fn sound(name: &str) -> bool {
    name.len() <= 254 && !name.chars().any(char::is_control)
}
