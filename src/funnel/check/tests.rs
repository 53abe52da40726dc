use super::*;
use crate::config::{Env, GatewayFlags, load};
use crate::domain::NodeAttributes;
use crate::domain::tailnet::tests::{running, state};
use openclaw_tailscale::BackendState;
use std::sync::Arc;

/// Settings from the text of `gateway` in a configuration.
pub(in crate::funnel) fn settings(gateway: &str) -> Settings {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("config.json");
    std::fs::write(&path, format!("{{gateway: {{{gateway}}}}}")).unwrap();
    let env = Env::from_vars([("HOME".to_owned(), home.path().display().to_string())]).in_dir(home.path());
    let flags = GatewayFlags { config: Some(path), ..GatewayFlags::default() };
    match load(&flags, &env) {
        Ok(loaded) => Settings::new(loaded.config),
        Err(error) => panic!("{error}"),
    }
}

pub(in crate::funnel) const ROUTES: &str = r#"
    auth: {token: "0123456789abcdef01234567"},
    tailscale: {mode: "serve"},
    routes: {
        app: {path: "/", upstream: 3000},
        hooks: {path: "/hooks", upstream: 3001, public: "secret"},
        github: {path: "/hooks/github", upstream: 3001, public: "open"},
        named: {path: "/named", host: "other.example.com", upstream: 3002, public: "secret"},
    }"#;

/// A node that may use Funnel on the usual ports.
pub(in crate::funnel) fn permitted() -> TailnetState {
    let attributes = NodeAttributes {
        https: true,
        funnel: true,
        funnel_ports: vec![443..=443, 8443..=8443, 10000..=10000],
    };
    with(Running { attributes, ..running() })
}

fn with(running: Running) -> TailnetState {
    TailnetState { phase: Phase::Running(Arc::new(running)), ..state() }
}

pub(in crate::funnel) fn ask(path: &str) -> FunnelAsk {
    FunnelAsk { path: path.parse().unwrap(), port: 443, open: false }
}

#[track_caller]
fn refused(ask: &FunnelAsk, gateway: &str, state: &TailnetState, says: &str) {
    match check(ask, &settings(gateway), state) {
        Ok(site) => panic!("{} would be open at {}", ask.path.as_str(), site.url),
        Err(refusal) => {
            let all = format!("{} {}", refusal.reason, refusal.fix.unwrap_or_default());
            assert!(all.contains(says), "{says:?} is not in {all:?}");
        }
    }
}

#[test]
fn threat_060_what_is_not_public_is_never_opened() {
    let state = permitted();
    for (path, says) in [
        ("/", "gateway.routes.app.public secret"),
        ("/hook", "gateway.routes.app.public secret"),
        ("/hooksy", "route app"),
        ("/named", "route app"),
        ("/hooks/github", "--open"),
        ("/hooks/github/x", "--open"),
        ("/_openclaw", "own"),
        ("/_openclaw/whoami", "own"),
    ] {
        refused(&ask(path), ROUTES, &state, says);
    }
    refused(&FunnelAsk { open: true, ..ask("/hooks") }, ROUTES, &state, "leave --open out");
    refused(&FunnelAsk { open: true, ..ask("/_openclaw") }, ROUTES, &state, "own");
    // Without any app the root is the dashboard's.
    let none = r#"auth: {token: "0123456789abcdef01234567"}, tailscale: {mode: "serve"}"#;
    refused(&ask("/"), none, &state, "own page");
    refused(&ask("/x"), none, &state, "no route");
    // A route for another host is not under the public name.
    let named = r#"auth: {token: "0123456789abcdef01234567"}, tailscale: {mode: "serve"},
        routes: {named: {path: "/", host: "other.example.com", upstream: 3002, public: "secret"}}"#;
    refused(&ask("/"), named, &state, "no route leads from https://gw.tailnet-example.ts.net");
}

#[test]
fn threat_060_without_a_secret_or_an_ingress_nothing_is_opened() {
    let state = permitted();
    let with = |more: &str| {
        format!("{more}, routes: {{hooks: {{path: \"/hooks\", upstream: 3001, public: \"open\"}}}}")
    };
    let open = FunnelAsk { open: true, ..ask("/hooks") };
    refused(
        &open,
        &with(r#"auth: {token: "0123456789abcdef01234567"}"#),
        &state,
        "gateway.tailscale.mode serve",
    );
    let proxy = r#"auth: {mode: "trusted-proxy", trustedProxy: {userHeader: "x-forwarded-user", allowUsers: ["a"]}},
        trustedProxies: ["192.0.2.1"], tailscale: {mode: "serve"}"#;
    refused(&open, &with(proxy), &state, "gateway.auth.mode token");
}

#[test]
fn threat_060_what_the_tailnet_does_not_permit_is_not_tried() {
    let Phase::Running(may) = permitted().phase else { panic!() };
    let but = |change: &dyn Fn(&mut Running)| {
        let mut running = Running::clone(&may);
        change(&mut running);
        with(running)
    };
    let hooks = ask("/hooks");
    refused(&hooks, ROUTES, &but(&|node| node.attributes.https = false), "admin/dns");
    refused(&hooks, ROUTES, &but(&|node| node.attributes.funnel = false), "nodeAttrs");
    refused(&hooks, ROUTES, &but(&|node| node.attributes.funnel_ports.clear()), "it may use: none");
    refused(&hooks, ROUTES, &but(&|node| node.dns_name = None), "no DNS name");
    let other = FunnelAsk { port: 8443, ..hooks.clone() };
    refused(&other, ROUTES, &but(&|node| node.attributes.funnel_ports = vec![443..=443]), "it may use: 443");
    refused(&FunnelAsk { port: 9999, ..hooks.clone() }, ROUTES, &permitted(), "443, 8443 or 10000");
    // Ports that the policy lists and Funnel does not have.
    let wide = but(&|node| node.attributes.funnel_ports = vec![1..=65535]);
    refused(&FunnelAsk { port: 9999, ..hooks.clone() }, ROUTES, &wide, "443, 8443 or 10000");
    for (phase, says) in [
        (Phase::Unknown, "not answered"),
        (Phase::NotRunning { state: BackendState::Stopped }, "tailscale up"),
        (Phase::Down { detail: "no socket".into(), fix: None, gone: true }, "no socket"),
    ] {
        refused(&hooks, ROUTES, &TailnetState { phase, ..state() }, says);
    }
}

#[test]
fn what_is_permitted_has_an_address() {
    let at = |ask: &FunnelAsk, gateway: &str| check(ask, &settings(gateway), &permitted()).unwrap();
    let site = at(&ask("/hooks"), ROUTES);
    assert_eq!(site.url, "https://gw.tailnet-example.ts.net/hooks");
    assert_eq!((site.host.as_str(), site.route.as_str()), ("gw.tailnet-example.ts.net", "hooks"));
    let deep = FunnelAsk { port: 8443, ..ask("/hooks/deep/er") };
    assert_eq!(at(&deep, ROUTES).url, "https://gw.tailnet-example.ts.net:8443/hooks/deep/er");
    let open = FunnelAsk { open: true, ..ask("/hooks/github") };
    assert_eq!(at(&open, ROUTES).route.as_str(), "github");
    let mounted = ROUTES.replace(r#"mode: "serve""#, r#"mode: "serve", serve: {path: "/gw"}"#);
    assert_eq!(at(&ask("/hooks"), &mounted).url, "https://gw.tailnet-example.ts.net/gw/hooks");
}
