//! What is known about a connection once it is accepted.

use std::net::SocketAddr;
use std::time::Instant;

use super::attest::AtAccept;

use crate::domain::{LocalAddr, PeerAddr};

/// Which of our listeners accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ListenerKind {
    /// The ordinary port, on whichever addresses it is bound to.
    Ordinary,
    /// The unix socket that only Tailscale Serve may use (rulings 1.3).
    ServeUnix,
    /// The loopback port that only Tailscale Serve may use (rulings 1.4).
    ServeLoopback,
}

/// The process at the other end of a unix socket, from the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnixPeer {
    /// Its uid.
    pub uid: u32,
    /// Its pid, where the kernel knows it (not across pid namespaces).
    pub pid: Option<u32>,
}

/// The two ends of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// TCP.
    Tcp {
        /// The far end.
        peer: PeerAddr,
        /// The near end.
        local: LocalAddr,
    },
    /// A unix socket.
    Unix(UnixPeer),
}

/// What the TLS handshake said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFacts {
    /// The server name the client asked for, lower-cased.
    pub server_name: Option<String>,
}

/// A connection, once accepted. One per connection, shared by its requests.
#[derive(Clone, Debug)]
pub struct ConnFacts {
    /// Its number in the log.
    pub id: u64,
    /// Which listener.
    pub listener: ListenerKind,
    /// The two ends.
    pub endpoint: Endpoint,
    /// Present when TLS ended here.
    pub tls: Option<TlsFacts>,
    /// When it was accepted.
    pub accepted: Instant,
    /// What was known then of who could have opened it.
    pub at_accept: AtAccept,
}

impl ConnFacts {
    /// The far end as a raw address, for system calls.
    pub fn peer_socket(&self) -> Option<SocketAddr> {
        match self.endpoint {
            Endpoint::Tcp { peer, .. } => Some(peer.socket()),
            Endpoint::Unix(_) => None,
        }
    }
}
