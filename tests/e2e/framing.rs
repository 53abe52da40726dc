//! What could be read in two ways is refused, and not one byte of it passes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::support::*;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
/// A request that must never be one.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a.example\r\nAuthorization: Bearer";

/// A gateway whose requests would all be allowed, and an app that counts.
fn gateway() -> (Gateway, Upstream) {
    let app = Upstream::answering(OK);
    let gateway = Setup::new().upstream(&app).token(TOKEN).start();
    (gateway, app)
}

/// A request of the token's holder; `{T}` in the lines is the token.
fn request(text: &str) -> Vec<u8> {
    text.replace("{T}", &format!("Authorization: Bearer {TOKEN}")).into_bytes()
}

/// Sends, and fails unless the answer is a refusal after which the connection
/// is closed. What follows the bytes must not be looked at.
#[track_caller]
fn refused(gateway: &Gateway, bytes: &[u8], status: u16) {
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(160)]).into_owned();
    let mut wire = gateway.local().open();
    wire.send(bytes);
    wire.send(format!("{SMUGGLED} {TOKEN}\r\n\r\n").as_bytes());
    let all = String::from_utf8_lossy(&wire.rest()).into_owned();
    let head = format!("HTTP/1.1 {status} ");
    let old_head = format!("HTTP/1.0 {status} ");
    assert!(all.starts_with(&head) || all.starts_with(&old_head), "{shown:?}: not {status}: {all:?}");
    let lower = all.to_ascii_lowercase();
    assert!(lower.contains("connection: close"), "{shown:?}: the connection is kept: {all:?}");
    assert_eq!(all.matches("HTTP/1.").count(), 1, "{shown:?}: answered more than once: {all:?}");
}

#[track_caller]
fn untouched(gateway: &Gateway, app: &Upstream) {
    let seen = app.requests().concat();
    assert!(seen.is_empty(), "the app saw {:?}", String::from_utf8_lossy(&seen));
    // And the gateway still serves.
    assert_eq!(gateway.local().bearer(TOKEN).get("/after").text(), "ok");
    assert_eq!(app.requests().len(), 1);
}

#[test]
fn threat_079_lengths_that_can_be_read_twice() {
    let (gateway, app) = gateway();
    for lines in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 4",
        "Content-Length: 0\r\nTransfer-Encoding: chunked",
        "Content-Length: 4\r\nContent-Length: 4",
        "Content-Length: 4\r\nContent-Length: 5",
        "Content-Length: 0\r\ncontent-length: 4",
        "Content-Length: +4",
        "Content-Length: -4",
        "Content-Length: -0",
        "Content-Length: 04",
        "Content-Length: 00",
        "Content-Length: 0x4",
        "Content-Length: 4, 4",
        "Content-Length: 4,5",
        "Content-Length: 4;",
        "Content-Length: 4 4",
        "Content-Length: 4.0",
        "Content-Length: 4e0",
        "Content-Length: \"4\"",
        "Content-Length: four",
        "Content-Length: ",
        "Content-Length:",
        "Content-Length: 4 ",
        "Content-Length: 4\t",
        "Content-Length:\t4",
        "Content-Length:  4",
        "Content-Length: \u{b}4",
        "Content-Length: \u{664}",
        "Content-Length: 18446744073709551616",
        "Content-Length: 18446744073709551620",
        "Content-Length: 99999999999999999999999999999999",
        "Content-Length : 4",
        "Content-Length\t: 4",
        " Content-Length: 4",
        "Content-Length: 4\r\n 5",
        "Content-Length:\r\n 4",
    ] {
        refused(
            &gateway,
            &request(&format!("POST / HTTP/1.1\r\nHost: a.example\r\n{{T}}\r\n{lines}\r\n\r\n")),
            400,
        );
    }
    untouched(&gateway, &app);
}

#[test]
fn threat_079_transfer_encodings_that_can_be_read_twice() {
    let (gateway, app) = gateway();
    for lines in [
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: identity, chunked",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: gzip",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: chunked,",
        "Transfer-Encoding: ,chunked",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunkedx",
        "Transfer-Encoding: chunk",
        "Transfer-Encoding: chunked;q=1",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding: 'chunked'",
        "Transfer-Encoding: chunked ",
        "Transfer-Encoding: chunked\t",
        "Transfer-Encoding:\tchunked",
        "Transfer-Encoding:  chunked",
        "Transfer-Encoding:\u{b}chunked",
        "Transfer-Encoding: \u{c}chunked",
        "Transfer-Encoding: chun\u{212a}ed",
        "Transfer-Encoding: ",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding\t: chunked",
        " Transfer-Encoding: chunked",
        "Transfer-Encoding:\r\n chunked",
        "X: y\r\n Transfer-Encoding: chunked",
        "X: y\rTransfer-Encoding: chunked",
        "X: y\nTransfer-Encoding: chunked",
    ] {
        let head = format!("POST / HTTP/1.1\r\nHost: a.example\r\n{{T}}\r\n{lines}\r\n\r\n0\r\n\r\n");
        refused(&gateway, &request(&head), 400);
    }
    // HTTP/1.0 knows no transfer encoding.
    for lines in ["Transfer-Encoding: chunked", "Connection: keep-alive\r\nTransfer-Encoding: chunked"] {
        let head = format!("POST / HTTP/1.0\r\nHost: a.example\r\n{{T}}\r\n{lines}\r\n\r\n0\r\n\r\n");
        refused(&gateway, &request(&head), 400);
    }
    untouched(&gateway, &app);
}

#[test]
fn threat_079_lines_and_names_that_can_be_read_twice() {
    let (gateway, app) = gateway();
    for head in [
        // Folded lines.
        "GET / HTTP/1.1\r\nHost: a.example\r\n{T}\r\nX: a\r\n b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.example\r\n{T}\r\nX: a\r\n\tb\r\n\r\n",
        "GET / HTTP/1.1\r\n Host: a.example\r\n{T}\r\n\r\n",
        // Bare line feeds and carriage returns.
        "GET / HTTP/1.1\nHost: a.example\n{T}\n\n",
        "GET / HTTP/1.1\nHost: a.example\r\n{T}\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.example\n{T}\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.example\r\n{T}\r\nX: y\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.example\r\n{T}\r\n\n",
        "GET / HTTP/1.1\r\nHost: a.example\r\n{T}\r\nX: y\n\n",
        "GET / HTTP/1.1\r\nHost: a.example\r\n{T}\r\nX: a\rb\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.example\r\n{T}\r\nX: a\r\r\n\r\n",
        "\nGET / HTTP/1.1\r\nHost: a.example\r\n{T}\r\n\r\n",
        "\r\n\r\nGET / HTTP/1.1\r\nHost: a.example\r\n{T}\r\n\r\n",
        // Bytes that are in no header.
        "GET / HTTP/1.1\r\nHost: a.example\r\n{T}\r\nX: a\0b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.example\r\n{T}\r\nX: a\x7fb\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.example\r\n{T}\r\nX: a\x1bb\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.example\r\n{T}\r\nX\0: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.example\r\n{T}\r\nX Y: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.example\r\n{T}\r\nX : a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.example\r\n{T}\r\nX(): a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.example\r\n{T}\r\n: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.example\r\n{T}\r\nnothing\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a.example\r\n{T}\r\nÜ: a\r\n\r\n",
        // Request lines.
        "GET / HTTP/1.1 \r\nHost: a.example\r\n{T}\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: a.example\r\n{T}\r\n\r\n",
        "GET /  HTTP/1.1\r\nHost: a.example\r\n{T}\r\n\r\n",
        "GET\t/ HTTP/1.1\r\nHost: a.example\r\n{T}\r\n\r\n",
        " GET / HTTP/1.1\r\nHost: a.example\r\n{T}\r\n\r\n",
        "GET / a HTTP/1.1\r\nHost: a.example\r\n{T}\r\n\r\n",
        "GET /\0 HTTP/1.1\r\nHost: a.example\r\n{T}\r\n\r\n",
        "GET /ü HTTP/1.1\r\nHost: a.example\r\n{T}\r\n\r\n",
        "G(T / HTTP/1.1\r\nHost: a.example\r\n{T}\r\n\r\n",
        "GET / HTTP/1.2\r\nHost: a.example\r\n{T}\r\n\r\n",
        "GET / HTTP/2.0\r\nHost: a.example\r\n{T}\r\n\r\n",
        "GET / HTTP/0.9\r\nHost: a.example\r\n{T}\r\n\r\n",
        "GET / http/1.1\r\nHost: a.example\r\n{T}\r\n\r\n",
        "GET / HTTP/1.10\r\nHost: a.example\r\n{T}\r\n\r\n",
        "GET / HTTP/01.1\r\nHost: a.example\r\n{T}\r\n\r\n",
        "GET / HTTP/1.1/\r\nHost: a.example\r\n{T}\r\n\r\n",
        "GET /\r\nHost: a.example\r\n{T}\r\n\r\n",
        "GET\r\nHost: a.example\r\n{T}\r\n\r\n",
        "PRI * HTTP/2.0\r\nHost: a.example\r\n{T}\r\n\r\n",
        // The guard's own word for what it refused.
        "OPENCLAW-FRAMING-FAULT /414 HTTP/1.1\r\nHost: a.example\r\n{T}\r\n\r\n",
    ] {
        refused(&gateway, &request(head), 400);
    }
    untouched(&gateway, &app);
}

#[test]
fn threat_032_and_038_targets_and_hosts_that_can_be_read_twice() {
    let (gateway, app) = gateway();
    for target in [
        "/#/public",
        "/a#b",
        "#",
        "?x",
        "a",
        "*",
        "//x y",
        "http:///x",
        "http://",
        "http://b.example/",
        "http://a.example:81/",
        "https://a.example:80/",
        "http://a.example@b.example/",
        "http://b.example@a.example/",
        "http://a.example#b/",
        "ftp://a.example/",
        "file:///etc/passwd",
        "a.example:80",
        "/<x>",
        "/a\\b c",
    ] {
        let head = format!("GET {target} HTTP/1.1\r\nHost: a.example\r\n{{T}}\r\n\r\n");
        refused(&gateway, &request(&head), 400);
    }
    for hosts in [
        "X: no-host",
        "Host: a.example\r\nHost: a.example",
        "Host: a.example\r\nhost: b.example",
        "Host:",
        "Host: ",
        "Host: a.example, b.example",
        "Host: a.example b.example",
        "Host: a.example/x",
        "Host: a.example?x",
        "Host: a.example#x",
        "Host: user@a.example",
        "Host: a.example:",
        "Host: a.example:0",
        "Host: a.example:080",
        "Host: a.example:65536",
        "Host: a.example:80:80",
        "Host: a..example",
        "Host: .a.example",
        "Host: [::1",
        "Host: [::1%25eth0]",
        "Host: ::1",
        "Host: a%2eexample",
        "Host: http://a.example",
        "Host: a.exämple",
        "Host: a\\example",
    ] {
        refused(&gateway, &request(&format!("GET / HTTP/1.1\r\n{hosts}\r\n{{T}}\r\n\r\n")), 400);
    }
    untouched(&gateway, &app);
    // One place in two spellings is one place.
    for target in ["http://a.example/x", "HTTP://A.EXAMPLE:80/x", "http://a.example./x"] {
        let bytes = request(&format!("GET {target} HTTP/1.1\r\nHost: a.example\r\n{{T}}\r\n\r\n"));
        let mut wire = gateway.local().open();
        wire.send(&bytes);
        assert_eq!(wire.answer_to("GET").text(), "ok", "{target}");
        let last = app.requests().pop().unwrap();
        assert!(last.starts_with(b"GET /x HTTP/1.1\r\n"), "{target}: {}", String::from_utf8_lossy(&last));
    }
}

#[test]
fn threat_039_trace_is_405() {
    let (gateway, app) = gateway();
    refused(
        &gateway,
        &request("TRACE / HTTP/1.1\r\nHost: a.example\r\n{T}\r\nConnection: close\r\n\r\n"),
        405,
    );
    untouched(&gateway, &app);
}

#[test]
fn threat_039_connect_is_405() {
    let (gateway, app) = gateway();
    for target in ["a.example:80", "/", "http://a.example:80/"] {
        let head = format!("CONNECT {target} HTTP/1.1\r\nHost: a.example:80\r\n{{T}}\r\n\r\n");
        refused(&gateway, &request(&head), 405);
    }
    untouched(&gateway, &app);
}

/// An app that counts whole requests, and heads of those that broke off.
fn counting() -> (Upstream, Arc<AtomicUsize>) {
    let whole = Arc::new(AtomicUsize::new(0));
    let ours = Arc::clone(&whole);
    let app = Upstream::scripted(move |mut conn| {
        while conn.request().is_some() {
            ours.fetch_add(1, Ordering::SeqCst);
            conn.send(OK);
        }
    });
    (app, whole)
}

#[test]
fn threat_079_chunks_that_can_be_read_twice_end_their_request_and_the_connection() {
    let (app, whole) = counting();
    let gateway = Setup::new().upstream(&app).token(TOKEN).start();
    let extension = format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(1 << 20));
    let trailers = format!("0\r\n{}\r\n", "X-T: 1\r\n".repeat(20_000));
    let bodies = [
        "ffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        "10000000000000005\r\nhello\r\n0\r\n\r\n",
        "fffffffffffffffff5\r\nhello\r\n0\r\n\r\n",
        "0000000000000000005\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        "5\t\r\nhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhelloXX0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhello\r\n\r\n0\r\n\r\n",
        "5\rhello\r\n0\r\n\r\n",
        "five!\r\nhello\r\n0\r\n\r\n",
        "\r\nhello\r\n0\r\n\r\n",
        ";x\r\nhello\r\n0\r\n\r\n",
        "5;a\nb\r\nhello\r\n0\r\n\r\n",
        "5;a\0b\r\nhello\r\n0\r\n\r\n",
        "5;a\rb\r\nhello\r\n0\r\n\r\n",
        "0\r\nX : 1\r\n\r\n",
        "0\r\n X: 1\r\n\r\n",
        "0\r\nX: a\0\r\n\r\n",
        "0\r\nX: 1\n\r\n",
        "0\r\nnothing\r\n\r\n",
        "0\r\n\n",
        "0\n\r\n",
        &extension,
        &trailers,
    ];
    for body in bodies {
        let shown = &body[..body.len().min(40)];
        let head = "POST / HTTP/1.1\r\nHost: a.example\r\n{T}\r\nTransfer-Encoding: chunked\r\n\r\n";
        let mut wire = gateway.local().open();
        wire.send(&[&request(head), body.as_bytes()].concat());
        wire.send(format!("{SMUGGLED} {TOKEN}\r\n\r\n").as_bytes());
        let all = String::from_utf8_lossy(&wire.rest()).into_owned();
        // The head was good: if anything is answered, it is that it broke off.
        assert!(all.is_empty() || all.starts_with("HTTP/1.1 400 "), "{shown:?}: {all:?}");
        assert!(all.matches("HTTP/1.").count() <= 1, "{shown:?}: {all:?}");
    }
    let seen = app.requests();
    assert!(seen.len() <= bodies.len(), "more requests than were sent");
    for request in &seen {
        assert!(request.starts_with(b"POST / "), "{}", String::from_utf8_lossy(request));
    }
    assert_eq!(whole.load(Ordering::SeqCst), 0, "a broken body was passed on as a whole one");
    assert_eq!(gateway.local().bearer(TOKEN).get("/").text(), "ok");
}

#[test]
fn threat_079_a_body_is_framed_anew_for_the_app() {
    let (app, whole) = counting();
    let gateway = Setup::new().upstream(&app).token(TOKEN).start();
    let head = "POST / HTTP/1.1\r\nHost: a.example\r\n{T}\r\nTransfer-Encoding: Chunked\r\n\r\n";
    let body = "5;ext=\"value\"\r\nhello\r\n00A\r\n0123456789\r\n000;x\r\nX-T: 1\r\n\r\n";
    let mut wire = gateway.local().open();
    wire.send(&[&request(head), body.as_bytes()].concat());
    assert_eq!(wire.answer_to("POST").text(), "ok");
    let request = app.requests().remove(0);
    let text = String::from_utf8(request).unwrap();
    assert_eq!(text.to_ascii_lowercase().matches("transfer-encoding: chunked").count(), 1, "{text}");
    assert!(!text.contains("ext=") && !text.contains("X-T"), "{text}");
    assert_eq!(whole.load(Ordering::SeqCst), 1);
}

#[test]
fn threat_079_requests_that_follow_one_another_are_answered_in_order() {
    let app = Upstream::echo();
    let gateway = Setup::new().upstream(&app).token(TOKEN).start();
    let mut wire = gateway.local().open();
    let three = [
        request("GET /one HTTP/1.1\r\nHost: a.example\r\n{T}\r\n\r\n"),
        request("POST /two HTTP/1.1\r\nHost: a.example\r\n{T}\r\nContent-Length: 5\r\n\r\nhello"),
        request(
            "POST /three HTTP/1.1\r\nHost: a.example\r\n{T}\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        ),
        request("\r\nGET /four HTTP/1.1\r\nHost: a.example\r\n{T}\r\n\r\n"),
    ]
    .concat();
    wire.send(&three);
    for target in ["/one", "/two", "/three", "/four"] {
        assert_eq!(wire.answer_to("GET").seen().target(), target);
    }
    // Byte for byte, too.
    for byte in &three {
        wire.send(&[*byte]);
    }
    for target in ["/one", "/two", "/three", "/four"] {
        assert_eq!(wire.answer_to("GET").seen().target(), target);
    }
    // A fault ends the connection after the answers to what came before it.
    wire.send(&[&three[..], b"GET / HTTP/1.1\nHost: a\n\n", &three[..]].concat());
    for target in ["/one", "/two", "/three", "/four"] {
        assert_eq!(wire.answer_to("GET").seen().target(), target);
    }
    let last = wire.answer_to("GET");
    last.assert_refused(400, "bad_request");
    assert!(wire.is_closed());
    assert_eq!(app.requests().len(), 12);
}

#[test]
fn threat_081_no_request_starts_inside_the_body_of_a_refused_one() {
    let (gateway, app) = gateway();
    let inside = format!("{SMUGGLED} {TOKEN}\r\n\r\n");
    let length = inside.len();
    for (head, status) in [
        // Without a secret, and with a wrong one.
        (format!("POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: {length}\r\n\r\n"), 401),
        (format!("POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: {}\r\n\r\n", length + 1000), 401),
        (
            format!(
                "PUT / HTTP/1.1\r\nHost: a.example\r\nAuthorization: Bearer wrong\r\nContent-Length: {length}\r\n\r\n"
            ),
            401,
        ),
        // A path that is none, a method that is none.
        (format!("POST /%00 HTTP/1.1\r\nHost: a.example\r\nContent-Length: {length}\r\n\r\n"), 400),
        (format!("TRACE / HTTP/1.1\r\nHost: a.example\r\nContent-Length: {length}\r\n\r\n"), 405),
        // What we answer ourselves.
        (format!("POST /healthz HTTP/1.1\r\nHost: a.example\r\nContent-Length: {length}\r\n\r\n"), 405),
        (
            format!(
                "POST /_openclaw/nothing HTTP/1.1\r\nHost: a.example\r\nContent-Length: {length}\r\n\r\n"
            ),
            404,
        ),
        ("POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(), 401),
    ] {
        let mut wire = gateway.local().open();
        wire.send(head.as_bytes());
        let answer = wire.answer_to("POST");
        assert_eq!(answer.status, status, "{head}");
        assert_eq!(answer.header("connection"), Some("close"), "{head}");
        wire.send(inside.as_bytes());
        wire.send(inside.as_bytes());
        assert!(wire.is_closed(), "{head}");
        // And all in one write.
        let mut wire = gateway.local().open();
        wire.send(&[head.as_bytes(), inside.as_bytes(), inside.as_bytes()].concat());
        assert_eq!(wire.answer_to("POST").status, status, "{head}");
        assert!(wire.is_closed(), "{head}");
    }
    untouched(&gateway, &app);
}

#[test]
fn threat_081_an_answer_of_ours_before_the_body_never_makes_a_request_of_it() {
    let (gateway, app) = gateway();
    let inside = format!("{SMUGGLED} {TOKEN}\r\n\r\n");
    let length = inside.len();
    for head in [
        format!("GET /healthz HTTP/1.1\r\nHost: a.example\r\nContent-Length: {length}\r\n\r\n"),
        request(&format!(
            "GET /_openclaw/whoami HTTP/1.1\r\nHost: a.example\r\n{{T}}\r\nContent-Length: {length}\r\n\r\n"
        ))
        .iter()
        .map(|byte| *byte as char)
        .collect(),
    ] {
        let mut wire = gateway.local().open();
        wire.send(head.as_bytes());
        assert_eq!(wire.answer_to("GET").status, 200, "{head}");
        wire.send(inside.as_bytes());
        wire.send(b"GET /healthz HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n");
        let rest = String::from_utf8_lossy(&wire.rest()).into_owned();
        // Closed, or the body was read past and the probe behind it answered.
        assert!(
            rest.is_empty() || (rest.starts_with("HTTP/1.1 200 ") && rest.contains("\"live\"")),
            "{rest}"
        );
        assert!(rest.matches("HTTP/1.").count() <= 1, "{rest}");
    }
    untouched(&gateway, &app);
}

#[test]
fn threat_081_an_app_that_answers_before_the_body_never_makes_a_request_of_it() {
    let app = Upstream::scripted(|mut conn| {
        if conn.request_head().is_some() {
            conn.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig");
            conn.rest();
        }
    });
    let gateway = Setup::new().upstream(&app).token(TOKEN).start();
    let inside = format!("{SMUGGLED} {TOKEN}\r\n\r\n");
    let mut wire = gateway.local().open();
    let head =
        format!("POST / HTTP/1.1\r\nHost: a.example\r\n{{T}}\r\nContent-Length: {}\r\n\r\n", inside.len());
    wire.send(&request(&head));
    assert_eq!(wire.answer_to("POST").text(), "big");
    wire.send(inside.as_bytes());
    wire.send(b"GET /healthz HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n");
    let rest = String::from_utf8_lossy(&wire.rest()).into_owned();
    assert!(rest.is_empty() || rest.starts_with("HTTP/1.1 200 "), "{rest}");
    assert!(rest.matches("HTTP/1.").count() <= 1, "{rest}");
    assert_eq!(app.requests().len(), 1);
    let seen = app.requests().concat();
    assert!(seen.starts_with(b"POST / "), "{}", String::from_utf8_lossy(&seen));
}
