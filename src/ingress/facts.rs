//! The facts of one request, settled once and read by every later room.

use crate::domain::{ClientAddr, PeerAddr};

/// By which way a request came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Via {
    /// Straight from a tailnet peer to one of our tailnet addresses.
    Tailnet,
    /// Through Tailscale Serve, attested.
    Serve,
    /// Through Tailscale Funnel: the public internet.
    Funnel,
    /// From this machine, over loopback or its own tailnet address.
    Local,
    /// Over loopback, from a tailnet peer of a userspace-networking daemon.
    Userspace,
    /// Through a reverse proxy in front of us that is in `trustedProxies`.
    Proxy,
    /// From any other address.
    Lan,
}

impl Via {
    /// The word in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tailnet => "tailnet",
            Self::Serve => "serve",
            Self::Funnel => "funnel",
            Self::Local => "local",
            Self::Userspace => "userspace",
            Self::Proxy => "proxy",
            Self::Lan => "lan",
        }
    }
}

/// The facts of one request.
#[derive(Clone, Debug)]
pub struct IngressFacts {
    /// By which way.
    pub via: Via,
    /// Who opened the socket; `None` on the unix ingress.
    pub peer: Option<PeerAddr>,
    /// Who the request is attributed to; `None` where that cannot be said.
    pub client: Option<ClientAddr>,
    /// Whether the client spoke TLS, to us or to Tailscale in front of us.
    pub https: bool,
    /// The authority the client asked for, canonical: lower case, no final dot,
    /// no default port. On the unix ingress from `X-Forwarded-Host`.
    pub host: String,
}
