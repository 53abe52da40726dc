//! `tailscale serve status --json`: what Serve and Funnel publish.
//!
//! The configuration nests: a node has one, each foreground session and each
//! Service has its own inside it. The question is always "does anything lead to my
//! port", so parsing flattens it and remembers where each entry came from.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use crate::{Error, json};

mod target;

use target::Target;

/// What Serve and Funnel publish on this node, wherever it is nested.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServeConfig {
    web: Vec<WebHandler>,
    tcp: Vec<TcpForward>,
    funnel: Vec<FunnelHost>,
    listeners: Vec<Listener>,
}

/// Whose entry it is: the innermost configuration that holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The node's own (`--bg`), which outlives everything.
    Node,
    /// A foreground session, by its id; gone when its client goes.
    Foreground(String),
    /// A Service, by its name (`svc:gw`).
    Service(String),
}

/// One mount of one web site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebHandler {
    /// `name:port`, as printed: no trailing dot, port always there.
    pub host_port: String,
    /// The path it is mounted at (`/`).
    pub mount: String,
    /// The proxy target, as printed.
    pub proxy: Option<String>,
    /// A file or folder that is served.
    pub path: Option<String>,
    /// A fixed text that is served.
    pub text: Option<String>,
    /// Where it redirects to.
    pub redirect: Option<String>,
    /// The capabilities that it forwards in a header.
    pub accept_app_caps: Vec<String>,
    /// Whose entry it is.
    pub origin: Origin,
}

/// One raw TCP forward. It carries no identity, only bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcpForward {
    /// The port it listens on.
    pub port: u16,
    /// Where it leads, as printed: `host:port` or `unix:/path`.
    pub target: String,
    /// The name it ends TLS for, if it does.
    pub terminate_tls: Option<String>,
    /// The version of the PROXY protocol that it speaks to the target; 0 is none.
    pub proxy_protocol: i64,
    /// Whose entry it is.
    pub origin: Origin,
}

impl WebHandler {
    /// Whether it may lead to `port` of this machine, whose addresses include `own`: as
    /// [`ServeConfig::targets_port_at`] counts.
    #[must_use]
    pub fn may_lead_to_port(&self, port: u16, own: &[std::net::IpAddr]) -> bool {
        self.proxy.as_deref().is_some_and(|target| Target::of_web(target).may_be_port(port, own))
    }
}

impl TcpForward {
    /// The same of a raw forward.
    #[must_use]
    pub fn may_lead_to_port(&self, port: u16, own: &[std::net::IpAddr]) -> bool {
        Target::of_tcp(&self.target).may_be_port(port, own)
    }

    /// Whether it leads to the Unix socket at `path`, compared without touching the file
    /// system.
    #[must_use]
    pub fn leads_to_unix(&self, path: &Path) -> bool {
        Target::of_tcp(&self.target).is_unix(path)
    }
}

/// A site that is open to the internet. Every mount on it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunnelHost {
    /// `name:port`, as printed.
    pub host_port: String,
    /// Whose entry it is.
    pub origin: Origin,
}

/// One port that Serve listens on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// The port.
    pub port: u16,
    /// Whether it is a web listener with TLS.
    pub https: bool,
    /// Whether it is a web listener without.
    pub http: bool,
    /// Whose entry it is.
    pub origin: Origin,
}

/// How many entries lead to a port or a socket of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TargetsPort {
    /// Web handlers that proxy to it.
    pub web: usize,
    /// TCP forwards to it.
    pub tcp: usize,
}

impl ServeConfig {
    /// Whether nothing is published.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Every web handler, wherever nested.
    pub fn web_handlers(&self) -> impl Iterator<Item = &WebHandler> {
        self.web.iter()
    }

    /// Every TCP forward, wherever nested.
    pub fn tcp_forwards(&self) -> impl Iterator<Item = &TcpForward> {
        self.tcp.iter()
    }

    /// Every site that is open to the internet.
    pub fn funnel_hosts(&self) -> impl Iterator<Item = &FunnelHost> {
        self.funnel.iter()
    }

    /// Every port that Serve listens on.
    pub fn listeners(&self) -> impl Iterator<Item = &Listener> {
        self.listeners.iter()
    }

    /// Whether the site `name:port` is open to the internet, whoever opened it.
    #[must_use]
    pub fn is_funnel(&self, host_port: &str) -> bool {
        self.funnel.iter().any(|host| host.host_port.eq_ignore_ascii_case(host_port))
    }

    /// How many entries lead to `port` on this machine.
    ///
    /// Counts too many rather than too few: loopback and unspecified addresses,
    /// every host *name* (it may resolve to this machine), and targets that cannot
    /// be read but hold the number. Other address literals are left out; where this
    /// machine's own addresses are known, ask [`Self::targets_port_at`].
    #[must_use]
    pub fn targets_port(&self, port: u16) -> TargetsPort {
        self.targets_port_at(port, &[])
    }

    /// The same, with `own` addresses of this machine counted too.
    #[must_use]
    pub fn targets_port_at(&self, port: u16, own: &[std::net::IpAddr]) -> TargetsPort {
        self.count(|target| target.may_be_port(port, own))
    }

    /// How many entries lead to the Unix socket at `path` (compared without
    /// touching the file system; `/var/run` is `/run`).
    #[must_use]
    pub fn targets_unix(&self, path: &Path) -> TargetsPort {
        self.count(|target| target.is_unix(path))
    }

    fn count(&self, leads_there: impl Fn(&Target<'_>) -> bool) -> TargetsPort {
        let web = self.web.iter().filter_map(|handler| handler.proxy.as_deref());
        let tcp = self.tcp.iter().map(|forward| forward.target.as_str());
        TargetsPort {
            web: web.filter(|target| leads_there(&Target::of_web(target))).count(),
            tcp: tcp.filter(|target| leads_there(&Target::of_tcp(target))).count(),
        }
    }
}

type Map<T> = Option<BTreeMap<String, T>>;

/// `ipn.ServeConfig`: every empty field is omitted, so every field may be absent.
#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase")]
struct Wire {
    #[serde(rename = "TCP")]
    tcp: Map<Option<WireTcp>>,
    web: Map<Option<WireSite>>,
    services: Map<Option<Wire>>,
    allow_funnel: Map<Option<bool>>,
    foreground: Map<Option<Wire>>,
}

#[derive(Deserialize)]
struct WireTcp {
    #[serde(rename = "HTTPS")]
    https: Option<bool>,
    #[serde(rename = "HTTP")]
    http: Option<bool>,
    #[serde(rename = "TCPForward")]
    tcp_forward: Option<String>,
    #[serde(rename = "TerminateTLS")]
    terminate_tls: Option<String>,
    #[serde(rename = "ProxyProtocol")]
    proxy_protocol: Option<i64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireSite {
    handlers: Map<Option<WireHandler>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireHandler {
    proxy: Option<String>,
    path: Option<String>,
    text: Option<String>,
    redirect: Option<String>,
    accept_app_caps: Option<Vec<String>>,
}

const COMMAND: &str = "serve status";

/// Parses the output of `tailscale serve status --json`, or the LocalAPI's
/// `serve-config`. `null` (old releases) and `{}` are both "nothing is published".
///
/// # Errors
/// When it is neither `null` nor one JSON object, or a known field has the wrong
/// type: an entry that cannot be read might be the one that matters.
pub fn parse_serve_config(bytes: &[u8]) -> Result<ServeConfig, Error> {
    let wire: Wire = json::decode_or_null(COMMAND, bytes)?;
    let mut config = ServeConfig::default();
    config.add(wire, &Origin::Node)?;
    Ok(config)
}

impl ServeConfig {
    /// Adds `wire` and everything inside it. Recursion is as deep as the JSON was,
    /// which the decoder bounds at 128.
    fn add(&mut self, wire: Wire, origin: &Origin) -> Result<(), Error> {
        for (port, handler) in entries(wire.tcp) {
            let port = port.parse().map_err(|_| {
                let shown = crate::text::printable(port.as_bytes(), 40);
                Error::wrong_shape(COMMAND, "TCP", format!("`{shown}` is no port"))
            })?;
            self.add_tcp(port, handler, origin);
        }
        for (host_port, site) in entries(wire.web) {
            for (mount, handler) in entries(site.handlers) {
                self.web.push(WebHandler {
                    host_port: host_port.clone(),
                    mount,
                    proxy: filled(handler.proxy),
                    path: filled(handler.path),
                    text: filled(handler.text),
                    redirect: filled(handler.redirect),
                    accept_app_caps: handler.accept_app_caps.unwrap_or_default(),
                    origin: origin.clone(),
                });
            }
        }
        for (host_port, on) in entries(wire.allow_funnel) {
            if on {
                self.funnel.push(FunnelHost { host_port, origin: origin.clone() });
            }
        }
        for (name, inner) in entries(wire.services) {
            self.add(inner, &Origin::Service(name))?;
        }
        for (session, inner) in entries(wire.foreground) {
            self.add(inner, &Origin::Foreground(session))?;
        }
        Ok(())
    }

    fn add_tcp(&mut self, port: u16, handler: WireTcp, origin: &Origin) {
        self.listeners.push(Listener {
            port,
            https: handler.https.unwrap_or(false),
            http: handler.http.unwrap_or(false),
            origin: origin.clone(),
        });
        if let Some(target) = filled(handler.tcp_forward) {
            self.tcp.push(TcpForward {
                port,
                target,
                terminate_tls: filled(handler.terminate_tls),
                proxy_protocol: handler.proxy_protocol.unwrap_or(0),
                origin: origin.clone(),
            });
        }
    }
}

fn entries<T>(map: Map<Option<T>>) -> impl Iterator<Item = (String, T)> {
    map.into_iter().flatten().filter_map(|(key, value)| Some((key, value?)))
}

fn filled(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests;
