use tokio::io::DuplexStream;
use tokio::net::TcpStream;

use super::support::*;
use crate::proxy::CloseReason;

pub(super) const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: gw.example\r\nConnection: Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Extensions: permessage-deflate\r\nSec-WebSocket-Protocol: chat\r\n\r\n";
pub(super) const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// A client and an upstream with a tunnel between them.
pub(super) async fn open(gateway: &Gateway, app: &App) -> (Wire<DuplexStream>, Wire<TcpStream>) {
    let mut client = gateway.client();
    client.send(UPGRADE).await;
    let mut wire = app.accept().await;
    wire.head().await;
    wire.send(SWITCH).await;
    let head = client.head().await;
    assert!(head.starts_with("http/1.1 101"), "{head}");
    (client, wire)
}

#[test]
fn the_handshake_passes_and_bytes_follow_both_ways() {
    run(async {
        let app = App::bind().await;
        let gateway = Gateway::new(app.route());
        let mut client = gateway.client();
        client.send(UPGRADE).await;
        let mut wire = app.accept().await;
        let head = wire.head().await;
        for line in [
            "connection: upgrade",
            "upgrade: websocket",
            "sec-websocket-extensions: permessage-deflate",
            "sec-websocket-protocol: chat",
            "tailscale-user-login: alice@example.com",
        ] {
            assert!(head.contains(&format!("\r\n{line}\r\n")), "{line}: {head}");
        }
        // What follows the 101 at once is not lost.
        let protocol = SWITCH.replace("\r\n\r\n", "\r\nSec-WebSocket-Protocol: chat\r\n\r\n");
        wire.send(format!("{protocol}early")).await;
        let head = client.head().await;
        assert!(head.starts_with("http/1.1 101"), "{head}");
        assert!(
            head.contains("connection: upgrade\r\n") && head.contains("upgrade: websocket\r\n"),
            "{head}"
        );
        assert!(head.contains("sec-websocket-protocol: chat\r\n"), "{head}");
        client.until("early").await;
        client.send("up").await;
        assert_eq!(wire.exactly(2).await, b"up");
        wire.send("down").await;
        client.until("down").await;
        assert_eq!(gateway.pools.idle(), 0);
    });
}

#[test]
fn a_half_that_ends_leaves_the_other_open() {
    run(async {
        let app = App::bind().await;
        let gateway = Gateway::new(app.route());
        let (mut client, mut wire) = open(&gateway, &app).await;
        client.send("last").await;
        client.shutdown().await;
        assert_eq!(wire.rest().await, b"last");
        wire.send("still here").await;
        client.until("still here").await;
        drop(wire);
        client.rest().await;
        gateway.closer.released().await;
    });
}

#[test]
fn threat_078_a_slow_reader_slows_its_writer_and_loses_nothing() {
    run(async {
        let app = App::bind().await;
        let gateway = Gateway::new(app.route());
        let (mut client, mut wire) = open(&gateway, &app).await;
        let big = vec![b'x'; 8_000_000];
        let (sent, count) = (big.clone(), big.len());
        let task = tokio::task::spawn_local(async move {
            wire.send(sent).await;
            wire
        });
        tokio::task::yield_now().await;
        assert!(!task.is_finished());
        assert!(client.exactly(count).await == big);
        task.await.unwrap();
    });
}

#[test]
fn threat_080_what_follows_a_refused_upgrade_is_never_a_request() {
    run(async {
        let app = App::bind().await;
        let gateway = Gateway::new(app.route());
        let mut client = gateway.client();
        client.send(format!("{UPGRADE}GET /admin HTTP/1.1\r\nHost: gw.example\r\n\r\n")).await;
        let mut wire = app.accept().await;
        wire.head().await;
        wire.send(OK).await;
        let head = client.head().await;
        assert!(head.starts_with("http/1.1 200") && head.contains("connection: close"), "{head}");
        assert_eq!(client.rest().await, b"ok");
        assert!(wire.rest().await.is_empty(), "nothing of it reaches the upstream");
    });
}

#[test]
fn threat_080_a_101_without_proof_is_502() {
    run(async {
        let app = App::bind().await;
        let gateway = Gateway::new(app.route());
        for answer in [
            SWITCH.replace("s3pP", "s3pQ"),
            SWITCH.replace("Connection: Upgrade\r\n", ""),
            SWITCH.replace("Upgrade: websocket", "Upgrade: h2c"),
            SWITCH.replace("\r\n\r\n", "\r\nContent-Length: 3\r\n\r\n"),
        ] {
            let mut client = gateway.client();
            client.send(format!("{UPGRADE}GET /admin HTTP/1.1\r\nHost: x\r\n\r\n")).await;
            let mut wire = app.accept().await;
            wire.head().await;
            wire.send(answer).await;
            let head = client.head().await;
            assert!(head.starts_with("http/1.1 502") && head.contains("connection: close"), "{head}");
            assert_eq!(client.rest().await, b"upstream_bad_response");
            assert!(wire.rest().await.is_empty());
        }
    });
}

#[test]
fn threat_080_other_upgrades_are_dropped_and_end_the_connection() {
    run(async {
        let app = App::bind().await;
        let gateway = Gateway::new(app.route());
        let mut client = gateway.client();
        client
            .send(
                "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\
                 HTTP2-Settings: AAMAAABk\r\n\r\nGET /admin HTTP/1.1\r\nHost: x\r\n\r\n",
            )
            .await;
        let mut wire = app.accept().await;
        let head = wire.head().await;
        assert!(!head.contains("upgrade") && !head.contains("http2-settings"), "{head}");
        wire.send(OK).await;
        assert!(client.head().await.contains("connection: close"));
        assert_eq!(client.rest().await, b"ok");
    });
}

#[test]
fn threat_080_a_faulty_handshake_is_400_and_reaches_nobody() {
    run(async {
        let app = App::bind().await;
        let gateway = Gateway::new(app.route());
        let mut client = gateway.client();
        client.send(UPGRADE.replace("Version: 13", "Version: 12")).await;
        let head = client.head().await;
        assert!(head.starts_with("http/1.1 400") && head.contains("connection: close"), "{head}");
        assert_eq!(gateway.errors.borrow().len(), 1);
    });
}

#[test]
fn threat_049_a_tunnel_ends_with_a_close_frame_when_its_right_does() {
    run(async {
        for (reason, code, text) in
            [(CloseReason::Revoked, 1008_u16, "revoked"), (CloseReason::Draining, 1012, "restarting")]
        {
            let app = App::bind().await;
            let gateway = Gateway::new(app.route());
            let (mut client, mut wire) = open(&gateway, &app).await;
            wire.send([0x81, 2, b'h', b'i']).await;
            assert_eq!(client.exactly(4).await, [0x81, 2, b'h', b'i']);
            assert_eq!(gateway.closer.held(), 1);
            gateway.closer.close(reason);
            let frame = client.exactly(4 + text.len()).await;
            assert_eq!(frame[..2], [0x88, 2 + text.len() as u8]);
            assert_eq!(frame[2..4], code.to_be_bytes());
            assert_eq!(&frame[4..], text.as_bytes());
            assert!(wire.rest().await.is_empty());
            assert!(client.rest().await.is_empty());
        }
    });
}

#[test]
fn threat_049_in_the_middle_of_a_frame_it_just_ends() {
    run(async {
        let app = App::bind().await;
        let gateway = Gateway::new(app.route());
        let (mut client, mut wire) = open(&gateway, &app).await;
        wire.send([0x82, 100, 1, 2, 3]).await;
        client.exactly(5).await;
        gateway.closer.close(CloseReason::Revoked);
        assert!(client.rest().await.is_empty());
    });
}
