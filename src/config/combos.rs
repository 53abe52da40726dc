//! Puts the areas together and checks what lies between them.

use ipnetwork::IpNetwork;
use serde_json::Value;

use super::build::Build;
use super::error::Problem;
use super::listen::Listen;
use super::provenance::Provenance;
use super::routes::Routes;
use super::tls::TlsSource;
use super::{Auth, AuthMode, Bind, Gateway, LogConfig, LogFormat, TailscaleConfig, TailscaleMode, raw};
use crate::domain::{Access, Public, Who};

/// The areas, each settled.
pub(crate) struct Parts {
    pub(crate) listen: Listen,
    pub(crate) tailscale: TailscaleConfig,
    pub(crate) auth: Auth,
    pub(crate) proxies: Vec<IpNetwork>,
    pub(crate) tls: Option<TlsSource>,
    pub(crate) routes: Routes,
    pub(crate) access: Access,
    pub(crate) origins: Vec<String>,
    pub(crate) hosts: Vec<String>,
}

/// Makes the checked `gateway` of its areas.
pub(crate) fn assemble(build: &mut Build<'_>, raw: &raw::Gateway, parts: Parts) -> Gateway {
    if raw.mode.as_deref() == Some("remote") {
        let what =
            format!("{}: this machine only talks to a gateway elsewhere", build.is("gateway.mode", "remote"));
        build.refuse(
            Problem::new("gateway.mode", what).fix("openclaw config set gateway.mode local").at_start(),
        );
    }
    public_routes(build, &parts);
    proxy_entries(build, &parts);
    inert_keys(build, raw);
    node_certificate(build, &parts);
    let admin_port = admin_port(build, raw, &parts);
    let (tls, tls_self_signed, tls_tailscale_port) = match parts.tls {
        None => (None, false, None),
        Some(TlsSource::Files(files)) => (Some(files), false, None),
        Some(TlsSource::SelfSigned(files)) => (Some(files), true, None),
        Some(TlsSource::Tailscale(port)) => (None, false, Some(port)),
    };
    Gateway {
        port: parts.listen.port,
        bind: parts.listen.bind,
        auth: parts.auth,
        trusted_proxies: parts.proxies,
        allow_real_ip_fallback: raw.allow_real_ip_fallback,
        tailscale: parts.tailscale,
        tls,
        tls_self_signed,
        tls_tailscale_port,
        routes: parts.routes.ordinary,
        routes_by_port: parts.routes.by_port,
        access: parts.access,
        allowed_hosts: parts.hosts,
        allowed_origins: parts.origins,
        require_https: raw.require_https,
        admin_port,
        dashboard: raw.control_ui.enabled.unwrap_or(true),
        reload: raw.reload.mode.as_deref() != Some("off"),
        log: log(build, &raw.log),
    }
}

/// The node's certificate is for its tailnet addresses, on a port that nobody else has
/// (rulings 6).
fn node_certificate(build: &mut Build<'_>, parts: &Parts) {
    let Some(TlsSource::Tailscale(port)) = parts.tls else { return };
    if parts.listen.bind != Bind::Tailnet {
        let says = build.says("gateway.bind", parts.listen.word.as_str());
        let what = format!("\"tailscale\" is for the tailnet addresses, and {says}");
        build.refuse(
            Problem::new("gateway.tls.source", what)
                .fix("openclaw config set gateway.bind tailnet")
                .at_start(),
        );
    }
    const KEY: &str = "gateway.tls.port";
    if port == parts.listen.port {
        let what = format!("{port} is gateway.port too, which serves plain HTTP");
        build.refuse(Problem::new(KEY, what).fix("openclaw config set gateway.tls.port 443"));
    }
    let serve = &parts.tailscale;
    if serve.mode != TailscaleMode::Off && serve.serve.port == port {
        let what = format!("{port} is also the port of our Serve route, which tailscaled listens on");
        build.refuse(Problem::new(KEY, what).fix("openclaw config set gateway.tls.port 8443").at_start());
    }
}

/// `public` needs a secret or Funnel to mean anything.
fn public_routes(build: &mut Build<'_>, parts: &Parts) {
    let with_secret = matches!(parts.auth.mode, AuthMode::Token | AuthMode::Password);
    let names: Vec<_> =
        parts.routes.all().map(|route| (route.name.as_str().to_owned(), route.public)).collect();
    for (name, public) in &names {
        if *public == Public::Secret && !with_secret {
            let says = build.says("gateway.auth.mode", parts.auth.mode.as_str());
            let what = format!("\"secret\" wants a token or password, and {says}");
            build.refuse(
                Problem::new(format!("gateway.routes.{name}.public"), what)
                    .fix("openclaw config set gateway.auth.mode token"),
            );
        }
    }
    let funnel = parts.tailscale.mode == TailscaleMode::Funnel;
    if funnel && names.iter().all(|(_, public)| *public == Public::No) {
        build.warn("gateway.tailscale.mode is funnel and no route says public: nobody outside the tailnet can reach anything");
    }
}

/// `proxy:` entries speak of users that only mode trusted-proxy knows.
fn proxy_entries(build: &mut Build<'_>, parts: &Parts) {
    let by_route = parts.routes.all().filter_map(|route| route.allow.as_ref()).flatten();
    let any = parts.access.allow.iter().chain(by_route).any(|entry| matches!(entry.who, Who::Proxy(_)));
    if any && parts.auth.mode != AuthMode::TrustedProxy {
        build.warn("proxy: entries of allow lists have no effect without gateway.auth.mode trusted-proxy");
    }
}

/// Keys that are accepted because guides set them, and do nothing here.
fn inert_keys(build: &mut Build<'_>, raw: &raw::Gateway) {
    let ui = &raw.control_ui;
    let dangerous = [
        ("allowInsecureAuth", ui.allow_insecure_auth),
        ("dangerouslyDisableDeviceAuth", ui.dangerously_disable_device_auth),
        ("dangerouslyAllowHostHeaderOriginFallback", ui.dangerously_allow_host_header_origin_fallback),
    ];
    for (name, _) in dangerous.iter().filter(|(_, on)| *on) {
        build.warn(format!("gateway.controlUi.{name} has no effect here: remove it"));
    }
    if let Some(base) = ui.base_path.as_deref().filter(|base| !base.is_empty())
        && (!base.starts_with('/') || base.ends_with('/'))
    {
        let what = format!("{base:?} starts with / and does not end with it, such as /ui");
        build.refuse(Problem::new("gateway.controlUi.basePath", what));
    }
}

/// Dashboard and admin API have an origin of their own as soon as anything is
/// proxied (rulings 5).
fn admin_port(build: &mut Build<'_>, raw: &raw::Gateway, parts: &Parts) -> Option<u16> {
    const KEY: &str = "gateway.admin.port";
    const FIX: &str = "openclaw config set gateway.admin.port 18790";
    let port = parts.listen.port;
    let proxied = parts.routes.all().next().is_some();
    let admin = match raw.admin.port {
        Some(admin) => admin,
        None if !proxied => return None,
        // Any free port stays any free port.
        None if port == 0 => return Some(0),
        None => match port.checked_add(1) {
            Some(admin) => admin,
            None => {
                let what = "is missing: gateway.port is 65535, so there is no next port for the dashboard";
                build.refuse(Problem::new(KEY, what).fix(FIX).at_start());
                return None;
            }
        },
    };
    if admin == port || parts.routes.by_port.contains_key(&admin) {
        let what =
            format!("{admin} is also where apps are served: dashboard and apps must not share an origin");
        build.refuse(Problem::new(KEY, what).fix("openclaw config set gateway.admin.port 18799"));
    }
    Some(admin)
}

fn log(build: &mut Build<'_>, raw: &raw::Log) -> LogConfig {
    let format = match raw.format.as_deref() {
        Some("json") => LogFormat::Json,
        Some("text") => LogFormat::Text,
        _ => LogFormat::Auto,
    };
    let level = if build.flags.verbose {
        build.provenance.record("gateway.log.level", Provenance::Flag("--verbose"));
        "debug".to_owned()
    } else {
        raw.level.clone().unwrap_or_else(|| "info".to_owned())
    };
    LogConfig { format, level }
}

fn holds(value: &Value, text: &str) -> bool {
    match value {
        Value::String(other) => other == text,
        Value::Array(list) => list.iter().any(|inner| holds(inner, text)),
        Value::Object(map) => map.values().any(|inner| holds(inner, text)),
        _ => false,
    }
}

/// What can be said of the chat channels before they run: that a policy admits
/// nobody (security spec 0, S11, and 1.2).
/// A bot's secret that is also ours opens both doors at once (threat rule 57).
pub(crate) fn channels(build: &mut Build<'_>, channels: &Value, auth: &Auth) {
    for secret in [&auth.token, &auth.password].into_iter().flatten() {
        if holds(channels, secret.expose()) {
            build.warn("a chat channel has the same secret as the gateway: give each its own");
        }
    }
    for (name, channel) in channels.as_object().into_iter().flatten() {
        channel_policy(build, &format!("channels.{name}"), channel);
        for (id, account) in channel["accounts"].as_object().into_iter().flatten() {
            channel_policy(build, &format!("channels.{name}.accounts.{id}"), account);
        }
    }
}

fn channel_policy(build: &mut Build<'_>, key: &str, channel: &Value) {
    let policy = channel["dmPolicy"].as_str().or_else(|| channel["dm"]["policy"].as_str());
    let lists = [&channel["allowFrom"], &channel["dm"]["allowFrom"]];
    let entries: Vec<_> = lists.iter().filter_map(|list| list.as_array()).flatten().collect();
    let star = entries.iter().any(|entry| entry.as_str().is_some_and(|text| text.trim() == "*"));
    match policy {
        Some("open") if !star => build.warn(format!(
            "{key}.dmPolicy is open and {key}.allowFrom lacks \"*\": only listed senders get through. For everybody: openclaw config set {key}.allowFrom '[\"*\"]'"
        )),
        Some("locked" | "allowlist") if entries.is_empty() => build.warn(format!(
            "{key}.dmPolicy is {} and {key}.allowFrom is empty: every private message is dropped",
            policy.unwrap_or_default()
        )),
        _ => {}
    }
}
