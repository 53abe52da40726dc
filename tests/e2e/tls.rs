//! TLS of our own, with a certificate that changes on disk.

use std::sync::atomic::Ordering;

use super::support::h2::H2;
use super::support::*;

fn gateway(app: &Upstream, dir: &TlsDir) -> Gateway {
    Setup::new().upstream(app).token(TOKEN).config(format!("{{gateway: {{{}}}}}", dir.config())).start()
}

fn get(gateway: &Gateway, name: &str, target: &str) -> Vec<u8> {
    let port = gateway.port();
    format!("GET {target} HTTP/1.1\r\nHost: {name}:{port}\r\nAuthorization: Bearer {TOKEN}\r\n\r\n")
        .into_bytes()
}

#[test]
fn https_is_served_and_said_to_the_app() {
    let (app, pair) = (Upstream::echo(), Pair::of(&["localhost", "127.0.0.1"]));
    let dir = TlsDir::with(&pair);
    let gateway = gateway(&app, &dir);
    // Plain text on that port is no request.
    let mut plain = gateway.local().open();
    plain.send(&gateway.local().bearer(TOKEN).bytes("GET", "/", b""));
    let said = plain.rest();
    assert!(!said.starts_with(b"HTTP/"), "{:?}", String::from_utf8_lossy(&said));
    assert_eq!(app.connections(), 0);

    for (name, alpn, agreed) in [
        ("localhost", &[][..], None),
        ("127.0.0.1", &["http/1.1"], Some("http/1.1")),
        ("localhost", &["h2", "http/1.1"], Some("h2")),
    ] {
        let config = client_config(&[&pair], alpn);
        let mut wire = TlsWire::open(gateway.loopback(), name, &config).unwrap();
        assert_eq!(wire.alpn().as_deref(), agreed);
        if agreed == Some("h2") {
            continue;
        }
        let seen = wire.request(&get(&gateway, name, "/x")).seen();
        assert_eq!(seen.header("x-forwarded-proto").as_deref(), Some("https"));
        assert_eq!(wire.request(&get(&gateway, name, "/y")).seen().target(), "/y");
    }
    // A protocol that is not spoken.
    assert!(TlsWire::open(gateway.loopback(), "localhost", &client_config(&[&pair], &["spdy/3"])).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn h2_is_agreed_on_over_tls() {
    let (app, pair) = (Upstream::echo(), Pair::of(&["localhost"]));
    let dir = TlsDir::with(&pair);
    let gateway = gateway(&app, &dir);
    let connector = tokio_rustls::TlsConnector::from(client_config(&[&pair], &["h2", "http/1.1"]));
    let stream = tokio::net::TcpStream::connect(gateway.loopback()).await.unwrap();
    let stream = connector.connect("localhost".try_into().unwrap(), stream).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let authority = format!("localhost:{}", gateway.port());
    let h2 = H2::over(stream, &authority).await;
    let ask = |authority: &str, token: &str| {
        let request = http::Request::builder().uri(format!("https://{authority}/x"));
        request.header("authorization", format!("Bearer {token}"))
    };
    h2.whole(ask(&authority, "wrong"), "").await.assert_refused(401, "token_mismatch");
    h2.whole(ask("other.example", TOKEN), "").await.assert_refused(421, "host_not_allowed");
    let seen = h2.whole(ask(&authority, TOKEN), "").await.seen();
    assert_eq!(seen.header("x-forwarded-proto").as_deref(), Some("https"));
    assert_eq!(seen.header("host").as_deref(), Some(authority.as_str()));
}

#[test]
fn threat_042_another_host_than_the_one_shaken_hands_with_is_421() {
    let (app, pair) = (Upstream::echo(), Pair::of(&["a.example", "b.example"]));
    let dir = TlsDir::with(&pair);
    let gateway = gateway(&app, &dir);
    let config = client_config(&[&pair], &["http/1.1"]);
    let mut wire = TlsWire::open(gateway.loopback(), "a.example", &config).unwrap();
    for host in ["b.example", "a.example.evil.example", "127.0.0.1", "localhost", "xa.example"] {
        let answer = wire.request(&get(&gateway, host, "/"));
        answer.assert_refused(421, "host_not_allowed");
    }
    assert_eq!(app.connections(), 0);
    for host in ["a.example", "A.Example", "a.example."] {
        assert_eq!(wire.request(&get(&gateway, host, "/")).status, 200, "{host}");
    }
}

#[test]
fn threat_099_a_new_certificate_is_taken_over_and_a_broken_one_is_not() {
    let app = Upstream::echo();
    let [one, two, three] = [(); 3].map(|()| Pair::of(&["localhost"]));
    let dir = TlsDir::with(&one);
    let gateway = gateway(&app, &dir);
    let config = client_config(&[&one, &two, &three], &["http/1.1"]);
    let open = || TlsWire::open(gateway.loopback(), "localhost", &config).unwrap();
    let shown = || open().certificate();
    let mut kept = open();
    assert_eq!(kept.certificate(), one.der().to_vec());
    let mut works = |target: &str| {
        assert_eq!(kept.request(&get(&gateway, "localhost", target)).seen().target(), target);
    };
    works("/before");

    let refusals = || gateway.log().matches("the changed certificate is refused").count();
    let half = &two.cert[..two.cert.len() / 2];
    for (what, cert, key) in [
        ("garbage", "garbage", one.key.as_str()),
        ("nothing", "", ""),
        ("another's key", two.cert.as_str(), one.key.as_str()),
        ("half a certificate", half, two.key.as_str()),
    ] {
        let before = refusals();
        dir.put(cert, key);
        until(&format!("{what} is refused"), || refusals() > before);
        assert_eq!(shown(), one.der().to_vec(), "{what}: another certificate is shown");
        assert_eq!(open().request(&get(&gateway, "localhost", "/new")).status, 200, "{what}");
        works("/broken");
    }
    let before = refusals();
    std::fs::remove_file(dir.key()).unwrap();
    until("a missing key is refused", || refusals() > before);
    assert_eq!(shown(), one.der().to_vec());

    dir.put(&two.cert, &two.key);
    until("the new certificate is shown", || shown() == two.der().to_vec());
    works("/after");
    dir.put(&three.cert, &three.key);
    until("the next one is shown", || shown() == three.der().to_vec());
    works("/after-the-next");
    let log = gateway.log();
    assert!(!log.contains("PRIVATE KEY"));
}

#[test]
fn threat_099_a_pair_that_does_not_fit_is_refused_at_the_start() {
    let (app, one, two) = (Upstream::echo(), Pair::of(&["localhost"]), Pair::of(&["localhost"]));
    for (cert, key) in [(&one.cert, &two.key), (&one.key, &one.key), (&one.cert, &one.cert)] {
        let dir = TlsDir::with(&one);
        dir.put(cert, key);
        let setup = Setup::new().upstream(&app).token(TOKEN);
        let exited = setup.config(format!("{{gateway: {{{}}}}}", dir.config())).refuse();
        assert_eq!(exited.code, Some(78), "{}", exited.stderr);
        assert!(!exited.stderr.contains("PRIVATE KEY"), "{}", exited.stderr);
    }
}

#[test]
fn a_websocket_goes_through_tls() {
    let (app, pair) = (SampleApp::start(), Pair::of(&["localhost"]));
    let dir = TlsDir::with(&pair);
    let setup = Setup::new().flag("--upstream", app.flag()).token(TOKEN);
    let gateway = setup.config(format!("{{gateway: {{{}}}}}", dir.config())).start();
    let config = client_config(&[&pair], &["http/1.1"]);
    let stream = TlsWire::open(gateway.loopback(), "localhost", &config).unwrap().into_stream();
    let request = http::Request::builder()
        .uri(format!("ws://localhost:{}/ws", gateway.port()))
        .header("Host", format!("localhost:{}", gateway.port()))
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", tokio_tungstenite::tungstenite::handshake::client::generate_key())
        .header("Authorization", format!("Bearer {TOKEN}"));
    let request = request.body(()).unwrap();
    let (mut socket, _) = tokio_tungstenite::tungstenite::client(request, stream).unwrap();
    let large = "x".repeat(300_000);
    socket.send(large.as_str().into()).unwrap();
    assert_eq!(socket.read().unwrap().into_text().unwrap(), large);
}

#[test]
fn an_app_over_tls_is_believed_only_with_a_certificate_that_is_trusted_for_its_name() {
    let (right, wrong) = (Pair::of(&["localhost", "127.0.0.1"]), Pair::of(&["other.example"]));
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret";
    let (place, requests) = tls_app(&right, answer);
    let (impostor, asked) = tls_app(&wrong, answer);
    let (right_dir, wrong_dir) = (TlsDir::with(&right), TlsDir::with(&wrong));
    let ask = |port: u16, more: &str| {
        let config = format!(
            r#"{{gateway: {{auth: {{mode: "token", token: "{TOKEN}"}},
                upstream: {{url: "https://127.0.0.1:{port}"{more}}}}}}}"#
        );
        let gateway = Setup::new().config(config).start();
        gateway.local().bearer(TOKEN).get("/")
    };
    let ca = |dir: &TlsDir| format!(", caFile: {:?}", dir.cert().to_str().unwrap());
    // Trusted by nobody; by the wrong one; the right issuer and another name.
    for (port, more) in [
        (place.port(), String::new()),
        (place.port(), ca(&wrong_dir)),
        (impostor.port(), ca(&right_dir)),
        (impostor.port(), ca(&wrong_dir)),
    ] {
        ask(port, &more).assert_refused(502, "upstream_unreachable");
    }
    assert_eq!((requests.load(Ordering::SeqCst), asked.load(Ordering::SeqCst)), (0, 0));
    assert_eq!(ask(place.port(), &ca(&right_dir)).text(), "secret");
    assert_eq!(ask(impostor.port(), ", insecureSkipVerify: true").text(), "secret", "as it was told to");
}
