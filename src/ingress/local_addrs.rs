//! This machine's own addresses. A peer that has one of them is no proxy in
//! front of the machine, whatever `trustedProxies` says.

use std::collections::HashSet;
use std::io;
use std::net::IpAddr;

use crate::domain::addr::canonical_ip;

/// The addresses of all interfaces, canonical, loopback included.
///
/// # Errors
///
/// When the system does not tell.
pub fn local_addrs() -> io::Result<HashSet<IpAddr>> {
    Ok(if_addrs::get_if_addrs()?.iter().map(|interface| canonical_ip(interface.ip())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_that_can_be_bound_is_among_them() {
        let addrs = local_addrs().unwrap();
        assert!(addrs.contains(&"127.0.0.1".parse().unwrap()));
        for ip in addrs.iter().filter(|ip| ip.is_ipv4()) {
            std::net::UdpSocket::bind((*ip, 0)).unwrap();
        }
        assert!(!addrs.contains(&"192.0.2.1".parse().unwrap()));
    }
}
