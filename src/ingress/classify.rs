//! From a socket and some headers to the facts of a request.
//!
//! The order matters and is the order of the code: the unix ingress, then an
//! address of our tailnet, then loopback, then everything else. Nothing a client
//! wrote is believed unless the connection itself proves who wrote it.

use http::HeaderMap;
use http::HeaderName;
use ipnetwork::IpNetwork;
use std::net::IpAddr;
use std::sync::Arc;

use super::attest::{self, AtAccept, Condition};
use super::forwarded;
use super::scan::{Scan, scan};
use super::{ConnFacts, Endpoint, Evidence, IngressFacts, ListenerKind, Via, canonical_authority};
use crate::domain::addr::{is_in, is_loopback};
use crate::domain::tailnet::in_tailscale_range;
use crate::domain::{
    ClientAddr, Exposure, LocalAddr, PeerAddr, Phase, Reason, Running, ServeView, TailnetState,
};

/// The settings and system facts classification needs.
pub struct Policy<'a> {
    /// `gateway.trustedProxies`.
    pub trusted_proxies: &'a [IpNetwork],
    /// `gateway.allowRealIpFallback`.
    pub allow_real_ip_fallback: bool,
    /// The user header of mode trusted-proxy; `None` in every other mode.
    pub user_header: Option<&'a HeaderName>,
    /// Our own uid.
    pub our_uid: u32,
    /// Believe Serve headers on loopback where the system cannot say who
    /// connected (`gateway.tailscale.trustLocalUsers`; not on Linux).
    pub trust_local_users: bool,
    /// What was known when the connection was accepted.
    pub at_accept: AtAccept,
}

/// What was found, and what the log should say about it.
pub struct Classified {
    /// The facts.
    pub facts: IngressFacts,
    /// Tailscale headers came over a connection that is not Serve's; they are
    /// dropped, and the log names the condition that failed.
    pub unattested: Option<Condition>,
    /// Identity headers came by a way that never carries any (threat rule 4, 5).
    pub unexpected_identity_header: bool,
}

/// Settles the facts of a request. `host` is its validated authority, and
/// `socket_uid` asks the kernel who owns the other end of the connection; it is
/// called only when the answer matters.
///
/// # Errors
///
/// 400 for headers that could be read in two ways.
pub fn classify(
    conn: &ConnFacts,
    headers: &HeaderMap,
    host: Arc<str>,
    state: &TailnetState,
    policy: &Policy<'_>,
    socket_uid: &dyn Fn() -> Option<u32>,
) -> Result<Classified, Reason> {
    let scan = scan(headers, policy.user_header)?;
    let https = conn.tls.is_some();
    let (peer, local) = match conn.endpoint {
        Endpoint::Unix(_) => return unix_ingress(&scan, state, policy),
        Endpoint::Tcp { peer, local } => (peer, local),
    };
    let request = Request { listener: conn.listener, peer, local, host, https, scan, state, policy };
    if request.scan.funnel {
        return request.through_funnel(socket_uid);
    }
    if conn.listener == ListenerKind::ServeLoopback {
        return request.at_serve_port(socket_uid);
    }
    if state.is_own(local.ip()) {
        request.at_tailnet_address()
    } else if is_loopback(peer.ip()) {
        request.on_loopback(socket_uid)
    } else {
        request.elsewhere()
    }
}

/// A peer that cannot be on the tailnet has no business at a tailnet address:
/// the LAN reaches those of a Linux host (rulings 1.8). Decided at accept.
pub fn is_off_tailnet(peer: PeerAddr, local: LocalAddr, state: &TailnetState, own: &[IpAddr]) -> bool {
    if !state.is_own(local.ip()) || state.is_own(peer.ip()) || is_loopback_proper(peer.ip()) {
        return false;
    }
    match state.running() {
        Some(running) => !running.worth_asking(peer.ip()) && !own.contains(&peer.ip()),
        // Whose it is cannot be said now; the request is answered 503.
        None => false,
    }
}

/// The addresses every process here has without a tailnet. Other loopback
/// addresses may be a tailnet's, where one was set up in 127.0.0.0/8.
fn is_loopback_proper(ip: IpAddr) -> bool {
    ip == IpAddr::from([127, 0, 0, 1]) || ip == IpAddr::V6(std::net::Ipv6Addr::LOCALHOST)
}

/// Why identity cannot be had in this phase. A daemon that cannot be asked is
/// `whois_unavailable`, one that says it does not run `tailscale_not_running`.
pub fn unavailable(phase: &Phase) -> Option<Reason> {
    match phase {
        Phase::Running(_) => None,
        Phase::Down { .. } => Some(Reason::WhoisUnavailable),
        Phase::Unknown | Phase::NotRunning { .. } => Some(Reason::TailscaleNotRunning),
    }
}

fn unix_ingress(scan: &Scan<'_>, state: &TailnetState, policy: &Policy<'_>) -> Result<Classified, Reason> {
    let (attested, condition) = match (&state.phase, &state.serve) {
        (Phase::Running(running), ServeView::Known(facts)) => {
            // What is wrong now is named before what was wrong at accept.
            let older = if policy.at_accept.unix { Ok(()) } else { Err(Condition::OlderThanFacts) };
            match attest::unix_ingress(running, facts).and(older) {
                Ok(()) => (Ok(running), None),
                Err(condition) => (Err(Evidence::None(Some(Reason::ServePeerUnattested))), Some(condition)),
            }
        }
        (Phase::Running(_), ServeView::Unknown) => {
            (Err(Evidence::Unavailable(Reason::ServeStateUnknown)), None)
        }
        (Phase::Unknown, _) => (Err(Evidence::Unavailable(Reason::ServeStateUnknown)), None),
        (phase, _) => {
            let reason = unavailable(phase).unwrap_or(Reason::TailscaleNotRunning);
            (Err(Evidence::Unavailable(reason)), None)
        }
    };
    let (via, client, evidence) = serve(scan, attested)?;
    // Serve gives unix backends `Host: localhost`; the client's is here, and
    // here only is it read from this header.
    let host = match scan.forwarded_host {
        Some(value) => value
            .to_str()
            .ok()
            .and_then(|text| canonical_authority(text, is_https(scan)))
            .ok_or(Reason::BadRequest)?
            .into(),
        None => Arc::from(""),
    };
    let facts =
        IngressFacts { via, peer: None, client, https: is_https(scan), host, local_direct: false, evidence };
    Ok(Classified { facts, unattested: condition, unexpected_identity_header: false })
}

/// What an attested Serve connection says about one request. With `Err` the
/// connection is not attested, and that is the evidence.
fn serve(
    scan: &Scan<'_>,
    attested: Result<&Arc<Running>, Evidence>,
) -> Result<(Via, Option<ClientAddr>, Evidence), Reason> {
    let via = if scan.funnel { Via::Funnel } else { Via::Serve };
    let source = match scan.forwarded_for {
        // Serve sets exactly one address (threat rule 107).
        Some(value) if value.as_bytes().contains(&b',') => return Err(Reason::AmbiguousIdentityHeader),
        Some(value) => value.to_str().ok().and_then(forwarded::address),
        None => None,
    };
    let running = match attested {
        Ok(running) => running,
        // What it says about its client is anybody's word. A Funnel request has no
        // identity in any case, so nothing is missing.
        Err(_) if scan.funnel => return Ok((via, None, Evidence::None(None))),
        Err(evidence) => return Ok((via, None, evidence)),
    };
    let client = source.map(ClientAddr::new);
    let evidence = if scan.funnel {
        Evidence::None(None)
    } else if !running.version.at_least(1, 72, 0) {
        Evidence::None(Some(Reason::ServePeerUnattested))
    } else {
        match source {
            Some(source) if running.ips.contains(&source) || is_loopback_proper(source) => {
                Evidence::None(Some(Reason::OwnAddress))
            }
            Some(source) if !running.worth_asking(source) => Evidence::None(Some(Reason::PeerUnknown)),
            Some(source) if scan.forwarded_host.is_some() => {
                Evidence::Serve { source, login: scan.login.map(|value| value.as_bytes().to_vec()) }
            }
            _ => Evidence::None(Some(Reason::ServePeerUnattested)),
        }
    };
    Ok((via, client, evidence))
}

fn is_https(scan: &Scan<'_>) -> bool {
    scan.forwarded_proto.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"https"))
}

struct Request<'a> {
    listener: ListenerKind,
    peer: PeerAddr,
    local: LocalAddr,
    host: Arc<str>,
    https: bool,
    scan: Scan<'a>,
    state: &'a TailnetState,
    policy: &'a Policy<'a>,
}

impl Request<'_> {
    /// One of our tailnet addresses was dialled.
    fn at_tailnet_address(self) -> Result<Classified, Reason> {
        let peer = self.peer.ip();
        if self.state.is_own(peer) || is_loopback_proper(peer) {
            // This machine dialled itself. `whois` would name the node's owner
            // to every local user (threat rule 7).
            return Ok(self.settle(Via::Local, Evidence::None(Some(Reason::OwnAddress))));
        }
        if self.state.running().is_some() && is_in(self.policy.trusted_proxies, peer) {
            return self.behind_proxy();
        }
        if self.scan.forwarded || self.scan.via {
            return Ok(self.settle(Via::Tailnet, Evidence::None(Some(Reason::ProxiedPeer))));
        }
        let evidence = match (&self.state.phase, unavailable(&self.state.phase)) {
            (_, Some(reason)) => Evidence::Unavailable(reason),
            (Phase::Running(running), None) if running.worth_asking(peer) => {
                Evidence::Direct { peer, claimed: self.scan.login.map(|value| value.as_bytes().to_vec()) }
            }
            _ => Evidence::None(Some(Reason::PeerUnknown)),
        };
        Ok(self.settle(Via::Tailnet, evidence))
    }

    /// A Funnel mark: the public internet, whatever else can be said of the
    /// connection. Nobody gains by sending one (rulings 1.6). Who the client is, an
    /// attested connection says; a direct peer is itself.
    fn through_funnel(self, socket_uid: &dyn Fn() -> Option<u32>) -> Result<Classified, Reason> {
        let loopback = is_loopback(self.peer.ip()) && !self.state.is_own(self.local.ip());
        if loopback && let Ok(running) = self.attest_loopback(socket_uid) {
            return self.through_serve(running);
        }
        let mut classified = self.settle(Via::Funnel, Evidence::None(None));
        if loopback {
            classified.facts.client = None;
        }
        Ok(classified)
    }

    /// The loopback port that only Serve has business at. What cannot be told to be
    /// Serve's is nobody's, and never local.
    fn at_serve_port(self, socket_uid: &dyn Fn() -> Option<u32>) -> Result<Classified, Reason> {
        if self.state.tun == Some(false) {
            return self.on_loopback_without_tun(false, socket_uid);
        }
        let (evidence, condition) = match self.attest_loopback(socket_uid) {
            Ok(running) => return self.through_serve(running),
            Err(Attested::No(condition)) => {
                (Evidence::None(Some(Reason::ServePeerUnattested)), Some(condition))
            }
            Err(Attested::Unknown(reason)) => (Evidence::Unavailable(reason), None),
        };
        let mut classified = self.settle(Via::Serve, evidence);
        classified.facts.client = None;
        classified.unattested = condition;
        classified.unexpected_identity_header = false;
        Ok(classified)
    }

    /// A process here connected, or tailscaled on somebody's behalf.
    fn on_loopback(self, socket_uid: &dyn Fn() -> Option<u32>) -> Result<Classified, Reason> {
        let trusted = is_in(self.policy.trusted_proxies, self.peer.ip());
        if self.state.tun == Some(false) {
            return self.on_loopback_without_tun(trusted, socket_uid);
        }
        // A Serve request always carries X-Forwarded-For, with or without a
        // login; anything else on loopback is a local process or a proxy.
        if self.scan.tailscale || (self.scan.forwarded && !trusted) {
            match self.attest_loopback(socket_uid) {
                Ok(running) => return self.through_serve(running),
                Err(_) if trusted => {}
                Err(Attested::Unknown(reason))
                    if self.scan.tailscale || reason == Reason::ServeStateUnknown =>
                {
                    return Ok(self.settle(Via::Local, Evidence::Unavailable(reason)));
                }
                Err(Attested::No(condition)) if self.scan.tailscale => {
                    let reason = Some(Reason::ServePeerUnattested);
                    let mut classified = self.settle(Via::Local, Evidence::None(reason));
                    classified.unattested = Some(condition);
                    return Ok(classified);
                }
                Err(_) => {}
            }
        }
        if trusted {
            return self.loopback_proxy(socket_uid);
        }
        Ok(self.settle(Via::Local, Evidence::None(None)))
    }

    /// A listed proxy on loopback. Only while nothing but local processes can
    /// reach loopback, and never tailscaled, which passes its clients' headers
    /// through (rulings 1.10).
    fn loopback_proxy(self, socket_uid: &dyn Fn() -> Option<u32>) -> Result<Classified, Reason> {
        let refused = |reason| Ok(self.settle(Via::Proxy, Evidence::Unavailable(reason)));
        if self.policy.user_header.is_some() {
            if self.scan.tailscale {
                return refused(Reason::TrustedProxyIsTailscaled);
            }
            if let Some(daemon) = self.state.serve_facts().and_then(|facts| facts.daemon) {
                match socket_uid() {
                    Some(uid) if uid != daemon.uid => {}
                    Some(_) => return refused(Reason::TrustedProxyIsTailscaled),
                    None => return refused(Reason::TrustedProxyUnsafe),
                }
            }
        }
        if self.state.loopback_exposure() != Exposure::No {
            return refused(Reason::TrustedProxyUnsafe);
        }
        self.behind_proxy()
    }

    /// Userspace networking: every tailnet peer reaches loopback through
    /// tailscaled, with headers of its choosing. The socket says who it is.
    fn on_loopback_without_tun(
        self,
        trusted: bool,
        socket_uid: &dyn Fn() -> Option<u32>,
    ) -> Result<Classified, Reason> {
        if trusted {
            return Ok(self.settle(Via::Proxy, Evidence::Unavailable(Reason::TrustedProxyUnsafe)));
        }
        let daemon = self.state.serve_facts().and_then(|facts| facts.daemon);
        if daemon.is_some_and(|daemon| socket_uid() == Some(daemon.uid)) {
            let socket = self.peer.socket();
            let mut classified = self.settle(Via::Userspace, Evidence::Userspace { socket });
            classified.facts.client = None;
            return Ok(classified);
        }
        let reason = self.scan.tailscale.then_some(Reason::ServePeerUnattested);
        Ok(self.settle(Via::Local, Evidence::None(reason)))
    }

    /// The LAN, the internet, or a proxy on another host. A proxy that is named by
    /// a tailnet address is believed at a tailnet address only: elsewhere anybody
    /// may have it.
    fn elsewhere(self) -> Result<Classified, Reason> {
        let peer = self.peer.ip();
        if !in_tailscale_range(peer) && is_in(self.policy.trusted_proxies, peer) {
            return self.behind_proxy();
        }
        let reason = self.scan.tailscale.then_some(Reason::ServePeerUnattested);
        Ok(self.settle(Via::Lan, Evidence::None(reason)))
    }

    fn attest_loopback(&self, socket_uid: &dyn Fn() -> Option<u32>) -> Result<&Arc<Running>, Attested> {
        if matches!(self.state.phase, Phase::Unknown) {
            return Err(Attested::Unknown(Reason::ServeStateUnknown));
        }
        let Phase::Running(running) = &self.state.phase else {
            let reason = unavailable(&self.state.phase).unwrap_or(Reason::TailscaleNotRunning);
            return Err(Attested::Unknown(reason));
        };
        let ServeView::Known(facts) = &self.state.serve else {
            return Err(Attested::Unknown(Reason::ServeStateUnknown));
        };
        let (attest, at_accept): (fn(&_, &_, _, _) -> _, _) = match self.listener {
            ListenerKind::ServeLoopback => (attest::loopback_ingress, self.policy.at_accept.ingress),
            ListenerKind::Ordinary | ListenerKind::ServeUnix => {
                (attest::loopback, self.policy.at_accept.loopback)
            }
        };
        let answer = attest(running, facts, socket_uid(), self.policy.our_uid);
        let cannot_tell = matches!(
            answer,
            Err(Condition::DaemonUnknown | Condition::SocketIsNotDaemons | Condition::DaemonIsOurUid)
        );
        let trusts = cannot_tell && self.policy.trust_local_users && !cfg!(target_os = "linux");
        match answer {
            Err(condition) if !trusts => Err(Attested::No(condition)),
            // What is wrong now is named first: it can be mended.
            Ok(()) if !at_accept => Err(Attested::No(Condition::OlderThanFacts)),
            _ => Ok(running),
        }
    }

    fn through_serve(&self, running: &Arc<Running>) -> Result<Classified, Reason> {
        let (via, client, evidence) = serve(&self.scan, Ok(running))?;
        let facts = IngressFacts {
            via,
            peer: Some(self.peer),
            client,
            https: is_https(&self.scan),
            host: self.host.clone(),
            local_direct: false,
            evidence,
        };
        Ok(Classified { facts, unattested: None, unexpected_identity_header: false })
    }

    fn behind_proxy(self) -> Result<Classified, Reason> {
        let mut client = forwarded::client(self.scan.forwarded_for, self.policy.trusted_proxies)?;
        if client.is_none() && self.policy.allow_real_ip_fallback {
            client = self
                .scan
                .real_ip
                .and_then(|value| value.to_str().ok())
                .and_then(forwarded::address)
                .filter(|ip| !is_loopback(*ip))
                .map(ClientAddr::new);
        }
        let https = self.https || is_https(&self.scan);
        let mut classified = self.settle(Via::Proxy, Evidence::Proxy);
        classified.facts.client = client;
        classified.facts.https = https;
        Ok(classified)
    }

    fn settle(&self, via: Via, evidence: Evidence) -> Classified {
        let plain = !self.scan.tailscale && !self.scan.forwarded && !self.scan.via;
        let tun_is_off = self.state.tun == Some(false);
        let local_direct = via == Via::Local
            && plain
            && is_loopback(self.local.ip())
            && !tun_is_off
            && matches!(evidence, Evidence::None(None));
        Classified {
            unattested: None,
            unexpected_identity_header: self.scan.login.is_some(),
            facts: IngressFacts {
                via,
                peer: Some(self.peer),
                client: Some(ClientAddr::new(self.peer.ip())),
                https: self.https,
                host: self.host.clone(),
                local_direct,
                evidence,
            },
        }
    }
}

enum Attested {
    /// It is known not to be Serve's, or one condition does not hold.
    No(Condition),
    /// It cannot be said yet.
    Unknown(Reason),
}

#[cfg(test)]
mod tests;
