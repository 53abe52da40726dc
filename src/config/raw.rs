//! The file as written, as types. Only what the gateway reads; that there is
//! nothing else, and that every value has its type, the table of keys has
//! already checked ([`super::schema`]).

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// The whole file.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct Root {
    pub(crate) gateway: Gateway,
    pub(crate) channels: Value,
}

/// `gateway`.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Gateway {
    pub(crate) mode: Option<String>,
    pub(crate) port: Option<u16>,
    pub(crate) bind: Option<String>,
    pub(crate) custom_bind_host: Option<String>,
    pub(crate) auth: Auth,
    pub(crate) trusted_proxies: Vec<String>,
    pub(crate) allow_real_ip_fallback: bool,
    pub(crate) tailscale: Tailscale,
    pub(crate) tls: Tls,
    pub(crate) upstream: Option<Upstream>,
    pub(crate) routes: BTreeMap<String, Route>,
    pub(crate) access: Access,
    pub(crate) timeouts: Timeouts,
    pub(crate) allowed_hosts: Vec<String>,
    pub(crate) require_https: bool,
    pub(crate) admin: Admin,
    pub(crate) log: Log,
    pub(crate) control_ui: ControlUi,
    pub(crate) reload: Reload,
}

/// `gateway.auth`.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Auth {
    pub(crate) mode: Option<String>,
    pub(crate) token: Option<String>,
    pub(crate) token_file: Option<String>,
    pub(crate) password: Option<String>,
    pub(crate) password_file: Option<String>,
    pub(crate) allow_tailscale: Option<bool>,
    pub(crate) rate_limit: RateLimit,
    pub(crate) trusted_proxy: Option<TrustedProxy>,
}

/// `gateway.auth.rateLimit`.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct RateLimit {
    pub(crate) max_attempts: Option<u32>,
    pub(crate) window_ms: Option<u64>,
    pub(crate) lockout_ms: Option<u64>,
    pub(crate) exempt_loopback: Option<bool>,
}

/// `gateway.auth.trustedProxy`.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct TrustedProxy {
    pub(crate) user_header: Option<String>,
    pub(crate) required_headers: Vec<String>,
    pub(crate) allow_users: Vec<String>,
    pub(crate) allow_loopback: Option<bool>,
}

/// `gateway.tailscale`.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Tailscale {
    pub(crate) mode: Option<String>,
    pub(crate) bin: Option<String>,
    pub(crate) socket: Option<String>,
    pub(crate) client: Option<String>,
    pub(crate) reset_on_exit: bool,
    pub(crate) trust_local_users: bool,
    pub(crate) serve: Serve,
}

/// `gateway.tailscale.serve`.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct Serve {
    pub(crate) scheme: Option<String>,
    pub(crate) port: Option<u16>,
    pub(crate) path: Option<String>,
}

/// `gateway.tls`.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Tls {
    pub(crate) enabled: bool,
    pub(crate) source: Option<String>,
    pub(crate) cert_path: Option<String>,
    pub(crate) key_path: Option<String>,
    pub(crate) ca_path: Option<String>,
    pub(crate) auto_generate: Option<bool>,
    pub(crate) port: Option<u16>,
}

/// `gateway.upstream` and a route's `upstream`.
#[derive(Deserialize)]
#[serde(untagged)]
pub(crate) enum Upstream {
    /// A port on loopback.
    Port(u16),
    /// A port, `host:port`, URL or `unix:/path`.
    Text(String),
    /// With settings.
    Object(UpstreamObject),
}

/// The object form of an upstream.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct UpstreamObject {
    pub(crate) url: Option<UpstreamUrl>,
    pub(crate) kind: Option<String>,
    pub(crate) token_file: Option<String>,
    pub(crate) host: Option<String>,
    pub(crate) identity_headers: Option<Vec<String>>,
    pub(crate) owner_uid: Option<u32>,
    pub(crate) ca_file: Option<String>,
    pub(crate) insecure_skip_verify: bool,
}

/// The address of an upstream in its object form.
#[derive(Deserialize)]
#[serde(untagged)]
pub(crate) enum UpstreamUrl {
    /// A port on loopback.
    Port(u16),
    /// Anything else.
    Text(String),
}

/// One of `gateway.routes`.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct Route {
    pub(crate) host: Option<String>,
    pub(crate) path: Option<String>,
    pub(crate) listen: Option<u16>,
    pub(crate) strip: bool,
    pub(crate) upstream: Option<Upstream>,
    pub(crate) allow: Option<Vec<Entry>>,
    pub(crate) role: Option<String>,
    /// false, `secret` or `open`.
    pub(crate) public: Value,
    pub(crate) guard: Guard,
    pub(crate) timeouts: Timeouts,
}

/// A route's `guard`.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Guard {
    pub(crate) non_browser_upgrade: bool,
}

/// `gateway.access`.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct Access {
    pub(crate) owner: Option<bool>,
    pub(crate) allow: Vec<Entry>,
}

/// An entry of an allow list.
#[derive(Deserialize)]
#[serde(untagged)]
pub(crate) enum Entry {
    /// Only whom.
    Who(String),
    /// With settings.
    Object(EntryObject),
}

/// The object form of an entry.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct EntryObject {
    pub(crate) who: Option<String>,
    pub(crate) role: Option<String>,
    pub(crate) routes: Option<Vec<String>>,
    pub(crate) shared: bool,
    pub(crate) via_router: bool,
    pub(crate) until: Option<Until>,
}

/// When an entry ends.
#[derive(Deserialize)]
#[serde(untagged)]
pub(crate) enum Until {
    /// Unix seconds.
    Seconds(i64),
    /// RFC 3339, or a date.
    Text(String),
}

/// `gateway.timeouts` and a route's.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Timeouts {
    pub(crate) connect_ms: Option<u64>,
    pub(crate) first_byte_ms: Option<u64>,
    pub(crate) idle_ms: Option<u64>,
}

/// `gateway.admin`.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct Admin {
    pub(crate) port: Option<u16>,
}

/// `gateway.log`.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct Log {
    pub(crate) format: Option<String>,
    pub(crate) level: Option<String>,
}

/// `gateway.controlUi`.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ControlUi {
    pub(crate) enabled: Option<bool>,
    pub(crate) base_path: Option<String>,
    pub(crate) allowed_origins: Vec<String>,
    pub(crate) dangerously_allow_host_header_origin_fallback: bool,
    pub(crate) allow_insecure_auth: bool,
    pub(crate) dangerously_disable_device_auth: bool,
}

/// `gateway.reload`.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct Reload {
    pub(crate) mode: Option<String>,
}
