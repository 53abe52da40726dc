//! Host names and addresses as text, read one way only.
//!
//! What a resolver would quietly read as an address (`0x7f.1`, `127.1`, `0`) is
//! neither a name nor an address here, so that no two programs can disagree on
//! what it means (threat rule 103).

use std::net::IpAddr;
use std::str::FromStr;

use crate::domain::addr::canonical_ip;

/// A host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    /// An address, canonical.
    Ip(IpAddr),
    /// A name: lower case, without a final dot.
    Name(String),
}

/// Why a text is no host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HostError {
    #[error(
        "{0:?} looks like an address in a spelling that programs read differently: write it as 127.0.0.1 or [::1]"
    )]
    OddNumber(String),
    #[error("{0:?} is no host name or address")]
    Bad(String),
}

impl Host {
    /// Whether it is this machine: a loopback address, or the name `localhost`
    /// itself. `127.evil.example` and `localhost.evil.example` are names like any
    /// other.
    pub(crate) fn is_local(&self) -> bool {
        match self {
            Self::Ip(ip) => ip.is_loopback(),
            Self::Name(name) => name == "localhost",
        }
    }

    /// The text, IPv6 without brackets.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Ip(ip) => ip.to_string(),
            Self::Name(name) => name.clone(),
        }
    }
}

impl FromStr for Host {
    type Err = HostError;

    /// Reads a host without a port. IPv6 may stand in brackets.
    fn from_str(text: &str) -> Result<Self, HostError> {
        let bad = || HostError::Bad(text.to_owned());
        if let Some(inner) = text.strip_prefix('[') {
            let v6 = inner.strip_suffix(']').ok_or_else(bad)?;
            return v6
                .parse()
                .map(|ip: std::net::Ipv6Addr| Self::Ip(canonical_ip(ip.into())))
                .map_err(|_| bad());
        }
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Ok(Self::Ip(canonical_ip(ip)));
        }
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let sound = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        if name.len() > 253 || !name.split('.').all(sound) {
            return Err(bad());
        }
        // A last label of digits, or 0x and hex digits, makes resolvers read the
        // whole as an IPv4 address.
        let last = name.rsplit('.').next().unwrap_or_default();
        let hex = last.strip_prefix("0x").is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_hexdigit()));
        if hex || last.bytes().all(|b| b.is_ascii_digit()) {
            return Err(HostError::OddNumber(text.to_owned()));
        }
        Ok(Self::Name(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threat_103_only_true_loopback_is_local() {
        for text in ["0", "0x7f.1", "127.1", "2130706433", "0177.0.0.1", "127.0.0.01", "a.0x7f", "1.2.3.4.5"]
        {
            assert_eq!(text.parse::<Host>(), Err(HostError::OddNumber(text.into())), "{text}");
        }
        for text in ["", ".", "a..b", "a b", "-a", "a-", "[::1", "[127.0.0.1]", "a/b", "a:1", "é", "*.x"] {
            assert!(matches!(text.parse::<Host>(), Err(HostError::Bad(_))), "{text}");
        }
        for text in
            ["127.evil.com", "localhost.evil.com", "127.0.0.1.evil.com", "128.0.0.1", "0.0.0.0", "[::]"]
        {
            assert!(!text.parse::<Host>().unwrap().is_local(), "{text}");
        }
        for text in
            ["127.0.0.1", "127.9.9.9", "[::1]", "::1", "[::ffff:127.0.0.1]", "localhost", "LocalHost."]
        {
            assert!(text.parse::<Host>().unwrap().is_local(), "{text}");
        }
        assert_eq!("Chat.Example.".parse(), Ok(Host::Name("chat.example".into())));
    }
}
