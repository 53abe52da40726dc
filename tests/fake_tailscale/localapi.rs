//! The LocalAPI of the stand-in daemon, against its recording.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;

use serde_json::Value;

use crate::client::{Answer, get, request, unix};
use crate::fake::{Fake, recording};
use crate::running::Running;

const HOST: &str = "local-tailscaled.sock";

fn ask(fake: &Fake, request: &str) -> Answer {
    unix(&fake.dir().join("tailscaled.sock"), request)
}

fn api(path: &str) -> String {
    format!("/localapi/v0/{path}")
}

// Not compared: the order of headers and the date, which are the server's own
// affair, and the length of whois, whose recorded body was scrubbed.
#[test]
fn answers_are_the_recorded_ones() {
    let fake = Fake::with("lab");
    assert_eq!(fake.run(&["serve", "reset"]).code, Some(0));
    let _daemon = Running::daemon(&fake, &[]);
    let text = recording("localapi.txt");
    let mut compared = 0;
    for block in text.split("## ").skip(1) {
        let (command, rest) = block.split_once('\n').unwrap();
        let (head, body) = rest.split_once("\n\n").unwrap();
        let url = command.split(' ').find(|w| w.starts_with("http://") && w.contains("/localapi/"));
        let (host, path) = url.unwrap().trim_start_matches("http://").split_once('/').unwrap();
        let path = format!("/{path}");
        let request = if command.starts_with("-X POST") {
            request("POST", &path, host, &["If-Match: 0000"], "{}")
        } else if command.starts_with("-H Origin") {
            get(&path, host, &["Origin: http://x"])
        } else {
            get(&path, host, &[])
        };
        let answer = ask(&fake, &request);
        let mut lines = head.lines();
        assert_eq!(answer.head.lines().next(), lines.next(), "{command}");
        for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
            let scrubbed = name == "Content-Length" && body.starts_with("{\n");
            if name != "Date" && !scrubbed {
                assert_eq!(answer.header(name), Some(value), "{name} of {command}");
            }
        }
        assert_eq!(answer.text().trim_end(), body.trim_end(), "{command}");
        compared += 1;
    }
    assert_eq!(compared, 7);
}

#[test]
fn the_etag_of_null_and_of_nothing_is_the_known_one() {
    let fake = Fake::with("lab");
    let _daemon = Running::daemon(&fake, &[]);
    let answer = ask(&fake, &get(&api("serve-config"), HOST, &[]));
    assert_eq!(answer.text(), "null");
    assert!(answer.header("etag").unwrap().starts_with("74234e98"));
    let _ = ask(&fake, &request("POST", &api("serve-config"), HOST, &[], "{}"));
    let answer = ask(&fake, &get(&api("serve-config"), HOST, &[]));
    assert_eq!(answer.text(), "{}");
    assert!(answer.header("etag").unwrap().starts_with("44136fa3"));
}

#[test]
fn serve_config_is_refused_with_the_right_status() {
    let fake = Fake::with("lab");
    let _daemon = Running::daemon(&fake, &[]);
    let unix = r#"{"TCP":{"443":{"HTTPS":true}},"Web":{"gw.tailnet-example.test:443":{"Handlers":{"/":{"Proxy":"unix:/x"}}}}}"#;
    let post = |body| ask(&fake, &request("POST", &api("serve-config"), HOST, &[], body)).status();
    fake.set(&["permissions=operator-no-sudo"]);
    assert_eq!(post(unix), 401);
    assert_eq!(post("{}"), 200);
    fake.set(&["permissions=denied"]);
    assert_eq!(post("{}"), 403);
    fake.set(&["permissions=root", "features.configLocked=true"]);
    let answer = ask(&fake, &request("POST", &api("serve-config"), HOST, &[], unix));
    assert_eq!(answer.status(), 500);
    assert!(answer.json()["error"].as_str().unwrap().contains("config file is locked"));
    fake.set(&["features.configLocked=false"]);
    assert_eq!(post(unix), 200);
}

struct Bus(BufReader<UnixStream>);

impl Bus {
    fn open(fake: &Fake, mask: u32) -> Self {
        let mut stream = UnixStream::connect(fake.dir().join("tailscaled.sock")).unwrap();
        let path = api(&format!("watch-ipn-bus?mask={mask}"));
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n").unwrap();
        Self(BufReader::new(stream))
    }

    /// The next line that is JSON; the framing around it is skipped.
    fn next(&mut self) -> Value {
        loop {
            let mut line = String::new();
            assert!(self.0.read_line(&mut line).unwrap() > 0, "the bus ended");
            if line.starts_with('{') {
                return serde_json::from_str(&line).unwrap();
            }
        }
    }
}

#[test]
fn the_bus_tells_of_changes() {
    let fake = Fake::with("lab");
    let _daemon = Running::daemon(&fake, &[]);
    let mut bus = Bus::open(&fake, 12306);
    let mut first = bus.next();
    let recorded = recording("watch-ipn-bus-initial.ndjson");
    let mut expected: Value = serde_json::from_str(recorded.lines().next().unwrap()).unwrap();
    for event in [&mut first, &mut expected] {
        assert_eq!(event["SessionID"].take().as_str().unwrap().len(), 16);
    }
    assert_eq!(first, expected);
    assert_eq!(bus.next()["PeersChanged"].as_array().unwrap().len(), 4);

    fake.set(&["peer.bobpc.expired=true"]);
    let event = bus.next();
    assert_eq!(event["PeersChanged"][1]["Expired"], true);
    fake.set(&[r#"peer.bobpc.caps={"openclaw.ai/cap/gateway": [{role: "admin"}]}"#]);
    assert_eq!(bus.next()["SelfChange"]["ID"], 1);
    fake.set(&["peer.usgw=null"]);
    assert_eq!(bus.next()["PeersRemoved"], serde_json::json!([5]));
    assert_eq!(bus.next()["PeersChanged"].as_array().unwrap().len(), 3);
    fake.set(&["peer.phone.online=false"]);
    let event = bus.next();
    assert_eq!(event["PeersChanged"].as_array().unwrap().len(), 1);
    assert_eq!((&event["PeersChanged"][0]["ID"], event.get("SelfChange")), (&2.into(), None));
    fake.set(&["backend=Stopped"]);
    assert_eq!(bus.next()["State"], 4);
    fake.set(&["backend=Running"]);
    assert_eq!(bus.next()["State"], 6);
}

#[test]
fn a_foreground_entry_lives_as_long_as_its_bus() {
    let fake = Fake::with("lab");
    let _daemon = Running::daemon(&fake, &[]);
    let mut bus = Bus::open(&fake, 2);
    let session = bus.next()["SessionID"].as_str().unwrap().to_owned();
    let config = format!(
        r#"{{"Foreground":{{"{session}":{{"TCP":{{"443":{{"HTTPS":true}}}},"Web":{{"gw.tailnet-example.test:443":{{"Handlers":{{"/":{{"Proxy":"http://127.0.0.1:9000"}}}}}}}}}}}}}}"#
    );
    let answer = ask(&fake, &request("POST", &api("serve-config"), HOST, &[], &config));
    assert_eq!(answer.status(), 200, "{}", answer.text());
    assert!(fake.run(&["serve", "status", "--json"]).out().contains(&session));
    assert!(crate::running::try_listener(&fake, 443, "source").is_some());
    drop(bus);
    fake.until("the entry is gone", || !fake.run(&["serve", "status", "--json"]).out().contains(&session));
}

#[test]
fn a_daemon_that_goes_down_takes_its_socket_along() {
    let fake = Fake::with("lab");
    let _daemon = Running::daemon(&fake, &[]);
    let socket = fake.dir().join("tailscaled.sock");
    let bus = Bus::open(&fake, 2);
    fake.set(&["daemon=down"]);
    assert!(!socket.exists());
    drop(bus);
    fake.set(&["daemon=refused"]);
    assert!(socket.exists() && UnixStream::connect(&socket).is_err());
    fake.set(&["daemon=up"]);
    assert_eq!(ask(&fake, &get(&api("status"), HOST, &[])).status(), 200);
}

#[test]
fn faults_reach_the_localapi_too() {
    let fake = Fake::with("lab");
    let _daemon = Running::daemon(&fake, &[]);
    let whois = get(&api("whois?addr=100.64.0.2"), HOST, &[]);
    fake.set(&["fault.whois=wrong-shape:no-user-profile"]);
    assert!(ask(&fake, &whois).json().get("UserProfile").is_none());
    fake.set(&["fault.whois=denied"]);
    assert_eq!(ask(&fake, &whois).status(), 403);
    fake.set(&["fault.whois=gate:later"]);
    let socket = fake.dir().join("tailscaled.sock");
    let held = std::thread::spawn(move || unix(&socket, &whois));
    fake.until("it is held", || fake.calls().len() >= 5);
    // Bob is answered while Alice is held.
    fake.set(&["fault.whois@100.64.0.2=gate:later", "fault.whois=none"]);
    assert_eq!(ask(&fake, &get(&api("whois?addr=100.64.0.3"), HOST, &[])).status(), 200);
    fake.tool("release", &["later"]);
    assert_eq!(held.join().unwrap().status(), 200);
}
