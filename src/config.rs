//! The checked configuration: what every other room reads.
//!
//! Values here have already been parsed, merged (flag, then environment, then
//! file, then default) and found to be a combination the gateway will run with.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use ipnetwork::IpNetwork;

use crate::domain::{Access, Route, Secret};

/// Which addresses the gateway listens on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bind {
    /// 127.0.0.1 and ::1.
    Loopback,
    /// Every IPv4 address.
    Lan,
    /// The tailnet addresses of `tailscale status`, and loopback.
    Tailnet,
    /// Every address in a container, loopback elsewhere.
    Auto,
    /// One given IPv4 address, and loopback.
    Custom(Ipv4Addr),
}

/// How a caller without tailnet identity proves themself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthMode {
    /// Not at all: loopback only.
    None,
    /// With `gateway.auth.token`.
    Token,
    /// With `gateway.auth.password`.
    Password,
    /// By what a listed reverse proxy says.
    TrustedProxy,
}

/// `gateway.auth.rateLimit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Wrong secrets within the window that lock a client out.
    pub max_attempts: u32,
    /// The window.
    pub window: Duration,
    /// How long the lock holds.
    pub lockout: Duration,
    /// Whether loopback is exempt where nothing can be proxied to it.
    pub exempt_loopback: bool,
}

impl Default for RateLimit {
    fn default() -> Self {
        Self {
            max_attempts: 10,
            window: Duration::from_secs(60),
            lockout: Duration::from_secs(300),
            exempt_loopback: true,
        }
    }
}

/// `gateway.auth.trustedProxy`.
#[derive(Clone, Debug)]
pub struct TrustedProxy {
    /// The header that names the user.
    pub user_header: HeaderName,
    /// Headers that must be present and not blank.
    pub required_headers: Vec<HeaderName>,
    /// Who is let in; never empty.
    pub allow_users: Vec<String>,
    /// Whether loopback may be a proxy; unset is consent by listing it.
    pub allow_loopback: Option<bool>,
}

/// `gateway.auth`.
#[derive(Clone)]
pub struct Auth {
    /// The mode in force.
    pub mode: AuthMode,
    /// The token, where one is configured, given or generated.
    pub token: Option<Secret>,
    /// The password, where one is configured or given.
    pub password: Option<Secret>,
    /// Whether tailnet identity counts.
    pub allow_tailscale: bool,
    /// The limiter of wrong secrets.
    pub rate_limit: RateLimit,
    /// Present in mode trusted-proxy.
    pub trusted_proxy: Option<TrustedProxy>,
}

/// `gateway.tailscale.mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TailscaleMode {
    /// No Serve or Funnel of ours.
    Off,
    /// Serve.
    Serve,
    /// Funnel.
    Funnel,
}

/// `gateway.tailscale`.
#[derive(Clone, Debug)]
pub struct TailscaleConfig {
    /// Whether we manage Serve or Funnel.
    pub mode: TailscaleMode,
    /// The `tailscale` program; found by itself where unset.
    pub bin: Option<PathBuf>,
    /// The LocalAPI socket; Tailscale's own default where unset.
    pub socket: Option<PathBuf>,
    /// Undo our Serve route when stopping.
    pub reset_on_exit: bool,
    /// Believe Serve headers on loopback where the system cannot say who
    /// connected. Critical in the audit.
    pub trust_local_users: bool,
}

/// A certificate and key in files.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// PEM chain.
    pub cert_path: PathBuf,
    /// PEM key.
    pub key_path: PathBuf,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// `gateway.log`.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// How lines look.
    pub format: LogFormat,
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub level: String,
}

/// `gateway`, checked.
#[derive(Clone)]
pub struct Gateway {
    /// The port; 0 (any free one) by flag or variable only.
    pub port: u16,
    /// Which addresses.
    pub bind: Bind,
    /// Who proves themself how.
    pub auth: Auth,
    /// Reverse proxies whose forwarding headers are read.
    pub trusted_proxies: Vec<IpNetwork>,
    /// Whether `X-Real-IP` of a trusted proxy counts where the chain is empty.
    pub allow_real_ip_fallback: bool,
    /// Tailscale.
    pub tailscale: TailscaleConfig,
    /// TLS of our own on the ordinary port.
    pub tls: Option<TlsFiles>,
    /// Routes, most specific first. Empty: nothing is proxied.
    pub routes: Vec<Arc<Route>>,
    /// Who may.
    pub access: Access,
    /// Host names served besides those known by themselves, lower-cased.
    pub allowed_hosts: Vec<String>,
    /// Origins allowed besides our own (`gateway.controlUi.allowedOrigins`).
    pub allowed_origins: Vec<String>,
    /// Whether tailnet identity needs HTTPS.
    pub require_https: bool,
    /// Log.
    pub log: LogConfig,
}

/// Everything, checked.
#[derive(Clone)]
pub struct Config {
    /// `gateway`.
    pub gateway: Gateway,
    /// The state directory: `$OPENCLAW_STATE_DIR`, else `~/.openclaw`.
    pub state_dir: PathBuf,
    /// Things that are allowed but that the operator should know.
    pub warnings: Vec<String>,
}
