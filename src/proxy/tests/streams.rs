use super::support::*;
use super::transports::acceptor;
use crate::proxy::CloseReason;

#[test]
fn events_arrive_as_they_are_sent() {
    run(async {
        let app = App::bind().await;
        let gateway = Gateway::new(app.route());
        let mut client = gateway.client();
        client.send(GET).await;
        let mut wire = app.accept().await;
        wire.head().await;
        wire.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
            .await;
        client.head().await;
        for n in 0..3 {
            wire.send(format!("9\r\ndata: {n}\n\n\r\n")).await;
            client.until(&format!("data: {n}\n\n")).await;
        }
        // The client leaves; the upstream learns of it.
        drop(client);
        wire.rest().await;
    });
}

#[test]
fn threat_049_a_stream_ends_when_its_right_does() {
    run(async {
        let app = App::bind().await;
        let gateway = Gateway::new(app.route());
        let mut client = gateway.client();
        client.send(GET).await;
        let mut wire = app.accept().await;
        wire.head().await;
        wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n").await;
        client.until("ok\r\n").await;
        gateway.closer.close(CloseReason::Revoked);
        assert!(client.rest().await.is_empty(), "no final chunk: the client must see a break");
        wire.rest().await;
    });
}

#[test]
fn threat_049_a_long_wait_ends_too() {
    run(async {
        let app = App::bind().await;
        let gateway = Gateway::new(app.route());
        let mut client = gateway.client();
        client.send(GET).await;
        let mut wire = app.accept().await;
        wire.head().await;
        gateway.closer.close(CloseReason::Revoked);
        assert!(client.head().await.starts_with("http/1.1 403"));
        wire.rest().await;
    });
}

#[test]
fn a_large_body_passes_whole_both_ways() {
    run(async {
        let app = App::bind().await;
        let gateway = Gateway::new(app.route());
        let mut client = gateway.client();
        let big: String = ('a'..='z').cycle().take(3_000_000).collect();
        let upload = big.clone();
        let task = tokio::task::spawn_local(async move {
            let head = format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", upload.len());
            client.send(head).await;
            client.send(&upload).await;
            client.head().await;
            client.exactly(upload.len()).await
        });
        let mut wire = app.accept().await;
        let head = wire.head().await;
        assert!(head.contains(&format!("content-length: {}\r\n", big.len())));
        assert!(wire.exactly(big.len()).await == big.as_bytes());
        wire.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", big.len())).await;
        wire.send(&big).await;
        assert!(task.await.unwrap() == big.as_bytes());
        assert_eq!(gateway.pools.idle(), 1);
    });
}

#[test]
fn an_answer_before_the_upload_ends_does_not_stop_it() {
    run(async {
        let app = App::bind().await;
        let gateway = Gateway::new(app.route());
        let mut client = gateway.client();
        client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nup").await;
        let mut wire = app.accept().await;
        wire.head().await;
        wire.exactly(2).await;
        wire.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nok").await;
        client.until("\r\n\r\nok").await;
        client.send("ld").await;
        assert_eq!(wire.exactly(2).await, b"ld");
        wire.send("ay").await;
        client.until("ay").await;
    });
}

#[test]
fn threat_079_a_connection_that_has_not_taken_all_of_an_upload_is_not_used_again() {
    run(async {
        let app = App::bind().await;
        let gateway = Gateway::new(app.route());
        let mut client = gateway.client();
        // More than the buffers between here and there hold.
        let body = "x".repeat(16 * 1024 * 1024);
        client.send(format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len())).await;
        let sending = tokio::task::spawn_local(async move {
            client.try_send(&body).await;
            client
        });
        let mut wire = app.accept().await;
        wire.head().await;
        wire.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        let mut other = gateway.client();
        other.send(GET).await;
        let mut second = app.accept().await;
        assert!(second.head().await.starts_with("get / "));
        assert_eq!(gateway.pools.idle(), 0);
        drop((wire, sending));
    });
}

#[test]
fn threat_079_a_body_shorter_than_it_said_breaks_the_clients_connection() {
    run(async {
        let app = App::bind().await;
        let gateway = Gateway::new(app.route());
        let mut client = gateway.client();
        client.send(GET).await;
        let mut wire = app.accept().await;
        wire.head().await;
        wire.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort").await;
        client.until("\r\n\r\nshort").await;
        drop(wire);
        assert!(client.rest().await.is_empty());
        assert_eq!(gateway.pools.idle(), 0);
    });
}

#[test]
fn a_body_longer_than_it_said_is_cut_and_its_connection_dropped() {
    run(async {
        let app = App::bind().await;
        let gateway = Gateway::new(app.route());
        let mut client = gateway.client();
        client.send(GET).await;
        let mut wire = app.accept().await;
        wire.head().await;
        wire.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200").await;
        client.until("\r\n\r\nok").await;
        wire.rest().await;
        assert_eq!(gateway.pools.idle(), 0);
    });
}

#[test]
fn a_body_up_to_the_end_of_the_connection_passes() {
    run(async {
        let app = App::bind().await;
        let gateway = Gateway::new(app.route());
        let mut client = gateway.client();
        client.send(GET).await;
        let mut wire = app.accept().await;
        wire.head().await;
        wire.send("HTTP/1.1 200 OK\r\n\r\nsome").await;
        client.until("some").await;
        wire.send("more").await;
        drop(wire);
        client.until("more").await;
        client.until("0\r\n\r\n").await;
    });
}

#[test]
fn interim_answers_are_not_passed_on() {
    run(async {
        let app = App::bind().await;
        let gateway = Gateway::new(app.route());
        let mut client = gateway.client();
        client.send(GET).await;
        let mut wire = app.accept().await;
        wire.head().await;
        wire.send(format!("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n{OK}"))
            .await;
        assert!(client.head().await.starts_with("http/1.1 200"));
    });
}

#[test]
fn answers_that_are_none_are_502() {
    run(async {
        let app = App::bind().await;
        let gateway = Gateway::new(app.route());
        let long = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(300_000));
        for answer in [
            "SSH-2.0-OpenSSH\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX: a\nY\r\n\r\n",
            &long,
        ] {
            let mut client = gateway.client();
            client.send(GET).await;
            let mut wire = app.accept().await;
            wire.head().await;
            wire.try_send(answer).await;
            let head = client.head().await;
            assert!(head.starts_with("http/1.1 502"), "{head}");
            assert_eq!(client.until("upstream_bad_response").await, "upstream_bad_response");
            wire.rest().await;
        }
        assert_eq!(gateway.pools.idle(), 0);
    });
}

#[test]
fn a_get_with_a_chunked_body_keeps_it() {
    run(async {
        let app = App::bind().await;
        let gateway = Gateway::new(app.route());
        let mut client = gateway.client();
        client
            .send("GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n")
            .await;
        let mut wire = app.accept().await;
        assert!(wire.head().await.contains("transfer-encoding: chunked"));
        wire.until("hi\r\n0\r\n\r\n").await;
        wire.send(OK).await;
        client.until("\r\n\r\nok").await;
    });
}

#[test]
fn a_client_that_breaks_off_its_upload_breaks_the_upstreams_connection() {
    run(async {
        let app = App::bind().await;
        let gateway = Gateway::new(app.route());
        let mut client = gateway.client();
        client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nup").await;
        let mut wire = app.accept().await;
        wire.head().await;
        drop(client);
        assert_eq!(wire.rest().await, b"up");
    });
}

/// The most that is on its way when something is cut, and much more.
const ON_ITS_WAY: usize = 32 * 1024 * 1024;

#[test]
fn threat_049_a_download_that_never_waits_ends_when_its_right_does() {
    // A thread of its own: on the worker's, it would pause whenever the gateway runs.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let upstream = std::thread::spawn(move || {
        use std::io::{Read, Write};
        let (mut socket, _) = listener.accept().unwrap();
        assert!(socket.read(&mut [0; 4096]).unwrap() > 0);
        let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n");
        while socket.write_all(&[b'x'; 256 * 1024]).is_ok() {}
    });
    run(async {
        let gateway = Gateway::new(route_to(tcp(port)));
        let mut client = gateway.client();
        client.send(GET).await;
        client.head().await;
        client.exactly(4 * 1024 * 1024).await;
        gateway.closer.close(CloseReason::Revoked);
        let mut more = 0;
        // Slower than the upstream, which so always has something ready.
        while let Some(piece) = client.piece().await {
            more += piece;
            assert!(more < ON_ITS_WAY, "the download goes on");
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    });
    upstream.join().unwrap();
}

#[test]
fn threat_049_an_answer_that_comes_after_its_right_has_ended_is_not_passed_on() {
    run(async {
        let app = App::bind().await;
        let gateway = Gateway::new(app.route());
        let mut client = gateway.client();
        client.send(GET).await;
        let mut wire = app.accept().await;
        wire.head().await;
        gateway.closer.close(CloseReason::Revoked);
        wire.send(OK).await;
        assert!(client.head().await.starts_with("http/1.1 403"));
    });
}

#[test]
fn threat_049_what_waits_for_a_connection_is_not_sent_after_its_right_has_ended() {
    let post = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi";
    for request in [GET, post, super::websocket::UPGRADE] {
        run(async {
            let (acceptor, _) = acceptor();
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let mut route =
                route_to(crate::domain::UpstreamAddr::Tcp { tls: true, host: "localhost".into(), port });
            std::sync::Arc::get_mut(&mut route.upstream).unwrap().insecure_skip_verify = true;
            let gateway = Gateway::new(route);
            let mut client = gateway.client();
            client.send(request).await;
            // The gateway waits for the rest of the handshake.
            let (stream, _) = listener.accept().await.unwrap();
            gateway.closer.close(CloseReason::Revoked);
            let mut wire = Wire::new(acceptor.accept(stream).await.unwrap());
            assert!(wire.rest().await.is_empty(), "it was sent: {request}");
            assert!(client.head().await.starts_with("http/1.1 403"), "{request}");
        });
    }
}
