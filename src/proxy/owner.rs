//! Whose program listens at an upstream's address (threat rule 67).
//!
//! A port is anybody's who binds it first. Before a secret or an identity goes
//! to one on this machine, the kernel is asked whose it is: every listener that
//! could have taken the connection must be the owner's, and so must the
//! accepted socket at its other end. What cannot be found out is a mismatch.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::domain::addr::canonical_ip;
use crate::domain::{Upstream, UpstreamKind};

/// The uid that must own the upstream; `None` where anybody may. Kind
/// `openclaw` is our own uid's unless the configuration says otherwise, where
/// the system can tell.
pub(super) fn required(upstream: &Upstream) -> Option<u32> {
    let default = match upstream.kind {
        UpstreamKind::OpenClaw { .. } if cfg!(target_os = "linux") => {
            Some(rustix::process::geteuid().as_raw())
        }
        UpstreamKind::OpenClaw { .. } | UpstreamKind::Plain => None,
    };
    upstream.owner_uid.or(default)
}

/// Checks an open TCP connection: `server` and `client` are its two ends.
///
/// # Errors
///
/// What spoke against it.
#[cfg(target_os = "linux")]
pub(super) async fn check_tcp(server: SocketAddr, client: SocketAddr, uid: u32) -> Result<(), &'static str> {
    let tables = tokio::task::spawn_blocking(|| {
        // Without IPv6 there is no second table.
        let v6 = std::fs::read_to_string("/proc/net/tcp6").unwrap_or_default();
        std::fs::read_to_string("/proc/net/tcp").map(|v4| (v4, v6))
    })
    .await;
    match tables {
        Ok(Ok((v4, v6))) => check_tables(&v4, &v6, server, client, uid),
        _ => Err("the system's socket table cannot be read"),
    }
}

/// Elsewhere the system does not say.
#[cfg(not(target_os = "linux"))]
pub(super) async fn check_tcp(_: SocketAddr, _: SocketAddr, _: u32) -> Result<(), &'static str> {
    Err("this system does not say who owns a socket")
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Established,
    /// The handshake is done for the client but held back for the server.
    SynReceived,
    Listen,
}

struct Socket {
    local: SocketAddr,
    remote: SocketAddr,
    state: State,
    uid: u32,
    inode: u64,
}

fn check_tables(
    v4: &str,
    v6: &str,
    server: SocketAddr,
    client: SocketAddr,
    uid: u32,
) -> Result<(), &'static str> {
    let (server, client) = (canonical(server), canonical(client));
    let mut listening = false;
    let mut connected = false;
    let v4 = v4.lines().skip(1).filter_map(|line| parse(line, false));
    let v6 = v6.lines().skip(1).filter_map(|line| parse(line, true));
    for socket in v4.chain(v6) {
        match socket.state {
            State::Listen if takes(socket.local, server) => {
                if socket.uid != uid {
                    return Err("a listener there belongs to another uid");
                }
                listening = true;
            }
            State::Established | State::SynReceived
                if canonical(socket.local) == server && canonical(socket.remote) == client =>
            {
                // No inode: nobody has accepted it yet, so it is still in the
                // queue of one of the listeners, and those are checked.
                if socket.inode != 0 && socket.uid != uid {
                    return Err("the connection was accepted by another uid");
                }
                connected = true;
            }
            State::Listen | State::Established | State::SynReceived => {}
        }
    }
    match (listening, connected) {
        (false, _) => Err("no listener is there"),
        (true, false) => Err("the connection's other end is not there"),
        (true, true) => Ok(()),
    }
}

fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(canonical_ip(addr.ip()), addr.port())
}

/// Whether a listener on `bound` may take a connection to `server`.
fn takes(bound: SocketAddr, server: SocketAddr) -> bool {
    let ip = match bound.ip() {
        // `::` takes IPv4 too, unless it says otherwise, which is not listed.
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => true,
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => server.is_ipv4(),
        ip => canonical_ip(ip) == server.ip(),
    };
    ip && bound.port() == server.port()
}

/// One line of `/proc/net/tcp` or `/proc/net/tcp6`.
fn parse(line: &str, v6: bool) -> Option<Socket> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let local = address(fields.next()?, v6)?;
    let remote = address(fields.next()?, v6)?;
    let state = match fields.next()? {
        "01" => State::Established,
        "03" => State::SynReceived,
        "0A" => State::Listen,
        _ => return None,
    };
    let mut fields = fields.skip(3);
    let uid = fields.next()?.parse().ok()?;
    let inode = fields.nth(1)?.parse().ok()?;
    Some(Socket { local, remote, state, uid, inode })
}

/// `0100007F:1F90`: words in the machine's byte order, then the port.
fn address(text: &str, v6: bool) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let word = |at: usize| Some(u32::from_str_radix(ip.get(at * 8..at * 8 + 8)?, 16).ok()?.to_ne_bytes());
    let ip = if v6 {
        let mut octets = [0; 16];
        for (at, chunk) in octets.chunks_exact_mut(4).enumerate() {
            chunk.copy_from_slice(&word(at)?);
        }
        IpAddr::from(octets)
    } else {
        IpAddr::from(word(0)?)
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(all(test, target_endian = "little"))]
mod tests {
    use super::*;

    const HEAD: &str =
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

    fn line(local: &str, remote: &str, state: &str, uid: u32, inode: u64) -> String {
        format!(
            "   0: {local} {remote} {state} 00000000:00000000 00:00000000 00000000 {uid:>5}        0 {inode} 1 0 100 0 0 10 0\n"
        )
    }

    const LO: &str = "0100007F:1F90";
    const ANY: &str = "00000000:1F90";
    const ANY6: &str = "00000000000000000000000000000000:1F90";
    const MAPPED: &str = "0000000000000000FFFF00000100007F:1F90";
    const ME: &str = "0100007F:C350";
    const ME6: &str = "0000000000000000FFFF00000100007F:C350";
    const NONE: &str = "00000000:0000";

    fn check(v4: &[String], v6: &[String]) -> Result<(), &'static str> {
        let table = |lines: &[String]| format!("{HEAD}{}", lines.concat());
        check_tables(
            &table(v4),
            &table(v6),
            "127.0.0.1:8080".parse().unwrap(),
            "127.0.0.1:50000".parse().unwrap(),
            1000,
        )
    }

    #[test]
    fn threat_067_only_the_owners_listener_passes() {
        let listen = line(LO, NONE, "0A", 1000, 7);
        let open = line(LO, ME, "01", 1000, 8);
        assert_eq!(check(&[listen.clone(), open.clone()], &[]), Ok(()));
        assert!(check(&[], &[]).is_err());
        assert!(check(std::slice::from_ref(&open), &[]).is_err());
        assert!(check(std::slice::from_ref(&listen), &[]).is_err());
        assert!(check(&[line(LO, NONE, "0A", 1001, 7), open.clone()], &[]).is_err());
        assert!(check(&[listen.clone(), line(LO, ME, "01", 1001, 8)], &[]).is_err());
    }

    #[test]
    fn threat_067_a_second_listener_of_somebody_else_is_a_mismatch() {
        let open = line(LO, ME, "01", 1000, 8);
        let listen = line(LO, NONE, "0A", 1000, 7);
        assert!(check(&[listen.clone(), line(ANY, NONE, "0A", 1001, 9), open.clone()], &[]).is_err());
        assert!(check(&[listen.clone(), open.clone()], &[line(ANY6, ANY6, "0A", 0, 9)]).is_err());
        // A pool of workers of one uid is fine, and so is another port.
        let other = line("0100007F:1F91", NONE, "0A", 1001, 9);
        assert_eq!(check(&[listen.clone(), listen, other, open], &[]), Ok(()));
    }

    #[test]
    fn a_dual_stack_listener_is_seen_in_the_other_table() {
        let v6 = [line(ANY6, ANY6, "0A", 1000, 7), line(MAPPED, ME6, "01", 1000, 8)];
        assert_eq!(check(&[], &v6), Ok(()));
    }

    #[test]
    fn a_connection_nobody_accepted_yet_is_in_a_checked_queue() {
        let listen = line(LO, NONE, "0A", 1000, 7);
        assert_eq!(check(&[listen.clone(), line(LO, ME, "01", 0, 0)], &[]), Ok(()));
        assert_eq!(check(&[listen.clone(), line(LO, ME, "03", 0, 0)], &[]), Ok(()));
        assert!(check(&[listen, line(LO, ME, "08", 0, 0)], &[]).is_err());
    }

    #[test]
    fn lines_that_make_no_sense_are_no_sockets() {
        for text in ["", "x", "0: zz:1F90 zz:0 0A", "0: 0100007F:1F90 00000000:0000 0A 0:0 0:0 0 root 0 1"] {
            assert!(parse(text, false).is_none(), "{text:?}");
            assert!(parse(text, true).is_none(), "{text:?}");
        }
    }
}
