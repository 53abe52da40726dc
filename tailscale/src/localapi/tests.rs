//! Against a scripted server: each connection is read up to the end of the request,
//! then answered with given bytes, and closed or held open.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream as StdStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::client::LocalUse;
use crate::test_support::{block_on, recording};
use crate::{Tailscale, Whois};

/// How a connection ends after what was said.
#[derive(Clone, Copy)]
enum Then {
    Close,
    /// Nothing more, until the other side closes.
    Hold,
    /// The same bytes again and again, until the other side closes.
    Repeat(Duration),
}

struct Server {
    dir: TempDir,
    heads: Arc<Mutex<Vec<String>>>,
    limits: Limits,
}

impl Server {
    fn new(said: impl Into<Vec<u8>>, then: Then) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("s.sock")).unwrap();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let (said, ours) = (said.into(), Arc::clone(&heads));
        // Ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (said, ours) = (said.clone(), Arc::clone(&ours));
                std::thread::spawn(move || serve(stream.unwrap(), &said, then, &ours));
            }
        });
        Self { dir, heads, limits: Limits { timeout: Duration::from_secs(60), ..Limits::default() } }
    }

    /// Closes after the answer.
    fn saying(said: impl Into<Vec<u8>>) -> Self {
        Self::new(said, Then::Close)
    }

    fn within(mut self, timeout: Duration) -> Self {
        self.limits.timeout = timeout;
        self
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("s.sock")
    }

    /// Tailscale with this socket, and a script that notes that it was run and
    /// answers as the command line does.
    fn tailscale(&self, local: LocalUse) -> Tailscale {
        let path = self.dir.path().join("tailscale");
        let script = "#!/bin/sh\nhere=${0%/*}\necho \"$@\" >> $here/args\ncat $here/out\n";
        std::fs::write(self.dir.path().join("out"), recording("whois-user.json")).unwrap();
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        Tailscale::new(Some(path), Some(self.socket()), self.limits, local)
    }

    fn was_run(&self) -> bool {
        self.dir.path().join("args").exists()
    }

    /// What `whois` makes of it where the command line could be asked as well.
    #[track_caller]
    fn whois(&self) -> Result<Whois, Error> {
        let whois = block_on(self.tailscale(LocalUse::First).whois("100.64.0.2".parse().unwrap()));
        assert!(!self.was_run(), "the command line was asked after an answer");
        whois
    }

    #[track_caller]
    fn code(&self) -> &'static str {
        match self.whois() {
            Ok(whois) => panic!("it was believed: {whois:?}"),
            Err(error) => error.code(),
        }
    }
}

fn serve(mut stream: StdStream, said: &[u8], then: Then, heads: &Mutex<Vec<String>>) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        // Some only look who listens.
        if stream.read(&mut byte).unwrap_or(0) == 0 {
            return;
        }
        head.push(byte[0]);
    }
    heads.lock().unwrap().push(String::from_utf8(head).unwrap());
    let mut told = stream.write_all(said);
    match then {
        Then::Close => {}
        Then::Hold => {
            let _ = stream.read(&mut byte);
            heads.lock().unwrap().push("closed".to_owned());
        }
        Then::Repeat(pause) => {
            while told.is_ok() {
                std::thread::sleep(pause);
                told = stream.write_all(said);
            }
        }
    }
}

/// A whole answer, as tailscaled marks them.
fn answer(status: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nTailscale-Version: 1.102.3\r\nContent-Length: {length}\r\n\r\n{body}")
}

/// The recorded answer to the first request whose line contains `url`.
fn recorded(url: &str) -> String {
    let text = recording("localapi.txt");
    let (_, rest) = text.split_once(&format!("## {url}\n")).expect("it was recorded");
    let message = rest.split("\n## ").next().unwrap();
    let (head, body) = message.split_once("\n\n").expect("a head and a body");
    // Names in it were replaced after it was recorded, and with them its length.
    let headers = head.lines().filter(|line| !line.starts_with("Content-Length: "));
    let head: String = headers.map(|line| format!("{line}\r\n")).collect();
    format!("{head}Content-Length: {}\r\n\r\n{body}", body.len())
}

const BASE: &str = "http://local-tailscaled.sock/localapi/v0";
const SHORT: Duration = Duration::from_millis(150);

#[test]
fn what_is_no_http_is_garbage() {
    for said in [
        "peer found\r\n\r\n",
        "\0\0\0\0",
        "HTTP/1.1 OK 200\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\nbad\0: x\r\n\r\n{}",
    ] {
        assert_eq!(Server::saying(said).code(), "tailscale_output_garbage", "{said:?}");
    }
    let endless_head = format!("HTTP/1.1 200 OK\r\nx: {}", "x".repeat(200 << 10));
    assert_eq!(Server::new(endless_head, Then::Hold).code(), "tailscale_output_garbage");
}

#[test]
fn an_answer_that_is_too_large_is_not_kept() {
    let large = "tailscale_output_too_large";
    let announced = "HTTP/1.1 200 OK\r\nContent-Length: 5000000000\r\n\r\n{";
    assert_eq!(Server::new(announced, Then::Hold).code(), large);
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    let many = chunk.repeat(100);
    let chunked = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{many}");
    assert_eq!(Server::new(chunked, Then::Hold).code(), large);
    // As long as the connection lives, and it never ends.
    let endless = format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(1 << 20));
    assert_eq!(Server::new(endless, Then::Repeat(Duration::ZERO)).code(), large);
    let error = answer("500 Internal Server Error", &"x".repeat(100_000));
    assert_eq!(Server::saying(error).code(), large);
}

#[test]
fn silence_and_drops_end_with_the_time_limit() {
    for (said, then) in [
        ("", Then::Hold),
        ("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{", Then::Hold),
        ("HTTP/1.1 100 Continue\r\n\r\n", Then::Repeat(Duration::from_millis(5))),
        ("\r\n", Then::Repeat(Duration::from_millis(5))),
    ] {
        let server = Server::new(said, then).within(SHORT);
        let code = server.code();
        // An endless row of empty lines is one too long head.
        let ended = code == "tailscale_timed_out" || code == "tailscale_output_garbage";
        assert!(ended, "{said:?}: {code}");
    }
    let drops = Server::new("HTTP/1.1 200 OK\r\n\r\n", Then::Repeat(Duration::from_millis(5))).within(SHORT);
    assert_eq!(drops.code(), "tailscale_timed_out");
}

#[test]
fn a_connection_that_breaks_is_no_answer() {
    let whole = recorded(&format!("{BASE}/whois?addr=100.64.0.2"));
    let half = &whole[..whole.len() - 200];
    for said in ["", "HTTP/1.1 200 OK\r\nContent-Len", half] {
        assert_eq!(Server::saying(said).code(), "tailscale_socket_failed", "{} bytes", said.len());
    }
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n";
    assert_eq!(Server::saying(chunked).code(), "tailscale_socket_failed");
    // Without a length the end of the connection is the end of the answer; half an
    // object is none.
    let unmeasured = format!("HTTP/1.1 200 OK\r\n\r\n{}", &recording("whois-user.json")[..900]);
    assert_eq!(Server::saying(unmeasured).code(), "tailscale_output_not_json");
}

#[test]
fn an_answer_that_is_no_person_grants_nothing() {
    let garbage = "tailscale_output_garbage";
    let shape = "tailscale_output_wrong_shape";
    let person = recording("whois-user.json");
    for (body, code) in [
        ("", "tailscale_output_not_json"),
        ("alice@example.com", "tailscale_output_not_json"),
        ("{\"Node\":\0}", garbage),
        ("null", shape),
        ("[]", shape),
        ("{}", shape),
        (&person.replace("100.64.0.2/32", "100.64.0.3/32").replace("::2/128", "::3/128"), shape),
        (&format!("{person}{person}"), "tailscale_output_not_json"),
    ] {
        assert_eq!(Server::saying(answer("200 OK", body)).code(), code, "{body}");
    }
    let mut latin = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n".to_vec();
    latin.extend(b"{\xff}");
    assert_eq!(Server::saying(latin).code(), garbage);
}

#[test]
fn each_status_has_its_meaning() {
    let failed = "tailscale_failed";
    for (status, code) in [
        ("403 Forbidden", "tailscale_denied"),
        ("401 Unauthorized", "tailscale_denied"),
        ("400 Bad Request", "tailscale_bad_argument"),
        ("404 Not Found", "tailscale_peer_not_found"),
        ("500 Internal Server Error", failed),
        ("502 Bad Gateway", failed),
        ("301 Moved Permanently", failed),
        ("206 Partial Content", failed),
        ("201 Created", failed),
        ("101 Switching Protocols", failed),
    ] {
        let person = recording("whois-user.json");
        for body in ["peer\u{1b}[2J", &person] {
            assert_eq!(Server::saying(answer(status, body)).code(), code, "{status}");
        }
    }
    let error = Server::saying(answer("500 Oops", "boom\u{1b}[2J\n")).whois().unwrap_err();
    assert_eq!(error.to_string(), "tailscaled answered `whois` with status 500: boom\\u{1b}[2J");
}

#[test]
fn not_found_counts_from_tailscaled_and_about_a_peer_only() {
    let foreign = "HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\nnot found";
    assert_eq!(Server::saying(foreign).code(), "tailscale_failed");
    let server = Server::saying(answer("404 Not Found", "not found"));
    let tailscale = server.tailscale(LocalUse::First);
    assert_eq!(block_on(tailscale.status()).unwrap_err().code(), "tailscale_failed");
    assert_eq!(block_on(tailscale.serve_status()).unwrap_err().code(), "tailscale_failed");
    assert!(!server.was_run());
}

#[test]
fn what_follows_the_answer_is_not_read() {
    let alice = recorded(&format!("{BASE}/whois?addr=100.64.0.2"));
    let both = format!("{}{alice}", answer("404 Not Found", "no match for IP:port"));
    assert_eq!(Server::saying(both).code(), "tailscale_peer_not_found");
}

#[test]
fn the_command_line_is_asked_when_nobody_listens_and_only_then() {
    let server = Server::saying("");
    let (first, only) = (server.tailscale(LocalUse::First), server.tailscale(LocalUse::Only));
    std::fs::remove_file(server.socket()).unwrap();
    let ip = "100.64.0.2".parse().unwrap();
    for nobody in ["no file", "no listener"] {
        assert_eq!(block_on(only.whois(ip)).unwrap_err().code(), "tailscale_daemon_down");
        assert!(!server.was_run(), "{nobody}");
        assert!(block_on(first.whois(ip)).is_ok(), "{nobody}");
        assert!(!first.local_api_answers());
        std::fs::remove_file(server.dir.path().join("args")).unwrap();
        // For the second round.
        drop(UnixListener::bind(server.socket()));
    }
    let never = Server::saying(recorded(&format!("{BASE}/whois?addr=100.64.0.2")));
    assert!(block_on(never.tailscale(LocalUse::Never).whois(ip)).is_ok());
    assert!(never.was_run());
    assert!(never.heads.lock().unwrap().is_empty());
}

#[test]
fn a_dropped_question_closes_the_connection() {
    let server = Server::new("", Then::Hold);
    let tailscale = server.tailscale(LocalUse::First);
    block_on(async {
        let asking = tailscale.status();
        assert!(tokio::time::timeout(SHORT, asking).await.is_err());
        let closed = || server.heads.lock().unwrap().last().is_some_and(|said| said == "closed");
        for _ in 0..1000 {
            if closed() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("the connection is still open");
    });
}

#[test]
fn a_recorded_person_is_read_and_the_request_is_what_tailscaled_wants() {
    let server = Server::saying(recorded(&format!("{BASE}/whois?addr=100.64.0.2")));
    let tailscale = server.tailscale(LocalUse::Only);
    let whois = block_on(tailscale.whois("::ffff:100.64.0.2".parse().unwrap())).unwrap();
    assert_eq!(whois.owner().unwrap().login.as_str(), "alice@example.com");
    assert!(tailscale.local_api_answers());
    let head = server.heads.lock().unwrap()[0].to_ascii_lowercase();
    let mut lines = head.trim_end().lines();
    assert_eq!(lines.next(), Some("get /localapi/v0/whois?addr=100.64.0.2 http/1.1"));
    let mut headers: Vec<_> = lines.collect();
    headers.sort_unstable();
    assert_eq!(headers, ["connection: close", "host: local-tailscaled.sock"]);
}

#[test]
fn recorded_refusals_are_told_apart() {
    for (url, code) in [
        (format!("{BASE}/whois?addr=100.64.0.99"), "tailscale_peer_not_found"),
        (format!("{BASE}/whois?addr=x"), "tailscale_bad_argument"),
        ("http://evil/localapi/v0/whois?addr=100.64.0.2".to_owned(), "tailscale_denied"),
    ] {
        let server = Server::saying(recorded(&url));
        assert_eq!(server.code(), code, "{url}");
    }
}

#[test]
fn the_serve_configuration_has_its_tag() {
    let server = Server::saying(recorded(&format!("{BASE}/serve-config")));
    let (config, tag) = block_on(server.tailscale(LocalUse::Only).serve_status_tagged()).unwrap();
    assert!(config.is_empty());
    let expected = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
    assert_eq!(tag.unwrap().as_str(), expected);
    // Never set; and a tag that is none.
    for tag in ["", "Etag: \r\n", "Etag: x\"y\r\n", "Etag: *\r\n"] {
        let said = format!("HTTP/1.1 200 OK\r\n{tag}Content-Length: 4\r\n\r\nnull");
        let got = block_on(Server::saying(said).tailscale(LocalUse::Only).serve_status_tagged()).unwrap();
        assert!(got.0.is_empty());
        assert_eq!(got.1, None, "{tag}");
    }
}

#[test]
fn the_other_questions_are_answered_too() {
    let server = Server::saying(answer("200 OK", &recording("status-running.json")));
    assert!(block_on(server.tailscale(LocalUse::Only).status()).unwrap().is_running());
    let server = Server::saying(answer("200 OK", r#"{"RunSSH": true}"#));
    assert_eq!(block_on(server.tailscale(LocalUse::Only).prefs()).unwrap().run_ssh, Some(true));
    let server = Server::saying(recorded(&format!("{BASE}/whois?addr=100.64.0.2")));
    let tailscale = server.tailscale(LocalUse::Only);
    assert!(block_on(tailscale.whois_tcp("127.0.0.1:4000".parse().unwrap())).is_ok());
    // In chunks, and after an interim answer.
    let body = recording("whois-user.json");
    let said = format!(
        "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
        body.len()
    );
    assert!(Server::saying(said).whois().is_ok());
}
