//! `gateway.upstream` and a route's `upstream`: where an app listens and how it
//! is spoken to.

use std::net::IpAddr;
use std::path::PathBuf;

use super::build::Build;
use super::error::Problem;
use super::host::Host;
use super::raw;
use crate::domain::addr::canonical_ip;
use crate::domain::route::IdentityHeaderNames;
use crate::domain::{HostMode, RoutePrefix, Upstream, UpstreamAddr, UpstreamKind};

/// Why a text is no upstream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamError {
    /// None of the forms.
    #[error(
        "{0:?} is no upstream: write a port (3000), host:port, http://host:port, https://host or unix:/path"
    )]
    Form(String),
    /// Name and password in the URL. The text is not repeated: it holds a secret.
    #[error("the URL holds a user name or password: leave it out")]
    UserInfo,
    /// A query or fragment.
    #[error("{0:?} has a query or fragment: an upstream is a place, the rest comes from the request")]
    Query(String),
    /// The path of the URL is not canonical.
    #[error("{0}")]
    Path(String),
    /// The host is none, or an odd spelling of an address.
    #[error("{0}")]
    Host(String),
    /// A port outside 1..65535.
    #[error("{0:?} has no port from 1 to 65535")]
    Port(String),
    /// A unix socket path that is relative, too long or holds NUL.
    #[error("{0:?} is no socket path: it starts with / and has at most 103 bytes")]
    Socket(String),
    /// Link-local, metadata, unspecified, multicast (threat rule 66).
    #[error(
        "{0} is no place for an app: link-local, cloud metadata, unspecified and multicast addresses are never dialled"
    )]
    Forbidden(String),
}

/// Whether an address is never dialled as an upstream: link-local and cloud
/// metadata (threat rule 66), unspecified, multicast and broadcast. The proxy
/// asks it again about what a name resolved to.
pub fn is_forbidden_upstream(ip: IpAddr) -> bool {
    match canonical_ip(ip) {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_unspecified() || v4.is_multicast() || v4.is_broadcast(),
        IpAddr::V6(v6) => {
            v6.is_unicast_link_local()
                || v6.is_unspecified()
                || v6.is_multicast()
                // The metadata service of AWS over IPv6.
                || v6 == std::net::Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)
        }
    }
}

/// Reads where an upstream listens, and the path that comes before every
/// request's own.
///
/// # Errors
/// Says what would be right.
pub fn parse_upstream(text: &str) -> Result<(UpstreamAddr, String), UpstreamError> {
    let text = text.trim();
    let form = || UpstreamError::Form(text.to_owned());
    if let Some(path) = text.strip_prefix("unix:") {
        let path = path.strip_prefix("//").filter(|rest| rest.starts_with('/')).unwrap_or(path);
        // 103 bytes and the final NUL is what macOS takes; Linux takes 107.
        if !path.starts_with('/') || path.len() > 103 || path.contains('\0') {
            return Err(UpstreamError::Socket(text.to_owned()));
        }
        return Ok((UpstreamAddr::Unix { path: PathBuf::from(path) }, String::new()));
    }
    if text.bytes().all(|b| b.is_ascii_digit()) && !text.is_empty() {
        let port = port(text, text)?;
        return Ok((UpstreamAddr::Tcp { tls: false, host: "127.0.0.1".into(), port }, String::new()));
    }
    let (tls, rest) = match text.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (Some(false), rest),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (Some(true), rest),
        Some(_) => return Err(form()),
        None => (None, text),
    };
    if rest.contains('@') {
        return Err(UpstreamError::UserInfo);
    }
    if rest.contains(['?', '#']) {
        return Err(UpstreamError::Query(text.to_owned()));
    }
    let (authority, path) = match rest.find('/') {
        Some(at) if tls.is_some() => rest.split_at(at),
        Some(_) => return Err(form()),
        None => (rest, ""),
    };
    let (host, port_text) = split_port(authority).ok_or_else(form)?;
    let port = match port_text {
        Some(digits) => port(digits, text)?,
        None => match tls {
            Some(true) => 443,
            Some(false) => 80,
            None => return Err(form()),
        },
    };
    let host: Host =
        host.parse().map_err(|error: super::host::HostError| UpstreamError::Host(error.to_string()))?;
    let forbidden = match &host {
        Host::Ip(ip) => is_forbidden_upstream(*ip),
        Host::Name(name) => matches!(name.as_str(), "metadata.google.internal" | "metadata.goog"),
    };
    if forbidden {
        return Err(UpstreamError::Forbidden(host.text()));
    }
    let base: RoutePrefix = if path.is_empty() {
        RoutePrefix::root()
    } else {
        path.parse()
            .map_err(|error: crate::domain::route::RouteError| UpstreamError::Path(error.to_string()))?
    };
    let base = if base == RoutePrefix::root() { String::new() } else { base.as_str().to_owned() };
    Ok((UpstreamAddr::Tcp { tls: tls == Some(true), host: host.text(), port }, base))
}

/// Host and port text. `None` for an IPv6 address without brackets.
fn split_port(authority: &str) -> Option<(&str, Option<&str>)> {
    if authority.starts_with('[') {
        let end = authority.find(']')? + 1;
        let (host, rest) = authority.split_at(end);
        return if rest.is_empty() {
            Some((host, None))
        } else {
            Some((host, Some(rest.strip_prefix(':')?)))
        };
    }
    match authority.split_once(':') {
        Some((_, port)) if port.contains(':') => None,
        Some((host, port)) => Some((host, Some(port))),
        None => Some((authority, None)),
    }
}

fn port(digits: &str, whole: &str) -> Result<u16, UpstreamError> {
    let sound = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let port = digits.parse().ok().filter(|port| sound && *port != 0);
    port.ok_or_else(|| UpstreamError::Port(whole.to_owned()))
}

/// Reads an upstream with its settings. `key` is its place in the file.
pub(crate) fn upstream(build: &mut Build<'_>, key: &str, raw: &raw::Upstream) -> Option<Upstream> {
    let default = raw::UpstreamObject::default();
    let (url_key, text, settings) = match raw {
        raw::Upstream::Port(port) => (key.to_owned(), port.to_string(), &default),
        raw::Upstream::Text(text) => (key.to_owned(), text.clone(), &default),
        raw::Upstream::Object(object) => {
            let url_key = format!("{key}.url");
            let text = match &object.url {
                Some(raw::UpstreamUrl::Port(port)) => port.to_string(),
                Some(raw::UpstreamUrl::Text(text)) => text.clone(),
                None => {
                    let what = "is missing: where the app listens, such as 3000 or http://127.0.0.1:3000";
                    build.refuse(
                        Problem::new(&*url_key, what)
                            .fix(format!("openclaw config set {url_key} 3000"))
                            .at_start(),
                    );
                    return None;
                }
            };
            (url_key, text, object)
        }
    };
    let (addr, base_path) = match parse_upstream(&text) {
        Ok(parsed) => parsed,
        Err(error) => {
            build.refuse(Problem::new(url_key, error.to_string()));
            return None;
        }
    };
    let kind = kind(build, key, settings, &addr)?;
    tls_settings(build, key, settings, &addr);
    let own_uid = matches!(kind, UpstreamKind::OpenClaw { .. }) && is_on_this_machine(&addr);
    if settings.owner_uid.is_some() && !is_on_this_machine(&addr) {
        let what = format!("can only be checked on this machine, and {addr} is elsewhere");
        build.refuse(
            Problem::new(format!("{key}.ownerUid"), what)
                .fix(format!("openclaw config unset {key}.ownerUid")),
        );
    }
    Some(Upstream {
        addr,
        base_path,
        kind,
        host: if settings.host.as_deref() == Some("upstream") {
            HostMode::Upstream
        } else {
            HostMode::Preserve
        },
        identity_headers: identity_headers(settings.identity_headers.as_deref()),
        owner_uid: settings.owner_uid.or_else(|| own_uid.then(|| rustix::process::geteuid().as_raw())),
        ca_file: settings.ca_file.as_deref().map(|text| build.path(text)),
        insecure_skip_verify: settings.insecure_skip_verify,
    })
}

fn identity_headers(raw: Option<&[String]>) -> IdentityHeaderNames {
    let Some(names) = raw else { return IdentityHeaderNames::default() };
    let has = |name: &str| names.iter().any(|n| n == name);
    IdentityHeaderNames {
        tailscale: has("tailscale"),
        x_forwarded_user: has("x-forwarded-user"),
        remote_user: has("remote-user"),
    }
}

fn kind(
    build: &mut Build<'_>,
    key: &str,
    settings: &raw::UpstreamObject,
    addr: &UpstreamAddr,
) -> Option<UpstreamKind> {
    let token_key = format!("{key}.tokenFile");
    if settings.kind.as_deref() != Some("openclaw") {
        if settings.token_file.is_some() {
            let what = "is for kind openclaw: no other app is sent a token";
            build.refuse(
                Problem::new(token_key, what).fix(format!("openclaw config set {key}.kind openclaw")),
            );
        }
        return Some(UpstreamKind::Plain);
    }
    let Some(path) = &settings.token_file else {
        let what = "is missing: kind openclaw signs in with the token of the OpenClaw gateway behind, read from a file (mode 0600)";
        build.refuse(
            Problem::new(&*token_key, what)
                .fix(format!("openclaw config set {token_key} ~/.openclaw/upstream-token"))
                .at_start(),
        );
        return None;
    };
    let path = build.path(path);
    let secret = build.secret_file(&token_key, &path)?;
    if matches!(addr, UpstreamAddr::Tcp { tls: false, .. }) && !is_on_this_machine(addr) {
        build.warn(format!("{key}: the token travels to {addr} without TLS"));
    }
    Some(UpstreamKind::OpenClaw { secret })
}

fn tls_settings(build: &mut Build<'_>, key: &str, settings: &raw::UpstreamObject, addr: &UpstreamAddr) {
    let tls = matches!(addr, UpstreamAddr::Tcp { tls: true, .. });
    let given =
        [("caFile", settings.ca_file.is_some()), ("insecureSkipVerify", settings.insecure_skip_verify)];
    for (name, _) in given.iter().filter(|(_, given)| *given && !tls) {
        let what = format!("is for https, and {addr} is not");
        build.refuse(
            Problem::new(format!("{key}.{name}"), what).fix(format!("openclaw config unset {key}.{name}")),
        );
    }
    if tls && settings.insecure_skip_verify {
        build.warn(format!(
            "{key}.insecureSkipVerify is on: whoever answers at {addr} is believed to be the app"
        ));
    }
}

/// Whether an upstream is a unix socket or on loopback.
pub(crate) fn is_on_this_machine(addr: &UpstreamAddr) -> bool {
    match addr {
        UpstreamAddr::Unix { .. } => true,
        UpstreamAddr::Tcp { host, .. } => host.parse::<Host>().is_ok_and(|host| host.is_local()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_be_read_in_two_ways_is_no_upstream() {
        for text in [
            "",
            "host",
            "0",
            "65536",
            "host:",
            "host:0",
            "host:x",
            "::1:80",
            "ftp://h:1",
            "http://",
            "http://h:",
            "http://:80",
            "host:80/path",
            "http://h/a/../b",
            "http://h//a",
            "http://h/%2e",
            "unix:",
            "unix:rel",
            "http://0x7f.1",
            "http://127.1:80",
            "http://2130706433",
            "http://[::1",
            "http://a b",
            "http://h\\x",
        ] {
            assert!(parse_upstream(text).is_err(), "{text:?}");
        }
        assert!(parse_upstream(&format!("unix:/{}", "x".repeat(200))).is_err());
        assert!(matches!(parse_upstream("http://h/?a=1"), Err(UpstreamError::Query(_))));
        assert!(matches!(parse_upstream("http://h/#a"), Err(UpstreamError::Query(_))));
    }

    #[test]
    fn threat_054_a_password_in_a_url_is_refused_and_not_repeated() {
        let error = parse_upstream("http://me:hunter2@host:80").unwrap_err();
        assert_eq!(error, UpstreamError::UserInfo);
        assert!(!error.to_string().contains("hunter2"));
    }

    #[test]
    fn threat_066_metadata_and_link_local_are_never_dialled() {
        for text in [
            "http://169.254.169.254",
            "169.254.0.1:80",
            "http://[fe80::1]",
            "http://[::ffff:169.254.169.254]",
            "http://0.0.0.0:80",
            "http://[::]:80",
            "http://224.0.0.1",
            "http://[fd00:ec2::254]",
            "http://metadata.google.internal",
            "http://Metadata.Google.Internal.",
        ] {
            assert!(matches!(parse_upstream(text), Err(UpstreamError::Forbidden(_))), "{text:?}");
        }
    }

    #[test]
    fn every_form_is_read() {
        let tcp = |tls, host: &str, port| UpstreamAddr::Tcp { tls, host: host.into(), port };
        for (text, addr, base) in [
            ("3000", tcp(false, "127.0.0.1", 3000), ""),
            ("box:3000", tcp(false, "box", 3000), ""),
            ("[::1]:3000", tcp(false, "::1", 3000), ""),
            ("http://Box.Example.:8080/base/", tcp(false, "box.example", 8080), "/base"),
            ("https://box", tcp(true, "box", 443), ""),
            ("http://box/", tcp(false, "box", 80), ""),
            ("http://[::ffff:127.0.0.1]:1", tcp(false, "127.0.0.1", 1), ""),
            ("unix:/run/x.sock", UpstreamAddr::Unix { path: "/run/x.sock".into() }, ""),
            ("unix:///run/x.sock", UpstreamAddr::Unix { path: "/run/x.sock".into() }, ""),
        ] {
            assert_eq!(parse_upstream(text), Ok((addr, base.to_owned())), "{text:?}");
        }
    }
}
