//! Routes and the upstreams they lead to.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use super::{AccessEntry, Role, Secret};

/// A route's name: `^[a-z][a-z0-9-]{0,62}$`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RouteName(String);

impl RouteName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why a route name or prefix was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// The name breaks the pattern.
    #[error("{0:?} is no route name: a lower-case letter, then up to 62 of a-z, 0-9 and -")]
    Name(String),
    /// The path prefix is not canonical.
    #[error("{0:?} is no path prefix: it starts with /, and has no //, . or .. segment, no %, ?, #, ; or \\")]
    Prefix(String),
}

impl FromStr for RouteName {
    type Err = RouteError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut chars = text.chars();
        let ok = chars.next().is_some_and(|c| c.is_ascii_lowercase())
            && text.len() <= 63
            && chars.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        if ok { Ok(Self(text.to_owned())) } else { Err(RouteError::Name(text.to_owned())) }
    }
}

/// A canonical path prefix, matched by whole segments: `/api` covers `/api` and
/// `/api/x`, never `/apix` (threat rule 41). Stored without a final `/`; the
/// root is the empty string.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RoutePrefix(String);

impl RoutePrefix {
    /// The prefix that covers everything.
    pub fn root() -> Self {
        Self(String::new())
    }

    /// The prefix, `/` for the root.
    pub fn as_str(&self) -> &str {
        if self.0.is_empty() { "/" } else { &self.0 }
    }

    /// Whether it covers a canonical path.
    pub fn covers(&self, path: &str) -> bool {
        path.strip_prefix(self.0.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// The path without the prefix, always starting with `/`. `None` where it
    /// does not cover the path.
    pub fn strip<'a>(&self, path: &'a str) -> Option<&'a str> {
        if !self.covers(path) {
            return None;
        }
        let rest = &path[self.0.len()..];
        Some(if rest.is_empty() { "/" } else { rest })
    }

    /// How specific it is: the longer, the earlier it is tried.
    pub fn specificity(&self) -> usize {
        self.0.len()
    }
}

impl FromStr for RoutePrefix {
    type Err = RouteError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = || RouteError::Prefix(text.to_owned());
        if text.contains("//") {
            return Err(refused());
        }
        let body = text.strip_prefix('/').ok_or_else(refused)?;
        let body = body.strip_suffix('/').unwrap_or(body);
        if body.is_empty() {
            return Ok(Self::root());
        }
        let sound = |segment: &str| {
            !segment.is_empty()
                && segment != "."
                && segment != ".."
                && segment.bytes().all(|b| b.is_ascii_graphic() && !b"%?#;\\".contains(&b))
        };
        if body.split('/').all(sound) { Ok(Self(format!("/{body}"))) } else { Err(refused()) }
    }
}

/// Who may come through Funnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Public {
    /// Nobody.
    #[default]
    No,
    /// Whoever holds the token or password.
    Secret,
    /// Everybody: for webhooks that check a signature of their own.
    Open,
}

/// What the program behind a route is.
#[derive(Clone)]
pub enum UpstreamKind {
    /// Any HTTP app.
    Plain,
    /// A real OpenClaw gateway, signed in to on behalf of whoever is allowed.
    OpenClaw {
        /// The upstream's own token.
        secret: Secret,
    },
}

/// Where an upstream listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum UpstreamAddr {
    /// A host and port, with or without TLS.
    Tcp {
        /// Whether to speak TLS.
        tls: bool,
        /// Host name or address literal (IPv6 without brackets).
        host: String,
        /// Port.
        port: u16,
    },
    /// A unix socket.
    Unix {
        /// Absolute path.
        path: PathBuf,
    },
}

impl fmt::Display for UpstreamAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { tls, host, port } => {
                let scheme = if *tls { "https" } else { "http" };
                if host.contains(':') {
                    write!(f, "{scheme}://[{host}]:{port}")
                } else {
                    write!(f, "{scheme}://{host}:{port}")
                }
            }
            Self::Unix { path } => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Which `Host` the upstream sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum HostMode {
    /// The client's own, validated.
    #[default]
    Preserve,
    /// The upstream's address.
    Upstream,
}

/// Under which names the identity goes upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdentityHeaderNames {
    /// `Tailscale-User-Login`, `-Name`, `-Profile-Pic`, `Tailscale-Headers-Info`.
    pub tailscale: bool,
    /// `X-Forwarded-User`.
    pub x_forwarded_user: bool,
    /// `Remote-User`.
    pub remote_user: bool,
}

impl Default for IdentityHeaderNames {
    fn default() -> Self {
        Self { tailscale: true, x_forwarded_user: false, remote_user: false }
    }
}

/// The program behind a route.
#[derive(Clone)]
pub struct Upstream {
    /// Where it listens.
    pub addr: UpstreamAddr,
    /// Prefixed to every path; empty or starting with `/`, without a final `/`.
    pub base_path: String,
    /// What it is.
    pub kind: UpstreamKind,
    /// Which `Host` it sees.
    pub host: HostMode,
    /// Which identity headers it gets.
    pub identity_headers: IdentityHeaderNames,
    /// The uid that must own a loopback listener or unix socket before a secret
    /// or identity is sent (threat rule 67). For kind `openclaw` the default is
    /// our own uid.
    pub owner_uid: Option<u32>,
    /// Extra roots for a TLS upstream.
    pub ca_file: Option<PathBuf>,
    /// Whether the upstream's certificate is believed unseen.
    pub insecure_skip_verify: bool,
}

/// How long an upstream may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// To accept a connection.
    pub connect: Duration,
    /// To the first byte of an answer; a model may think for minutes.
    pub first_byte: Duration,
    /// Between two pieces of an answer or of a tunnel.
    pub idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            first_byte: Duration::from_secs(600),
            idle: Duration::from_secs(600),
        }
    }
}

/// The browser guard's relaxations of one route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct GuardOptions {
    /// Whether a client that is no browser may upgrade on ambient identity.
    pub non_browser_upgrade: bool,
}

/// One way to one app.
#[derive(Clone)]
pub struct Route {
    /// Its name in logs, entries and `can`.
    pub name: RouteName,
    /// The only host it answers to, lower-cased, without port; `None` is any.
    pub host: Option<String>,
    /// The paths it covers.
    pub path: RoutePrefix,
    /// Whether the prefix is cut off before proxying.
    pub strip: bool,
    /// Where it leads.
    pub upstream: Arc<Upstream>,
    /// Its own allow list; `None` leaves the gateway's in force.
    pub allow: Option<Vec<AccessEntry>>,
    /// The least role it takes.
    pub role: Role,
    /// Who may come through Funnel.
    pub public: Public,
    /// Browser guard.
    pub guard: GuardOptions,
    /// Timeouts.
    pub timeouts: Timeouts,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threat_041_a_prefix_covers_whole_segments_only() {
        let api: RoutePrefix = "/api/".parse().unwrap();
        assert!(!api.covers("/apix"));
        assert!(!api.covers("/"));
        assert!(!api.covers("/API"));
        assert!(api.covers("/api"));
        assert!(api.covers("/api/"));
        assert!(api.covers("/api/x"));
        assert_eq!(api.strip("/api"), Some("/"));
        assert_eq!(api.strip("/api/x"), Some("/x"));
        assert!(RoutePrefix::root().covers("/anything"));
        assert_eq!(RoutePrefix::root().strip("/x"), Some("/x"));
    }

    #[test]
    fn prefixes_that_could_be_read_twice_are_refused() {
        for text in
            ["", "api", "//", "/a//b", "/a/../b", "/./a", "/a%2fb", "/a?b", "/a#b", "/a;b", "/a\\b", "/a b"]
        {
            assert!(text.parse::<RoutePrefix>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn route_names_follow_the_pattern() {
        for text in ["", "A", "1a", "-a", "a_b", &"a".repeat(64)] {
            assert!(text.parse::<RouteName>().is_err(), "{text:?}");
        }
        assert!("chat-2".parse::<RouteName>().is_ok());
    }
}
