use std::convert::Infallible;
use std::sync::Arc;

use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::UnixListener;

use super::support::*;
use crate::domain::{Upstream, UpstreamAddr};

fn owned_by(app: &App, uid: u32) -> Gateway {
    let mut route = app.route();
    Arc::get_mut(&mut route.upstream).unwrap().owner_uid = Some(uid);
    Gateway::new(route)
}

#[test]
fn a_unix_socket_is_an_upstream() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let us = rustix::process::geteuid().as_raw();
        for (uid, status) in [(None, "200"), (Some(us), "200"), (Some(us + 1), "502")] {
            let mut route = route_to(UpstreamAddr::Unix { path: path.clone() });
            Arc::get_mut(&mut route.upstream).unwrap().owner_uid = uid;
            let mut client = Gateway::new(route).client();
            client.send(GET).await;
            let mut wire = Wire::new(listener.accept().await.unwrap().0);
            if status == "200" {
                assert!(wire.head().await.contains("host: gw.example"));
                wire.send(OK).await;
            } else {
                assert!(wire.rest().await.is_empty(), "a squatter learns nothing");
            }
            let head = client.head().await;
            assert!(head.starts_with(&format!("http/1.1 {status}")), "{head}");
        }
    });
}

#[test]
#[cfg(target_os = "linux")]
fn threat_067_a_squatter_gets_no_identity_headers() {
    run(async {
        let app = App::bind().await;
        let us = rustix::process::geteuid().as_raw();
        let mut client = owned_by(&app, us + 1).client();
        client.send(GET).await;
        assert!(app.accept().await.rest().await.is_empty());
        assert!(client.head().await.starts_with("http/1.1 502"));
        client.until("upstream_owner_mismatch").await;

        let mut client = owned_by(&app, us).client();
        client.send(GET).await;
        let mut wire = app.accept().await;
        assert!(wire.head().await.contains("tailscale-user-login"));
        wire.send(OK).await;
        client.head().await;
    });
}

type Key = rcgen::CertifiedKey<rcgen::KeyPair>;

/// What accepts TLS as `localhost`.
pub(super) fn acceptor() -> (tokio_rustls::TlsAcceptor, Key) {
    let key = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let server =
        rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![key.cert.der().clone()],
                rustls::pki_types::PrivatePkcs8KeyDer::from(key.signing_key.serialize_der()).into(),
            )
            .unwrap();
    (tokio_rustls::TlsAcceptor::from(Arc::new(server)), key)
}

#[test]
fn a_tls_upstream_is_verified() {
    run(async {
        let (acceptor, key) = acceptor();
        let dir = tempfile::tempdir().unwrap();
        let ca = dir.path().join("ca.pem");
        std::fs::write(&ca, key.cert.pem()).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let https = |host: &str, change: &dyn Fn(&mut Upstream)| {
            let mut route = route_to(UpstreamAddr::Tcp { tls: true, host: host.into(), port });
            change(Arc::get_mut(&mut route.upstream).unwrap());
            Gateway::new(route).client()
        };
        tokio::task::spawn_local(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                if let Ok(stream) = acceptor.accept(stream).await {
                    let mut wire = Wire::new(stream);
                    wire.head().await;
                    wire.send(OK).await;
                }
            }
        });

        let trusted = |upstream: &mut Upstream| upstream.ca_file = Some(ca.clone());
        let mut client = https("localhost", &trusted);
        client.send(GET).await;
        assert!(client.head().await.starts_with("http/1.1 200"));

        let mut client = https("127.0.0.1", &|upstream| upstream.insecure_skip_verify = true);
        client.send(GET).await;
        assert!(client.head().await.starts_with("http/1.1 200"));

        for (host, change) in
            [("localhost", &(|_: &mut Upstream| {}) as &dyn Fn(&mut Upstream)), ("127.0.0.1", &trusted)]
        {
            let mut client = https(host, change);
            client.send(GET).await;
            assert!(client.head().await.starts_with("http/1.1 502"));
        }
        let broken = |upstream: &mut Upstream| upstream.ca_file = Some(dir.path().join("none.pem"));
        let mut client = https("localhost", &broken);
        client.send(GET).await;
        assert!(client.head().await.starts_with("http/1.1 502"));
    });
}

#[derive(Clone)]
struct Local;

impl<F: Future + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            future.await;
        });
    }
}

#[test]
fn threat_082_http2_becomes_http1() {
    run(async {
        let app = App::bind().await;
        let gateway = Gateway::new(app.route());
        let (near, far) = tokio::io::duplex(64 * 1024);
        tokio::task::spawn_local(async move {
            let service = service_fn(move |request| {
                let gateway = gateway.clone();
                async move { Ok::<_, Infallible>(gateway.serve(request).await.unwrap()) }
            });
            let _ = hyper::server::conn::http2::Builder::new(Local)
                .serve_connection(TokioIo::new(far), service)
                .await;
        });
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(near)).await.unwrap();
        tokio::task::spawn_local(connection);
        let request = Request::get("https://gw.example/x?y")
            .header("cookie", "a=1")
            .header("cookie", "openclaw_session=s")
            .header("cookie", "b=2")
            .header("te", "trailers")
            .body(Empty::<bytes::Bytes>::new())
            .unwrap();
        let answer = tokio::task::spawn_local(async move {
            let response = sender.send_request(request).await.unwrap();
            let connection = response.headers().get("connection").cloned();
            (response.status(), connection, response.into_body().collect().await.unwrap().to_bytes())
        });
        let mut wire = app.accept().await;
        let head = wire.head().await;
        assert!(head.starts_with("get /x?y http/1.1\r\n"), "{head}");
        assert!(head.contains("\r\nhost: gw.example\r\n"), "{head}");
        assert!(head.contains("\r\ncookie: a=1; b=2\r\n"), "{head}");
        assert!(!head.contains("\r\nte:"), "{head}");
        wire.send(
            "HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n",
        )
        .await;
        wire.send("0\r\n\r\n").await;
        assert_eq!(answer.await.unwrap(), (http::StatusCode::OK, None, "ok".into()));
    });
}
