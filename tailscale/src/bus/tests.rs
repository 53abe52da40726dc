//! Lines of a recorded bus, lines that no daemon sends, and a scripted server that
//! sends them as it likes.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use super::*;
use crate::test_support::{block_on, recording};
use crate::{ClientMode, Limits, LocateOptions};

/// Tailscale at a socket where every connection is handled by `serve`, after the head
/// of its request.
fn served(
    dir: &tempfile::TempDir,
    client: ClientMode,
    serve: impl Fn(UnixStream) + Send + Sync + 'static,
) -> Tailscale {
    let socket = dir.path().join("s.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    // Ends with the test's process.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            let mut head = BufReader::new(stream.try_clone().unwrap());
            let mut line = String::new();
            while head.read_line(&mut line).unwrap_or(0) > 2 {
                line.clear();
            }
            serve(stream);
        }
    });
    let limits = Limits { timeout: Duration::from_millis(200), ..Limits::default() };
    let options = LocateOptions { socket: Some(socket), client, limits, ..LocateOptions::default() };
    Tailscale::locate(options).unwrap().tailscale
}

const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n";

/// What is heard of what was `said`, and how it ends.
fn heard(said: Vec<Vec<u8>>) -> (Vec<BusEvent>, Error) {
    let dir = tempfile::tempdir().unwrap();
    let tailscale = served(&dir, ClientMode::LocalApi, move |mut stream| {
        let _ = stream.write_all(HEAD.as_bytes());
        for piece in &said {
            let _ = stream.write_all(piece);
        }
    });
    block_on(async {
        let mut bus = tailscale.watch().await.unwrap();
        let mut events = Vec::new();
        loop {
            match bus.next().await {
                Ok(event) => events.push(event),
                Err(error) => return (events, error),
            }
        }
    })
}

fn told(line: &str) -> Told {
    match parse(line.as_bytes()) {
        BusEvent::Told(told) => told,
        BusEvent::Unreadable => panic!("it was not read: {line}"),
    }
}

#[test]
fn a_line_that_is_no_event_may_mean_anything() {
    for line in [
        "null",
        "[]",
        "1",
        "{",
        "{}{}",
        "{} x",
        "\u{0}",
        r#"{"State":"6"}"#,
        r#"{"State":6,"State":4}"#,
        r#"{"PeersChanged":{}}"#,
        r#"{"PeersChanged":[{"Name":"no id"}]}"#,
        r#"{"PeersChanged":[null]}"#,
        r#"{"PeersRemoved":["5"]}"#,
        r#"{"PeersRemoved":[1e30]}"#,
        r#"{"PeerChangedPatch":[{"NodeID":3,"KeyExpiry":"2026-11-23T11:42:52Z"}]}"#,
        r#"{"PeerChangedPatch":[{"NodeID":3,"SomethingNew":1}]}"#,
    ] {
        assert_eq!(parse(line.as_bytes()), BusEvent::Unreadable, "{line}");
    }
    assert_eq!(parse(b"{\"State\":\xff}"), BusEvent::Unreadable);
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let tags = format!(r#"{{"PeersChanged":[{{"ID":3,"Tags":{deep}}}]}}"#);
    assert_eq!(parse(tags.as_bytes()), BusEvent::Unreadable);
    // What is skipped is skipped at any depth.
    assert_eq!(told(&format!(r#"{{"Engine":{deep}}}"#)), Told::default());
}

#[test]
fn hostile_output_costs_a_bounded_memory_and_loses_no_event_after_it() {
    let long = vec![b'x'; MAX_DOCUMENT + 1];
    let (events, error) = heard(vec![
        b"\n\n{\"State\":4}\n".to_vec(),
        // In one piece, and in many.
        long.clone(),
        b"\n{\"State\":5}\n{\"Sta".to_vec(),
        b"te\":6}\n\xff\n".to_vec(),
        [b"{\"PeersChanged\":[".to_vec(), long.clone(), long.clone(), long, b"]}\n".to_vec()].concat(),
        b"{\"State\":2}\n{\"State\":".to_vec(),
    ]);
    let states: Vec<_> = events
        .iter()
        .map(|event| match event {
            BusEvent::Told(told) => told.state.as_ref().map_or("?", BackendState::as_str),
            BusEvent::Unreadable => "unreadable",
        })
        .collect();
    let expected = ["Stopped", "unreadable", "Starting", "Running", "unreadable", "unreadable", "NeedsLogin"];
    assert_eq!(states, expected);
    // Half a line is none.
    assert_eq!(error.code(), "tailscale_stream_ended");
}

#[test]
fn what_cannot_be_heard_is_an_error_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let silent = served(&dir, ClientMode::LocalApi, std::mem::forget);
    let error = block_on(silent.watch()).err().unwrap();
    assert_eq!(error.code(), "tailscale_timed_out");
    for (said, code) in [
        ("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", "tailscale_denied"),
        ("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "tailscale_failed"),
        ("{\"State\":6}\n", "tailscale_output_garbage"),
        ("", "tailscale_socket_failed"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let tailscale = served(&dir, ClientMode::LocalApi, move |mut stream| {
            let _ = stream.write_all(said.as_bytes());
        });
        let error = block_on(tailscale.watch()).err().unwrap();
        assert_eq!(error.code(), code, "{said}");
    }
    let dir = tempfile::tempdir().unwrap();
    let none = LocateOptions {
        socket: Some(dir.path().join("none")),
        client: ClientMode::LocalApi,
        ..LocateOptions::default()
    };
    let none = Tailscale::locate(none).unwrap().tailscale;
    assert_eq!(block_on(none.watch()).err().unwrap().code(), "tailscale_daemon_down");
}

#[test]
fn a_bus_that_waits_is_not_a_bus_that_ended() {
    let dir = tempfile::tempdir().unwrap();
    let tailscale = served(&dir, ClientMode::LocalApi, |mut stream| {
        stream.write_all(HEAD.as_bytes()).unwrap();
        stream.write_all(b"{\"State\":6}\n{\"Sta").unwrap();
        // Longer than the time limit of a call; nothing may be lost meanwhile.
        std::thread::sleep(Duration::from_millis(400));
        stream.write_all(b"te\":4}\n").unwrap();
        std::mem::forget(stream);
    });
    block_on(async {
        let mut bus = tailscale.watch().await.unwrap();
        let mut seen = Vec::new();
        while seen.len() < 2 {
            // Given up again and again, as in a select.
            let soon = tokio::time::timeout(Duration::from_millis(30), bus.next());
            if let Ok(event) = soon.await {
                seen.push(event.unwrap());
            }
        }
        assert_eq!(seen[1], BusEvent::Told(Told { state: Some(BackendState::Stopped), ..Told::default() }));
    });
}

#[test]
fn recorded_events_say_what_changed() {
    let text = recording("watch-ipn-bus-events.ndjson");
    let mut since: BTreeMap<&str, Vec<Told>> = BTreeMap::new();
    let mut step = "at first";
    for line in text.lines() {
        match serde_json::from_str::<Value>(line).unwrap()["---"].as_str() {
            Some("policy: bob's grant changes role user -> admin") => step = "policy",
            Some("bob's key expires") => step = "expiry",
            Some("phone becomes tagged") => step = "tagged",
            Some("usgw is deleted") => step = "deleted",
            Some(_) => step = "down, up",
            None => since.entry(step).or_default().push(told(line)),
        }
    }
    let identity = |step: &str, id: i64| {
        let peers = since[step].iter().flat_map(|told| &told.peers_changed);
        peers.filter(|peer| peer.id == id).map(|peer| peer.identity).next_back().unwrap()
    };
    assert!(since["policy"][0].self_changed && since["policy"][0].profiles_changed);
    // Who is allowed what shows in nobody.
    assert_eq!(identity("policy", 2), identity("expiry", 2));
    assert_ne!(identity("policy", 3), identity("expiry", 3));
    assert_eq!(identity("expiry", 3), identity("tagged", 3));
    assert_ne!(identity("expiry", 2), identity("tagged", 2));
    assert!(
        since["deleted"]
            .iter()
            .all(|told| told.peers_changed.iter().all(|peer| peer.id != 5) || !told.peers_removed.is_empty())
    );
    let states: Vec<_> = since["down, up"].iter().filter_map(|told| told.state.clone()).collect();
    assert_eq!(states, [BackendState::Stopped, BackendState::Starting, BackendState::Running]);
    // The beginning of a bus; its second line was cut when it was recorded.
    let first = recording("watch-ipn-bus-initial.ndjson");
    assert_eq!(told(first.lines().next().unwrap()).state, Some(BackendState::Running));
}

#[test]
fn coming_going_and_roaming_is_nobody_else() {
    let peer = |more: &str| {
        let line =
            format!(r#"{{"PeersChanged":[{{"ID":3,"Name":"a.b.","Addresses":["100.64.0.3/32"]{more}}}]}}"#);
        told(&line).peers_changed[0].identity
    };
    let plain = peer("");
    for fleeting in [
        r#","Online":true"#,
        r#","LastSeen":"2026-11-23T11:42:52Z","Endpoints":["1.2.3.4:1"],"HomeDERP":4,"DiscoKey":"x""#,
        r#","Hostinfo":{"OS":"linux","NetInfo":{"WorkingIPv6":false}},"Cap":142,"CapMap":{"x":[]}"#,
    ] {
        assert_eq!(plain, peer(fleeting), "{fleeting}");
    }
    for lasting in [
        r#","Expired":true"#,
        r#","Tags":["tag:ci"]"#,
        r#","User":4"#,
        r#","Sharer":4"#,
        r#","KeyExpiry":"2026-11-23T11:42:52Z""#,
        r#","AllowedIPs":["10.0.0.0/8"]"#,
        r#","Hostinfo":{"ShareeNode":true}"#,
        r#","IsJailed":true"#,
        r#","UnsignedPeerAPIOnly":true"#,
    ] {
        assert_ne!(plain, peer(lasting), "{lasting}");
    }
    let patch = r#"{"PeerChangedPatch":[{"NodeID":3,"Online":false,"LastSeen":"2026-11-23T11:42:52Z"}]}"#;
    assert_eq!(told(patch), Told::default());
}
