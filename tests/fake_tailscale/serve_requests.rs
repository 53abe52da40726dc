//! The Serve stand-in does to a request what tailscaled was seen to do.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use crate::client::{Answer, get, plain, tls};
use crate::fake::{Fake, recording};
use crate::running::{Running, listener, try_listener};

const HOST: &str = "gw.tailnet-example.test";

struct Stage {
    fake: Fake,
    app: Running,
    _on_socket: Running,
    _daemon: Running,
}

impl Stage {
    /// The configuration of the recording, with the app behind it.
    fn set(scenario: &str, callers: &[&str]) -> Self {
        let fake = Fake::with(scenario);
        let app = Running::app(&[]);
        let socket = fake.dir().join("app.sock");
        let on_socket = Running::app(&["--unix", socket.to_str().unwrap()]);
        let daemon = Running::daemon(&fake, callers);
        let to = format!("http://{}", app.listen());
        let unix = format!("unix:{}", socket.display());
        let below = format!("{to}/s/3f9c0e7d/");
        let raw = format!("tcp://{}", app.listen());
        for args in [
            &["--bg", &to][..],
            &["--bg", "--set-path=/openclaw", &unix],
            &["--bg", "--http=80", "--set-path=/guarded", &below],
            &["--bg", "--tcp=2222", &raw],
            &["--bg", "--https=8443", "--accept-app-caps=openclaw.ai/cap/gateway", &to],
        ] {
            let ran = fake.run(&[&["serve"][..], args].concat());
            assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        }
        Self { fake, app, _on_socket: on_socket, _daemon: daemon }
    }

    fn ask(&self, port: u16, caller: &str, request: &str) -> Answer {
        let addr = listener(&self.fake, port, caller);
        if port == 443 || port == 8443 {
            let stream = TcpStream::connect(addr).unwrap();
            tls(stream, &self.fake.dir().join("ca.pem"), HOST, request).unwrap()
        } else {
            plain(&addr, request)
        }
    }
}

/// One recorded request: who asked, for what, and what the backend saw.
struct Recorded {
    heading: String,
    seen: Vec<String>,
}

fn recorded() -> Vec<Recorded> {
    let mut all: Vec<Recorded> = Vec::new();
    let mut taking = false;
    for line in recording("serve-requests.txt").lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            all.push(Recorded { heading: heading.to_owned(), seen: Vec::new() });
            taking = false;
        } else if line.starts_with("GET ") {
            taking = true;
        } else if line.is_empty() {
            taking = false;
        }
        if taking && let Some(last) = all.last_mut() {
            last.seen.push(line.to_owned());
        }
    }
    assert!(all.len() > 10, "the recording holds its requests");
    all
}

fn seen(answer: &Answer) -> Vec<String> {
    let json = answer.json();
    let query = json["query"].as_str().map(|q| format!("?{q}")).unwrap_or_default();
    let first = format!("GET {}{query} HTTP/1.1", json["path"].as_str().unwrap());
    let headers = json["headers"].as_array().unwrap().iter();
    let headers = headers.map(|h| format!("{}: {}", h[0].as_str().unwrap(), h[1].as_str().unwrap()));
    std::iter::once(first).chain(headers).collect()
}

#[test]
fn the_backend_sees_what_was_recorded() {
    let callers = ["phone", "bobpc", "ci", "gw", "funnel"];
    let stage = Stage::set("lab", &callers);
    stage.fake.set(&[&format!("standIn.direct={{bobpc: \"{}\"}}", stage.app.listen())]);
    for request in recorded() {
        let words: Vec<&str> = request.heading.split(' ').collect();
        let mut headers = vec!["User-Agent: curl/7.88.1", "Accept: */*"];
        let (caller, url) = if request.heading.starts_with("public") {
            let ran = stage.fake.run(&["funnel", "--bg", &stage.app.listen()]);
            assert_eq!(ran.code, Some(0), "{}", ran.stderr);
            headers.clear();
            ("funnel", format!("https://{HOST}/pub"))
        } else {
            (words[1].trim_end_matches(':'), words[3].replace('\\', ""))
        };
        let unescaped = request.heading.replace("\\ ", " ").replace('\\', "");
        headers.extend(unescaped.split(" -H ").skip(1));
        let (scheme, rest) = url.split_once("://").unwrap();
        let (host, path) = rest.split_at(rest.find('/').unwrap());
        // curl would have joined these; the shell's words were in this order.
        let request_text = get(path, host, &headers);
        let answer = if host == "100.64.0.5:9000" {
            let text = std::fs::read_to_string(stage.fake.dir().join("daemon.json")).unwrap();
            let json: serde_json::Value = serde_json::from_str(&text).unwrap();
            plain(json["direct"][0]["listen"].as_str().unwrap(), &request_text)
        } else {
            let port = match (scheme, host.split_once(':')) {
                (_, Some((_, port))) => port.parse().unwrap(),
                ("https", None) => 443,
                _ => 80,
            };
            stage.ask(port, caller, &request_text)
        };
        if request.seen.is_empty() {
            assert_eq!(answer.status(), 404, "{}", request.heading);
            assert_eq!(answer.text(), "404 page not found\n");
            continue;
        }
        assert_eq!(answer.status(), 200, "{}", request.heading);
        let mut seen = seen(&answer);
        // What this client adds to make the answer end; bytes pass as they are.
        seen.retain(|line| line != "Connection: close");
        assert_eq!(seen, request.seen, "{}", request.heading);
    }
}

#[test]
fn everybody_shares_one_backend_connection() {
    let stage = Stage::set("loopback-tailnet", &["phone", "bobpc", "ci", "funnel"]);
    let ran = stage.fake.run(&["funnel", "--bg", &stage.app.listen()]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let mut used = Vec::new();
    for caller in ["phone", "bobpc", "ci", "funnel", "phone"] {
        let json = stage.ask(443, caller, &get("/x", HOST, &[])).json();
        used.push(json["connection"].as_u64().unwrap());
    }
    assert_eq!(used, [used[0]; 5]);
}

#[test]
fn the_source_address_says_who_calls() {
    let stage = Stage::set("loopback-tailnet", &[]);
    let from = |last: u8| {
        let addr: SocketAddr = listener(&stage.fake, 443, "source").parse().unwrap();
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.unwrap();
        let source = SocketAddr::from((Ipv4Addr::new(127, 100, 0, last), 0));
        socket.bind(&source.into()).unwrap();
        socket.connect(&addr.into()).unwrap();
        let ca = stage.fake.dir().join("ca.pem");
        seen(&tls(socket.into(), &ca, HOST, &get("/x", HOST, &[])).unwrap())
    };
    assert!(from(3).contains(&"Tailscale-User-Login: bob@example.com".to_owned()));
    // Somebody of another tailnet gets the headers too.
    assert!(from(5).contains(&"Tailscale-User-Login: eve@other.example".to_owned()));
    let tagged = from(4);
    assert!(tagged.contains(&"X-Forwarded-For: 127.100.0.4".to_owned()));
    assert!(tagged.iter().all(|line| !line.starts_with("Tailscale-")), "{tagged:?}");
    assert!(from(99).iter().all(|line| !line.starts_with("Tailscale-")));
}

#[test]
fn an_old_daemon_lets_newer_headers_in() {
    let stage = Stage::set("loopback-tailnet", &["bobpc"]);
    let forged = get("/x", HOST, &["Tailscale-Funnel-Request: ?1", "Tailscale-User-Login: x"]);
    let now = seen(&stage.ask(443, "bobpc", &forged));
    assert!(!now.iter().any(|line| line.contains("Funnel")), "{now:?}");
    stage.fake.set(&["version=1.70.0"]);
    let old = seen(&stage.ask(443, "bobpc", &forged));
    assert!(old.contains(&"Tailscale-Funnel-Request: ?1".to_owned()), "{old:?}");
    assert!(old.contains(&"Tailscale-User-Login: bob@example.com".to_owned()), "{old:?}");
}

#[test]
fn a_name_without_certificate_ends_in_the_handshake() {
    let stage = Stage::set("loopback-tailnet", &["bobpc"]);
    let ca = stage.fake.dir().join("ca.pem");
    let addr = listener(&stage.fake, 443, "bobpc");
    for name in ["other.tailnet-example.test", "127.0.0.1"] {
        let stream = TcpStream::connect(&addr).unwrap();
        assert!(tls(stream, &ca, name, &get("/", name, &[])).is_err(), "{name}");
    }
    // By address there is no plain site either.
    assert_eq!(stage.ask(80, "bobpc", &get("/guarded", "127.0.0.1", &[])).status(), 404);
    assert_eq!(stage.ask(80, "bobpc", &get("/guarded", "gw", &[])).status(), 200);
}

#[test]
fn a_backend_that_is_gone_is_502_without_a_body() {
    let stage = Stage::set("loopback-tailnet", &["bobpc"]);
    let ran = stage.fake.run(&["serve", "--bg", "--http=81", "http://127.0.0.1:1"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let answer = stage.ask(81, "bobpc", &get("/", HOST, &[]));
    assert_eq!((answer.status(), answer.body.len()), (502, 0));
}

#[test]
fn ports_follow_the_configuration_and_the_state() {
    let stage = Stage::set("loopback-tailnet", &["bobpc"]);
    let before = listener(&stage.fake, 443, "bobpc");
    stage.fake.set(&["backend=Stopped"]);
    assert_eq!(try_listener(&stage.fake, 443, "bobpc"), None);
    assert!(TcpStream::connect(&before).is_err());
    stage.fake.set(&["backend=Running"]);
    assert_eq!(listener(&stage.fake, 443, "bobpc"), before);
    stage.fake.set(&["serve=null"]);
    assert!(TcpStream::connect(&before).is_err());
}

#[test]
fn a_websocket_passes_and_dies_with_the_daemon() {
    use std::io::{Read, Write};
    let stage = Stage::set("loopback-tailnet", &["bobpc"]);
    let to = format!("http://{}", stage.app.listen());
    let ran = stage.fake.run(&["serve", "--bg", "--http=81", &to]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let mut stream = TcpStream::connect(listener(&stage.fake, 81, "bobpc")).unwrap();
    let upgrade = format!(
        "GET /ws?headers HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(upgrade.as_bytes()).unwrap();
    let mut got = Vec::new();
    let mut buffer = [0; 4096];
    stage.fake.until("the first message came", || {
        let n = stream.read(&mut buffer).unwrap();
        got.extend_from_slice(&buffer[..n]);
        String::from_utf8_lossy(&got).contains("bob@example.com")
    });
    let text = String::from_utf8_lossy(&got);
    assert!(text.starts_with("HTTP/1.1 101"), "{text}");
    assert!(text.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{text}");
    stage.fake.set(&["daemon=down"]);
    let n = stream.read(&mut buffer).unwrap_or(0);
    assert!(n == 0 || buffer[0] & 0x0f == 8, "the tunnel ends");
}

#[test]
fn whois_knows_a_direct_connection_while_it_lives() {
    let fake = Fake::with("userspace");
    let app = Running::app(&[]);
    let _daemon = Running::daemon(&fake, &[]);
    fake.set(&[&format!("standIn.direct={{bobpc: \"{}\"}}", app.listen())]);
    let text = std::fs::read_to_string(fake.dir().join("daemon.json")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let listen = json["direct"][0]["listen"].as_str().unwrap().to_owned();
    let held = std::thread::spawn(move || plain(&listen, &get("/hold/here", "x", &[])));
    let holding = || plain(&app.listen(), &get("/holding", "x", &[])).text();
    fake.until("the request is held", || holding().contains("here"));
    let state = fake.tool("show", &[]);
    let state: serde_json::Value = serde_json::from_str(&state).unwrap();
    let from = state["connections"].as_object().unwrap().keys().next().unwrap().clone();
    let ran = fake.run(&["whois", "--json", "--proto", "tcp", &from]);
    assert_eq!(ran.json()["UserProfile"]["LoginName"], "bob@example.com");
    let _ = plain(&app.listen(), &get("/release/here", "x", &[]));
    assert_eq!(held.join().unwrap().status(), 200);
    fake.until("the connection is forgotten", || {
        fake.run(&["whois", "--proto", "tcp", &from]).code == Some(1)
    });
}

#[test]
fn http2_is_agreed_on_and_carries_the_identity() {
    use http_body_util::{BodyExt, Empty};
    use hyper_util::rt::{TokioExecutor, TokioIo};

    let stage = Stage::set("loopback-tailnet", &["bobpc"]);
    let addr = listener(&stage.fake, 443, "bobpc");
    let mut config = crate::client::trusting(&stage.fake.dir().join("ca.pem"));
    config.alpn_protocols = vec![b"h2".to_vec()];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(addr).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
        let stream = connector.connect(HOST.try_into().unwrap(), stream).await.unwrap();
        let io = TokioIo::new(stream);
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        let request = http::Request::get(format!("https://{HOST}/x?a=%zz&b=1;2&c=3"));
        let response = sender.send_request(request.body(Empty::<bytes::Bytes>::new()).unwrap()).await;
        let body = response.unwrap().into_body().collect().await.unwrap().to_bytes();
        let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
        // Towards the app it is HTTP/1.1, and what Go cannot parse is gone.
        assert_eq!((&json["version"], &json["query"]), (&"HTTP/1.1".into(), &"c=3".into()));
        let headers = json["headers"].to_string();
        assert!(headers.contains(r#"["Host","gw.tailnet-example.test"]"#), "{headers}");
        assert!(headers.contains("bob@example.com"), "{headers}");
    });
}

#[test]
fn a_daemon_that_is_stopped_answers_nobody_until_it_goes_on() {
    let stage = Stage::set("loopback-tailnet", &["bobpc"]);
    stage.fake.set(&["daemon=hung"]);
    let mut cli = stage.fake.command(&["status", "--json"]).spawn().unwrap();
    let socket = stage.fake.dir().join("tailscaled.sock");
    let api = std::thread::spawn(move || {
        crate::client::unix(&socket, &get("/localapi/v0/status", "local-tailscaled.sock", &[])).status()
    });
    let addr = listener(&stage.fake, 80, "bobpc");
    let serve = std::thread::spawn(move || plain(&addr, &get("/guarded", "gw", &[])).status());
    stage
        .fake
        .until("the command has started", || stage.fake.calls().iter().any(|c| c["command"] == "status"));
    assert!(!api.is_finished() && !serve.is_finished());
    assert_eq!(cli.try_wait().unwrap(), None);
    stage.fake.set(&["daemon=up"]);
    assert_eq!((api.join().unwrap(), serve.join().unwrap()), (200, 200));
    // The command hangs for good: it has no limit of its own.
    cli.kill().unwrap();
    cli.wait().unwrap();
}
