//! HTTP/1.1 through the guard.

use std::io::Write;

use super::support::{read_all, read_until, serve, statuses};
use crate::ingress::Limits;

#[test]
fn requests_are_answered_in_turn() {
    let server = serve(Limits::default());
    let answers = server.exchange(
        b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n\
          POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc\
          POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n\
          GET /d HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    );
    assert_eq!(statuses(&answers), [200; 4]);
    assert_eq!(server.requests(), ["GET /a ", "POST /b abc", "POST /c hi", "GET /d "]);
}

#[test]
fn threat_079_a_refused_head_is_answered_after_those_before_it_and_ends_it() {
    let server = serve(Limits::default());
    let mut stream = server.connect();
    stream
        .write_all(
            b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n\
              POST /evil HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n\
              0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n",
        )
        .unwrap();
    server.seen.go.notify_one();
    let answers = read_all(&mut stream);
    assert_eq!(statuses(&answers), [200, 400], "{answers}");
    assert!(answers.to_ascii_lowercase().contains("connection: close"));
    assert_eq!(server.requests(), ["GET /wait "]);
}

#[test]
fn threat_079_a_broken_chunk_ends_the_body_with_an_error() {
    let server = serve(Limits::default());
    let answers = server.exchange(
        b"POST /b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n+0\r\n\r\n\
          GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n",
    );
    assert_eq!(statuses(&answers), [400], "{answers}");
    assert!(server.requests().is_empty());
}

#[test]
fn threat_074_what_is_too_large_is_named() {
    let server = serve(Limits::default());
    let long = "x".repeat(1 << 20);
    let many = "a: b\r\n".repeat(101);
    for (request, status) in [
        (format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n"), 414),
        (format!("GET / HTTP/1.1\r\nHost: x\r\nCookie: {long}\r\n\r\n"), 431),
        (format!("GET / HTTP/1.1\r\nHost: x\r\n{many}\r\n"), 431),
    ] {
        assert_eq!(statuses(&server.exchange(request.as_bytes())), [status]);
    }
    let most = format!("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{}\r\n", "a: b\r\n".repeat(98));
    assert_eq!(statuses(&server.exchange(most.as_bytes())), [200]);
    let large =
        format!("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nCookie: {}\r\n\r\n", "x".repeat(60_000));
    assert_eq!(statuses(&server.exchange(large.as_bytes())), [200]);
}

#[test]
fn threat_073_a_refusal_does_not_wait_for_the_body() {
    let server = serve(Limits::default());
    let mut stream = server.connect();
    stream
        .write_all(b"POST /unauthorized HTTP/1.1\r\nHost: x\r\nContent-Length: 10737418240\r\n\r\n")
        .unwrap();
    stream.write_all(&vec![b'x'; 1 << 20]).unwrap();
    let answers = read_all(&mut stream);
    assert_eq!(statuses(&answers), [401]);
}

#[test]
fn threat_081_the_next_request_never_starts_inside_a_refused_body() {
    let server = serve(Limits::default());
    let inner = "GET /inner HTTP/1.1\r\nHost: x\r\n\r\n";
    let answers = server.exchange(
        format!(
            "POST /unauthorized HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{inner}\
             GET /next HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
            inner.len()
        )
        .as_bytes(),
    );
    assert_eq!(statuses(&answers)[0], 401);
    assert!(server.requests().iter().all(|line| line == "GET /next "), "{:?}", server.requests());
}

#[test]
fn an_upgrade_that_is_accepted_is_a_tunnel() {
    let server = serve(Limits::default());
    let mut stream = server.connect();
    // What comes early waits for the answer, and is not looked at.
    stream
        .write_all(b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nearly\n\n")
        .unwrap();
    let answer = read_until(&mut stream, "early\n\n");
    assert_eq!(statuses(&answer), [101]);
    stream.write_all(b"\x00\xff late").unwrap();
    read_until(&mut stream, "late");
}

#[test]
fn a_tunnel_can_be_taken_away() {
    let server = serve(Limits::default());
    let mut stream = server.connect();
    stream
        .write_all(b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nearly")
        .unwrap();
    read_until(&mut stream, "early");
    server.seen.conns.lock().unwrap()[0].1.abort();
    assert_eq!(read_all(&mut stream), "");
}

#[test]
fn threat_080_an_upgrade_that_is_refused_opens_nothing() {
    let server = serve(Limits::default());
    let answers = server.exchange(
        b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n\
          GET /admin HTTP/1.1\r\nHost: x\r\n\r\n",
    );
    assert_eq!(statuses(&answers), [200]);
    assert_eq!(server.requests(), ["GET /a "]);
}

#[test]
fn an_upgrade_may_have_a_body() {
    let server = serve(Limits::default());
    let answers = server.exchange(
        b"POST /a HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nhi",
    );
    assert_eq!(statuses(&answers), [200]);
    assert_eq!(server.requests(), ["POST /a hi"]);
}

#[test]
fn draining_lets_a_request_finish_and_takes_no_more() {
    let server = serve(Limits::default());
    let mut busy = server.connect();
    busy.write_all(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut idle = server.connect();
    idle.write_all(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    read_until(&mut idle, "GET /a ");
    server.wait_until_waiting();

    let seen = std::sync::Arc::clone(&server.seen);
    let workers = server.workers;
    let drain = std::thread::spawn(move || workers.drain(std::time::Duration::from_secs(30)));
    assert_eq!(read_all(&mut idle), "", "an idle connection is closed at once");
    assert!(std::net::TcpStream::connect(server.addr).is_err(), "nobody listens any more");
    seen.go.notify_one();
    let answer = read_all(&mut busy);
    assert_eq!(statuses(&answer), [200]);
    drain.join().unwrap();
}

#[test]
#[ignore = "prints what a request costs; run it optimized, on a quiet machine"]
fn cost() {
    use std::io::Read;
    const REQUEST: &[u8] =
        b"GET /unauthorized HTTP/1.1\r\nHost: node.tail1234.ts.net\r\nUser-Agent: cost\r\n\
        Accept: */*\r\nAccept-Encoding: gzip, br\r\nCookie: a=0123456789abcdef\r\n\r\n";
    const REQUESTS: u32 = 200_000;
    let server = serve(Limits::default());
    let mut stream = server.connect();
    let mut buf = [0; 4096];
    let before = worker_cpu();
    for _ in 0..REQUESTS {
        stream.write_all(REQUEST).unwrap();
        assert_ne!(stream.read(&mut buf).unwrap(), 0);
    }
    let spent = (worker_cpu() - before) / REQUESTS;
    writeln!(std::io::stderr(), "{spent:?} of the worker's processor time per request").unwrap();
}

/// The processor time of the thread `worker-0`.
fn worker_cpu() -> std::time::Duration {
    std::fs::read_dir("/proc/self/task")
        .unwrap()
        .map(|task| task.unwrap().path())
        .filter(|task| std::fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim() == "worker-0"))
        .map(|task| {
            let spent = std::fs::read_to_string(task.join("schedstat")).unwrap();
            std::time::Duration::from_nanos(spent.split(' ').next().unwrap().parse().unwrap())
        })
        .sum()
}
