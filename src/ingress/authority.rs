//! The authority a client asked for, in one canonical spelling.
//!
//! Lower case, without a final dot, without the scheme's own port. What cannot
//! be read that way is refused: user information, an empty host or label, a
//! zone, a percent sign, a port that is not one (threat rules 32 and 82).

use std::net::Ipv6Addr;

use http::Request;
use http::header::HOST;
use memchr::memchr;

use super::framing::FramingFault;

/// A host and its port, as slices of what was sent.
#[derive(Clone, Copy)]
pub(super) struct Parts<'a> {
    host: Host<'a>,
    port: Option<u16>,
}

#[derive(Clone, Copy)]
enum Host<'a> {
    /// A name or an IPv4 address, without its final dot.
    Name(&'a str),
    V6(Ipv6Addr),
}

impl<'a> Parts<'a> {
    /// Reads `host[:port]`; `None` when it is not one.
    pub(super) fn parse(authority: &'a [u8]) -> Option<Self> {
        // Every byte below is ASCII or refused, so this cannot lose anything.
        let text = std::str::from_utf8(authority).ok()?;
        if let Some(rest) = text.strip_prefix('[') {
            let (host, after) = rest.split_once(']')?;
            let port = match after {
                "" => None,
                _ => Some(port(after.strip_prefix(':')?)?),
            };
            return Some(Self { host: Host::V6(host.parse().ok()?), port });
        }
        let (host, port) = match memchr(b':', authority) {
            Some(at) => (&text[..at], Some(port(&text[at + 1..])?)),
            None => (text, None),
        };
        let host = host.strip_suffix('.').unwrap_or(host);
        is_name(host.as_bytes()).then_some(Self { host: Host::Name(host), port })
    }

    /// Whether both name the same place under a scheme.
    pub(super) fn same(&self, other: &Self, https: bool) -> bool {
        let hosts = match (self.host, other.host) {
            (Host::Name(a), Host::Name(b)) => a.eq_ignore_ascii_case(b),
            (Host::V6(a), Host::V6(b)) => a == b,
            (Host::Name(_), Host::V6(_)) | (Host::V6(_), Host::Name(_)) => false,
        };
        hosts && self.explicit_port(https) == other.explicit_port(https)
    }

    fn explicit_port(&self, https: bool) -> Option<u16> {
        self.port.filter(|port| *port != if https { 443 } else { 80 })
    }

    fn canonical(&self, https: bool) -> String {
        let mut out = match self.host {
            Host::Name(name) => {
                let mut out = String::with_capacity(name.len() + ":65535".len());
                out.push_str(name);
                out.make_ascii_lowercase();
                out
            }
            Host::V6(ip) => format!("[{ip}]"),
        };
        if let Some(port) = self.explicit_port(https) {
            out.push(':');
            out.push_str(&port.to_string());
        }
        out
    }
}

fn port(digits: &str) -> Option<u16> {
    let plain = !digits.is_empty() && digits.len() <= 5 && digits.bytes().all(|b| b.is_ascii_digit());
    if !plain || digits.starts_with('0') {
        return None;
    }
    digits.parse().ok()
}

fn is_name(host: &[u8]) -> bool {
    let mut label = 0;
    for byte in host {
        match byte {
            b'.' if label == 0 => return false,
            b'.' => label = 0,
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => label += 1,
            _ => return false,
        }
    }
    label > 0 && host.len() <= 255
}

/// The canonical form of an authority that did not come from a request line or
/// `Host`, such as the one in `X-Forwarded-Host`.
pub fn canonical_authority(authority: &str, https: bool) -> Option<String> {
    Some(Parts::parse(authority.as_bytes())?.canonical(https))
}

/// The canonical authority of a request: from `Host`, from `:authority`, or
/// from an absolute request target, which must all agree where they are there.
///
/// `https` says which port is the default one.
///
/// # Errors
///
/// [`FramingFault::BadRequest`] when there is none, when there are two, when
/// they differ, or when it is no authority.
pub fn authority_of<B>(req: &Request<B>, https: bool) -> Result<String, FramingFault> {
    let mut hosts = req.headers().get_all(HOST).iter();
    let header = hosts.next();
    if hosts.next().is_some() {
        return Err(FramingFault::BadRequest);
    }
    let header = match header {
        Some(value) => Some(Parts::parse(value.as_bytes()).ok_or(FramingFault::BadRequest)?),
        None => None,
    };
    let target = match req.uri().authority() {
        Some(authority) => Some(Parts::parse(authority.as_str().as_bytes()).ok_or(FramingFault::BadRequest)?),
        None => None,
    };
    let parts = match (target, header) {
        (Some(target), Some(header)) if target.same(&header, https) => target,
        (Some(_), Some(_)) | (None, None) => return Err(FramingFault::BadRequest),
        (Some(only), None) | (None, Some(only)) => only,
    };
    Ok(parts.canonical(https))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_place_has_one_spelling() {
        for (given, https, expected) in [
            ("Node.Tail1.ts.net.", true, "node.tail1.ts.net"),
            ("node:443", true, "node"),
            ("node:80", true, "node:80"),
            ("node:80", false, "node"),
            ("[FD7A:115C:A1E0:0:0:0:0:1]:18789", false, "[fd7a:115c:a1e0::1]:18789"),
            ("100.64.0.1:18789", false, "100.64.0.1:18789"),
        ] {
            assert_eq!(canonical_authority(given, https).as_deref(), Some(expected), "{given}");
        }
    }

    #[test]
    fn threat_032_what_is_no_authority_is_refused() {
        for given in [
            "",
            ".",
            "..",
            "a..b",
            ".a",
            "user@host",
            "a:b@host",
            "host:",
            "host:0",
            "host:080",
            "host:65536",
            "host:+1",
            "host:1:2",
            "[::1",
            "[::1]x",
            "[fe80::1%25eth0]",
            "::1",
            "a b",
            "a,b",
            "a/b",
            "a?b",
            "a#b",
            "a\\b",
            "%31",
            "h\u{f6}st",
            "a..",
        ] {
            assert_eq!(canonical_authority(given, false), None, "{given:?}");
        }
    }

    #[test]
    fn threat_032_the_places_a_request_names_must_agree() {
        let ask = |uri: &str, hosts: &[&str]| {
            let mut req = Request::builder().uri(uri);
            for host in hosts {
                req = req.header(HOST, *host);
            }
            authority_of(&req.body(()).unwrap(), false)
        };
        assert_eq!(ask("/", &["A.example"]).unwrap(), "a.example");
        assert_eq!(ask("http://a.example:80/", &["A.example."]).unwrap(), "a.example");
        assert_eq!(ask("http://a.example/", &[]).unwrap(), "a.example");
        assert!(ask("/", &[]).is_err());
        assert!(ask("/", &["a", "a"]).is_err());
        assert!(ask("http://a.example/", &["b.example"]).is_err());
        assert!(ask("http://a.example:81/", &["a.example"]).is_err());
        assert!(ask("http://u@a.example/", &["a.example"]).is_err());
    }
}
