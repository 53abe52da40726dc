//! Certificates that are replaced under load, and handshakes that are no proper ones.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::support::*;

/// How often the pair is replaced while requests go on.
const SWAPS: usize = 12;
/// Between two requests of one client: ten clients make up to 250 a second.
const PACE: Duration = Duration::from_millis(40);

fn gateway(app: &Upstream, dir: &TlsDir) -> Gateway {
    Setup::new().upstream(app).token(TOKEN).config(format!("{{gateway: {{{}}}}}", dir.config())).start()
}

#[test]
fn threat_099_a_certificate_swapped_under_load_loses_no_request() {
    let app = Upstream::echo();
    let pairs: Vec<Pair> = (0..SWAPS).map(|_| Pair::of(&["localhost"])).collect();
    let dir = TlsDir::with(&pairs[0]);
    let gateway = gateway(&app, &dir);
    let config = client_config(&pairs.iter().collect::<Vec<_>>(), &["http/1.1"]);
    let (over, answered, handshakes) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let request = |n: usize| {
        let port = gateway.port();
        format!("GET /{n} HTTP/1.1\r\nHost: localhost:{port}\r\nAuthorization: Bearer {TOKEN}\r\n\r\n")
            .into_bytes()
    };
    let open = || {
        handshakes.fetch_add(1, Ordering::Relaxed);
        TlsWire::open(gateway.loopback(), "localhost", &config).unwrap()
    };
    // A client panics, and the test with it, at the first request that gets no answer.
    let client = |kept: bool| {
        let (mut wire, mut n) = (open(), 0);
        while !over.load(Ordering::Relaxed) {
            n += 1;
            if !kept {
                wire = open();
            }
            let seen = wire.request(&request(n)).seen();
            assert_eq!(seen.target(), format!("/{n}"));
            answered.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(PACE);
        }
    };
    let began = Instant::now();
    std::thread::scope(|scope| {
        // Whatever fails in here, the clients end.
        struct Over<'a>(&'a AtomicBool);
        impl Drop for Over<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let _over = Over(&over);
        for n in 0..10 {
            scope.spawn(move || client(n % 2 == 0));
        }
        for (n, pair) in pairs.iter().enumerate().skip(1) {
            if n % 3 == 0 {
                // Half of the way there: a key that does not fit.
                dir.put(&pairs[n - 1].cert, &pair.key);
            }
            dir.put(&pair.cert, &pair.key);
            // A client without a session to resume, which would remember the old one.
            until("the new certificate is shown", || {
                let config = client_config(&pairs.iter().collect::<Vec<_>>(), &["http/1.1"]);
                let wire = TlsWire::open(gateway.loopback(), "localhost", &config).unwrap();
                wire.certificate() == pair.der().to_vec()
            });
        }
    });
    let (answered, handshakes) = (answered.into_inner(), handshakes.into_inner());
    eprintln!("{answered} requests, {handshakes} handshakes, {SWAPS} certificates, {:?}", began.elapsed());
    assert!(answered > SWAPS * 20, "there was a load: {answered} requests");
    assert!(handshakes > answered / 3, "and new connections in it: {handshakes} handshakes");
    let refused = gateway.requests().iter().filter(|line| line["status"] != 200).count();
    assert_eq!(refused, 0);
}

/// A ClientHello of a real client, cut from what it would send.
fn client_hello(config: &std::sync::Arc<rustls::ClientConfig>) -> Vec<u8> {
    let name = "localhost".try_into().unwrap();
    let mut client = rustls::ClientConnection::new(std::sync::Arc::clone(config), name).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    hello
}

fn answer_to(gateway: &Gateway, parts: &[&[u8]]) -> Vec<u8> {
    let mut stream = TcpStream::connect(gateway.loopback()).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    for part in parts {
        if stream.write_all(part).is_err() {
            break;
        }
    }
    let mut first = [0; 7];
    let mut got = 0;
    while got < first.len() {
        match stream.read(&mut first[got..]) {
            Ok(0) | Err(_) => break,
            Ok(read) => got += read,
        }
    }
    first[..got].to_vec()
}

#[test]
fn threat_099_a_fragmented_client_hello_is_read_and_an_old_one_refused() {
    let (app, pair) = (Upstream::echo(), Pair::of(&["localhost"]));
    let dir = TlsDir::with(&pair);
    let gateway = gateway(&app, &dir);
    let hello = client_hello(&client_config(&[&pair], &["http/1.1"]));
    // In TCP segments of one byte each; a handshake record (22) comes back.
    let bytes: Vec<&[u8]> = hello.chunks(1).collect();
    assert_eq!(answer_to(&gateway, &bytes)[0], 22);
    // In TLS records of a few bytes each (RUSTSEC-2024-0399).
    for size in [1, 2, 3, 7, 100] {
        let records: Vec<u8> = hello[5..]
            .chunks(size)
            .flat_map(|part| {
                let length = u16::try_from(part.len()).unwrap().to_be_bytes();
                [&[22, 3, 1][..], &length, part].concat()
            })
            .collect();
        let answer = answer_to(&gateway, &[&records]);
        assert!(matches!(answer.first(), Some(22 | 21) | None), "records of {size}: {answer:?}");
    }
    // Empty records, and a message that claims to be longer than any.
    for odd in [&[22, 3, 1, 0, 0][..], &[22, 3, 1, 0, 4, 1, 0xff, 0xff, 0xff], b"\x80\x2e\x01\x00\x02"] {
        answer_to(&gateway, &[odd]);
    }

    // The same hello for TLS 1.2 and for older versions: an alert, protocol_version.
    // A client says which by the extension supported_versions (43).
    let config = rustls::ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let hello = client_hello(&config.into());
    assert_eq!(answer_to(&gateway, &[&hello])[0], 22);
    let versions = [0, 43, 0, 3, 2, 3, 3];
    let at = hello.windows(versions.len()).position(|part| part == versions).unwrap() + versions.len() - 1;
    for old in [2, 1, 0] {
        let mut hello = hello.clone();
        (hello[at], hello[10]) = (old, old);
        let answer = answer_to(&gateway, &[&hello]);
        assert_eq!((answer.first(), answer.last()), (Some(&21), Some(&70)), "3.{old}: {answer:?}");
    }
    let log = gateway.log();
    assert!(!log.contains("panicked"), "{log}");
    let mut wire = TlsWire::open(gateway.loopback(), "localhost", &client_config(&[&pair], &[])).unwrap();
    let port = gateway.port();
    let request =
        format!("GET /x HTTP/1.1\r\nHost: localhost:{port}\r\nAuthorization: Bearer {TOKEN}\r\n\r\n");
    assert_eq!(wire.request(request.as_bytes()).status, 200);
    assert_eq!(app.connections(), 1);
}
