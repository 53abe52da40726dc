//! Writing the Serve configuration through the client: documents and claims.

use std::process::{Command, Stdio};
use std::time::Duration;

use openclaw_tailscale::{
    Claim, ClientMode, EditError, ForegroundEntry, LocateOptions, Mount, ProxyTarget, Tailscale,
};
use tokio::runtime::Runtime;

use crate::fake::Fake;
use crate::running::{Running, try_listener};

const NAME: &str = "gw.tailnet-example.test";
/// Where the process that is to be killed finds the daemon.
const HOLD: &str = "TEST_CLAIM_AT";

fn tailscale_at(socket: impl Into<std::path::PathBuf>, client: ClientMode) -> Tailscale {
    let options = LocateOptions { socket: Some(socket.into()), client, ..LocateOptions::default() };
    Tailscale::locate(options).unwrap().tailscale
}

fn tailscale(fake: &Fake) -> Tailscale {
    tailscale_at(fake.dir().join("tailscaled.sock"), ClientMode::LocalApi)
}

fn entry(port: u16) -> ForegroundEntry {
    let target = ProxyTarget::Loopback(9000);
    let mount = Mount { https: false, port, path: "/".to_owned(), target, funnel: false };
    ForegroundEntry { mount, hosts: vec![NAME.parse().unwrap()] }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn config(fake: &Fake) -> serde_json::Value {
    fake.run(&["serve", "status", "--json"]).json()
}

#[track_caller]
fn refused(claimed: Result<Claim, EditError>, code: &str) {
    let error = claimed.expect_err("it was refused");
    assert_eq!(error.code(), code, "{error}");
}

#[test]
fn what_must_not_be_published_is_refused_and_nothing_is_written() {
    let fake = Fake::with("user");
    let _daemon = Running::daemon(&fake, &[]);
    let tailscale = tailscale(&fake);
    let claim = |port| runtime().block_on(tailscale.claim(&entry(port)));
    let _ = fake.run(&["serve", "--bg", "--http=80", "9000"]);
    let _ = fake.run(&["serve", "--bg", "--tcp=2222", "22"]);
    let before = config(&fake);
    refused(claim(80), "serve_port_taken");
    refused(claim(2222), "serve_port_taken");
    fake.set(&["permissions=denied"]);
    refused(claim(8080), "serve_denied");
    fake.set(&["permissions=root", "fault.serve=etag-conflict"]);
    refused(claim(8080), "serve_raced");
    fake.set(&["fault.serve=none", "features.configLocked=true"]);
    refused(claim(8080), "serve_locked");
    fake.set(&["features.configLocked=false"]);
    for fault in ["garbage", "truncated", "empty", "nul", "invalid-utf8", "wrong-shape:array"] {
        fake.set(&[&format!("fault.serve-status={fault}")]);
        assert!(claim(8080).is_err(), "{fault}");
    }
    fake.set(&["fault.serve-status=none"]);
    assert_eq!(config(&fake), before);
    fake.set(&["daemon=down"]);
    refused(claim(8080), "tailscale_daemon_down");
}

#[test]
fn what_takes_an_administrator_says_so() {
    let fake = Fake::with("user");
    let _daemon = Running::daemon(&fake, &[]);
    fake.set(&["permissions=operator-no-sudo"]);
    let mut entry = entry(8080);
    entry.mount.target = ProxyTarget::Unix("/run/x.sock".into());
    refused(runtime().block_on(tailscale(&fake).claim(&entry)), "serve_needs_root");
}

#[test]
fn the_command_line_cannot_claim() {
    let fake = Fake::with("user");
    let options = LocateOptions {
        bin: Some(fake.dir().join("tailscale")),
        client: ClientMode::Cli,
        ..LocateOptions::default()
    };
    let tailscale = Tailscale::locate(options).unwrap().tailscale;
    refused(runtime().block_on(tailscale.claim(&entry(8080))), "tailscale_localapi_only");
    assert!(fake.calls().is_empty());
}

#[test]
fn a_version_that_is_not_the_last_is_not_written() {
    let fake = Fake::with("user");
    let _daemon = Running::daemon(&fake, &[]);
    let tailscale = tailscale(&fake);
    runtime().block_on(async {
        let (mut document, tag) = tailscale.serve_document().await.unwrap();
        let _ = fake.run(&["serve", "--bg", "--http=80", "9000"]);
        let before = config(&fake);
        document.set(&["TCP", "81"], &serde_json::json!({"TCPForward": "127.0.0.1:22"})).unwrap();
        let error = tailscale.set_serve_document(&document, &tag).await.unwrap_err();
        assert_eq!(error.code(), "serve_raced");
        assert_eq!(config(&fake), before);
        let (mut document, tag) = tailscale.serve_document().await.unwrap();
        document.set(&["TCP", "81"], &serde_json::json!({"TCPForward": "127.0.0.1:22"})).unwrap();
        tailscale.set_serve_document(&document, &tag).await.unwrap();
        assert_eq!(config(&fake)["TCP"]["81"]["TCPForward"], "127.0.0.1:22");
        assert_eq!(config(&fake)["Web"], before["Web"]);
    });
}

#[test]
fn a_claim_is_published_beside_what_others_have_and_goes_when_it_is_dropped() {
    let fake = Fake::with("user");
    let _daemon = Running::daemon(&fake, &[]);
    let _ = fake.run(&["serve", "--bg", "--http=80", "9000"]);
    let before = config(&fake);
    let runtime = runtime();
    // Somebody comes before it, once.
    fake.set(&["fault.serve=etag-conflict-once"]);
    let claim = runtime.block_on(tailscale(&fake).claim(&entry(8080))).unwrap();
    let now = config(&fake);
    let ours = &now["Foreground"][claim.session_id()];
    assert_eq!(ours["Web"][format!("{NAME}:8080")]["Handlers"]["/"]["Proxy"], "http://127.0.0.1:9000");
    assert_eq!(now["Web"], before["Web"]);
    assert!(try_listener(&fake, 8080, "source").is_some());
    // Nobody else gets the port meanwhile, and a second claim for another works.
    let other = tailscale(&fake);
    refused(runtime.block_on(other.claim(&entry(8080))), "serve_port_taken");
    let second = runtime.block_on(other.claim(&entry(8081))).unwrap();
    assert_ne!(second.session_id(), claim.session_id());
    drop(claim);
    runtime.block_on(tokio::task::yield_now());
    fake.until("the first is gone", || config(&fake)["Foreground"].as_object().unwrap().len() == 1);
    drop(second);
    runtime.block_on(tokio::task::yield_now());
    fake.until("all is as before", || config(&fake) == before);
}

#[test]
fn the_end_of_a_session_is_noticed_however_it_comes() {
    for end in ["reset", "down"] {
        let fake = Fake::with("user");
        let _daemon = Running::daemon(&fake, &[]);
        let runtime = runtime();
        let claim = runtime.block_on(tailscale(&fake).claim(&entry(8080))).unwrap();
        let soon = Duration::from_millis(50);
        assert!(runtime.block_on(async { tokio::time::timeout(soon, claim.lost()).await }).is_err());
        match end {
            "reset" => assert_eq!(fake.run(&["serve", "reset"]).code, Some(0)),
            _ => fake.set(&["daemon=down"]),
        }
        let lost = async { tokio::time::timeout(Duration::from_secs(20), claim.lost()).await };
        let why = runtime.block_on(lost).unwrap_or_else(|_| panic!("{end} went unnoticed"));
        assert!(["tailscale_stream_ended", "tailscale_socket_failed"].contains(&why.code()), "{why}");
        // Asked again it says the same.
        assert_eq!(runtime.block_on(claim.lost()).code(), why.code());
    }
}

/// Not a test of its own: what is killed in the one below.
#[test]
fn holds_a_claim_when_told_to() {
    let Some(socket) = std::env::var_os(HOLD) else { return };
    runtime().block_on(async {
        let claim = tailscale_at(socket, ClientMode::LocalApi).claim(&entry(8080)).await.unwrap();
        claim.lost().await;
    });
}

#[test]
fn a_killed_process_leaves_nothing_behind() {
    let fake = Fake::with("user");
    let _daemon = Running::daemon(&fake, &[]);
    let _ = fake.run(&["serve", "--bg", "--http=80", "9000"]);
    let before = config(&fake);
    let mut holder = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "claims::holds_a_claim_when_told_to"])
        .env(HOLD, fake.dir().join("tailscaled.sock"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    fake.until("it is published", || config(&fake).get("Foreground").is_some());
    // SIGKILL.
    holder.kill().unwrap();
    holder.wait().unwrap();
    fake.until("it is gone", || config(&fake) == before);
    fake.until("nobody listens", || try_listener(&fake, 8080, "source").is_none());
}
