//! The sample app shows what arrived, and waits where it is told to.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

use crate::client::{get, plain, request};
use crate::fake::Fake;
use crate::running::Running;

#[test]
fn headers_are_shown_in_their_order_and_case() {
    let app = Running::app(&[]);
    let odd = ["x-ODD: 1", "X-Odd: 2", "a_b: 3", "Accept: */*"];
    let json = plain(&app.listen(), &request("PUT", "/any/path?q=1", "x", &odd, "abc")).json();
    let expected = serde_json::json!([
        ["Host", "x"],
        ["x-ODD", "1"],
        ["X-Odd", "2"],
        ["a_b", "3"],
        ["Accept", "*/*"],
        ["Content-Length", "3"],
        ["Connection", "close"],
    ]);
    assert_eq!(json["headers"], expected);
    assert_eq!((&json["method"], &json["path"]), (&"PUT".into(), &"/any/path".into()));
    assert_eq!((&json["query"], &json["body_bytes"]), (&"q=1".into(), &3.into()));
    let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(json["body_sha256"], abc);
}

#[test]
fn a_kept_connection_shows_each_request_by_itself() {
    let app = Running::app(&[]);
    let mut stream = BufReader::new(TcpStream::connect(app.listen()).unwrap());
    for (body, mark) in [("GET /x HTTP/1.1\r\n\r\n", "first"), ("", "second")] {
        let length = body.len();
        write!(
            stream.get_mut(),
            "POST /x HTTP/1.1\r\nHost: x\r\nX-Mark: {mark}\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        let mut text = String::new();
        while !text.ends_with("}\n") {
            assert!(stream.read_line(&mut text).unwrap() > 0);
        }
        assert!(text.contains(mark), "{text}");
        assert!(text.contains("\"connection\": 1"), "{text}");
    }
}

#[test]
fn the_page_greets_by_name_and_escapes() {
    let app = Running::app(&[]);
    let who = ["Tailscale-User-Login: b@x", "Tailscale-User-Name: =?utf-8?q?B=C3=B8b_=3Cb=3E?="];
    let page = plain(&app.listen(), &get("/", "x", &who)).text();
    assert!(page.contains("<h1>Hello, Bøb &lt;b&gt;</h1>"), "{page}");
    assert!(plain(&app.listen(), &get("/", "x", &[])).text().contains("whoever you are"));
}

#[test]
fn streams_statuses_and_counts() {
    let app = Running::app(&[]);
    let ask = |path: &str| plain(&app.listen(), &get(path, "x", &[]));
    assert_eq!(ask("/big/100000").body.len(), 100_000);
    assert_eq!(ask("/status/418").status(), 418);
    assert_eq!(ask("/sse?n=2").text(), "id: 1\ndata: event 1\n\nid: 2\ndata: event 2\n\n");
    let echo = plain(&app.listen(), &request("POST", "/echo", "x", &["Content-Type: a/b"], "hi"));
    assert_eq!((echo.text().as_str(), echo.header("content-type")), ("hi", Some("a/b")));
    let cookies = ask("/set-cookie?a=1&b=2").head;
    assert_eq!(cookies.matches("set-cookie: ").count(), 2, "{cookies}");
    let count = ask("/count").json();
    assert_eq!((&count["requests"], &count["connections"]), (&6.into(), &6.into()));
}

#[test]
fn events_are_pushed_when_told() {
    let app = Running::app(&[]);
    // A directory of its own only for the loop that waits.
    let fake = Fake::with("user");
    let addr = app.listen();
    let stream = std::thread::spawn(move || plain(&addr, &get("/sse/room", "x", &[])).text());
    let ask = |path: &str| plain(&app.listen(), &get(path, "x", &[])).text();
    fake.until("somebody listens", || ask("/holding").contains("sse room"));
    assert_eq!(ask("/sse-push/room?data=hello%20there"), "1\n");
    ask("/sse-push/room?data=end");
    assert_eq!(stream.join().unwrap(), ": open\n\ndata: hello there\n\n");
}
