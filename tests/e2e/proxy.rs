//! What happens to a permitted request and its answer on the way.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use socket2::{Domain, Socket, Type};

use super::support::*;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A gateway on loopback, and a client that may use it.
fn behind(upstream: &str) -> (Gateway, Client) {
    with_config(upstream, "{}")
}

fn with_config(upstream: &str, config: &str) -> (Gateway, Client) {
    let gateway = Setup::new().flag("--upstream", upstream).token(TOKEN).config(config).start();
    let client = gateway.local().bearer(TOKEN);
    (gateway, client)
}

fn kept(client: &Client) -> Client {
    client.with("Connection", "keep-alive")
}

#[test]
fn methods_and_targets_pass_as_they_are() {
    let app = Upstream::echo();
    let (_gateway, client) = behind(&app.flag());
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "get"] {
        let answer = client.with("X-HTTP-Method-Override", "DELETE").request(method, "/a/b?c=%2Fd&e=", b"");
        let seen = answer.seen();
        assert_eq!(seen.0["method"], method);
        assert_eq!(seen.target(), "/a/b?c=%2Fd&e=");
        assert_eq!(seen.0["version"], "HTTP/1.1");
    }
    let mut old = client.open();
    old.send(
        format!("GET /old HTTP/1.0\r\nHost: x.example\r\nAuthorization: Bearer {TOKEN}\r\n\r\n").as_bytes(),
    );
    let answer = String::from_utf8(old.rest()).unwrap();
    assert!(answer.starts_with("HTTP/1.0 200 ") && answer.contains(r#""version":"HTTP/1.1""#), "{answer}");
}

/// Sends while it reads: an echo of 20 MiB fits into no buffer.
fn echoed(client: &Client, head: Client, body: &[u8], chunk: Option<usize>) -> Vec<u8> {
    let mut wire = client.open();
    let mut sender = wire.stream.try_clone().unwrap();
    let mut bytes = head.bytes("POST", "/echo", b"");
    match chunk {
        None => bytes.extend_from_slice(body),
        Some(size) => {
            for part in body.chunks(size) {
                bytes.extend(format!("{:x}\r\n", part.len()).as_bytes());
                bytes.extend_from_slice(part);
                bytes.extend_from_slice(b"\r\n");
            }
            bytes.extend_from_slice(b"0\r\n\r\n");
        }
    }
    std::thread::scope(|scope| {
        scope.spawn(move || sender.write_all(&bytes).unwrap());
        let answer = wire.answer_to("POST");
        assert_eq!(answer.status, 200);
        answer.body
    })
}

#[test]
fn a_body_of_20_mib_comes_back_identical_with_a_length_and_in_chunks() {
    let app = SampleApp::start();
    let (_gateway, client) = behind(app.flag());
    let body: Vec<u8> = (0..20_u32 << 20).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let with_length = client.with("Content-Length", &body.len().to_string());
    assert!(echoed(&client, with_length, &body, None) == body, "the echo of a length differs");
    let chunked = client.with("Transfer-Encoding", "chunked");
    assert!(echoed(&client, chunked, &body, Some(70_001)) == body, "the echo of chunks differs");
}

#[test]
fn a_chunked_upload_of_many_small_pieces_arrives_whole() {
    let app = SampleApp::start();
    let (_gateway, client) = behind(app.flag());
    let body: Vec<u8> = (0..=255).cycle().take(10_000).collect();
    let chunked = client.with("Transfer-Encoding", "chunked");
    assert_eq!(echoed(&client, chunked, &body, Some(3)), body);
}

#[test]
fn an_upload_streams_while_the_client_still_sends() {
    let heard = Arc::new(AtomicUsize::new(0));
    let ours = Arc::clone(&heard);
    let app = Upstream::scripted(move |mut conn| {
        while conn.request_head().is_some() {
            for _ in 0..2 {
                if conn.through(b"piece\r\n").is_none() {
                    return;
                }
                ours.fetch_add(1, Ordering::SeqCst);
            }
            conn.through(b"0\r\n\r\n");
            conn.send(OK);
        }
    });
    let (_gateway, client) = behind(&app.flag());
    let mut wire = client.open();
    wire.send(&client.with("Transfer-Encoding", "chunked").bytes("POST", "/", b""));
    for pieces in 1..=2 {
        wire.send(b"5\r\npiece\r\n");
        until("the app has the piece", || heard.load(Ordering::SeqCst) == pieces);
    }
    wire.send(b"0\r\n\r\n");
    assert_eq!(wire.answer_to("POST").text(), "ok");
}

#[test]
fn answers_without_a_body_keep_their_head_and_the_connection() {
    let app = Upstream::scripted(|mut conn| {
        while let Some(request) = conn.request() {
            let answer: &[u8] = match request.split(|byte| *byte == b' ').nth(1) {
                Some(b"/204") => b"HTTP/1.1 204 No Content\r\nX-A: 1\r\n\r\n",
                Some(b"/304") => b"HTTP/1.1 304 Not Modified\r\nContent-Length: 77\r\nETag: \"e\"\r\n\r\n",
                Some(b"/head") => b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\nX-A: 1\r\n\r\n",
                Some(b"/head-chunked") => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                _ => OK,
            };
            conn.send(answer);
        }
    });
    let (_gateway, client) = behind(&app.flag());
    let client = kept(&client);
    let mut wire = client.open();
    let mut ask = |method: &str, target: &str| {
        wire.send(&client.bytes(method, target, b""));
        wire.answer_to(method)
    };
    let head = ask("HEAD", "/head");
    assert_eq!((head.status, head.header("content-length")), (200, Some("1234")));
    assert_eq!(ask("HEAD", "/head-chunked").status, 200);
    let none = ask("GET", "/204");
    assert_eq!((none.status, none.header("content-length"), none.header("x-a")), (204, None, Some("1")));
    let same = ask("GET", "/304");
    assert_eq!((same.status, same.header("etag")), (304, Some("\"e\"")));
    // Each of these would have been taken for the body of the one before.
    assert_eq!(ask("GET", "/").text(), "ok");
    assert_eq!(app.connections(), 1, "the app's connection was not kept");
}

#[test]
fn threat_066_redirects_and_links_are_passed_on_and_never_followed() {
    let other = Upstream::answering(OK);
    let place = format!("http://{}/secret", other.flag());
    let app = Upstream::answering(format!(
        "HTTP/1.1 302 Found\r\nLocation: {place}\r\nLink: <{place}>; rel=preload\r\nRefresh: 0; url={place}\r\n\
         Content-Length: 0\r\n\r\n"
    ));
    let (_gateway, client) = behind(&app.flag());
    for code in ["GET", "POST"] {
        let answer = client.request(code, "/?url=http://other.example/", b"");
        assert_eq!((answer.status, answer.header("location")), (302, Some(place.as_str())));
    }
    assert_eq!(other.connections(), 0, "the gateway followed a redirect");
}

#[test]
fn threat_066_where_to_is_never_taken_from_the_request() {
    let (other, app) = (Upstream::answering(OK), Upstream::echo());
    let (gateway, client) = behind(&app.flag());
    let elsewhere = other.flag();
    client
        .raw(format!(
            "GET http://{elsewhere}/ HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {TOKEN}\r\n\r\n",
            gateway.loopback()
        ))
        .assert_refused(400, "bad_request");
    let absolute = client.host(&elsewhere).request("GET", &format!("http://{elsewhere}/x"), b"");
    assert_eq!(absolute.seen().target(), "/x");
    for (name, value) in [
        ("X-Forwarded-Host", elsewhere.clone()),
        ("X-Original-URL", format!("http://{elsewhere}/")),
        ("Forwarded", format!("host={elsewhere}")),
        ("X-Upstream", format!("http://{elsewhere}")),
    ] {
        let answer = client.with(name, &value).get(&format!("/?upstream=http://{elsewhere}"));
        assert_eq!(answer.status, 200, "{name}");
    }
    assert_eq!(other.connections(), 0);
}

#[test]
fn threat_056_the_app_gets_none_of_our_credentials() {
    let app = Upstream::echo();
    let (gateway, client) = behind(&app.flag());
    let cookie = "a=1; openclaw_session=stolen; __Host-openclaw_session=stolen; b=2";
    let seen = client.with("Cookie", cookie).with("X-OpenClaw-Gateway-Token", TOKEN).get("/").seen();
    assert_eq!(seen.all("authorization"), Vec::<String>::new());
    assert_eq!(seen.all("x-openclaw-gateway-token"), Vec::<String>::new());
    assert_eq!(seen.all("cookie"), ["a=1; b=2"]);
    let token = gateway.local().with("X-OpenClaw-Gateway-Token", TOKEN);
    let apps_own = token.with("Authorization", "Bearer the-app's-own").get("/").seen();
    assert_eq!(apps_own.all("authorization"), ["Bearer the-app's-own"], "the app's own bearer passes");
    let all: Vec<u8> = app.requests().concat();
    let text = String::from_utf8_lossy(&all);
    assert!(!text.contains(TOKEN) && !text.contains("stolen"), "{text}");
}

#[test]
fn threat_056_an_app_can_neither_set_nor_clear_our_cookie() {
    let app = Upstream::answering(
        "HTTP/1.1 200 OK\r\nSet-Cookie: openclaw_session=evil; Path=/\r\nSet-Cookie: theirs=1; HttpOnly\r\n\
         Set-Cookie: __Host-openclaw_session=evil; Secure; Path=/\r\nSet-Cookie: =openclaw_session=evil\r\n\
         Set-Cookie: more=2\r\nClear-Site-Data: \"cookies\"\r\nContent-Length: 0\r\n\r\n",
    );
    let (_gateway, client) = behind(&app.flag());
    let answer = client.get("/");
    let set: Vec<_> = answer.headers.iter().filter(|(name, _)| name == "set-cookie").collect();
    let set: Vec<_> = set.iter().map(|(_, value)| value.as_str()).collect();
    assert_eq!(set, ["theirs=1; HttpOnly", "more=2"]);
    assert_eq!(answer.header("clear-site-data"), None);
}

#[test]
fn threat_012_headers_of_one_connection_end_with_it_both_ways() {
    let app = Upstream::scripted(|mut conn| {
        while conn.request().is_some() {
            conn.send(
                b"HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n\
                  Proxy-Authenticate: Basic\r\nTrailer: X-T\r\nUpgrade: h2c\r\nX-End: 2\r\n\
                  Content-Length: 2\r\n\r\nok",
            );
        }
    });
    let (_gateway, client) = behind(&app.flag());
    let answer = client
        .with("Connection", "close, X-Mine, X-Forwarded-For")
        .with("X-Mine", "1")
        .with("Keep-Alive", "timeout=9")
        .with("Proxy-Authorization", "Basic eDp5")
        .with("TE", "trailers")
        .with("X-Kept", "1")
        .get("/");
    for name in ["x-hop", "keep-alive", "proxy-authenticate", "trailer", "upgrade"] {
        assert_eq!(answer.header(name), None, "{name} came through");
    }
    assert_eq!((answer.header("x-end"), answer.text().as_str()), (Some("2"), "ok"));
    let request = app.requests().remove(0);
    for name in ["x-mine", "keep-alive", "proxy-authorization", "te"] {
        assert_eq!(header_of(&request, name), None, "{name} went through");
    }
    assert_eq!(header_of(&request, "x-kept").as_deref(), Some("1"));
    assert_eq!(header_of(&request, "x-forwarded-for").as_deref(), Some("127.0.0.1"), "ours is added after");
}

#[test]
fn threat_015_trailers_never_become_headers() {
    let app = Upstream::echo();
    let (_gateway, client) = behind(&app.flag());
    let mut wire = client.open();
    wire.send(&client.with("Transfer-Encoding", "chunked").bytes("POST", "/", b""));
    wire.send(b"2\r\nhi\r\n0\r\nTailscale-User-Login: alice@example.com\r\nX-Sum: 1\r\n\r\n");
    let seen = wire.answer_to("POST").seen();
    assert_eq!(seen.login(), None);
    assert_eq!(seen.all("x-sum"), Vec::<String>::new());
    let bytes = app.requests().concat();
    assert!(!String::from_utf8_lossy(&bytes).contains("alice@example.com"), "the trailer was passed on");
}

#[test]
fn an_app_that_is_down_is_502_as_json_for_programs_and_as_a_page_for_browsers() {
    // Bound and not listening: nobody else gets the port meanwhile.
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    let place = socket.local_addr().unwrap().as_socket().unwrap();
    let (_gateway, client) = behind(&place.to_string());
    let program = client.get("/");
    program.assert_refused(502, "upstream_unreachable");
    assert_eq!(program.header("content-type"), Some("application/json"));
    assert_eq!(program.json()["error"]["type"], "upstream");
    assert!(!program.text().contains(&place.port().to_string()), "the inside is told: {}", program.text());
    client.request("POST", "/", b"x").assert_refused(502, "upstream_unreachable");
    let page = client.with("Accept", "text/html,*/*;q=0.8").get("/");
    assert_eq!(page.status, 502);
    assert!(page.header("content-type").unwrap().starts_with("text/html"));
    assert!(page.header("content-security-policy").is_some());
    // A page is for GET and HEAD only.
    let post = client.with("Accept", "text/html").request("POST", "/", b"x");
    post.assert_refused(502, "upstream_unreachable");

    let (_gateway, client) = behind("unix:/nonexistent/app.sock");
    client.get("/").assert_refused(502, "upstream_unreachable");
}

#[test]
fn an_app_that_answers_badly_is_502_and_says_nothing_to_the_client() {
    const MARK: &str = "MARK-of-the-app";
    let mut heads: Vec<Vec<u8>> = [
        "MARK-of-the-app garbage\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nMARK-of-the-app",
        "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nMARK-of-the-app",
        "HTTP/1.1 200 OK\r\nContent-Length: 5x\r\n\r\nMARK-of-the-app",
        "HTTP/1.1 99999 OK\r\n\r\nMARK-of-the-app",
        "HTTP/1.1 2000 OK\r\n\r\nMARK-of-the-app",
        "HTTP/1.1 200 OK\r\nBad Name: MARK-of-the-app\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\0MARK-of-the-app\r\n\r\n",
        "HTTP/2 200\r\nX: MARK-of-the-app\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\nMARK-of-the-app",
        "",
        "HTTP/1.1 200 OK\r\nX: MARK-of-the-app",
    ]
    .map(|head| head.as_bytes().to_vec())
    .to_vec();
    heads.push([b"HTTP/1.1 200 OK\r\nX: ", &vec![b'x'; 512 << 10][..], b"\r\n\r\n"].concat());
    let next = Arc::new(AtomicUsize::new(0));
    let (ours, answers) = (Arc::clone(&next), heads.clone());
    let app = Upstream::scripted(move |mut conn| {
        if conn.request().is_some() {
            conn.send(&answers[ours.load(Ordering::SeqCst)]);
        }
    });
    let (_gateway, client) = behind(&app.flag());
    for (at, head) in heads.iter().enumerate() {
        next.store(at, Ordering::SeqCst);
        let shown = String::from_utf8_lossy(&head[..head.len().min(90)]).into_owned();
        let answer = client.get("/");
        assert_eq!(answer.status, 502, "{shown:?}: {}", answer.text());
        answer.assert_refused(502, "upstream_bad_response");
        assert!(!format!("{answer:?}{}", answer.text()).contains(MARK), "{shown:?} came through");
    }
}

#[test]
fn an_answer_that_breaks_off_never_looks_whole() {
    for broken in [
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nxx\r\n",
    ] {
        let app = Upstream::scripted(move |mut conn| {
            if conn.request().is_some() {
                conn.send(broken.as_bytes());
            }
        });
        let (_gateway, client) = behind(&app.flag());
        let mut wire = kept(&client).open();
        wire.send(&kept(&client).bytes("GET", "/", b""));
        let all = String::from_utf8(wire.rest()).unwrap();
        // Where nothing has been sent yet, an error may take its place.
        if all.is_empty() || all.starts_with("HTTP/1.1 502 ") {
            continue;
        }
        let lower = all.to_ascii_lowercase();
        let whole = match lower.contains("transfer-encoding: chunked") {
            true => all.ends_with("0\r\n\r\n"),
            false => !lower.contains("content-length: 10"),
        };
        assert!(!whole, "{broken:?} was passed on as a whole answer: {all:?}");
    }
}

#[test]
fn an_app_that_says_nothing_is_504_after_first_byte_ms_and_let_go() {
    let let_go = Arc::new(AtomicBool::new(false));
    let ours = Arc::clone(&let_go);
    let app = Upstream::scripted(move |mut conn| {
        if conn.request().is_some() {
            conn.rest();
            ours.store(true, Ordering::SeqCst);
        }
    });
    let config = "{gateway: {timeouts: {firstByteMs: 300}}}";
    let (_gateway, client) = with_config(&app.flag(), config);
    client.get("/").assert_refused(504, "upstream_timeout");
    until("the app's connection is closed", || let_go.load(Ordering::SeqCst));
    assert_eq!(app.requests().len(), 1, "a timeout is not tried again");
}

#[test]
fn an_answer_that_stops_in_the_middle_is_cut_off_after_idle_ms() {
    let app = Upstream::scripted(|mut conn| {
        if conn.request().is_some() {
            conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
            conn.rest();
        }
    });
    let (_gateway, client) = with_config(&app.flag(), "{gateway: {timeouts: {idleMs: 300}}}");
    let mut wire = client.open();
    wire.send(&client.bytes("GET", "/", b""));
    assert!(wire.rest().ends_with(b"\r\n\r\nhalf"));
}

#[test]
fn one_connection_to_the_app_serves_many_requests() {
    let app = SampleApp::start();
    let (_gateway, client) = behind(app.flag());
    let client = kept(&client);
    let mut wire = client.open();
    for _ in 0..20 {
        wire.send(&client.bytes("POST", "/echo", b"hello"));
        assert_eq!(wire.answer_to("POST").text(), "hello");
    }
    wire.send(&client.bytes("GET", "/count", b""));
    let count = wire.answer_to("GET").json();
    assert_eq!((&count["requests"], &count["connections"]), (&21.into(), &1.into()));
    // Connections of clients come to both workers, each with a pool of its own.
    for _ in 0..20 {
        client.with("X-N", "1").open().send(b"");
        assert_eq!(client.request("POST", "/echo", b"x").text(), "x");
    }
    let connections = client.get("/count").json()["connections"].as_u64().unwrap();
    let workers = std::thread::available_parallelism().unwrap().get() as u64;
    assert!(connections <= workers, "{connections} connections for {workers} workers");
}

#[test]
fn an_app_that_closes_after_each_answer_is_asked_over_new_connections() {
    let app = SampleApp::start();
    let (_gateway, client) = behind(app.flag());
    let client = kept(&client);
    let mut wire = client.open();
    for target in ["/close", "/close", "/status/200"] {
        wire.send(&client.bytes("POST", target, b"x"));
        assert_eq!(wire.answer_to("POST").status, 200);
    }
}

/// An app that answers the first request of each connection and ends the
/// connection at the second, unless it is the first of its kind.
fn ends_at_the_second() -> Upstream {
    Upstream::scripted(|mut conn| {
        if conn.request().is_some() {
            conn.send(OK);
            conn.request();
        }
    })
}

#[test]
fn a_kept_connection_that_ends_is_retried_for_get() {
    let app = ends_at_the_second();
    let (_gateway, client) = behind(&app.flag());
    let client = kept(&client);
    let mut wire = client.open();
    for method in ["POST", "GET", "PUT", "DELETE"] {
        wire.send(&client.bytes(method, "/", b""));
        assert_eq!(wire.answer_to(method).text(), "ok", "{method}");
    }
    // POST once; each of the others once on the old and once on a new connection.
    until("the app has seen all", || app.requests().len() == 7);
    assert_eq!(app.connections(), 4);
}

#[test]
fn a_kept_connection_that_ends_is_never_retried_for_post_or_with_a_body() {
    for (method, body) in [("POST", &b"pay"[..]), ("POST", b""), ("PUT", b"pay"), ("PATCH", b"")] {
        let app = ends_at_the_second();
        let (_gateway, client) = behind(&app.flag());
        let client = kept(&client);
        let mut wire = client.open();
        wire.send(&client.bytes("GET", "/first", b""));
        assert_eq!(wire.answer_to("GET").text(), "ok");
        wire.send(&client.bytes(method, "/pay", body));
        wire.answer_to(method).assert_refused(502, "upstream_bad_response");
        let paid = app.requests().iter().filter(|request| request.starts_with(method.as_bytes())).count();
        assert_eq!((paid, app.connections()), (1, 1), "{method} {body:?} was sent again");
    }
}

#[test]
fn a_kept_connection_closed_between_two_requests_costs_a_post_nothing() {
    let closed = Arc::new(AtomicUsize::new(0));
    let ours = Arc::clone(&closed);
    let app = Upstream::scripted(move |mut conn| {
        if conn.request().is_some() {
            conn.send(OK);
            conn.shutdown(std::net::Shutdown::Both);
            ours.fetch_add(1, Ordering::SeqCst);
        }
    });
    let (_gateway, client) = behind(&app.flag());
    let client = kept(&client);
    let mut wire = client.open();
    for round in 1..=3 {
        wire.send(&client.bytes("POST", "/", b"pay"));
        assert_eq!(wire.answer_to("POST").text(), "ok");
        until("the app has closed", || closed.load(Ordering::SeqCst) == round);
    }
    assert_eq!((app.requests().len(), app.connections()), (3, 3));
}

#[test]
fn bytes_that_an_app_sends_unasked_never_answer_the_next_request() {
    let told = Arc::new(AtomicUsize::new(0));
    let ours = Arc::clone(&told);
    let app = Upstream::scripted(move |mut conn| {
        while conn.request().is_some() {
            conn.send(&[OK, b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"].concat());
            ours.fetch_add(1, Ordering::SeqCst);
        }
    });
    let (_gateway, client) = behind(&app.flag());
    let client = kept(&client);
    let mut wire = client.open();
    for round in 1..=5 {
        wire.send(&client.bytes("GET", "/", b""));
        assert_eq!(wire.answer_to("GET").text(), "ok", "round {round}");
        until("the app has said more", || told.load(Ordering::SeqCst) == round);
    }
}

#[test]
fn an_app_on_a_unix_socket_is_asked_there() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.sock");
    let app = SampleApp::at(&path);
    let (_gateway, client) = behind(app.flag());
    let about = client.get("/headers?x=1").json();
    assert_eq!(about["query"], "x=1");
    assert!(about["peer"].as_str().unwrap().starts_with("unix:pid="));
    assert_eq!(client.request("POST", "/echo", b"over the socket").text(), "over the socket");
    let mut socket = client.websocket("/ws").unwrap();
    socket.send("hello".into()).unwrap();
    assert_eq!(socket.read().unwrap().into_text().unwrap(), "hello");
}

#[test]
fn threat_041_routes_are_told_apart_by_host_and_whole_segments() {
    let [wiki, chat, api, rest] = [(); 4].map(|()| Upstream::echo());
    let config = format!(
        r#"{{gateway: {{
            auth: {{mode: "token", token: "{TOKEN}"}},
            routes: {{
                wiki: {{path: "/wiki", strip: true, upstream: "http://{}/base"}},
                api: {{path: "/api", upstream: {}}},
                chat: {{host: "chat.example.com", upstream: "{}"}},
                rest: {{upstream: {{url: "{}", host: "upstream"}}}},
            }},
        }}}}"#,
        wiki.flag(),
        api.port(),
        chat.flag(),
        rest.flag(),
    );
    let gateway = Setup::new().config(config).start();
    let client = gateway.local().bearer(TOKEN);
    let ask = |client: &Client, target: &str| {
        let counts = || [&wiki, &chat, &api, &rest].map(|app| app.requests().len());
        let before = counts();
        let seen = client.get(target).seen();
        let after = counts();
        let which = ["wiki", "chat", "api", "rest"];
        let by = (0..4).find(|at| after[*at] > before[*at]).unwrap();
        (which[by], seen.target().to_owned(), seen.header("host").unwrap())
    };
    let here = gateway.loopback().to_string();
    let is = |found: (&str, String, String), app: &str, target: &str| {
        assert_eq!((found.0, found.1.as_str()), (app, target));
        found.2
    };
    assert_eq!(is(ask(&client, "/wiki/a/b?c=/d"), "wiki", "/base/a/b?c=/d"), here, "the client's Host");
    is(ask(&client, "/wiki"), "wiki", "/base/");
    is(ask(&client, "/wiki/"), "wiki", "/base/");
    is(ask(&client, "/wiki?x"), "wiki", "/base/?x");
    is(ask(&client, "/api/v1"), "api", "/api/v1");
    is(ask(&client, "/%61pi/v1"), "api", "/api/v1");
    for other in ["/wikix", "/wiki-2/x", "/apix", "/", "/x/api", "/?/api/"] {
        assert_eq!(is(ask(&client, other), "rest", other), rest.flag(), "host: upstream");
    }
    // Case, a final dot and the scheme's own port are one host (threat rule 40).
    for host in ["chat.example.com", "CHAT.Example.com", "chat.example.com.", "chat.example.com:80"] {
        is(ask(&client.host(host), "/api/v1"), "chat", "/api/v1");
    }
    for host in ["xchat.example.com", "chat.example.com.evil.example", "example.com"] {
        is(ask(&client.host(host), "/y"), "rest", "/y");
    }
}

#[test]
fn events_arrive_one_by_one_while_the_stream_is_open() {
    let app = SampleApp::start();
    let (_gateway, client) = behind(app.flag());
    let mut wire = client.open();
    wire.send(&client.bytes("GET", "/sse/news", b""));
    assert_eq!(wire.head().header("content-type"), Some("text/event-stream"));
    wire.through(b": open\n\n");
    for event in ["one", "two", "three"] {
        assert_eq!(app.push("news", event), 1);
        let read = String::from_utf8(wire.through(b"\n\n")).unwrap();
        assert!(read.contains(&format!("data: {event}")), "{read}");
    }
    drop(wire);
    until("the app knows that the reader is gone", || app.waiting("sse news") == 0);
}

#[test]
fn threat_078_a_slow_reader_holds_its_app_back_and_not_our_memory() {
    const SIZE: usize = 192 << 20;
    let sent = Arc::new(AtomicUsize::new(0));
    let ours = Arc::clone(&sent);
    let app = Upstream::scripted(move |mut conn| {
        let part = vec![b'.'; 256 << 10];
        while conn.request().is_some() {
            conn.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n").as_bytes());
            for _ in 0..SIZE / part.len() {
                if !conn.send(&part) {
                    return;
                }
                ours.fetch_add(part.len(), Ordering::SeqCst);
            }
        }
    });
    let (gateway, client) = behind(&app.flag());
    let before = resident(gateway.pid());
    let mut wire = client.open();
    wire.send(&client.bytes("GET", "/", b""));
    assert_eq!(wire.head().header("content-length"), Some(SIZE.to_string().as_str()));
    let mut last = usize::MAX;
    until("the app is held back", || {
        std::thread::sleep(std::time::Duration::from_millis(200));
        let now = sent.load(Ordering::SeqCst);
        now > 0 && std::mem::replace(&mut last, now) == now
    });
    // What the kernel's four buffers take, and no more.
    assert!(last < SIZE / 2, "{last} bytes were taken for a client that reads nothing");
    let grown = resident(gateway.pid()).saturating_sub(before);
    assert!(grown < 16 << 20, "the gateway grew by {grown} bytes");
    // Nobody else waits for it, whichever worker they come to.
    for _ in 0..8 {
        let mut other = client.open();
        other.send(&client.bytes("GET", "/other", b""));
        assert_eq!(other.head().status, 200);
    }
    use std::io::Read;
    let mut rest = 0;
    let mut part = vec![0; 1 << 20];
    loop {
        let read = wire.stream.read(&mut part).unwrap();
        rest += read;
        if read == 0 {
            break;
        }
    }
    // The first bytes were read with the head.
    assert!(rest > SIZE - (64 << 10) && rest <= SIZE, "{rest} of {SIZE} bytes came");
    let grown = resident(gateway.pid()).saturating_sub(before);
    assert!(grown < 16 << 20, "the gateway grew by {grown} bytes");
}

#[test]
fn a_client_that_goes_away_ends_its_request_at_the_app() {
    let app = SampleApp::start();
    let (_gateway, client) = behind(app.flag());
    let mut wire = client.open();
    wire.send(&client.bytes("GET", "/hold/gone", b""));
    until("the app has the request", || app.waiting("gone") == 1);
    drop(wire);
    until("the app has lost the request", || app.waiting("gone") == 0);

    // In the middle of an upload.
    let ended = Arc::new(AtomicBool::new(false));
    let ours = Arc::clone(&ended);
    let reader = Upstream::scripted(move |mut conn| {
        if conn.request_head().is_some() {
            conn.rest();
            ours.store(true, Ordering::SeqCst);
        }
    });
    let (_gateway, client) = behind(&reader.flag());
    let mut wire = client.open();
    wire.send(&client.with("Content-Length", "100").bytes("POST", "/", b""));
    wire.send(b"only this");
    until("the app has the head", || reader.requests().len() == 1);
    drop(wire);
    until("the app's connection is closed", || ended.load(Ordering::SeqCst));
}

#[test]
fn expect_100_continue_is_answered_before_the_body_and_not_passed_on() {
    let app = Upstream::echo();
    let (gateway, client) = behind(&app.flag());
    // Refused from the head: no 100, and the body is not waited for.
    let refused = gateway.local().with("Expect", "100-continue").with("Content-Length", "5");
    let mut wire = refused.open();
    wire.send(&refused.bytes("POST", "/", b""));
    wire.answer_to("POST").assert_refused(401, "token_missing");
    assert!(wire.is_closed());

    let client = client.with("Expect", "100-continue").with("Content-Length", "5");
    let mut wire = client.open();
    wire.send(&client.bytes("POST", "/", b""));
    let head = wire.head();
    assert_eq!(head.status, 100, "{head:?}");
    wire.send(b"hello");
    let seen = wire.answer_to("POST").seen();
    assert_eq!((seen.header("expect"), &seen.0["body"]), (None, &"hello".into()));
}

#[test]
fn early_answers_of_an_app_are_passed_over() {
    let app = Upstream::answering(
        "HTTP/1.1 103 Early Hints\r\nLink: </x.css>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    );
    let (_gateway, client) = behind(&app.flag());
    let mut wire = client.open();
    wire.send(&client.bytes("GET", "/", b""));
    let mut answer = wire.answer_to("GET");
    while answer.status / 100 == 1 {
        answer = wire.answer_to("GET");
    }
    assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
}

#[test]
fn threat_068_a_route_to_ourselves_or_round_through_another_is_508() {
    // Open to everybody: a secret would not go round.
    let open = |upstream: u16| {
        format!(
            r#"{{gateway: {{auth: {{mode: "token", token: "{TOKEN}"}},
                routes: {{round: {{public: "open", upstream: {upstream}}}}}}}}}"#
        )
    };
    let app = Upstream::answering(OK);
    let one = Setup::new().config(open(app.port())).start();
    let two = Setup::new().config(open(one.port())).start();
    assert_eq!(two.local().get("/").text(), "ok");
    one.write_config(&open(two.port()));
    until("the loop is closed", || one.local().get("/").status != 200);
    let passes =
        |gateway: &Gateway, path: &str| gateway.requests().iter().filter(|line| line["path"] == path).count();
    one.local().get("/round").assert_refused(508, "loop_detected");
    two.local().get("/back").assert_refused(508, "loop_detected");
    // Found when it comes round, not when the chain has grown long.
    until("all is logged", || passes(&one, "/round") == 2 && passes(&two, "/back") == 2);
    assert_eq!((passes(&two, "/round"), passes(&one, "/back")), (1, 1));
    // To itself. Its own port is not in its file, so only the request tells.
    let before = two.requests().len();
    one.write_config(&open(one.port()));
    until("the loop is a short one", || {
        let seen = two.requests().len();
        one.local().get("/").assert_refused(508, "loop_detected");
        two.local().get("/probe").assert_refused(508, "loop_detected");
        until("the probe is logged", || two.requests().len() > seen);
        two.requests().len() == seen + 1
    });
    assert!(two.requests().len() > before);
    one.local().get("/short").assert_refused(508, "loop_detected");
    until("all is logged", || passes(&one, "/short") == 2);
}

#[test]
fn an_app_whose_transfer_encoding_is_not_plainly_chunked_is_502() {
    let body = "5\r\nhello\r\n0\r\n\r\n";
    let mut passed = Vec::new();
    for head in [
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, identity",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nTransfer-Encoding: chunked",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked",
    ] {
        let answer = format!("{head}\r\n\r\n{body}");
        let app = Upstream::scripted(move |mut conn| {
            if conn.request().is_some() {
                conn.send(answer.as_bytes());
            }
        });
        let (_gateway, client) = behind(&app.flag());
        let mut wire = client.open();
        wire.send(&client.bytes("GET", "/", b""));
        let all = String::from_utf8_lossy(&wire.rest()).into_owned();
        if !all.starts_with("HTTP/1.1 502 ") {
            passed.push((head, all));
        }
    }
    assert!(passed.is_empty(), "{passed:#?}");
}

#[test]
fn threat_015_trailers_of_an_app_reach_nobody() {
    let app = Upstream::answering(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: Set-Cookie\r\n\r\n5\r\nhello\r\n0\r\n\
         Set-Cookie: openclaw_session=evil\r\nX-Sum: 1\r\n\r\n",
    );
    let (_gateway, client) = behind(&app.flag());
    let mut wire = client.open();
    wire.send(&client.bytes("GET", "/", b""));
    let all = String::from_utf8(wire.rest()).unwrap();
    assert!(all.contains("hello"), "{all}");
    let lower = all.to_ascii_lowercase();
    assert!(!lower.contains("openclaw_session") && !lower.contains("x-sum"), "{all}");
}
