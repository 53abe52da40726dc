//! The whole way, with a shell script in the binary's place: it notes its arguments
//! and prints what lies beside it.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::test_support::{block_on, outputs_of, recording};

struct Fake {
    dir: TempDir,
    tailscale: Tailscale,
}

impl Fake {
    /// Prints `out` and `err` and exits with `code`, whatever it is asked.
    fn new(out: &str, err: &str, code: i32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tailscale");
        let script = format!(
            "#!/bin/sh\nhere=${{0%/*}}\nprintf '%s\\n' \"$@\" > $here/args\n\
             cat $here/out\ncat $here/err >&2\nexit {code}\n"
        );
        std::fs::write(dir.path().join("out"), out).unwrap();
        std::fs::write(dir.path().join("err"), err).unwrap();
        std::fs::write(&path, script).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let limits = Limits { timeout: Duration::from_secs(60), ..Limits::default() };
        let socket = Some(PathBuf::from("/run/x/s.sock"));
        Self { dir, tailscale: Tailscale::new(Some(path), socket, limits, LocalUse::Never) }
    }

    fn args(&self) -> String {
        let text = std::fs::read_to_string(self.dir.path().join("args")).unwrap();
        text.trim_end().replace('\n', " ")
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn an_answer_about_another_node_is_refused() {
    let fake = Fake::new(&recording("whois-user.json"), "", 0);
    let error = block_on(fake.tailscale.whois(ip("100.64.0.9"))).unwrap_err();
    assert!(matches!(&error, Error::WrongShape { field, .. } if field == "Node.Addresses"), "{error}");
}

#[test]
fn addresses_without_meaning_are_not_asked_about() {
    let fake = Fake::new(&recording("whois-user.json"), "", 0);
    for address in ["0.0.0.0", "::", "::ffff:0.0.0.0", "224.0.0.1", "ff02::1"] {
        let error = block_on(fake.tailscale.whois(ip(address))).unwrap_err();
        assert_eq!(error.code(), "tailscale_bad_argument", "{address}");
    }
    for address in ["127.0.0.1:0", "100.64.0.2:443", "[::]:443"] {
        let error = block_on(fake.tailscale.whois_tcp(address.parse().unwrap())).unwrap_err();
        assert_eq!(error.code(), "tailscale_bad_argument", "{address}");
    }
    assert!(!fake.dir.path().join("args").exists(), "it was run");
}

#[test]
fn an_answer_with_a_failing_exit_code_is_a_failure() {
    let fake = Fake::new(&recording("whois-user.json"), "boom", 1);
    let error = block_on(fake.tailscale.whois(ip("100.64.0.2"))).unwrap_err();
    assert_eq!(error.to_string(), "`tailscale whois` failed with exit code 1: boom");
}

#[test]
fn a_peer_that_is_not_known_is_not_found() {
    let fake = Fake::new("", "peer not found\n", 1);
    assert!(block_on(fake.tailscale.whois(ip("100.64.0.99"))).unwrap_err().is_not_found());
}

#[test]
fn lines_that_are_no_addresses_are_garbage() {
    for out in ["100.64.0.1\nx\n", "100.64.0.1 100.64.0.2\n"] {
        let error = block_on(Fake::new(out, "", 0).tailscale.ip()).unwrap_err();
        assert_eq!(error.code(), "tailscale_output_garbage", "{out}");
    }
}

#[test]
fn a_peer_is_asked_about_through_the_trait() {
    let fake = Fake::new(&recording("whois-user.json"), "Warning: versions differ", 0);
    let source: Arc<dyn WhoisSource> = Arc::new(fake.tailscale.clone());
    let whois = block_on(source.whois(ip("::ffff:100.64.0.2"))).unwrap();
    assert_eq!(whois.owner().unwrap().login.as_str(), "alice@example.com");
    assert_eq!(fake.args(), "--socket=/run/x/s.sock whois --json 100.64.0.2");
    block_on(source.whois_tcp("127.0.0.1:4000".parse().unwrap())).unwrap();
    assert_eq!(fake.args(), "--socket=/run/x/s.sock whois --json --proto tcp 127.0.0.1:4000");
}

#[test]
fn every_other_call_reads_its_answer() {
    let fake = Fake::new(&recording("status-running.json"), "", 0);
    assert!(block_on(fake.tailscale.status()).unwrap().is_running());
    assert_eq!(fake.args(), "--socket=/run/x/s.sock status --json --peers=false");

    let fake = Fake::new(&outputs_of(&recording("ip-wait.txt"), "$ tailscale ip")[0], "", 0);
    let expected = [ip("100.64.0.1"), ip("fd7a:115c:a1e0::1")];
    assert_eq!(block_on(fake.tailscale.ip()).unwrap(), expected);

    let version = &outputs_of(&recording("version.txt"), "$ tailscale version --json")[0];
    let fake = Fake::new(version, "", 0);
    assert!(block_on(fake.tailscale.version()).unwrap().short.at_least(1, 102, 3));

    let fake = Fake::new("null\n", "", 0);
    assert!(block_on(fake.tailscale.serve_status()).unwrap().is_empty());
    assert_eq!(fake.args(), "--socket=/run/x/s.sock serve status --json");

    let fake = Fake::new(r#"{"RunSSH": false}"#, "", 0);
    assert_eq!(block_on(fake.tailscale.prefs()).unwrap().run_ssh, Some(false));
}

#[test]
fn the_socket_is_the_configured_one_or_the_default() {
    let fake = Fake::new("", "", 0);
    assert_eq!(fake.tailscale.socket_path(), Path::new("/run/x/s.sock"));
    let plain = Tailscale::new(Some("/usr/bin/tailscale".into()), None, Limits::default(), LocalUse::Never);
    assert!(plain.socket_path().is_absolute());
    let gone = Tailscale::new(
        Some("/x".into()),
        Some(fake.dir.path().join("none")),
        Limits::default(),
        LocalUse::Never,
    );
    let error = block_on(gone.daemon_process()).unwrap_err();
    assert_eq!(error.code(), "tailscale_daemon_down");
}

#[test]
fn futures_can_be_sent_to_another_thread() {
    fn sendable<T: Send>(value: T) -> T {
        value
    }
    let fake = Fake::new("", "", 0);
    drop(sendable(fake.tailscale.status()));
    drop(sendable(fake.tailscale.whois(ip("100.64.0.2"))));
    drop(sendable(fake.tailscale.daemon_process()));
}
