//! Clients that dawdle, and too many of them. The limits are tiny here; no test
//! waits for longer than it takes them to pass.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::support::{read_all, read_until, serve, statuses};
use crate::ingress::Limits;

const SHORT: Duration = Duration::from_millis(150);
/// Never reached in these tests.
const LONG: Duration = Duration::from_secs(3600);

/// Limits of which none is ever reached.
fn patient() -> Limits {
    Limits {
        first_byte: LONG,
        handshake: LONG,
        head: LONG,
        idle: LONG,
        body_idle: LONG,
        write_stall: LONG,
        h2_ping: LONG,
        ..Limits::default()
    }
}

/// Waits for the close, which must not come with an answer.
fn closes(stream: &mut TcpStream) {
    // A reset says the same as an end.
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Ok(_) => assert!(rest.is_empty(), "{:?}", String::from_utf8_lossy(&rest)),
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
    }
}

#[test]
fn threat_070_silence_after_accept_is_closed() {
    let server = serve(Limits { first_byte: SHORT, ..patient() });
    let started = Instant::now();
    closes(&mut server.connect());
    assert!(started.elapsed() >= SHORT);
}

#[test]
fn threat_070_half_a_preface_is_closed() {
    let server = serve(Limits { first_byte: SHORT, ..patient() });
    let mut stream = server.connect();
    stream.write_all(b"PRI * HTTP/2.0\r\n").unwrap();
    closes(&mut stream);
}

#[test]
fn threat_070_a_slow_head_is_closed() {
    let server = serve(Limits { head: SHORT, ..patient() });
    // Also as the second request of a connection.
    for first in [&b""[..], b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"] {
        let mut stream = server.connect();
        if !first.is_empty() {
            stream.write_all(first).unwrap();
            read_until(&mut stream, "GET / ");
        }
        stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let started = Instant::now();
        // A byte every now and then does not help.
        let closed =
            b"GET / HTTP/1.1\r\nHost: x\r\nX: ".iter().chain(std::iter::repeat(&b'x')).find_map(|b| {
                if stream.write_all(&[*b]).is_err() {
                    return Some(started.elapsed());
                }
                match stream.read(&mut [0; 1]) {
                    Err(e)
                        if matches!(
                            e.kind(),
                            std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                        ) =>
                    {
                        None
                    }
                    _ => Some(started.elapsed()),
                }
            });
        assert!(closed.is_some_and(|after| after < Duration::from_secs(10)), "{closed:?}");
    }
}

#[test]
fn threat_070_healthy_traffic_goes_on_beside_silent_sockets() {
    let server = serve(patient());
    let silent: Vec<_> = (0..200).map(|_| server.connect()).collect();
    let answers = server.exchange(b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert_eq!(statuses(&answers), [200]);
    drop(silent);
}

#[test]
fn an_idle_connection_is_closed_and_a_busy_one_is_not() {
    let server = serve(Limits { idle: SHORT, ..patient() });
    let mut stream = server.connect();
    stream.write_all(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    stream.set_read_timeout(Some(SHORT * 4)).unwrap();
    let early = stream.read(&mut [0; 1]).map_err(|e| e.kind());
    assert!(
        matches!(early, Err(std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)),
        "closed or answered while the request was under way: {early:?}"
    );
    server.seen.go.notify_one();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    assert_eq!(statuses(&read_all(&mut stream)), [200], "and closed when nothing follows");
}

#[test]
fn threat_073_a_body_that_stops_is_given_up() {
    let server = serve(Limits { body_idle: SHORT, ..patient() });
    for head in ["Content-Length: 10\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n5\r\nab"] {
        let mut stream = server.connect();
        stream.write_all(format!("POST / HTTP/1.1\r\nHost: x\r\n{head}").as_bytes()).unwrap();
        let answer = read_all(&mut stream);
        assert!(statuses(&answer).iter().all(|status| *status == 400), "{answer}");
    }
    assert!(server.requests().is_empty());
}

#[test]
fn a_client_that_takes_nothing_is_given_up() {
    let server = serve(Limits { write_stall: SHORT, ..patient() });
    let mut stream = server.connect();
    stream.write_all(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let control = loop {
        if let Some((_, control)) = server.seen.conns.lock().unwrap().first() {
            break control.clone();
        }
        std::thread::yield_now();
    };
    // The connection lets go of its state when it is given up, and only the
    // test's two hands on it are left.
    wait_until(|| std::sync::Arc::strong_count(&control.0) == 2);
    let mut taken = 0;
    let mut buf = [0; 1 << 16];
    while let Ok(n @ 1..) = stream.read(&mut buf) {
        taken += n;
    }
    assert!(taken < 64 * 1024 * 1024, "it was not sent all of it");
}

#[test]
fn threat_070_the_newest_connection_beyond_the_cap_is_closed() {
    let server = serve(Limits { max_connections: 2, ..patient() });
    let mut kept: Vec<_> = (0..2)
        .map(|_| {
            let mut stream = server.connect();
            stream.write_all(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
            read_until(&mut stream, "GET /a ");
            stream
        })
        .collect();
    closes(&mut server.connect());
    drop(kept.pop());
    // Its place is free once the server has seen the close.
    wait_until(|| {
        let mut stream = server.connect();
        let _ = stream.write_all(b"GET /b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).is_ok() && answer.contains(" 200 ")
    });
    kept[0].write_all(b"GET /c HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    read_until(&mut kept[0], "GET /c ");
}

#[test]
fn a_connection_that_is_not_admitted_is_closed_without_a_byte() {
    let server = serve(patient());
    server.seen.refuse.store(true, std::sync::atomic::Ordering::Relaxed);
    closes(&mut server.connect());
    assert!(server.seen.conns.lock().unwrap().is_empty());
}

#[test]
fn a_connection_can_be_taken_away() {
    let server = serve(patient());
    let mut stream = server.connect();
    stream.write_all(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    wait_until(|| !server.seen.conns.lock().unwrap().is_empty());
    server.seen.conns.lock().unwrap()[0].1.abort();
    closes(&mut stream);
}

#[test]
fn listeners_come_and_go() {
    use crate::ingress::{Binder, ListenerKey};
    let server = serve(patient());
    let mut kept = server.connect();
    kept.write_all(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    read_until(&mut kept, "GET /a ");

    let dir = tempfile::tempdir().unwrap();
    let bound = Binder::new(1, dir.path()).bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let second = bound.addr();
    let key = server.workers.add_tcp(bound, None);
    assert_eq!(key, ListenerKey::Tcp(second));
    TcpStream::connect(second).unwrap();

    server.workers.remove(&key);
    assert!(TcpStream::connect(second).is_err());
    Binder::new(1, dir.path()).bind(second).expect("its lock is free");
    server.workers.remove(&ListenerKey::Tcp(server.addr));
    assert!(TcpStream::connect(server.addr).is_err());
    kept.write_all(b"GET /b HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    read_until(&mut kept, "GET /b ");
}

#[test]
fn every_worker_takes_connections() {
    use crate::ingress::{Binder, Workers};
    let dir = tempfile::tempdir().unwrap();
    let seen: std::sync::Arc<std::sync::Mutex<std::collections::HashSet<usize>>> = Default::default();
    let for_workers = std::sync::Arc::clone(&seen);
    let workers = Workers::start(2, patient(), move |index| super::support::Counting {
        index,
        seen: std::sync::Arc::clone(&for_workers),
    })
    .unwrap();
    let bound = Binder::new(2, dir.path()).bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = bound.addr();
    workers.add_tcp(bound, None);
    wait_until(|| {
        TcpStream::connect(addr).unwrap();
        seen.lock().unwrap().len() == 2
    });
    assert!(workers.is_healthy());
    workers.drain(Duration::ZERO);
}

/// Looks again and again, and gives up after a long time.
pub(super) fn wait_until(mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < Duration::from_secs(20), "it never came");
        std::thread::yield_now();
    }
}
