use std::time::Duration;

use super::support::*;
use crate::domain::Route;

fn hurried(app: &App, change: impl FnOnce(&mut Route)) -> Gateway {
    let mut route = app.route();
    change(&mut route);
    Gateway::new(route)
}

#[test]
fn no_first_byte_is_504() {
    run(async {
        let app = App::bind().await;
        let gateway = hurried(&app, |route| route.timeouts.first_byte = Duration::from_millis(30));
        let mut client = gateway.client();
        client.send(GET).await;
        let mut wire = app.accept().await;
        let head = client.head().await;
        assert!(head.starts_with("http/1.1 504"), "{head}");
        client.until("upstream_timeout").await;
        wire.rest().await;
    });
}

#[test]
fn a_stream_that_stalls_is_cut() {
    run(async {
        let app = App::bind().await;
        let gateway = hurried(&app, |route| route.timeouts.idle = Duration::from_millis(30));
        let mut client = gateway.client();
        client.send(GET).await;
        let mut wire = app.accept().await;
        wire.head().await;
        wire.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok").await;
        client.head().await;
        assert_eq!(client.rest().await, b"ok");
        wire.rest().await;
    });
}

#[test]
fn an_upload_that_moves_is_not_a_slow_answer() {
    run(async {
        let app = App::bind().await;
        let gateway = hurried(&app, |route| route.timeouts.first_byte = Duration::from_millis(400));
        let mut client = gateway.client();
        client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n\r\n").await;
        let mut wire = app.accept().await;
        wire.head().await;
        for _ in 0..8 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            client.send("x").await;
            wire.exactly(1).await;
        }
        wire.send(OK).await;
        assert!(client.head().await.starts_with("http/1.1 200"));
    });
}

#[test]
fn nobody_listening_is_502() {
    run(async {
        let app = App::bind().await;
        let route = app.route();
        drop(app);
        let mut client = Gateway::new(route).client();
        client.send(GET).await;
        assert!(client.head().await.starts_with("http/1.1 502"));
        client.until("upstream_unreachable").await;
    });
}

#[test]
fn a_tunnel_that_is_idle_is_ended() {
    run(async {
        let app = App::bind().await;
        let gateway = hurried(&app, |route| route.timeouts.idle = Duration::from_millis(30));
        let (mut client, mut wire) = super::websocket::open(&gateway, &app).await;
        assert!(client.rest().await.is_empty());
        wire.rest().await;
    });
}
