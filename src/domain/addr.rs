//! Addresses that cannot be mistaken for one another.
//!
//! Every address is canonical from the moment it is made: an IPv4-mapped IPv6
//! address is the IPv4 address it stands for, and a zone id is gone. Two
//! spellings of one client therefore share one rate-limit entry and one cached
//! identity (threat rule 44).

use std::fmt;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use ipnetwork::IpNetwork;

/// The IPv4 form of a mapped address, and any other address as it is.
pub fn canonical_ip(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(ip, IpAddr::V4),
        IpAddr::V4(_) => ip,
    }
}

fn canonical_socket(addr: SocketAddr) -> SocketAddr {
    match canonical_ip(addr.ip()) {
        IpAddr::V4(v4) => SocketAddr::new(IpAddr::V4(v4), addr.port()),
        IpAddr::V6(v6) => SocketAddr::V6(SocketAddrV6::new(v6, addr.port(), 0, 0)),
    }
}

macro_rules! socket_newtype {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub struct $name(SocketAddr);

        impl $name {
            /// Wraps an address in its canonical form.
            pub fn new(addr: SocketAddr) -> Self {
                Self(canonical_socket(addr))
            }
            /// The canonical IP address.
            pub fn ip(&self) -> IpAddr {
                self.0.ip()
            }
            /// The port.
            pub fn port(&self) -> u16 {
                self.0.port()
            }
            /// Address and port together.
            pub fn socket(&self) -> SocketAddr {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

socket_newtype! {
    /// The far end of a socket: who really opened the connection.
    PeerAddr
}
socket_newtype! {
    /// The near end of a socket: which of our addresses was dialled.
    LocalAddr
}

/// The client a request is attributed to: the peer, or what a trusted proxy or
/// Tailscale Serve said about it. Limits are keyed by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientAddr(IpAddr);

impl ClientAddr {
    /// Wraps an address in its canonical form.
    pub fn new(ip: IpAddr) -> Self {
        Self(canonical_ip(ip))
    }
    /// The canonical IP address.
    pub fn ip(&self) -> IpAddr {
        self.0
    }
}

impl fmt::Display for ClientAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Whether a parsed address is loopback. Names are never tested for this:
/// `127.evil.example` is a name (threat rule 103).
pub fn is_loopback(ip: IpAddr) -> bool {
    canonical_ip(ip).is_loopback()
}

/// Whether an address is in a list of networks.
pub fn is_in(networks: &[IpNetwork], ip: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(ip))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_address_is_its_ipv4_address() {
        let mapped: IpAddr = "::ffff:1.2.3.4".parse().unwrap();
        let hex: IpAddr = "::ffff:102:304".parse().unwrap();
        assert_eq!(ClientAddr::new(mapped), ClientAddr::new("1.2.3.4".parse().unwrap()));
        assert_eq!(ClientAddr::new(hex), ClientAddr::new(mapped));
    }

    #[test]
    fn a_zone_does_not_make_another_peer() {
        let zoned = SocketAddr::V6(SocketAddrV6::new("fe80::1".parse().unwrap(), 1, 0, 7));
        assert_eq!(PeerAddr::new(zoned), PeerAddr::new("[fe80::1]:1".parse().unwrap()));
    }

    #[test]
    fn loopback_is_decided_on_the_parsed_address() {
        assert!(is_loopback("127.9.9.9".parse().unwrap()));
        assert!(is_loopback("::ffff:127.0.0.1".parse().unwrap()));
        assert!(is_loopback("::1".parse().unwrap()));
        assert!(!is_loopback("0.0.0.0".parse().unwrap()));
        assert!(!is_loopback("128.0.0.1".parse().unwrap()));
    }
}
