//! The slow way: `/proc/net/tcp` and `/proc/net/tcp6`, for sandboxes in which
//! netlink is forbidden. They list every socket of the machine.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Listed, OwnerError, SocketOwner};

pub(super) fn ask(peer: SocketAddr, local: SocketAddr) -> Result<SocketOwner, OwnerError> {
    let mut failed = None;
    // An IPv4 connection of an IPv6 socket is in the second table.
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        match fs::read_to_string(table) {
            Ok(text) => {
                if let Some(owner) = find(&text, peer, local) {
                    return Ok(owner);
                }
            }
            // A machine without IPv6 has no second table.
            Err(error) => failed = failed.or(Some((table, error))),
        }
    }
    match failed {
        Some(("/proc/net/tcp", error)) => Err(OwnerError::Io(error)),
        _ => Err(OwnerError::NotFound),
    }
}

pub(super) fn find(table: &str, peer: SocketAddr, local: SocketAddr) -> Option<SocketOwner> {
    table.lines().skip(1).find_map(|line| listed(line)?.owner_of(peer, local))
}

/// Reads one line: `sl local_address rem_address st queues timer retrnsmt uid
/// timeout inode ...`.
fn listed(line: &str) -> Option<Listed> {
    let mut words = line.split_ascii_whitespace();
    let src = address(words.nth(1)?)?;
    let dst = address(words.next()?)?;
    let established = words.next()? == "01";
    let uid = words.nth(3)?.parse().ok()?;
    let inode = words.nth(1)?.parse().ok()?;
    Some(Listed { src, dst, established, uid, inode })
}

/// Reads `0100007F:1F90`: the address as 32-bit words in the machine's order.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| {
        let hex = ip.get(at * 8..at * 8 + 8)?;
        Some(u32::from_str_radix(hex, 16).ok()?.to_ne_bytes())
    };
    let ip = match ip.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let bytes: Vec<u8> = [word(0)?, word(1)?, word(2)?, word(3)?].concat();
            IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?))
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}
