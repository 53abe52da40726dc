use std::path::PathBuf;

use super::*;
use crate::{ProxyTarget, parse_serve_config};

fn entry() -> ForegroundEntry {
    ForegroundEntry {
        mount: Mount {
            https: true,
            port: 443,
            path: "/".to_owned(),
            target: ProxyTarget::Loopback(18789),
            funnel: false,
        },
        hosts: vec!["gw.tailnet-example.ts.net".parse().unwrap()],
    }
}

fn config(text: &str) -> ServeConfig {
    parse_serve_config(text.as_bytes()).unwrap()
}

#[track_caller]
fn code(entry: &ForegroundEntry, text: &str) -> &'static str {
    entry.check(&config(text)).map_or_else(|error| error.code(), |()| "ok")
}

#[test]
fn a_port_that_anybody_listens_on_is_left_alone() {
    for text in [
        r#"{"TCP":{"443":{"HTTPS":true}}}"#,
        r#"{"TCP":{"443":{"TCPForward":"127.0.0.1:22"}}}"#,
        r#"{"TCP":{"443":{}}}"#,
        r#"{"Foreground":{"00ff":{"TCP":{"443":{"HTTP":true}}}}}"#,
    ] {
        assert_eq!(code(&entry(), text), "serve_port_taken", "{text}");
    }
    let error = entry().check(&config(r#"{"Foreground":{"00ff":{"TCP":{"443":{}}}}}"#)).unwrap_err();
    assert!(error.to_string().contains("the foreground session 00ff"), "{error}");
    // An address of its own.
    assert_eq!(code(&entry(), r#"{"Services":{"svc:x":{"TCP":{"443":{"HTTPS":true}}}}}"#), "ok");
    assert_eq!(code(&entry(), r#"{"TCP":{"8443":{"HTTPS":true}}}"#), "ok");
}

#[test]
fn a_funnel_that_was_left_on_is_not_walked_into() {
    let left = r#"{"AllowFunnel":{"GW.tailnet-example.ts.net:443":true}}"#;
    assert_eq!(code(&entry(), left), "serve_site_public");
    let mut public = entry();
    public.mount.funnel = true;
    assert_eq!(code(&public, left), "ok");
    assert_eq!(code(&entry(), &left.replace("true", "false")), "ok");
}

#[test]
fn an_entry_that_cannot_be_is_refused() {
    let with = |change: fn(&mut ForegroundEntry)| {
        let mut entry = entry();
        change(&mut entry);
        code(&entry, "{}")
    };
    assert_eq!(with(|entry| entry.hosts.clear()), "tailscale_bad_argument");
    assert_eq!(with(|entry| entry.mount.port = 0), "tailscale_bad_argument");
    assert_eq!(with(|entry| entry.mount.path = "x".to_owned()), "tailscale_bad_argument");
    assert_eq!(
        with(|entry| entry.mount.target = ProxyTarget::Unix(PathBuf::from("x"))),
        "tailscale_bad_argument"
    );
    assert_eq!(with(|_| ()), "ok");
}

#[test]
fn the_entry_is_what_tailscale_itself_writes() {
    let written = json!({
        "TCP": {"443": {"HTTPS": true}},
        "Web": {"gw.tailnet-example.ts.net:443": {"Handlers": {"/": {"Proxy": "http://127.0.0.1:18789"}}}},
    });
    assert_eq!(entry().document().unwrap(), written);
    let mut other = entry();
    other.mount = Mount {
        https: false,
        port: 80,
        path: "/x".to_owned(),
        target: ProxyTarget::Unix(PathBuf::from("/run/x.sock")),
        funnel: false,
    };
    other.hosts.push("gw".parse().unwrap());
    let handlers = json!({"Handlers": {"/x": {"Proxy": "unix:/run/x.sock"}}});
    let written = json!({
        "TCP": {"80": {"HTTP": true}},
        "Web": {"gw.tailnet-example.ts.net:80": handlers, "gw:80": handlers},
    });
    assert_eq!(other.document().unwrap(), written);
    let mut public = entry();
    public.mount.funnel = true;
    let site = json!({"gw.tailnet-example.ts.net:443": true});
    assert_eq!(public.document().unwrap()["AllowFunnel"], site);
}

#[test]
fn two_that_met_wait_for_different_times() {
    let waits: std::collections::HashSet<_> = (0..50).map(|_| jitter(3)).collect();
    assert!(waits.len() > 10);
    assert!(waits.iter().all(|wait| (100..=300).contains(&wait.as_millis())), "{waits:?}");
}
