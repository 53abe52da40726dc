//! What is taken without hyper, what is left to it, and how answers are put together.

use std::io::Write as _;

use http::{HeaderName, HeaderValue, Response, StatusCode};

use super::answer::write;
use super::request::{Found, Taken, take};
use crate::body::{Body, Lines};
use crate::ingress::Limits;
use crate::ingress::tests::support::{read_all, read_until, serve, statuses};

fn taken(bytes: &str) -> Taken {
    match take(bytes.as_bytes()) {
        Found::Request(taken) => taken,
        Found::Beginning => panic!("a beginning: {bytes:?}"),
        Found::Other => panic!("left to hyper: {bytes:?}"),
    }
}

#[test]
fn threat_079_what_is_not_plain_is_left_to_hyper() {
    for bytes in [
        // Not a request in one plain form.
        "",
        "GET",
        "\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\n",
        "GET / HTTP/1.0\r\nHost: x\r\n\r\n",
        "GET / HTTP/1.12\r\nHost: x\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET http://x/ HTTP/1.1\r\nHost: x\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
        "CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n",
        // What stands in for a refused head.
        "OPENCLAW-FRAMING-FAULT /400 HTTP/1.1\r\nHost: invalid\r\nConnection: close, x\r\n\r\n",
        // Lines that are none.
        "GET / HTTP/1.1\r\nHost: x\nX: y\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\rX: y\r\n\r\n",
        "GET / HTTP/1.1\r\nHost\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : x\r\n\r\n",
        "GET / HTTP/1.1\r\nX: a\x07\r\n\r\n",
        // Bodies.
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nok",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2, 2\r\n\r\nok",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 02\r\n\r\nok",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +2\r\n\r\nok",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: \r\n\r\nok",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 18446744073709551617\r\n\r\nok",
        // More than an exchange.
        "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nConnection: close, x-a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nConnection: close\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nok",
    ] {
        assert!(matches!(take(bytes.as_bytes()), Found::Other), "{bytes:?}");
    }
    let half = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nok";
    assert!(matches!(take(half.as_bytes()), Found::Beginning));
}

#[test]
fn a_request_is_taken_with_its_body_and_nothing_behind_it() {
    let first =
        "POST /a?b=%20 HTTP/1.1\r\nHost: x\r\nX-B:1\r\nx-b: \t2 \r\nX-C:\r\nContent-Length: 2\r\n\r\nok";
    let Taken { request, raw, close, head_only } = taken(&format!("{first}GET /next HTTP/1.1\r\n\r\n"));
    assert_eq!(raw, first.as_bytes());
    assert!(!close && !head_only);
    assert_eq!((request.method().as_str(), request.uri().to_string().as_str()), ("POST", "/a?b=%20"));
    let values: Vec<_> = request.headers().get_all("x-b").iter().collect();
    assert_eq!(values, ["1", "2"]);
    assert_eq!(request.headers()["x-c"], "");
    let crate::body::Upload::Whole(body) = request.into_body() else { panic!("a body that streams") };
    assert_eq!(body, "ok");

    assert!(taken("HEAD / HTTP/1.1\r\nHost: x\r\n\r\n").head_only);
    assert!(taken("GET / HTTP/1.1\r\nHost: x\r\nConnection: Close\r\n\r\n").close);
    assert!(!taken("GET / HTTP/1.1\r\nHost: x\r\nConnection: Keep-Alive\r\n\r\n").close);
    assert!(taken("DELETE / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").raw.ends_with(b"\r\n\r\n"));
}

fn response(status: u16, lines: &[(&'static str, &'static str)], body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    for (name, value) in lines {
        response.headers_mut().append(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    response
}

/// The bytes of an answer without its `Date`, and whether it ends the connection.
fn written(mut response: Response<Body>, head_only: bool, close: bool) -> Option<(String, bool)> {
    let mut out = b"of another".to_vec();
    let close = write(&mut out, &mut response, head_only, close)?;
    let text = String::from_utf8(out).unwrap();
    let at = text.find("date: ").expect("an answer has a date");
    let end = at + text[at..].find("\r\n").unwrap() + 2;
    Some((format!("{}{}", &text[..at], &text[end..]), close))
}

#[test]
fn an_answer_that_needs_a_second_thought_is_left_to_hyper_untouched() {
    let ok = || Body::full("ok");
    let mut extended = response(200, &[], ok());
    extended.extensions_mut().insert(());
    for mut response in [
        response(200, &[], Body::full(vec![0; super::MOST + 1])),
        response(200, &[("transfer-encoding", "chunked")], ok()),
        response(200, &[("connection", "upgrade")], ok()),
        response(200, &[("connection", "close, x")], ok()),
        response(200, &[("content-length", "3")], ok()),
        response(200, &[("content-length", "2"), ("content-length", "2")], ok()),
        response(200, &[("content-length", "x")], ok()),
        response(204, &[], ok()),
        response(304, &[], ok()),
        response(204, &[("content-length", "0")], Body::empty()),
        response(101, &[], Body::empty()),
        extended,
    ] {
        assert_eq!(write(&mut Vec::new(), &mut response, false, false), None, "{:?}", response.headers());
        assert!(response.body_mut().take_whole().is_some());
    }
}

#[test]
fn an_answer_is_framed_by_what_it_is() {
    let ok = || Body::full("ok");
    let written = |response, head_only, close| written(response, head_only, close).unwrap();
    let plain = "HTTP/1.1 200 OK\r\nx-a: 1\r\nx-a: 2\r\ncontent-length: 2\r\n";
    let lines = [("x-a", "1"), ("x-a", "2")];
    assert_eq!(written(response(200, &lines, ok()), false, false), (format!("{plain}\r\nok"), false));
    assert_eq!(written(response(200, &lines, ok()), true, false), (format!("{plain}\r\n"), false));
    let closed = (format!("{plain}connection: close\r\n\r\nok"), true);
    assert_eq!(written(response(200, &lines, ok()), false, true), closed);
    let lines = [("x-a", "1"), ("connection", "close"), ("x-a", "2")];
    assert_eq!(written(response(200, &lines, ok()), false, false), closed);

    let empty = |status, head_only| written(response(status, &[], Body::empty()), head_only, false).0;
    assert_eq!(empty(200, false), "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    assert_eq!(empty(200, true), "HTTP/1.1 200 OK\r\n\r\n");
    assert_eq!(empty(204, false), "HTTP/1.1 204 No Content\r\n\r\n");
    assert_eq!(empty(304, false), "HTTP/1.1 304 Not Modified\r\n\r\n");
    assert_eq!(empty(599, false), "HTTP/1.1 599 \r\ncontent-length: 0\r\n\r\n");
    let of_get = [("content-length", "7")];
    let unmodified = written(response(304, &of_get, Body::empty()), false, false).0;
    assert_eq!(unmodified, "HTTP/1.1 304 Not Modified\r\ncontent-length: 7\r\n\r\n");
    let mut whole = response(200, &[], ok());
    assert_eq!(write(&mut Vec::new(), &mut whole, true, false), Some(false));
    assert_eq!(whole.body_mut().take_whole().unwrap(), "ok", "what is not sent is not taken");
    let head = written(response(200, &of_get, Body::empty()), true, false).0;
    assert_eq!(head, "HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n");
}

#[test]
fn lines_go_out_as_they_are_with_what_was_added() {
    let lines = |dated| {
        let date = if dated { "Date: then\r\n" } else { "" };
        let head = format!("Content-Length: 2\r\n{date}");
        let lines = Lines { head: head.len(), bytes: format!("{head}ok").into_bytes(), dated };
        response(200, &[("x-request-id", "r1"), ("connection", "close")], Body::Lines(Some(lines)))
    };
    let (text, close) = written(lines(false), false, false).unwrap();
    assert!(close);
    let expected = "HTTP/1.1 200 OK\r\nx-request-id: r1\r\nContent-Length: 2\r\nconnection: close\r\n\r\nok";
    assert_eq!(text, expected);
    let mut out = Vec::new();
    write(&mut out, &mut lines(true), false, false).unwrap();
    assert!(!String::from_utf8(out).unwrap().contains("\r\ndate: "), "it has one");
}

#[test]
fn a_connection_goes_over_to_hyper_and_on() {
    let server = serve(Limits::default());
    let chunked = "POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n";
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    let last = "GET /e HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let mut stream = server.connect();
    // One at a time, then all at once.
    for (request, answered) in
        [(get("/a"), "GET /a "), (chunked.into(), "POST /c hi"), (get("/d"), "GET /d ")]
    {
        stream.write_all(request.as_bytes()).unwrap();
        read_until(&mut stream, answered);
    }
    let all = format!("{}{chunked}{}{last}", get("/a"), get("/d"));
    assert_eq!(statuses(&server.exchange(all.as_bytes())), [200; 4]);
    assert_eq!(server.requests()[3..], ["GET /a ", "POST /c hi", "GET /d ", "GET /e "]);
}

#[test]
fn a_large_answer_goes_out_through_hyper_once() {
    let server = serve(Limits::default());
    let answers = server.exchange(
        b"GET /large HTTP/1.1\r\nHost: x\r\n\r\nGET /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    );
    assert_eq!(statuses(&answers), [200, 200]);
    assert!(answers.len() > 64 * 1024 * 1024);
    assert_eq!(server.requests(), ["GET /a "]);
}

#[test]
fn what_comes_while_an_answer_is_awaited_is_answered_in_its_turn() {
    let server = serve(Limits::default());
    let mut stream = server.connect();
    stream.write_all(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    server.wait_until_waiting();
    stream.write_all(b"GET /b HTTP/1.1\r\nHost: x\r\nConnection: ").unwrap();
    stream.write_all(b"close\r\n\r\n").unwrap();
    server.seen.go.notify_one();
    let answers = read_all(&mut stream);
    assert_eq!(statuses(&answers), [200, 200]);
    assert_eq!(server.requests(), ["GET /wait ", "GET /b "]);
}

#[test]
fn threat_073_whoever_goes_away_is_not_answered_any_more() {
    let server = serve(Limits::default());
    for more in ["", "\r\n", "GET", "GET /b HTTP/1.1\r\nHost: "] {
        let mut stream = server.connect();
        stream.write_all(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        server.wait_until_waiting();
        stream.write_all(more.as_bytes()).unwrap();
        drop(stream);
        server.wait_until_dropped();
    }
    assert!(server.requests().is_empty());
}

#[test]
fn a_request_under_way_ends_with_its_right_and_a_finished_one_with_its_answer() {
    let server = serve(Limits::default());
    for abort in [true, false] {
        let mut stream = server.connect();
        stream.write_all(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        server.wait_until_waiting();
        let control = server.seen.conns.lock().unwrap().last().unwrap().1.clone();
        if abort {
            control.abort();
            assert_eq!(read_all(&mut stream), "");
        } else {
            control.finish();
            server.seen.go.notify_one();
            let answer = read_all(&mut stream);
            assert_eq!(statuses(&answer), [200]);
            assert!(answer.contains("connection: close"));
        }
    }
}

#[test]
fn a_body_is_whole_however_large_its_first_piece() {
    let server = serve(Limits::default());
    for size in [0, 1, 4000, 4096, 8192, super::MOST - 200, super::MOST, 3 * super::MOST] {
        let body = "x".repeat(size);
        let answers = server.exchange(
            format!(
                "PUT /p HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {size}\r\n\r\n{body}"
            )
            .as_bytes(),
        );
        assert_eq!(statuses(&answers), [200], "{size}");
        assert_eq!(server.requests().pop().unwrap(), format!("PUT /p {body}"), "{size}");
    }
}
