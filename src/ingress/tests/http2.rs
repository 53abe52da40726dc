//! HTTP/2, in the clear and over TLS, and the unix ingress.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertificateParams, KeyPair};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::limits::wait_until;
use super::support::{read_all, serve, serve_tls, statuses};
use crate::ingress::{Endpoint, Limits, ListenerKind, Tls, TlsFiles, UnixIngress};

const SHORT: Duration = Duration::from_millis(150);

fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(20), future).await.unwrap() })
}

async fn client<T>(stream: T) -> http2::SendRequest<Empty<Bytes>>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, serving) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(serving);
    sender
}

fn get(uri: &str) -> Request<Empty<Bytes>> {
    Request::builder().uri(uri).body(Empty::new()).unwrap()
}

async fn text(response: hyper::Response<hyper::body::Incoming>) -> (u16, String) {
    let status = response.status().as_u16();
    (status, String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap())
}

#[test]
fn http2_with_prior_knowledge_is_served() {
    let server = serve(Limits::default());
    block_on(async {
        let stream = tokio::net::TcpStream::connect(server.addr).await.unwrap();
        let mut client = client(stream).await;
        let (one, two) = tokio::join!(
            client.send_request(get("http://x/a")),
            client.clone().send_request(get("http://x/b"))
        );
        assert_eq!(text(one.unwrap()).await, (200, "GET http://x/a ".into()));
        assert_eq!(text(two.unwrap()).await, (200, "GET http://x/b ".into()));
    });
    assert_eq!(server.seen.conns.lock().unwrap().len(), 1);
}

#[test]
fn threat_082_an_http2_request_with_two_hosts_is_refused() {
    let server = serve(Limits::default());
    block_on(async {
        let stream = tokio::net::TcpStream::connect(server.addr).await.unwrap();
        let mut client = client(stream).await;
        let mut request = get("http://x/a");
        request.headers_mut().insert("host", "y".parse().unwrap());
        assert_eq!(client.send_request(request).await.unwrap().status(), 400);
        let response = client.send_request(get("http://x/a")).await.unwrap();
        assert_eq!(response.status(), 200, "the other streams are not to blame");
    });
}

#[test]
fn threat_070_an_http2_preface_and_nothing_else_is_closed() {
    let server = serve(Limits { head: SHORT, ..Limits::default() });
    let mut stream = server.connect();
    // The preface and an empty SETTINGS frame.
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    read_all(&mut stream);
}

#[test]
fn an_idle_http2_connection_is_closed_and_a_busy_one_is_not() {
    let server = serve(Limits { idle: SHORT, ..Limits::default() });
    block_on(async {
        let stream = tokio::net::TcpStream::connect(server.addr).await.unwrap();
        let mut client = client(stream).await;
        let answer = client.send_request(get("http://x/wait"));
        tokio::pin!(answer);
        assert!(tokio::time::timeout(SHORT * 4, &mut answer).await.is_err());
        server.seen.go.notify_one();
        assert_eq!(text(answer.await.unwrap()).await.0, 200);
        wait_for_close(&mut client).await;
    });
}

#[test]
fn threat_075_a_window_that_never_opens_is_given_up() {
    // Whether the rest of the answer waits in its body or behind it.
    for (path, limits) in [
        ("/endless", Limits { write_stall: SHORT, ..Limits::default() }),
        ("/large", Limits { write_stall: SHORT, idle: SHORT, ..Limits::default() }),
    ] {
        let server = serve(limits);
        block_on(async {
            let stream = tokio::net::TcpStream::connect(server.addr).await.unwrap();
            let mut client = client(stream).await;
            let response = client.send_request(get(&format!("http://x{path}"))).await.unwrap();
            // Nothing of the body is taken, so the window stays shut.
            wait_for_close(&mut client).await;
            assert!(response.into_body().collect().await.is_err());
        });
        // Its place is free, too: its socket is closed.
        wait_until(|| Arc::strong_count(&server.seen.conns.lock().unwrap()[0].1.0) == 1);
    }
}

async fn wait_for_close(client: &mut http2::SendRequest<Empty<Bytes>>) {
    while !client.is_closed() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A certificate for `node.example`, and a client that trusts it.
fn tls(alpn: &[&[u8]]) -> (Tls, TlsConnector) {
    let key = KeyPair::generate().unwrap();
    let cert =
        CertificateParams::new(vec!["node.example".to_owned()]).unwrap().self_signed(&key).unwrap().pem();
    let files = TlsFiles { cert: "cert.pem".into(), key: "key.pem".into() };
    let tls = Tls::from_pem(files, cert.as_bytes(), key.serialize_pem().as_bytes()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(cert.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    (tls, TlsConnector::from(Arc::new(config)))
}

#[test]
fn tls_speaks_what_was_agreed_and_knows_the_name_asked_for() {
    let (tls, connector) = tls(&[b"h2"]);
    let server = serve_tls(Limits::default(), Some(&tls));
    let name = ServerName::try_from("Node.Example").unwrap();
    block_on(async {
        let stream = tokio::net::TcpStream::connect(server.addr).await.unwrap();
        let stream = connector.connect(name.clone(), stream).await.unwrap();
        let mut client = client(stream).await;
        let response = client.send_request(get("https://node.example/a")).await.unwrap();
        assert_eq!(response.status(), 200);
    });
    let facts = server.seen.conns.lock().unwrap()[0].0.clone();
    assert_eq!(facts.tls.unwrap().server_name.as_deref(), Some("node.example"));
    assert_eq!(facts.listener, ListenerKind::Ordinary);

    let (tls, connector) = self::tls(&[]);
    let server = serve_tls(Limits::default(), Some(&tls));
    let answer = block_on(async {
        let stream = tokio::net::TcpStream::connect(server.addr).await.unwrap();
        let mut stream = connector.connect(name, stream).await.unwrap();
        // The guard is behind TLS, too.
        stream.write_all(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\nGET /b HTTP/1.1\nHost: x\n\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    });
    assert_eq!(statuses(&answer), [200, 400]);
}

#[test]
fn threat_070_half_a_handshake_is_closed() {
    let (tls, _) = tls(&[]);
    let server = serve_tls(Limits { handshake: SHORT, ..Limits::default() }, Some(&tls));
    for start in [&b""[..], b"\x16\x03\x01\x02\x00\x01\x00"] {
        let mut stream = server.connect();
        stream.write_all(start).unwrap();
        assert_eq!(read_all(&mut stream), "");
    }
    assert!(server.seen.conns.lock().unwrap().is_empty());
}

#[test]
fn the_unix_ingress_knows_its_peer() {
    let server = serve(Limits::default());
    let dir = tempfile::tempdir().unwrap();
    let root = std::fs::canonicalize(dir.path()).unwrap();
    let ingress = UnixIngress::bind_below(&root.join("run"), &root).unwrap();
    let path = ingress.path().to_path_buf();
    let key = server.workers.add_unix(ingress);

    let mut stream = std::os::unix::net::UnixStream::connect(&path).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    // Not a preface here: only HTTP/1.1 is spoken.
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut stream, &mut answer).unwrap();
    assert_eq!(statuses(&answer), [400]);
    let facts = server.seen.conns.lock().unwrap()[0].0.clone();
    assert_eq!(facts.listener, ListenerKind::ServeUnix);
    let Endpoint::Unix(peer) = facts.endpoint else { panic!("{facts:?}") };
    assert_eq!(peer.uid, rustix::process::getuid().as_raw());
    assert_eq!(peer.pid, cfg!(any(target_os = "linux", target_os = "macos")).then(std::process::id));

    server.workers.remove(&key);
    wait_until(|| !path.exists());
}
