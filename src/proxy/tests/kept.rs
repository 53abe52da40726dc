use super::support::*;

/// One request over `wire`, all the way.
async fn exchange<C, U>(client: &mut Wire<C>, wire: &mut Wire<U>)
where
    C: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    U: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    wire.head().await;
    wire.send(OK).await;
    client.until("\r\n\r\nok").await;
}

#[test]
fn a_connection_is_used_again_and_clients_share_it() {
    run(async {
        let app = App::bind().await;
        let gateway = Gateway::new(app.route());
        let (mut one, mut two) = (gateway.client(), gateway.client());
        one.send(GET).await;
        let mut wire = app.accept().await;
        exchange(&mut one, &mut wire).await;
        assert_eq!(gateway.pools.idle(), 1);
        for _ in 0..3 {
            two.send(GET).await;
            exchange(&mut two, &mut wire).await;
        }
        one.send(GET).await;
        exchange(&mut one, &mut wire).await;
        assert_eq!(gateway.pools.idle(), 1);
    });
}

#[test]
fn every_way_to_end_a_body_frees_the_connection() {
    run(async {
        let app = App::bind().await;
        let gateway = Gateway::new(app.route());
        let mut client = gateway.client();
        client.send(GET).await;
        let mut wire = app.accept().await;
        // Chunked, all at once.
        wire.head().await;
        wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n").await;
        client.until("ok").await;
        // Chunked, in pieces, with trailers.
        let mut client = gateway.client();
        client.send(GET).await;
        wire.head().await;
        wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n").await;
        client.until("ok\r\n").await;
        wire.send("3\r\nyes\r\n").await;
        client.until("yes\r\n").await;
        wire.send("0\r\nX-Sum: 1\r\n\r\n").await;
        assert_eq!(client.until("\r\n\r\n").await, "0\r\n\r\n");
        // A known length, in pieces.
        client.send(GET).await;
        wire.head().await;
        wire.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n").await;
        client.head().await;
        wire.send("ok").await;
        client.until("ok").await;
        wire.send("ay").await;
        client.until("ay").await;
        // None at all, in three ways.
        for (request, answer) in [
            ("HEAD / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"),
            (GET, "HTTP/1.1 204 No Content\r\n\r\n"),
            (GET, "HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n"),
        ] {
            client.send(request).await;
            wire.head().await;
            wire.send(answer).await;
            let head = client.head().await;
            assert_eq!(head.contains("content-length: 4"), answer.contains("Length"), "{head}");
        }
        assert_eq!(gateway.pools.idle(), 1);
    });
}

#[test]
fn a_closed_connection_is_noticed_before_use() {
    run(async {
        let app = App::bind().await;
        let gateway = Gateway::new(app.route());
        let mut client = gateway.client();
        client.send(GET).await;
        let mut wire = app.accept().await;
        exchange(&mut client, &mut wire).await;
        drop(wire);
        gateway.pools.until_swept_empty().await;
        assert_eq!(gateway.pools.idle(), 0);
    });
}

#[test]
fn a_connection_closed_since_is_not_taken_for_a_post() {
    run(async {
        let app = App::bind().await;
        let gateway = Gateway::new(app.route());
        let mut client = gateway.client();
        client.send(GET).await;
        let mut wire = app.accept().await;
        exchange(&mut client, &mut wire).await;
        drop(wire);
        // The end has arrived when a later connection's first byte has.
        let mut other = gateway.client();
        let mut probe = tokio::net::TcpStream::connect(("127.0.0.1", app.port())).await.unwrap();
        let mut far = app.accept().await;
        far.send("x").await;
        tokio::io::AsyncReadExt::read_u8(&mut probe).await.unwrap();
        drop((probe, far));
        // A POST: it would not be sent again.
        other.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi").await;
        let mut wire = app.accept().await;
        exchange(&mut other, &mut wire).await;
    });
}

#[test]
fn bytes_nobody_asked_for_end_a_connection() {
    run(async {
        let app = App::bind().await;
        let gateway = Gateway::new(app.route());
        let mut client = gateway.client();
        client.send(GET).await;
        let mut wire = app.accept().await;
        wire.head().await;
        // The second answer belongs to no request; the next client must not get it.
        wire.send(format!("{OK}HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")).await;
        client.until("\r\n\r\nok").await;
        client.send(GET).await;
        let mut fresh = app.accept().await;
        exchange(&mut client, &mut fresh).await;
    });
}

#[test]
fn a_get_is_sent_again_when_a_kept_connection_says_nothing() {
    run(async {
        let app = App::bind().await;
        let gateway = Gateway::new(app.route());
        let mut client = gateway.client();
        client.send(GET).await;
        let mut wire = app.accept().await;
        exchange(&mut client, &mut wire).await;
        client.send(GET).await;
        wire.head().await;
        drop(wire);
        let mut fresh = app.accept().await;
        exchange(&mut client, &mut fresh).await;
    });
}

#[test]
fn what_may_have_been_done_is_never_sent_again() {
    run(async {
        let app = App::bind().await;
        let gateway = Gateway::new(app.route());
        for (request, partial) in [
            ("POST / HTTP/1.1\r\nHost: x\r\n\r\n", ""),
            ("PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi", ""),
            (GET, "HTTP/1.1 2"),
        ] {
            let mut client = gateway.client();
            client.send(GET).await;
            let mut wire = app.accept().await;
            exchange(&mut client, &mut wire).await;
            client.send(request).await;
            wire.head().await;
            if request.starts_with("PUT") {
                wire.exactly(2).await;
            }
            wire.send(partial).await;
            drop(wire);
            assert!(client.head().await.starts_with("http/1.1 502"), "{request}");
            assert_eq!(gateway.pools.idle(), 0);
        }
    });
}

#[test]
fn a_get_on_a_new_connection_is_not_sent_again() {
    run(async {
        let app = App::bind().await;
        let gateway = Gateway::new(app.route());
        let mut client = gateway.client();
        client.send(GET).await;
        app.accept().await.head().await;
        assert!(client.head().await.starts_with("http/1.1 502"));
    });
}

#[test]
fn connection_close_is_heeded() {
    run(async {
        let app = App::bind().await;
        let gateway = Gateway::new(app.route());
        let mut client = gateway.client();
        for _ in 0..2 {
            client.send(GET).await;
            let mut wire = app.accept().await;
            wire.head().await;
            wire.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok").await;
            let head = client.head().await;
            assert!(!head.contains("connection"), "{head}");
            client.until("ok").await;
            assert_eq!(gateway.pools.idle(), 0);
        }
    });
}

#[test]
fn an_answer_is_the_same_however_it_is_cut() {
    run(async {
        let app = App::bind().await;
        let gateway = Gateway::new(app.route());
        let mut client = gateway.client();
        let mut wire = None;
        let head = "HEAD / HTTP/1.1\r\nHost: x\r\n\r\n";
        let post = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi";
        for (request, answer, end) in [
            (GET, OK, "\r\n\r\nok"),
            (
                GET,
                "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
                "\r\n\r\nok",
            ),
            (GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n!\r\n0\r\n\r\n", "!"),
            (GET, "HTTP/1.1 204 No Content\r\nX-End: y\r\n\r\n", "x-end: y"),
            (head, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", "content-length: 9"),
            (post, OK, "\r\n\r\nok"),
        ] {
            for cut in 0..=answer.len() {
                client.send(request).await;
                // One connection all along: small or not, of hyper's or bare.
                let mut app = match wire.take() {
                    Some(wire) => wire,
                    None => app.accept().await,
                };
                app.head().await;
                app.exactly(if request == post { 2 } else { 0 }).await;
                app.send(&answer[..cut]).await;
                for _ in 0..20 {
                    tokio::task::yield_now().await;
                }
                app.send(&answer[cut..]).await;
                let seen = client.until(end).await;
                assert!(seen.starts_with("HTTP/1.1 20"), "{seen} at {cut} of {answer}");
                while gateway.pools.idle() == 0 {
                    tokio::task::yield_now().await;
                }
                // The end of a chunked body may be unread still.
                client = gateway.client();
                assert_eq!(gateway.pools.idle(), 1, "at {cut} of {answer}");
                wire = Some(app);
            }
        }
    });
}
