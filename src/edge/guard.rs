//! The browser guard: what a page of another site may not do with an identity
//! that the network carries (rulings 5).
//!
//! Tailnet identity is ambient, like a cookie: any page the person opens can make
//! their browser send requests as them. So under an ambient principal the Host
//! must be one of ours (DNS rebinding), and every request that changes something
//! or upgrades must come from our own origin. It holds for proxied apps too. A
//! principal that deliberately sent a secret passes.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, Method, header};

use crate::domain::route::GuardOptions;
use crate::domain::{Principal, Reason, Running};
use crate::ingress::{IngressFacts, Via};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

/// The names we are served under.
pub struct Hosts<'a> {
    /// `gateway.allowedHosts`, lower-cased.
    pub configured: &'a [String],
    /// The host of the route, where it has one: listed by being configured.
    pub route: Option<&'a str>,
    /// The tailnet node, when it runs.
    pub running: Option<&'a Running>,
    /// The address of ours that was dialled; `None` on the unix ingress.
    pub local: Option<IpAddr>,
}

/// Checks one request of an authenticated principal. `host` in the facts has
/// been validated and is canonical.
///
/// # Errors
///
/// 421 `host_not_allowed`, 403 `origin_not_allowed` or `cross_site`.
pub fn check(
    principal: &Principal,
    facts: &IngressFacts,
    method: &Method,
    headers: &HeaderMap,
    upgrade: bool,
    hosts: &Hosts<'_>,
    options: GuardOptions,
) -> Result<(), Reason> {
    if !principal.is_ambient() {
        return Ok(());
    }
    if !host_is_ours(facts, hosts) {
        return Err(Reason::HostNotAllowed);
    }
    let safe = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    if safe && !upgrade {
        return Ok(());
    }
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let origin = origins.next();
    if origins.next().is_some() {
        return Err(Reason::OriginNotAllowed);
    }
    let site = fetch_site(headers);
    match origin {
        Some(origin) if !is_own_origin(origin.as_bytes(), facts) => return Err(Reason::OriginNotAllowed),
        Some(_) => {}
        // A browser always sends Origin with a WebSocket. Without one it is a
        // program, which can as well send a secret.
        None if upgrade
            && (!options.non_browser_upgrade || site != Site::Absent || has_fetch_mode(headers)) =>
        {
            return Err(Reason::OriginNotAllowed);
        }
        None => {}
    }
    match site {
        Site::Foreign => Err(Reason::CrossSite),
        Site::Absent | Site::Own => Ok(()),
    }
}

/// Whether a page of another origin is what asks. It may be answered, as a link or
/// a picture is, but must not read the answer.
pub(super) fn is_foreign_page(headers: &HeaderMap, facts: &IngressFacts) -> bool {
    headers.get_all(header::ORIGIN).iter().any(|origin| !is_own_origin(origin.as_bytes(), facts))
        || fetch_site(headers) == Site::Foreign
}

/// Takes back every permission that an app gives to pages of other origins: it was
/// written for callers who prove who they are, and these are whoever the network
/// says (threat rule 34).
pub(super) fn withhold_from_other_origins(headers: &mut HeaderMap) {
    let given = |name: &HeaderName| {
        name.as_str().starts_with("access-control-") || name.as_str() == "timing-allow-origin"
    };
    let names: Vec<HeaderName> = headers.keys().filter(|name| given(name)).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}

#[derive(PartialEq, Eq)]
enum Site {
    Absent,
    Own,
    Foreign,
}

/// `Sec-Fetch-Site`: browsers send it to https and loopback origins, and scripts
/// cannot forge it. An unknown word is foreign.
fn fetch_site(headers: &HeaderMap) -> Site {
    let mut site = Site::Absent;
    for value in headers.get_all(SEC_FETCH_SITE) {
        match value.as_bytes() {
            b"same-origin" | b"none" if site != Site::Foreign => site = Site::Own,
            _ => site = Site::Foreign,
        }
    }
    site
}

fn has_fetch_mode(headers: &HeaderMap) -> bool {
    headers.contains_key(SEC_FETCH_MODE)
}

/// Scheme, host and port must all be ours, as bytes: nothing is normalised that a
/// browser would not have normalised itself.
fn is_own_origin(origin: &[u8], facts: &IngressFacts) -> bool {
    let scheme: &[u8] = if facts.https { b"https://" } else { b"http://" };
    origin.strip_prefix(scheme).is_some_and(|authority| authority == facts.host.as_bytes())
}

/// Whether the host that was asked for is one we are served under.
pub(super) fn host_is_ours(facts: &IngressFacts, hosts: &Hosts<'_>) -> bool {
    let Some(name) = host_name(&facts.host) else { return false };
    if hosts.route == Some(name) {
        return true;
    }
    if hosts.configured.iter().any(|configured| configured == name || **configured == *facts.host) {
        return true;
    }
    if let Ok(ip) = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
        // The very address that was dialled, or one of the node's.
        let dialled = hosts.local == Some(ip);
        let node = hosts.running.is_some_and(|running| running.ips.contains(&ip));
        return node || (dialled && !ip.is_unspecified());
    }
    if name == "localhost" {
        return facts.via == Via::Local && hosts.local.is_some_and(|local| local.is_loopback());
    }
    hosts.running.is_some_and(|running| {
        running.dns_name.as_ref().is_some_and(|dns| dns.as_str() == name || dns.short() == name)
            || running.cert_domains.iter().any(|domain| domain.eq_ignore_ascii_case(name))
    })
}

/// The host without its port. `None` where there is none.
fn host_name(authority: &str) -> Option<&str> {
    let name = if authority.starts_with('[') {
        &authority[..=authority.find(']')?]
    } else {
        authority.split(':').next()?
    };
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests;
