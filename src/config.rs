//! The checked configuration: what every other room reads, and how it comes
//! about.
//!
//! Values here have already been parsed, merged (flag, then environment, then
//! file, then default) and found to be a combination the gateway will run with.
//! The way there: `document` reads the file, its parts and variables; `schema`
//! checks keys and types; `build` and the file of each area check meanings;
//! `combos` checks what lies between areas. Nothing here starts anything or asks
//! the network.

mod access;
mod auth;
mod build;
mod combos;
mod document;
mod edit;
mod effective;
mod env;
mod error;
mod file;
mod flags;
mod generated;
mod host;
mod include;
mod keypath;
mod listen;
mod load;
mod paths;
mod provenance;
mod raw;
mod routes;
mod schema;
mod secrets;
mod store;
mod substitute;
mod syntax;
mod tailscale;
mod time;
mod tls;
mod trusted_proxy;
mod upstream;
mod yaml;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use ipnetwork::IpNetwork;

use crate::domain::{Access, Route, RoutePrefix, Secret};

pub use effective::{Lookup, lookup};
pub use env::Env;
pub use error::{ConfigError, Problem, When};
pub use flags::{BindWord, GatewayFlags, WordError};
pub use generated::{GeneratedToken, GeneratedTokenError};
pub use keypath::{EditError, KeyPath, KeyPathError, Segment};
pub use load::{Loaded, Validation, load, validate};
pub use paths::Paths;
pub use provenance::{Provenance, Provenances};
pub use schema::{REDACTED, json_schema};
pub(crate) use store::create_private_dirs;
pub use store::{Change, Edit, StoreError, change};
pub use tailscale::FUNNEL_PORTS;
pub use upstream::{UpstreamError, is_forbidden_upstream, parse_upstream};

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
    /// The token, in mode token: configured, given or generated. `None` in every
    /// other mode, whatever is configured: only the mode in force opens anything.
    pub token: Option<Secret>,
    /// The password, in mode password, and in mode trusted-proxy for requests of
    /// this machine itself.
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

/// `gateway.tailscale.client`: how Tailscale is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum TailscaleClient {
    /// The LocalAPI where it answers, else the CLI.
    #[default]
    Auto,
    /// The `tailscale` program.
    Cli,
    /// The LocalAPI socket.
    LocalApi,
}

/// `gateway.tailscale.serve.scheme`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ServeScheme {
    /// With the node's certificate.
    #[default]
    Https,
    /// Where the control server gives no certificates.
    Http,
}

/// `gateway.tailscale.serve`: the mount that is ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServeRoute {
    /// The scheme.
    pub scheme: ServeScheme,
    /// The port; one of 443, 8443 and 10000 in mode funnel.
    pub port: u16,
    /// The path.
    pub path: RoutePrefix,
}

impl Default for ServeRoute {
    fn default() -> Self {
        Self { scheme: ServeScheme::Https, port: 443, path: RoutePrefix::root() }
    }
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
    /// How Tailscale is asked.
    pub client: TailscaleClient,
    /// Undo our Serve route when stopping.
    pub reset_on_exit: bool,
    /// Believe Serve headers on loopback where the system cannot say who
    /// connected. Critical in the audit.
    pub trust_local_users: bool,
    /// Our Serve or Funnel route.
    pub serve: ServeRoute,
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
    /// Whether the files of `tls` are ours to make where they are missing
    /// (`gateway.tls.source: "self"`).
    pub tls_self_signed: bool,
    /// The port on which the tailnet addresses serve HTTPS with the node's own
    /// certificate (`gateway.tls.source: "tailscale"`, rulings 6).
    pub tls_tailscale_port: Option<u16>,
    /// The routes of the ordinary port, most specific first.
    pub routes: Vec<Arc<Route>>,
    /// The routes of ports of their own (`listen`), most specific first. Nothing
    /// is proxied where this and `routes` are empty.
    pub routes_by_port: BTreeMap<u16, Vec<Arc<Route>>>,
    /// Who may.
    pub access: Access,
    /// Host names served besides those known by themselves, lower-cased.
    pub allowed_hosts: Vec<String>,
    /// Origins allowed besides our own (`gateway.controlUi.allowedOrigins`).
    pub allowed_origins: Vec<String>,
    /// Whether tailnet identity needs HTTPS.
    pub require_https: bool,
    /// The port of dashboard and admin API, where they have one of their own:
    /// always once anything is proxied (rulings 5). 0 is any free one.
    pub admin_port: Option<u16>,
    /// Whether there is a dashboard (`gateway.controlUi.enabled`).
    pub dashboard: bool,
    /// Whether a changed file takes effect by itself.
    pub reload: bool,
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
