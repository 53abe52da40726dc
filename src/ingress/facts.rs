//! The facts of one request, settled once and read by every later room.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::domain::{ClientAddr, PeerAddr, Reason};

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
    pub host: Arc<str>,
    /// A plain request of a process on this machine: loopback, no forwarding
    /// and no Tailscale header, and no userspace networking.
    pub local_direct: bool,
    /// What there is to learn an identity from.
    pub evidence: Evidence,
}

/// What there is to learn a network identity from. Authentication follows it;
/// it never looks at the headers again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// Nothing. With a reason where the caller tried, or might expect one.
    None(Option<Reason>),
    /// `whois` of the socket's own peer.
    Direct {
        /// The peer.
        peer: IpAddr,
        /// `Tailscale-User-Login` as sent: never a source, but it must agree.
        claimed: Option<Vec<u8>>,
    },
    /// An attested Serve request.
    Serve {
        /// The one address of `X-Forwarded-For`.
        source: IpAddr,
        /// `Tailscale-User-Login`; Serve sends none for tagged machines.
        login: Option<Vec<u8>>,
    },
    /// `whois --proto tcp` of the connecting loopback socket, which tailscaled
    /// owns (rulings 1.5).
    Userspace {
        /// The loopback socket.
        socket: SocketAddr,
    },
    /// A configured reverse proxy: its user header counts in mode trusted-proxy.
    Proxy,
    /// Whoever it is, they get no identity and this answer: the state that would
    /// decide is not known, or the way in is unsafe.
    Unavailable(Reason),
}
