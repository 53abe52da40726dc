//! Real loopback connections, and both ways to ask about them.

use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};

use super::{OwnerError, SocketOwner, netlink, peer_uid, procfs};

type Ask = fn(SocketAddr, SocketAddr) -> Result<SocketOwner, OwnerError>;

const WAYS: [(&str, Ask); 3] = [("either", peer_uid), ("netlink", netlink::ask), ("procfs", procfs::ask)];

fn our_uid() -> u32 {
    rustix::process::getuid().as_raw()
}

/// A connection: the listener, our end, and the client's.
fn connection(addr: &str) -> Option<(TcpListener, TcpStream, TcpStream)> {
    let listener = TcpListener::bind(addr).ok()?;
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (ours, _) = listener.accept().unwrap();
    Some((listener, ours, client))
}

#[test]
fn the_owner_of_a_loopback_client_is_known() {
    for addr in ["127.0.0.1:0", "[::1]:0"] {
        // A machine may be without IPv6.
        let Some((_listener, ours, client)) = connection(addr) else { continue };
        for (way, ask) in WAYS {
            let owner = ask(ours.peer_addr().unwrap(), ours.local_addr().unwrap()).expect(way);
            assert_eq!(owner.uid, our_uid(), "{way} {addr}");
            assert_ne!(owner.inode, 0);
        }
        drop(client);
    }
}

#[test]
fn an_ipv4_client_with_an_ipv6_socket_is_found() {
    use socket2::{Domain, Socket, Type};
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let Ok(client) = Socket::new(Domain::IPV6, Type::STREAM, None) else { return };
    if client.set_only_v6(false).is_err() {
        return;
    }
    let mapped = SocketAddr::new("::ffff:127.0.0.1".parse().unwrap(), port);
    client.connect(&mapped.into()).unwrap();
    let (ours, peer) = listener.accept().unwrap();
    for (way, ask) in WAYS {
        assert_eq!(ask(peer, ours.local_addr().unwrap()).expect(way).uid, our_uid(), "{way}");
    }
    // And as a dual-stack listener would name the same connection.
    let peer = SocketAddr::new("::ffff:127.0.0.1".parse().unwrap(), peer.port());
    assert_eq!(peer_uid(peer, mapped).unwrap().uid, our_uid());
}

#[test]
fn threat_002_a_client_that_closed_at_once_is_nobody_and_not_root() {
    let (_listener, mut ours, client) = connection("127.0.0.1:0").unwrap();
    let (peer, local) = (ours.peer_addr().unwrap(), ours.local_addr().unwrap());
    drop(client);
    assert_eq!(ours.read(&mut [0; 1]).unwrap(), 0, "its close has arrived");
    for (way, ask) in WAYS {
        assert!(matches!(ask(peer, local), Err(OwnerError::NotFound)), "{way}");
    }
    drop(ours);
    for (way, ask) in WAYS {
        assert!(matches!(ask(peer, local), Err(OwnerError::NotFound)), "{way}, in TIME_WAIT");
    }
}

#[test]
fn threat_002_only_the_whole_of_a_connection_counts() {
    let (listener, ours, client) = connection("127.0.0.1:0").unwrap();
    let (peer, local) = (ours.peer_addr().unwrap(), ours.local_addr().unwrap());
    let elsewhere = SocketAddr::new("127.0.0.2".parse().unwrap(), peer.port());
    let other_port = SocketAddr::new(peer.ip(), if peer.port() == 65535 { 1 } else { peer.port() + 1 });
    let idle = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (way, ask) in WAYS {
        for (what, peer, local) in [
            ("another source", elsewhere, local),
            ("another port", other_port, local),
            ("another destination", peer, elsewhere),
            // The listener's own entry would match a question about it.
            ("a listener", listener.local_addr().unwrap(), other_port),
            ("a listener on the other side", other_port, listener.local_addr().unwrap()),
            ("nobody", idle, local),
        ] {
            assert!(matches!(ask(peer, local), Err(OwnerError::NotFound)), "{way}: {what}");
        }
    }
    assert!(matches!(peer_uid(peer, "[::1]:1".parse().unwrap()), Err(OwnerError::NotFound)));
    drop((ours, client));
}

#[test]
fn a_line_without_an_inode_is_no_owner() {
    let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
        0: 0100007F:A00A 0100007F:4965 06 00000000:00000000 03:00001767 00000000     0        0 0 3 0\n   \
        1: 0100007F:A00B 0100007F:4965 01 00000000:00000000 00:00000000 00000000     0        0 0 1 0\n   \
        2: 0100007F:A00C 0100007F:4965 01 00000000:00000000 00:00000000 00000000  1000        0 4711 1 0\n";
    let local = "127.0.0.1:18789".parse().unwrap();
    let ask = |port: u16| procfs::find(table, SocketAddr::new("127.0.0.1".parse().unwrap(), port), local);
    assert_eq!(ask(0xa00a), None);
    assert_eq!(ask(0xa00b), None);
    assert_eq!(ask(0xa00c), Some(SocketOwner { uid: 1000, inode: 4711 }));
}

#[test]
#[ignore = "prints what a question costs; run it on a quiet machine"]
fn cost() {
    let (_listener, ours, _client) = connection("127.0.0.1:0").unwrap();
    let (peer, local) = (ours.peer_addr().unwrap(), ours.local_addr().unwrap());
    for (way, ask) in WAYS {
        let started = std::time::Instant::now();
        for _ in 0..1000 {
            ask(peer, local).unwrap();
        }
        std::io::Write::write_all(
            &mut std::io::stderr(),
            format!("{way}: {:?} each\n", started.elapsed() / 1000).as_bytes(),
        )
        .unwrap();
    }
}
