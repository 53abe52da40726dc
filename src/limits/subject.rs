//! Whose budget an attempt is charged to.

use std::net::{IpAddr, Ipv6Addr};

use crate::domain::ClientAddr;

/// Whose budget an attempt is charged to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Loopback where nothing can be proxied to it (rulings 6). Never limited.
    Exempt,
    /// A tailnet peer: by its exact address, since all peers share one /64.
    Tailnet(ClientAddr),
    /// Any other client: an IPv4 address, or an IPv6 /64, /56 and /48.
    Client(ClientAddr),
    /// Proxied traffic that cannot be attributed: one budget for all of it.
    Unattributed,
}

/// One budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Bucket {
    /// An exact address.
    Exact(IpAddr),
    /// An IPv6 network: prefix length and the masked bits.
    Net(u8, u128),
    /// Unattributed traffic.
    Unattributed,
}

impl Subject {
    /// The budgets an attempt counts against, each with the multiple of the
    /// configured attempts it allows: 1 (10 by default), 3 (30) and 10 (100).
    pub(super) fn buckets(self) -> Vec<(Bucket, u32)> {
        match self {
            Self::Exempt => Vec::new(),
            Self::Unattributed => vec![(Bucket::Unattributed, 1)],
            Self::Tailnet(client) => vec![(Bucket::Exact(client.ip()), 1)],
            Self::Client(client) => match client.ip() {
                ip @ IpAddr::V4(_) => vec![(Bucket::Exact(ip), 1)],
                IpAddr::V6(v6) => vec![(net(v6, 64), 1), (net(v6, 56), 3), (net(v6, 48), 10)],
            },
        }
    }
}

fn net(ip: Ipv6Addr, prefix: u8) -> Bucket {
    Bucket::Net(prefix, u128::from(ip) & (u128::MAX << (128 - u32::from(prefix))))
}
