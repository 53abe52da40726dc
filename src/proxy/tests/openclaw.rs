use std::sync::Arc;

use serde_json::Value;
use tokio::io::DuplexStream;
use tokio::net::TcpStream;

use super::support::*;
use super::websocket::{SWITCH, UPGRADE};
use crate::domain::{Route, Secret, UpstreamKind};
use crate::proxy::frames::{self, Head, masked_text};

const CONNECT: &str = r#"{"type":"req","id":"1","method":"connect","params":{"auth":{"token":"t"}}}"#;

fn real(app: &App) -> Route {
    let mut route = app.route();
    let upstream = Arc::get_mut(&mut route.upstream).unwrap();
    upstream.kind = UpstreamKind::OpenClaw { secret: Secret::new("s3cret").unwrap() };
    route
}

async fn open(app: &App) -> (Wire<DuplexStream>, Wire<TcpStream>) {
    let mut client = Gateway::new(real(app)).client();
    client.send(UPGRADE).await;
    let mut wire = app.accept().await;
    let head = wire.head().await;
    assert!(!head.contains("extensions"), "{head}");
    wire.send(SWITCH).await;
    client.head().await;
    (client, wire)
}

/// The next frame of a client as the upstream gets it.
async fn frame(wire: &mut Wire<TcpStream>) -> (u8, Vec<u8>) {
    let mut bytes = wire.exactly(2).await;
    let head = loop {
        match Head::parse(&bytes) {
            Some(head) => break head,
            None => bytes.extend(wire.exactly(1).await),
        }
    };
    let mut payload = wire.exactly(usize::try_from(head.payload).unwrap()).await;
    frames::mask(&mut payload, head.mask.unwrap());
    (bytes[0], payload)
}

async fn refused(client: &mut Wire<DuplexStream>, wire: &mut Wire<TcpStream>) {
    let close = client.exactly(4).await;
    assert_eq!((close[0], &close[2..4]), (0x88, &1008_u16.to_be_bytes()[..]));
    client.exactly(usize::from(close[1]) - 2).await;
    assert!(wire.rest().await.is_empty(), "nothing reaches the upstream");
    client.shutdown().await;
    assert!(client.rest().await.is_empty());
}

#[test]
#[cfg(target_os = "linux")]
fn a_real_gateway_sees_a_local_client_and_a_bearer() {
    run(async {
        let app = App::bind().await;
        let gateway = Gateway::new(real(&app));
        for (path, bearer) in [("/v1/models", true), ("/", false)] {
            let mut client = gateway.client();
            client
                .send(format!(
                    "GET {path} HTTP/1.1\r\nHost: gw.example\r\nOrigin: https://gw.example\r\n\
                     X-OpenClaw-Scopes: admin\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n"
                ))
                .await;
            let mut wire = app.accept().await;
            let head = wire.head().await;
            wire.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
            client.head().await;
            assert!(head.contains(&format!("\r\nhost: 127.0.0.1:{}\r\n", app.port())), "{head}");
            assert!(head.contains("\r\norigin: https://gw.example\r\n"), "{head}");
            assert_eq!(head.contains("\r\nauthorization: bearer s3cret\r\n"), bearer, "{head}");
            for name in ["tailscale", "forwarded", "scopes", "remote-user", "via:", "real-ip"] {
                assert!(!head.contains(name), "{name}: {head}");
            }
        }
    });
}

#[test]
#[cfg(target_os = "linux")]
fn the_first_message_is_signed_in_and_the_rest_passes() {
    run(async {
        let app = App::bind().await;
        let (mut client, mut wire) = open(&app).await;
        // The challenge comes first.
        wire.send([0x81, 2, b'{', b'}']).await;
        assert_eq!(client.exactly(4).await, [0x81, 2, b'{', b'}']);
        client.send(masked_text(CONNECT.as_bytes(), [1, 2, 3, 4])).await;
        let (first, payload) = frame(&mut wire).await;
        let message: Value = serde_json::from_slice(&payload).unwrap();
        assert_eq!(first, 0x81);
        assert_eq!(message["params"]["auth"], serde_json::json!({"token": "t", "password": "s3cret"}));
        client.send("anything at all").await;
        assert_eq!(wire.exactly(15).await, b"anything at all");
    });
}

#[test]
#[cfg(target_os = "linux")]
fn pings_and_fragments_are_fine() {
    run(async {
        let app = App::bind().await;
        let (mut client, mut wire) = open(&app).await;
        let piece = |first: u8, payload: &[u8]| {
            let mut frame = masked_text(payload, [5, 6, 7, 8]);
            frame[0] = first;
            frame
        };
        let (one, two) = CONNECT.as_bytes().split_at(30);
        client.send(piece(0x89, b"are you there")).await;
        assert_eq!(frame(&mut wire).await, (0x89, b"are you there".to_vec()));
        client.send(piece(0x01, one)).await;
        client.send(piece(0x89, b"still")).await;
        assert_eq!(frame(&mut wire).await, (0x89, b"still".to_vec()));
        client.send(piece(0x80, two)).await;
        let (first, payload) = frame(&mut wire).await;
        assert_eq!(first, 0x81);
        assert!(String::from_utf8(payload).unwrap().contains("s3cret"));
    });
}

#[test]
#[cfg(target_os = "linux")]
fn what_is_not_connect_ends_with_1008_and_no_secret() {
    run(async {
        let app = App::bind().await;
        for text in [
            r#"{"type":"req","id":"1","method":"chat.send","params":{}}"#,
            r#"{"type":"req","method":"connect","method":"connect","params":{}}"#,
            "hello",
        ] {
            let (mut client, mut wire) = open(&app).await;
            client.send(masked_text(text.as_bytes(), [1, 2, 3, 4])).await;
            refused(&mut client, &mut wire).await;
        }
    });
}

#[test]
#[cfg(target_os = "linux")]
fn a_message_over_64_kib_ends_with_1008_though_the_client_goes_on() {
    run(async {
        let app = App::bind().await;
        let (mut client, mut wire) = open(&app).await;
        client.send(masked_text(&vec![b' '; 200_000], [1, 2, 3, 4])).await;
        refused(&mut client, &mut wire).await;
    });
}

#[test]
#[cfg(target_os = "linux")]
fn an_upstream_that_compresses_unasked_is_502() {
    run(async {
        let app = App::bind().await;
        let mut client = Gateway::new(real(&app)).client();
        client.send(UPGRADE).await;
        let mut wire = app.accept().await;
        wire.head().await;
        wire.send(SWITCH.replace("\r\n\r\n", "\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"))
            .await;
        assert!(client.head().await.starts_with("http/1.1 502"));
    });
}

#[test]
#[cfg(target_os = "linux")]
fn threat_067_the_secret_goes_to_nobody_else() {
    run(async {
        let app = App::bind().await;
        let mut route = real(&app);
        let us = rustix::process::geteuid().as_raw();
        Arc::get_mut(&mut route.upstream).unwrap().owner_uid = Some(us + 1);
        let mut client = Gateway::new(route).client();
        client.send("GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(app.accept().await.rest().await.is_empty());
        client.until("upstream_owner_mismatch").await;
    });
}
