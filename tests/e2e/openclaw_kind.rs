//! In front of a real OpenClaw gateway, which is played here to the byte.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::support::frames::{CLOSE, PING, TEXT, frame, masked};
use super::support::*;

/// The secret of the OpenClaw behind.
const SECRET: &str = "upstream-secret-7be1f0c4a9d35826";
const CHALLENGE: &str = r#"{"type":"event","event":"connect.challenge","payload":{"nonce":"n1","ts":1}}"#;
const HELLO: &str = r#"{"type":"res","id":"c1","ok":true,"payload":{"type":"hello-ok","protocol":4}}"#;
const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                       Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";

/// An opcode and a payload.
type Frame = (u8, Vec<u8>);

/// An OpenClaw: it speaks first, and keeps what it hears.
struct OpenClaw {
    app: Upstream,
    heard: Arc<Mutex<Vec<Frame>>>,
    ended: Arc<AtomicUsize>,
}

impl OpenClaw {
    fn start() -> Self {
        let (heard, ended) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
        let (ours, end) = (Arc::clone(&heard), Arc::clone(&ended));
        let app = Upstream::scripted(move |mut conn| {
            while let Some(request) = conn.request() {
                if header_of(&request, "sec-websocket-key").is_none() {
                    conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
                    continue;
                }
                conn.accept_websocket(&request);
                conn.send(&frame(TEXT, CHALLENGE.as_bytes()));
                while let Some((opcode, payload)) = conn.frame() {
                    ours.lock().unwrap().push((opcode, payload.clone()));
                    let signed_in = ours.lock().unwrap().iter().filter(|(kind, _)| *kind == TEXT).count();
                    match opcode {
                        TEXT if signed_in == 1 => conn.send(&frame(TEXT, HELLO.as_bytes())),
                        CLOSE => break,
                        PING => true,
                        _ => conn.send(&frame(opcode, &payload)),
                    };
                }
                end.fetch_add(1, Ordering::SeqCst);
                return;
            }
        });
        Self { app, heard, ended }
    }

    fn heard(&self) -> Vec<Frame> {
        self.heard.lock().unwrap().clone()
    }
}

/// A file with the secret, and the configuration that names it.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        let dir = private_dir();
        let path = dir.path().join("upstream-token");
        let mut file =
            std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).unwrap();
        file.write_all(format!("{SECRET}\n").as_bytes()).unwrap();
        Self(dir)
    }

    fn config(&self, upstream: &str, more: &str) -> String {
        let file = self.0.path().join("upstream-token");
        format!(
            r#"{{gateway: {{
                auth: {{mode: "token", token: "{TOKEN}"}},
                log: {{level: "trace", format: "json"}},
                access: {{allow: ["bob@example.com", {{who: "carol@example.com", role: "admin"}}]}},
                upstream: {{url: "http://{upstream}", kind: "openclaw", tokenFile: {:?}{more}}},
            }}}}"#,
            file.to_str().unwrap()
        )
    }
}

fn behind(upstream: &str, more: &str) -> (Files, Gateway, Client) {
    let files = Files::new();
    let gateway = Setup::new().config(files.config(upstream, more)).start();
    let client = gateway.local().bearer(TOKEN);
    (files, gateway, client)
}

#[track_caller]
fn assert_secret_is_kept(gateway: &Gateway) {
    // At level trace something is there to look at.
    gateway.wait_for_log(r#""msg":"request""#);
    let log = gateway.log();
    assert!(!log.contains(SECRET), "the upstream's secret is in the log");
    assert!(!log.contains(TOKEN), "our token is in the log");
}

/// Opens a socket as the token's holder and reads the challenge.
#[track_caller]
fn socket(gateway: &Gateway) -> Wire {
    let mut wire = gateway.local().open();
    let host = gateway.loopback();
    wire.send(
        format!("GET / HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {TOKEN}\r\n{UPGRADE}\r\n")
            .as_bytes(),
    );
    let head = wire.head();
    assert_eq!(head.status, 101, "{head:?}");
    assert_eq!(head.header("sec-websocket-extensions"), None);
    assert_eq!(wire.through(CHALLENGE.as_bytes()), frame(TEXT, CHALLENGE.as_bytes()));
    wire
}

fn connect() -> Value {
    json!({
        "type": "req", "id": "c1", "method": "connect",
        "params": {
            "minProtocol": 3, "maxProtocol": 4,
            "client": {"id": "openclaw-control-ui", "version": "2026.9.6", "platform": "wéb"},
            "device": {
                "id": "d", "publicKey": "k==", "signature": "s/+=", "signedAt": 1_764_000_000_123_u64,
                "nonce": "n1",
            },
            "auth": {"token": "the client's own", "deviceToken": "dt"},
            "role": "operator", "scopes": ["operator.admin"], "caps": [], "nothing": null,
            "numbers": [0, -1, 1.5, 9_007_199_254_740_993_u64],
        },
    })
}

#[test]
fn the_first_message_carries_the_secret_and_all_that_the_client_said() {
    let claw = OpenClaw::start();
    let (_files, gateway, _) = behind(&claw.app.flag(), "");
    let mut wire = socket(&gateway);
    wire.send(&masked(0x80 | TEXT, connect().to_string().as_bytes()));
    assert_eq!(wire.through(HELLO.as_bytes()), frame(TEXT, HELLO.as_bytes()));
    let mut expected = connect();
    expected["params"]["auth"]["password"] = SECRET.into();
    let first = claw.heard().remove(0);
    assert_eq!((first.0, serde_json::from_slice::<Value>(&first.1).unwrap()), (TEXT, expected));

    // Only the first: whatever comes later is the client's own affair, to the byte.
    for later in [r#"{"type":"req","method":"connect","params":{"auth":{},"auth":{}}}"#, "not json", ""] {
        wire.send(&masked(0x80 | TEXT, later.as_bytes()));
        let echo = frame(TEXT, later.as_bytes());
        assert_eq!(wire.through(&echo), echo);
        until("it was heard", || claw.heard().last().is_some_and(|(_, text)| text == later.as_bytes()));
    }
    let all: Vec<u8> = claw.heard().into_iter().skip(1).flat_map(|(_, text)| text).collect();
    assert!(!String::from_utf8_lossy(&all).contains(SECRET));
    assert_secret_is_kept(&gateway);
}

#[test]
fn the_secret_takes_the_place_of_whatever_password_the_client_says() {
    for params in [json!({}), json!({"auth": null}), json!({"auth": {"password": "guess", "token": "t"}})] {
        let claw = OpenClaw::start();
        let (_files, gateway, _) = behind(&claw.app.flag(), "");
        let mut wire = socket(&gateway);
        let first = json!({"type": "req", "id": 1, "method": "connect", "params": params});
        wire.send(&masked(0x80 | TEXT, first.to_string().as_bytes()));
        wire.through(HELLO.as_bytes());
        let heard: Value = serde_json::from_slice(&claw.heard()[0].1).unwrap();
        assert_eq!(heard["params"]["auth"]["password"], SECRET);
        assert_eq!(heard["params"]["auth"].get("token"), params["auth"].get("token"));
    }
}

#[test]
fn a_first_message_in_pieces_with_pings_between_is_one_message() {
    let claw = OpenClaw::start();
    let (_files, gateway, _) = behind(&claw.app.flag(), "");
    let mut wire = socket(&gateway);
    let text = connect().to_string();
    let (one, two) = text.as_bytes().split_at(40);
    let pieces = [masked(TEXT, one), masked(0x80 | PING, b"p"), masked(0x80, two)].concat();
    for byte in &pieces {
        wire.send(&[*byte]);
    }
    wire.through(HELLO.as_bytes());
    let heard = claw.heard();
    assert_eq!(heard[0], (PING, b"p".to_vec()));
    let first: Value = serde_json::from_slice(&heard[1].1).unwrap();
    assert_eq!((heard.len(), first["params"]["auth"]["password"].as_str()), (2, Some(SECRET)));
}

#[test]
fn what_is_not_a_sound_connect_is_closed_with_1008_and_nothing_reaches_openclaw() {
    let sound = connect().to_string();
    let text = |text: &str| masked(0x80 | TEXT, text.as_bytes());
    let large = format!(r#"{{"type":"req","method":"connect","params":{{"x":"{}"}}}}"#, "x".repeat(64 << 10));
    let mut unmasked = frame(TEXT, sound.as_bytes());
    unmasked.extend(frame(TEXT, b"x"));
    let firsts: Vec<(&str, Vec<u8>)> = vec![
        ("another method", text(&sound.replace("\"connect\"", "\"chat.send\""))),
        ("another type", text(&sound.replace("\"req\"", "\"event\""))),
        ("no method", text("{}")),
        ("an array", text("[]")),
        ("no JSON", text("hello")),
        ("nothing", text("")),
        ("half of it", text(&sound[..sound.len() - 1])),
        ("two of them", text(&format!("{sound}{sound}"))),
        (
            "no UTF-8",
            masked(0x80 | TEXT, b"{\"type\":\"req\",\"method\":\"connect\",\"params\":{\"x\":\"\xff\"}}"),
        ),
        ("no params", text(r#"{"type":"req","method":"connect"}"#)),
        ("params that are none", text(r#"{"type":"req","method":"connect","params":[]}"#)),
        ("auth that is none", text(r#"{"type":"req","method":"connect","params":{"auth":"x"}}"#)),
        ("two methods", text(r#"{"type":"req","method":"chat.send","method":"connect","params":{}}"#)),
        ("two params", text(r#"{"type":"req","method":"connect","params":{},"params":{"auth":{}}}"#)),
        ("two auths", text(r#"{"type":"req","method":"connect","params":{"auth":{},"auth":{"token":"x"}}}"#)),
        (
            "an escaped second",
            text(r#"{"type":"req","method":"connect","params":{"auth":{},"\u0061uth":{}}}"#),
        ),
        (
            "two passwords",
            text(r#"{"type":"req","method":"connect","params":{"auth":{"password":"a","password":"b"}}}"#),
        ),
        ("two far inside", text(r#"{"type":"req","method":"connect","params":{"x":[{"y":{"z":1,"z":2}}]}}"#)),
        ("more than 64 KiB", text(&large)),
        ("a head that says 1 GiB", [&[0x81, 0xff][..], &(1_u64 << 30).to_be_bytes(), &[0; 4]].concat()),
        (
            "more than 64 KiB in pieces",
            [masked(TEXT, &large.as_bytes()[..40_000]), masked(0x80, &large.as_bytes()[40_000..])].concat(),
        ),
        ("binary", masked(0x80 | 2, sound.as_bytes())),
        ("a continuation of nothing", masked(0x80, sound.as_bytes())),
        ("compressed", masked(0xc0 | TEXT, sound.as_bytes())),
        ("not masked", unmasked),
        ("a long ping", masked(0x80 | PING, &[0; 126])),
    ];
    let claw = OpenClaw::start();
    let (_files, gateway, _) = behind(&claw.app.flag(), "");
    for (at, (what, bytes)) in firsts.into_iter().enumerate() {
        let mut wire = socket(&gateway);
        // And a sound one behind it, which comes too late.
        wire.send(&[bytes, text(&sound)].concat());
        let end = wire.rest();
        assert!(end.len() > 4 && end[0] == 0x80 | CLOSE, "{what}: no close frame: {end:?}");
        assert_eq!(u16::from_be_bytes([end[2], end[3]]), 1008, "{what}");
        assert_eq!(end.len(), 2 + usize::from(end[1]), "{what}: more than a close frame");
        assert!(!String::from_utf8_lossy(&end).contains(SECRET));
        until("OpenClaw's connection is closed", || claw.ended.load(Ordering::SeqCst) > at);
        assert!(claw.heard().is_empty(), "{what}: OpenClaw heard {:?}", claw.heard());
    }
    let mut wire = socket(&gateway);
    wire.send(&text(&sound));
    wire.through(HELLO.as_bytes());
    assert_secret_is_kept(&gateway);
}

#[test]
fn threat_072_a_client_that_never_says_connect_is_closed() {
    let claw = OpenClaw::start();
    let (_files, gateway, _) = behind(&claw.app.flag(), "");
    let mut wire = socket(&gateway);
    let end = wire.rest();
    assert_eq!((end.first(), end.get(2..4)), (Some(&(0x80 | CLOSE)), Some(&1008_u16.to_be_bytes()[..])));
    assert!(claw.heard().is_empty());
}

#[test]
fn openclaw_sees_a_local_client_and_no_header_of_ours() {
    let (tailnet, claw, files) = (Tailnet::new(), OpenClaw::start(), Files::new());
    let gateway = Setup::on(&tailnet).config(files.config(&claw.app.flag(), "")).start_on_tailnet();
    let origin = format!("http://{}", gateway.tailnet());
    // A user who is no admin gets nothing of it.
    let bob = gateway.peer(BOB).with("Origin", &origin);
    bob.get("/").assert_refused(403, "role_required");
    bob.websocket("/").unwrap_err().assert_refused(403, "role_required");
    bob.get("/v1/models").assert_refused(403, "role_required");
    assert_eq!(claw.app.connections(), 0);

    for (who, target) in [(ALICE, "/"), (CAROL, "/v1/models")] {
        let client = gateway
            .peer(who)
            .with("Origin", &origin)
            .with("X-OpenClaw-Scopes", "operator.admin")
            .with("X_OpenClaw_Scopes", "operator.admin")
            .with("Cookie", "openclaw_session=ours; theirs=1");
        assert_eq!(client.get(target).text(), "ok");
        let mut socket = client.websocket("/?x=1").unwrap();
        assert_eq!(socket.read().unwrap().into_text().unwrap(), CHALLENGE);
        socket.send(connect().to_string().into()).unwrap();
        assert_eq!(socket.read().unwrap().into_text().unwrap(), HELLO);
        claw.heard.lock().unwrap().clear();
    }
    let requests = claw.app.requests();
    assert_eq!(requests.len(), 4);
    for request in &requests {
        let text = String::from_utf8_lossy(request).into_owned();
        for line in text.lines().skip(1).filter_map(|line| line.split_once(':')) {
            let name = line.0.to_ascii_lowercase().replace('_', "-");
            let ours = ["tailscale-", "x-forwarded", "forwarded", "x-real-ip", "via", "remote-"];
            assert!(!ours.iter().any(|prefix| name.starts_with(prefix)), "{text}");
            assert!(!matches!(name.as_str(), "x-openclaw-scopes" | "sec-websocket-extensions"), "{text}");
        }
        assert_eq!(header_of(request, "host"), Some(claw.app.flag()), "{text}");
        assert_eq!(header_of(request, "origin"), Some(origin.clone()), "{text}");
        assert_eq!(header_of(request, "cookie").as_deref(), Some("theirs=1"), "{text}");
    }
    assert_secret_is_kept(&gateway);
}

#[test]
fn the_bearer_goes_to_two_kinds_of_path_and_nowhere_else() {
    let claw = OpenClaw::start();
    let (_files, gateway, client) = behind(&claw.app.flag(), "");
    let ask = |client: &Client, method: &str, target: &str| {
        let answer = client.request(method, target, b"{}");
        assert_eq!(answer.text(), "ok", "{target}");
        header_of(&claw.app.requests().pop().unwrap(), "authorization")
    };
    let bearer = format!("Bearer {SECRET}");
    for target in
        ["/v1/chat/completions", "/v1/models?x=/y", "/v1/", "/tools/invoke", "/tools/invoke?x", "/%761/x"]
    {
        assert_eq!(ask(&client, "POST", target).as_deref(), Some(bearer.as_str()), "{target}");
    }
    for target in [
        "/",
        "/v1",
        "/V1/models",
        "/v10/models",
        "/v1x",
        "/tools",
        "/tools/",
        "/tools/invoke/",
        "/tools/invokex",
        "/Tools/invoke",
        "/x/v1/models",
        "/?/v1/",
        "/api/v1/x",
        "/canvas/v1/",
    ] {
        assert_eq!(ask(&client, "POST", target), None, "{target}");
    }
    // What the client sends itself passes elsewhere, and is replaced there.
    let own = gateway.local().with("X-OpenClaw-Gateway-Token", TOKEN).with("Authorization", "Bearer own");
    assert_eq!(ask(&own, "GET", "/").as_deref(), Some("Bearer own"));
    assert_eq!(ask(&own, "GET", "/v1/models").as_deref(), Some(bearer.as_str()));
    for target in ["/v1/../x", "/x/%2e%2e/v1/models", "//v1/models", "/v1%2fmodels"] {
        let answer = client.get(target);
        if answer.status == 200 {
            let request = claw.app.requests().pop().unwrap();
            let passed = String::from_utf8_lossy(&request).into_owned();
            let at_v1 = passed.starts_with("GET /v1/");
            assert_eq!(header_of(&request, "authorization").is_some(), at_v1, "{target}: {passed}");
        } else {
            assert_eq!(answer.status, 400, "{target}");
        }
    }
    assert_secret_is_kept(&gateway);
}

/// An app that keeps every byte it is sent.
fn listening() -> (Upstream, Arc<Mutex<Vec<u8>>>, Arc<AtomicUsize>) {
    let (bytes, ended) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
    let (ours, end) = (Arc::clone(&bytes), Arc::clone(&ended));
    let app = Upstream::scripted(move |mut conn| {
        let rest = conn.rest();
        ours.lock().unwrap().extend(rest);
        end.fetch_add(1, Ordering::SeqCst);
    });
    (app, bytes, ended)
}

#[test]
fn threat_067_a_listener_of_another_user_gets_not_one_byte() {
    let (app, bytes, ended) = listening();
    let (_files, gateway, client) = behind(&app.flag(), ", ownerUid: 64999");
    client.get("/").assert_refused(502, "upstream_owner_mismatch");
    client.get("/v1/models").assert_refused(502, "upstream_owner_mismatch");
    client.request("POST", "/v1/chat/completions", b"{}").assert_refused(502, "upstream_owner_mismatch");
    client.websocket("/").unwrap_err().assert_refused(502, "upstream_owner_mismatch");
    until("all connections are closed", || ended.load(Ordering::SeqCst) == app.connections());
    assert!(bytes.lock().unwrap().is_empty(), "the squatter got bytes");
    assert_secret_is_kept(&gateway);
}

#[test]
fn threat_067_a_plain_app_of_another_user_gets_no_identity() {
    let (app, bytes, ended) = listening();
    let config = |uid: u32| {
        format!(
            r#"{{gateway: {{auth: {{mode: "token", token: "{TOKEN}"}},
                upstream: {{url: "http://{}", ownerUid: {uid}}}}}}}"#,
            app.flag()
        )
    };
    let gateway = Setup::new().config(config(64999)).start();
    gateway.local().bearer(TOKEN).get("/").assert_refused(502, "upstream_owner_mismatch");
    until("all connections are closed", || ended.load(Ordering::SeqCst) == app.connections());
    assert!(bytes.lock().unwrap().is_empty(), "the squatter got bytes");
    let right = Upstream::echo();
    let uid = rustix::process::geteuid().as_raw();
    gateway.write_config(&config(uid).replace(&app.flag(), &right.flag()));
    until("the right owner is asked", || gateway.local().bearer(TOKEN).get("/").status == 200);
}

#[test]
fn threat_067_a_real_squatter_on_openclaws_port_gets_nothing() {
    const ME: &str = "threat_067";
    if !may_switch_user(ME) {
        return;
    }
    let squatter = SampleApp::of_user(NOBODY);
    let (_files, gateway, client) = behind(squatter.flag(), "");
    client.get("/v1/models").assert_refused(502, "upstream_owner_mismatch");
    client.websocket("/ws").unwrap_err().assert_refused(502, "upstream_owner_mismatch");
    let count = squatter.direct().get("/count").json();
    assert_eq!(count["requests"], 1, "the squatter was asked something");
    assert_secret_is_kept(&gateway);
}

#[test]
fn a_down_or_silent_openclaw_tells_no_secret() {
    let (_files, gateway, client) = behind("127.0.0.1:1", "");
    let refused = client.get("/v1/models");
    refused.assert_refused(502, "upstream_unreachable");
    client.websocket("/").unwrap_err().assert_refused(502, "upstream_unreachable");
    assert!(!refused.text().contains(SECRET));
    assert_secret_is_kept(&gateway);

    let claw = Upstream::answering("garbage\r\n\r\n");
    let (_files, gateway, client) = behind(&claw.flag(), "");
    client.get("/v1/models").assert_refused(502, "upstream_bad_response");
    client.websocket("/").unwrap_err().assert_refused(502, "upstream_bad_response");
    assert_secret_is_kept(&gateway);
}
