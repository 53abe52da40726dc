//! Where a Serve target leads, as far as its text tells.

use std::net::IpAddr;
use std::path::{Component, Path, PathBuf};

/// A target, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target<'a> {
    /// `unix:/path`.
    Unix(&'a str),
    /// A host and a port.
    Tcp { host: &'a str, port: u16 },
    /// Nothing that this module can read.
    Unknown(&'a str),
}

impl<'a> Target<'a> {
    /// Reads a web handler's `Proxy`: a URL, or, as old releases stored it, `3000`
    /// or `host:3000`.
    pub(super) fn of_web(text: &'a str) -> Self {
        if let Some(path) = strip_prefix_ignore_case(text, "unix:") {
            return Self::Unix(path);
        }
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) => (scheme, rest),
            None => ("http", text),
        };
        let default = if scheme.to_ascii_lowercase().starts_with("https") { 443 } else { 80 };
        let authority = rest.split(['/', '?', '#', '\\']).next().unwrap_or(rest);
        let authority = authority.rsplit('@').next().unwrap_or(authority);
        Self::of_authority(text, authority, Some(default))
    }

    /// Reads a `TCPForward`: `host:port`, or `unix:/path`.
    pub(super) fn of_tcp(text: &'a str) -> Self {
        if let Some(path) = strip_prefix_ignore_case(text, "unix:") {
            return Self::Unix(path);
        }
        let authority = strip_prefix_ignore_case(text, "tcp://").unwrap_or(text);
        Self::of_authority(text, authority, None)
    }

    fn of_authority(text: &'a str, authority: &'a str, default: Option<u16>) -> Self {
        // A lone number is a port of this machine.
        if let Ok(port) = authority.parse() {
            return Self::Tcp { host: "127.0.0.1", port };
        }
        let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, tail)) => (host, tail.strip_prefix(':').unwrap_or(tail)),
            // The last colon, because 1.102 loses the brackets of `[::1]:3000`.
            None => authority.rsplit_once(':').unwrap_or((authority, "")),
        };
        let port = if port.is_empty() { default } else { port.parse().ok() };
        match port {
            Some(port) if !host.is_empty() => Self::Tcp { host, port },
            _ => Self::Unknown(text),
        }
    }

    /// Whether it may lead to `port` of this machine, whose addresses include `own`.
    pub(super) fn may_be_port(&self, wanted: u16, own: &[IpAddr]) -> bool {
        match self {
            Self::Unix(_) => false,
            Self::Tcp { host, port } => *port == wanted && may_be_here(host, own),
            Self::Unknown(text) => text.contains(&wanted.to_string()),
        }
    }

    /// Whether it is the Unix socket at `path`.
    pub(super) fn is_unix(&self, path: &Path) -> bool {
        matches!(self, Self::Unix(text) if lexical(Path::new(text)) == lexical(path))
    }
}

/// Whether a host may be this machine: only another machine's address is not.
fn may_be_here(host: &str, own: &[IpAddr]) -> bool {
    // A scope (`fe80::1%eth0`) does not make it another address.
    let address = host.split('%').next().unwrap_or(host);
    match address.parse::<IpAddr>() {
        Err(_) => true,
        Ok(ip) => {
            let ip = ip.to_canonical();
            ip.is_loopback() || ip.is_unspecified() || own.iter().any(|own| own.to_canonical() == ip)
        }
    }
}

fn strip_prefix_ignore_case<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let head = text.get(..prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then(|| text.get(prefix.len()..)).flatten()
}

/// The path without `.`, `..`, doubled slashes, and with `/var/run` as `/run`.
fn lexical(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                plain.pop();
            }
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) | Component::Normal(_) => {
                plain.push(component);
            }
        }
    }
    match plain.strip_prefix("/var/run") {
        Ok(rest) => Path::new("/run").join(rest),
        Err(_) => plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn counts(target: &Target<'_>) -> bool {
        target.may_be_port(18789, &["100.64.0.1".parse().unwrap()])
    }

    #[test]
    fn other_ports_and_other_machines_do_not_count() {
        for text in [
            "http://127.0.0.1:18790",
            "http://127.0.0.1",
            "http://10.0.0.9:18789",
            "http://[fd00::9]:18789/x",
            "https://127.0.0.1/18789",
            "unix:/run/18789",
            "18790",
            "nonsense",
        ] {
            assert!(!counts(&Target::of_web(text)), "{text}");
        }
        for text in ["127.0.0.1:18790", "10.0.0.9:18789", "unix:/run/18789"] {
            assert!(!counts(&Target::of_tcp(text)), "{text}");
        }
    }

    #[test]
    fn every_spelling_of_this_machine_counts() {
        for text in [
            "http://127.0.0.1:18789",
            "http://127.0.0.1:18789/s/3f9c0e7d/",
            "http://127.9.9.9:18789?x",
            "https://localhost:18789",
            "HTTP://LocalHost.:18789",
            "https+insecure://[::1]:18789",
            "http://::1:18789",
            "http://[::ffff:127.0.0.1]:18789",
            "http://0.0.0.0:18789",
            "http://[::]:18789",
            "http://user:pass@127.0.0.1:18789",
            "http://10.0.0.9:1@127.0.0.1:18789",
            "http://gw.tailnet-example.ts.net:18789",
            "http://100.64.0.1:18789",
            "http://127.1:18789",
            "18789",
            "localhost:18789",
            "http://127.0.0.1:018789",
            "http://127.0.0.1:18789x",
        ] {
            assert!(counts(&Target::of_web(text)), "{text}");
        }
        for text in ["127.0.0.1:18789", "localhost:18789", "[::1]:18789", "tcp://127.0.0.1:18789"] {
            assert!(counts(&Target::of_tcp(text)), "{text}");
        }
    }

    #[test]
    fn default_ports_are_known() {
        assert!(Target::of_web("http://localhost").may_be_port(80, &[]));
        assert!(Target::of_web("http://[::1]/x").may_be_port(80, &[]));
        assert!(Target::of_web("https+insecure://127.0.0.1").may_be_port(443, &[]));
    }

    #[test]
    fn unix_paths_are_compared_by_meaning() {
        let socket = Path::new("/run/openclaw/serve.sock");
        for text in ["unix:/run/openclaw/other.sock", "http://127.0.0.1:1", "unix:"] {
            assert!(!Target::of_web(text).is_unix(socket), "{text}");
        }
        for text in [
            "unix:/run/openclaw/serve.sock",
            "unix:///run/openclaw/serve.sock",
            "unix:/run/./x/..//openclaw/serve.sock",
            "unix:/var/run/openclaw/serve.sock",
        ] {
            assert!(Target::of_web(text).is_unix(socket), "{text}");
            assert!(Target::of_tcp(text).is_unix(socket), "{text}");
        }
    }
}
