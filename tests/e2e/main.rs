//! End-to-end tests: the built gateway, a scripted `tailscale`, real sockets.
//!
//! One binary, so that everything is linked once. What the tests share is in
//! `support/`; each other file is one area. A test of a threat rule is named after
//! it (`threat_002_…`) and asserts what the rulings say where they rule.

#![allow(clippy::print_stderr, reason = "a failing test shows what the gateway said")]

mod support;

mod auth;
mod browser;
mod bus;
mod doctor;
mod framing;
mod funnel;
mod headers;
mod http2;
mod lifecycle;
mod limits;
mod localapi;
mod metrics;
mod openclaw_kind;
mod paths;
mod proxy;
mod reload;
mod resources;
mod secrets;
mod serve;
mod serve_commands;
mod serve_crash;
mod serve_faults;
mod serve_ingress;
mod serve_managed;
mod tailscale_faults;
mod tls;
mod tls_node;
mod tls_self;
mod tls_swap;
mod trusted_proxy;
mod tunnel;
mod websocket;

/// A file that is no module is never compiled, and its tests pass by silence.
#[test]
fn every_file_is_a_module() {
    for (dir, list) in
        [("tests/e2e", include_str!("main.rs")), ("tests/e2e/support", include_str!("support.rs"))]
    {
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(dir);
        let mut files = 0;
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            if path.extension().is_none_or(|end| end != "rs") || name == "main" {
                continue;
            }
            files += 1;
            let listed = list.lines().any(|line| {
                line.trim_start_matches("pub(crate) ").strip_prefix("mod ") == Some(&format!("{name};"))
            });
            assert!(listed, "{} is not listed as a module", path.display());
        }
        assert!(files > 0, "{} holds no tests", dir.display());
    }
}
