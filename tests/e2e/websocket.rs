//! WebSockets: who gets one, what passes through, and when it ends.

use std::io::Read as _;
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::Signal;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{self, Message, WebSocket};

use super::support::frames::{self, BINARY, CLOSE, PING, TEXT, frame};
use super::support::*;

type Socket = WebSocket<std::net::TcpStream>;

const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

fn behind(app: &Upstream) -> (Gateway, Client) {
    let gateway = Setup::new().upstream(app).token(TOKEN).start();
    let client = gateway.local().bearer(TOKEN);
    (gateway, client)
}

/// Reads until the close frame; what it says.
#[track_caller]
fn closed_with(socket: &mut Socket) -> Option<(u16, String)> {
    loop {
        match socket.read() {
            Ok(Message::Close(why)) => {
                return why.map(|why| (u16::from(why.code), why.reason.to_string()));
            }
            Ok(_) => {}
            Err(error) => panic!("it ended without a close frame: {error}"),
        }
    }
}

/// Whether it still carries messages, to an app that echoes.
#[track_caller]
fn assert_open(socket: &mut Socket, message: &str) {
    socket.send(message.into()).unwrap();
    loop {
        match socket.read() {
            Ok(Message::Text(text)) if text.as_str() == message => return,
            Ok(_) => {}
            Err(error) => panic!("{message}: it is closed: {error}"),
        }
    }
}

fn upgrade(token: &str) -> String {
    format!("GET /ws HTTP/1.1\r\nHost: a.example\r\nAuthorization: Bearer {token}\r\n{UPGRADE}\r\n")
}

#[test]
fn every_kind_of_message_passes_both_ways() {
    let app = Upstream::echo();
    let (_gateway, client) = behind(&app);
    let mut socket = client.websocket("/ws").unwrap();
    assert!(socket.read().unwrap().is_text(), "what the app saw");
    let large: Vec<u8> = (0..1_u32 << 20).map(|at| (at.wrapping_mul(2_654_435_761) >> 11) as u8).collect();
    for message in [
        Message::text("hello, wörld"),
        Message::text(""),
        Message::binary(vec![0, 1, 0xff]),
        Message::binary(large.clone()),
        Message::text("x".repeat(70_000)),
    ] {
        socket.send(message.clone()).unwrap();
        assert!(socket.read().unwrap() == message, "{} bytes came back otherwise", message.len());
    }
    socket.send(Message::Ping("are you there".into())).unwrap();
    assert_eq!(socket.read().unwrap(), Message::Pong("are you there".into()));
    let bye = CloseFrame { code: CloseCode::Library(4001), reason: "enough".into() };
    socket.close(Some(bye.clone())).unwrap();
    assert_eq!(socket.read().unwrap(), Message::Close(Some(bye)));
    assert!(matches!(socket.read(), Err(tungstenite::Error::ConnectionClosed)));
}

#[test]
fn frames_pass_untouched_in_both_directions() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let ours = Arc::clone(&seen);
    let app = Upstream::scripted(move |mut conn| {
        let Some(request) = conn.request() else { return };
        conn.accept_websocket(&request);
        // Behind the 101 at once: a fragment, a ping in between, the rest, a farewell.
        let all = [
            vec![TEXT, 3, b'o', b'n', b'e'],
            frame(PING, b"p"),
            vec![0x80, 3, b'-', b't', b'w'],
            frame(CLOSE, &[&4321_u16.to_be_bytes()[..], b"done"].concat()),
        ];
        conn.send(&all.concat());
        let rest = conn.rest();
        ours.lock().unwrap().extend(rest);
    });
    let (_gateway, client) = behind(&app);
    let mut wire = client.open();
    wire.send(upgrade(TOKEN).as_bytes());
    let head = wire.head();
    assert_eq!(head.status, 101);
    assert_eq!(head.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    let mine =
        [frames::masked(0x80 | TEXT, b"mine"), frames::masked(0x02, &[1; 300]), frames::masked(0x80, b"")];
    wire.send(&mine.concat());
    wire.stream.shutdown(Shutdown::Write).unwrap();
    let expected = [
        vec![TEXT, 3, b'o', b'n', b'e'],
        frame(PING, b"p"),
        vec![0x80, 3, b'-', b't', b'w'],
        frame(CLOSE, &[&4321_u16.to_be_bytes()[..], b"done"].concat()),
    ];
    assert_eq!(wire.rest(), expected.concat());
    until("the app has read all", || !seen.lock().unwrap().is_empty());
    assert_eq!(*seen.lock().unwrap(), mine.concat());
}

#[test]
fn protocols_and_extensions_are_agreed_between_client_and_app() {
    let app = SampleApp::start();
    let gateway = Setup::new().flag("--upstream", app.flag()).token(TOKEN).start();
    let client = gateway.local().bearer(TOKEN).with("Sec-WebSocket-Protocol", "chat.v2, chat.v1");
    let mut wire = client.open();
    wire.send(&client.bytes("GET", "/ws", b""));
    assert_eq!(wire.answer_to("GET").status, 426, "without an upgrade there is none");
    let mut wire = client.open();
    let protocol = "Sec-WebSocket-Protocol: chat.v2, chat.v1\r\n";
    wire.send(
        upgrade(TOKEN)
            .replace("Upgrade: websocket\r\n", &format!("Upgrade: websocket\r\n{protocol}"))
            .as_bytes(),
    );
    let head = wire.head();
    assert_eq!((head.status, head.header("sec-websocket-protocol")), (101, Some("chat.v2")));
}

#[test]
fn threat_029_who_may_not_is_refused_before_the_upgrade() {
    let (tailnet, app) = (Tailnet::new(), Upstream::echo());
    let gateway = Setup::on(&tailnet).upstream(&app).token(TOKEN).start_on_tailnet();
    let own = format!("http://{}", gateway.tailnet());
    let alice = gateway.peer(ALICE);
    for origin in [
        "https://evil.example",
        "null",
        "",
        "http://127.100.0.1",
        &own.replace("http:", "https:"),
        &own.replace("127.100.0.1", "127.100.0.2"),
        &format!("{own}.evil.example"),
        &format!("{own}/"),
        &own.to_uppercase(),
        &own.replace("http://", "http://user@"),
        &format!("{own}, https://evil.example"),
    ] {
        let refused = alice.with("Origin", origin).websocket("/ws");
        refused.unwrap_err().assert_refused(403, "origin_not_allowed");
    }
    // A program without a secret, and one that only says that it is none.
    alice.websocket("/ws").unwrap_err().assert_refused(403, "origin_not_allowed");
    let fetch = alice.with("Sec-Fetch-Mode", "websocket").with("Sec-Fetch-Site", "cross-site");
    fetch.websocket("/ws").unwrap_err().assert_refused(403, "origin_not_allowed");
    let cross = alice.with("Origin", &own).with("Sec-Fetch-Site", "cross-site");
    cross.websocket("/ws").unwrap_err().assert_refused(403, "cross_site");
    gateway.peer(BOB).with("Origin", &own).websocket("/ws").unwrap_err().assert_refused(403, "not_allowed");
    gateway
        .peer(NOBODYS)
        .with("Origin", &own)
        .websocket("/ws")
        .unwrap_err()
        .assert_refused(401, "peer_unknown");
    gateway.local().websocket("/ws").unwrap_err().assert_refused(401, "token_missing");
    gateway
        .local()
        .websocket(&format!("/ws?token={TOKEN}"))
        .unwrap_err()
        .assert_refused(401, "token_missing");
    let wrong = gateway.local().bearer("wrong-token-of-the-right-length").websocket("/ws");
    wrong.unwrap_err().assert_refused(401, "token_mismatch");
    assert_eq!(app.connections(), 0, "a refused upgrade reached the app");

    assert_open(&mut alice.with("Origin", &own).websocket("/ws").unwrap(), "alice");
    // A program with the token, whoever's device it runs on.
    assert_open(&mut gateway.local().bearer(TOKEN).websocket("/ws").unwrap(), "local");
    assert_open(&mut gateway.peer(BOB).bearer(TOKEN).websocket("/ws").unwrap(), "bob");
    let header = gateway.peer(NOBODYS).with("X-OpenClaw-Gateway-Token", TOKEN);
    assert_open(&mut header.websocket("/ws").unwrap(), "header");
}

/// An app that answers an upgrade with these bytes and keeps what follows the
/// request.
fn answering_upgrades(answer: &str) -> (Upstream, Arc<Mutex<Vec<u8>>>, Arc<AtomicBool>) {
    let (after, ended) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
    let (ours, end, answer) = (Arc::clone(&after), Arc::clone(&ended), answer.as_bytes().to_vec());
    let app = Upstream::scripted(move |mut conn| {
        if conn.request().is_some() {
            conn.send(&answer);
            let rest = conn.rest();
            ours.lock().unwrap().extend(rest);
            end.store(true, Ordering::SeqCst);
        }
    });
    (app, after, ended)
}

#[test]
fn threat_080_without_a_proven_101_there_is_no_tunnel_and_nothing_behind_the_head_passes() {
    const ACCEPT: &str = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";
    let ordinary = |status: &str| (format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nno"), 0);
    let bad = |lines: String| (format!("HTTP/1.1 101 Switching Protocols\r\n{lines}\r\n"), 502);
    let answers = [
        ordinary("200 OK"),
        ordinary("404 Not Found"),
        ordinary("426 Upgrade Required"),
        ordinary("302 Found\r\nLocation: /x"),
        (format!("HTTP/1.1 200 OK\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{ACCEPT}Content-Length: 2\r\n\r\nno"), 0),
        bad("Connection: Upgrade\r\nUpgrade: websocket\r\n".into()),
        bad("Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n".into()),
        bad(format!("Connection: Upgrade\r\nUpgrade: websocket\r\n{ACCEPT}{ACCEPT}")),
        bad(format!("Connection: Upgrade\r\nUpgrade: h2c\r\n{ACCEPT}")),
        bad(format!("Upgrade: websocket\r\n{ACCEPT}")),
        bad(format!("Connection: Upgrade\r\n{ACCEPT}")),
        bad(format!("Connection: Upgrade\r\nUpgrade: websocket\r\n{ACCEPT}Sec-WebSocket-Extensions: permessage-deflate\r\n")),
        bad(format!("Connection: Upgrade\r\nUpgrade: websocket\r\n{ACCEPT}Content-Length: 5\r\n")),
    ];
    for (answer, status) in &answers {
        let (app, after, ended) = answering_upgrades(answer);
        let (_gateway, client) = behind(&app);
        let mut wire = client.open();
        let behind_it =
            format!("GET /admin HTTP/1.1\r\nHost: a.example\r\nAuthorization: Bearer {TOKEN}\r\n\r\n");
        wire.send(format!("{}{behind_it}", upgrade(TOKEN)).as_bytes());
        let first = wire.answer_to("GET");
        assert_ne!(first.status, 101, "{answer:?} became a tunnel");
        if *status == 502 {
            first.assert_refused(502, "upstream_bad_response");
        } else {
            assert_eq!(first.text(), "no", "{answer:?}");
        }
        assert_eq!(first.header("connection"), Some("close"), "{answer:?}");
        assert_eq!(first.header("upgrade"), None, "{answer:?}");
        wire.send(behind_it.as_bytes());
        assert!(wire.is_closed(), "{answer:?}");
        until("the app's connection is closed", || ended.load(Ordering::SeqCst));
        assert!(after.lock().unwrap().is_empty(), "{answer:?}: bytes behind the head reached the app");
        assert_eq!((app.requests().len(), app.connections()), (1, 1), "{answer:?}");
    }
}

#[test]
fn threat_080_bytes_behind_a_refused_or_faulty_upgrade_are_no_request() {
    let app = Upstream::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let (gateway, client) = behind(&app);
    let inside = format!("GET /admin HTTP/1.1\r\nHost: a.example\r\nAuthorization: Bearer {TOKEN}\r\n\r\n");
    let good = upgrade(TOKEN);
    for (head, status) in [
        (good.replace("Authorization: Bearer", "X-Nothing:"), 401),
        (good.replace(TOKEN, "wrong-token-of-the-right-length"), 401),
        (good.replace("Version: 13", "Version: 12"), 400),
        (good.replace("Sec-WebSocket-Version: 13\r\n", ""), 400),
        (good.replace("dGhlIHNhbXBsZSBub25jZQ==", "short"), 400),
        (good.replace("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", ""), 400),
        (good.replace("\r\n\r\n", "\r\nContent-Length: 2\r\n\r\nhi"), 400),
        (good.replace("/ws ", "/%2f "), 400),
        (good.replace("/ws ", "/healthz "), 200),
    ] {
        let mut wire = gateway.local().open();
        wire.send(format!("{head}{inside}").as_bytes());
        let answer = wire.answer_to("GET");
        assert_eq!(answer.status, status, "{head}: {}", answer.text());
        let rest = String::from_utf8_lossy(&wire.rest()).into_owned();
        assert!(rest.is_empty(), "{head}: what was behind it was answered: {rest}");
    }
    assert_eq!(app.connections(), 0);
    // HTTP/1.0 knows no upgrade, and its connection is not kept either.
    let old = good
        .replace("HTTP/1.1", "HTTP/1.0")
        .replace("Connection: Upgrade", "Connection: keep-alive, Upgrade");
    let mut wire = client.open();
    wire.send(format!("{old}{inside}").as_bytes());
    let all = String::from_utf8_lossy(&wire.rest()).into_owned();
    assert!(all.starts_with("HTTP/1.0 ") && all.matches("HTTP/1.").count() == 1, "{all}");
    assert!(app.requests().iter().all(|request| !request.starts_with(b"GET /admin")), "{all}");
    // Wishes that are none of ours: an ordinary request, and the last one.
    for head in [
        good.replace("websocket", "h2c"),
        good.replace("websocket", "websocket, h2c"),
        good.replace("Connection: Upgrade\r\n", ""),
        good.replace("GET", "POST"),
    ] {
        let before = app.requests().len();
        let mut wire = client.open();
        wire.send(format!("{head}{inside}").as_bytes());
        let answer = wire.answer_to("GET");
        assert_eq!((answer.status, answer.text().as_str()), (200, "ok"), "{head}");
        assert!(wire.is_closed(), "{head}");
        let seen = app.requests()[before..].to_vec();
        assert_eq!(seen.len(), 1, "{head}");
        assert_eq!(header_of(&seen[0], "upgrade"), None, "{head}");
    }
}

#[test]
fn threat_080_bytes_behind_a_good_upgrade_wait_for_the_101() {
    let (go, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
    let (gate, ours) = (Arc::clone(&go), Arc::clone(&seen));
    let app = Upstream::scripted(move |mut conn| {
        let Some(request) = conn.request() else { return };
        until("it may be answered", || gate.load(Ordering::SeqCst));
        // Nothing may be here that was not asked for yet.
        conn.accept_websocket(&request);
        if let Some(frame) = conn.frame() {
            ours.lock().unwrap().push(frame);
        }
        conn.send(&frame(TEXT, b"heard"));
        conn.rest();
    });
    let (_gateway, client) = behind(&app);
    let mut wire = client.open();
    wire.send(&[upgrade(TOKEN).as_bytes(), &frames::masked(0x80 | TEXT, b"early")].concat());
    until("the app has the request", || app.requests().len() == 1);
    go.store(true, Ordering::SeqCst);
    assert_eq!(wire.head().status, 101);
    assert_eq!(wire.through(b"heard"), frame(TEXT, b"heard"));
    assert_eq!(*seen.lock().unwrap(), [(TEXT, b"early".to_vec())]);
}

#[test]
fn each_side_may_stop_sending_first() {
    let app = Upstream::scripted(|mut conn| {
        let Some(request) = conn.request() else { return };
        conn.accept_websocket(&request);
        match header_of(&request, "x-who").as_deref() {
            Some("client") => {
                let all = conn.rest();
                conn.send(&frame(BINARY, &all));
            }
            _ => {
                conn.send(&frame(TEXT, b"last words"));
                conn.shutdown(Shutdown::Write);
                let all = conn.rest();
                assert_eq!(all, frames::masked(0x80 | TEXT, b"still here"));
            }
        }
    });
    let (_gateway, client) = behind(&app);
    let with = |who: &str| upgrade(TOKEN).replace("\r\n\r\n", &format!("\r\nX-Who: {who}\r\n\r\n"));
    let mut wire = client.open();
    wire.send(with("client").as_bytes());
    assert_eq!(wire.head().status, 101);
    let mine = frames::masked(0x80 | TEXT, b"all I say");
    wire.send(&mine);
    wire.stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(wire.rest(), frame(BINARY, &mine));

    let mut wire = client.open();
    wire.send(with("app").as_bytes());
    assert_eq!(wire.head().status, 101);
    assert_eq!(wire.rest(), frame(TEXT, b"last words"));
    wire.send(&frames::masked(0x80 | TEXT, b"still here"));
    wire.stream.shutdown(Shutdown::Write).unwrap();
}

#[test]
fn an_app_that_goes_away_ends_the_socket_and_a_client_that_does_so_too() {
    let ended = Arc::new(AtomicBool::new(false));
    let end = Arc::clone(&ended);
    let app = Upstream::scripted(move |mut conn| {
        let Some(request) = conn.request() else { return };
        conn.accept_websocket(&request);
        if header_of(&request, "x-who").is_some() {
            conn.send(&frame(TEXT, b"bye"));
            return;
        }
        conn.rest();
        end.store(true, Ordering::SeqCst);
    });
    let (_gateway, client) = behind(&app);
    let mut socket = client.with("X-Who", "app").websocket("/ws").unwrap();
    assert_eq!(socket.read().unwrap().into_text().unwrap(), "bye");
    assert!(socket.read().is_err());
    let socket = client.websocket("/ws").unwrap();
    assert!(!ended.load(Ordering::SeqCst));
    drop(socket);
    until("the app's connection is closed", || ended.load(Ordering::SeqCst));
}

fn access(token: &str, allow: &str) -> String {
    format!(r#"{{gateway: {{auth: {{mode: "token", token: "{token}"}}, access: {{allow: [{allow}]}}}}}}"#)
}

#[test]
fn threat_049_who_is_taken_off_the_list_loses_sockets_and_streams_and_nobody_else() {
    let (tailnet, app) = (Tailnet::new(), Upstream::echo());
    let both = r#""bob@example.com", "carol@example.com""#;
    let gateway = Setup::on(&tailnet).upstream(&app).config(access(TOKEN, both)).start_on_tailnet();
    let origin = format!("http://{}", gateway.tailnet());
    let open = |who: &str| {
        let mut socket = gateway.peer(who).with("Origin", &origin).websocket("/ws").unwrap();
        assert_open(&mut socket, "before");
        socket
    };
    let (mut alice, mut bob, mut carol) = (open(ALICE), open(BOB), open(CAROL));
    let mut stream = gateway.peer(BOB).open();
    stream.send(&gateway.peer(BOB).bytes("GET", "/sse", b""));
    stream.through(b"\n\n");

    gateway.write_config(&access(TOKEN, r#""carol@example.com""#));
    assert_eq!(closed_with(&mut bob), Some((1008, "revoked".into())));
    stream.rest();
    gateway.peer(BOB).get("/").assert_refused(403, "not_allowed");
    let refused = gateway.peer(BOB).with("Origin", &origin).websocket("/ws");
    refused.unwrap_err().assert_refused(403, "not_allowed");
    assert_open(&mut alice, "after");
    assert_open(&mut carol, "after");
}

/// Reads up to `most` bytes of an answer, more slowly than they are sent; how many came.
fn read_slowly(wire: &mut Wire, most: usize) -> usize {
    let (mut came, mut buffer) = (0, vec![0; 64 * 1024]);
    while came < most {
        match wire.stream.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(read) => came += read,
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    came
}

#[test]
fn threat_049_a_download_that_never_waits_ends_too() {
    const MANY: usize = 64 * 1024 * 1024;
    let tailnet = Tailnet::new();
    let app = Upstream::scripted(|mut conn| {
        while let Some(request) = conn.request() {
            if !request.starts_with(b"GET /endless ") {
                conn.send(b"HTTP/1.1 204 No Content\r\n\r\n");
                continue;
            }
            conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n");
            while conn.send(&[b'x'; 256 * 1024]) {}
        }
    });
    let setup = Setup::on(&tailnet).upstream(&app).config(access(TOKEN, r#""bob@example.com""#));
    let gateway = setup.start_on_tailnet();
    let download = |who: &str| {
        let client = gateway.peer(who);
        let mut wire = client.open();
        wire.send(&client.bytes("GET", "/endless", b""));
        assert_eq!(wire.head().status, 200);
        assert!(read_slowly(&mut wire, 1024 * 1024) >= 1024 * 1024);
        wire
    };
    let (mut alice, mut bob) = (download(ALICE), download(BOB));
    gateway.write_config(&access(TOKEN, ""));
    until("Bob is refused", || gateway.peer(BOB).get("/").status == 403);
    // What was on its way still comes: the buffers of four sockets, far less than this.
    assert!(read_slowly(&mut bob, MANY) < MANY, "Bob's download goes on");
    assert!(read_slowly(&mut alice, MANY) >= MANY, "Alice's was ended, too");
}

#[test]
fn threat_049_a_request_that_still_waits_ends_with_a_refusal() {
    let (tailnet, app) = (Tailnet::new(), SampleApp::start());
    let setup = Setup::on(&tailnet).flag("--upstream", app.flag());
    let gateway = setup.config(access(TOKEN, r#""bob@example.com""#)).start_on_tailnet();
    let wait = |client: Client, gate: &str| {
        let mut wire = client.open();
        wire.send(&client.bytes("GET", &format!("/hold/{gate}"), b""));
        until("the app has the request", || app.waiting(gate) == 1);
        wire
    };
    let mut bob = wait(gateway.peer(BOB), "bob");
    let mut alice = wait(gateway.peer(ALICE), "alice");
    gateway.write_config(&access(TOKEN, ""));
    bob.answer_to("GET").assert_refused(403, "not_allowed");
    until("the app has lost Bob's request", || app.waiting("bob") == 0);
    assert_eq!(app.waiting("alice"), 1, "Alice's request was ended, too");
    app.release("alice");
    assert_eq!(alice.answer_to("GET").text(), "released alice\n");
}

#[test]
fn threat_050_what_tailscale_takes_away_closes_sockets() {
    let (tailnet, app) = (Tailnet::new(), Upstream::echo());
    let gateway = Setup::on(&tailnet)
        .upstream(&app)
        .config(access(TOKEN, r#""bob@example.com", "carol@example.com""#))
        .start_on_tailnet();
    let origin = format!("http://{}", gateway.tailnet());
    let open = |who: &str| gateway.peer(who).with("Origin", &origin).websocket("/ws").unwrap();
    let (mut alice, mut bob) = (open(ALICE), open(BOB));
    assert_open(&mut bob, "before");
    tailnet.set(&["peer.bobpc.expired=true"]);
    assert_eq!(closed_with(&mut bob), Some((1008, "revoked".into())));
    assert_open(&mut alice, "after");
    tailnet.set(&["backend=Stopped"]);
    assert_eq!(closed_with(&mut alice), Some((1008, "revoked".into())));
}

#[test]
fn threat_050_a_grant_that_the_policy_takes_back_closes_its_sockets_and_no_others() {
    // Narrowed, and made unreadable, which ends the readable one beside it.
    for (after, ignored) in [
        (r#"[{role: "user", routes: ["other"]}]"#, false),
        (r#"[{role: "user"}, {role: "user", from: "home"}]"#, true),
    ] {
        let (tailnet, app) = (Tailnet::new(), Upstream::echo());
        let gateway = Setup::on(&tailnet)
            .upstream(&app)
            .config(access(TOKEN, r#""carol@example.com""#))
            .start_on_tailnet();
        let origin = format!("http://{}", gateway.tailnet());
        let open = |who: &str| gateway.peer(who).with("Origin", &origin).websocket("/ws").unwrap();
        let grant = |value: &str| {
            tailnet.set(&[&format!(r#"peer.bobpc.caps={{"openclaw.ai/cap/gateway": {value}}}"#)]);
        };
        grant(r#"[{role: "user", routes: ["default"]}]"#);
        let (mut carol, mut bob) = (open(CAROL), open(BOB));
        assert_open(&mut bob, "before");
        grant(after);
        assert_eq!(closed_with(&mut bob), Some((1008, "revoked".into())));
        gateway.peer(BOB).get("/").assert_refused(403, "not_allowed");
        assert_open(&mut carol, "after");
        assert_eq!(gateway.log().contains("grants_ignored"), ignored);
    }
}

#[test]
fn threat_052_a_rotated_token_ends_the_sockets_of_its_holders_and_no_others() {
    let (tailnet, app) = (Tailnet::new(), Upstream::echo());
    let gateway = Setup::on(&tailnet).upstream(&app).config(access(TOKEN, "")).start_on_tailnet();
    let origin = format!("http://{}", gateway.tailnet());
    let mut alice = gateway.peer(ALICE).with("Origin", &origin).websocket("/ws").unwrap();
    let mut holder = gateway.local().bearer(TOKEN).websocket("/ws").unwrap();
    assert_open(&mut holder, "before");
    const NEW: &str = "e2e-token-9d2e1188c4ea5f7a9b32";
    // A change of something else closes nothing.
    gateway.write_config(&access(TOKEN, r#""carol@example.com""#));
    until("Carol is let in", || gateway.peer(CAROL).get("/").status == 200);
    assert_open(&mut holder, "the same token");
    gateway.write_config(&access(NEW, ""));
    assert_eq!(closed_with(&mut holder), Some((1008, "revoked".into())));
    gateway.local().bearer(TOKEN).get("/").assert_refused(401, "token_mismatch");
    gateway.local().bearer(TOKEN).websocket("/ws").unwrap_err().assert_refused(401, "token_mismatch");
    assert_open(&mut alice, "after");
    assert_open(&mut gateway.local().bearer(NEW).websocket("/ws").unwrap(), "new");
}

#[test]
fn a_gateway_that_stops_tells_sockets_with_1012_and_lets_answers_finish() {
    let (tailnet, app) = (Tailnet::new(), SampleApp::start());
    let mut gateway = Setup::on(&tailnet).flag("--upstream", app.flag()).token(TOKEN).start_on_tailnet();
    let origin = format!("http://{}", gateway.tailnet());
    let mut alice = gateway.peer(ALICE).with("Origin", &origin).websocket("/ws").unwrap();
    let mut holder = gateway.local().bearer(TOKEN).websocket("/ws").unwrap();
    assert_open(&mut alice, "before");
    let client = gateway.local().bearer(TOKEN);
    let mut under_way = client.open();
    under_way.send(&client.bytes("GET", "/hold/it", b""));
    until("the app has the request", || app.waiting("it") == 1);
    gateway.signal(Signal::TERM);
    assert_eq!(closed_with(&mut alice), Some((1012, "restarting".into())));
    assert_eq!(closed_with(&mut holder), Some((1012, "restarting".into())));
    app.release("it");
    let answer = under_way.answer_to("GET");
    assert_eq!((answer.status, answer.text().as_str()), (200, "released it\n"));
    assert_eq!(gateway.wait().code(), Some(0));
}
