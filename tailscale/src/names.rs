//! The names that Tailscale gives to people and machines, as checked types.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

/// The most bytes a login may have: what an e-mail address may (RFC 5321).
const MAX_LOGIN: usize = 254;

/// A person's login name, as Tailscale printed it.
///
/// Mostly an e-mail address, but `alice@github` and, on self-hosted control
/// servers, a bare name occur too: the shape proves nothing. Equality and hashing
/// ignore ASCII case and nothing else.
///
/// Never empty, at most 254 bytes, no control characters, no space at its ends.
#[derive(Debug, Clone)]
pub struct Login(String);

impl Login {
    /// The login that tagged nodes carry instead of a person's.
    pub const TAGGED_DEVICES: &'static str = "tagged-devices";

    /// As printed.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// With ASCII letters in lower case: the form to compare and to store.
    #[must_use]
    pub fn folded(&self) -> String {
        self.0.to_ascii_lowercase()
    }

    /// Whether this is the stand-in that tagged nodes carry. The reliable test for
    /// a tagged node is its tags, not this.
    #[must_use]
    pub fn is_tagged_devices(&self) -> bool {
        self.0.eq_ignore_ascii_case(Self::TAGGED_DEVICES)
    }

    pub(crate) fn tagged_devices() -> Self {
        Self(Self::TAGGED_DEVICES.to_owned())
    }
}

/// Why a text is no login.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// It is empty.
    #[error("a login cannot be empty")]
    Empty,
    /// It has more than 254 bytes.
    #[error("a login has at most 254 bytes")]
    TooLong,
    /// It holds a control character, or space at an end.
    #[error("a login has no control characters, and no space at its ends")]
    BadCharacter,
}

impl FromStr for Login {
    type Err = LoginError;

    fn from_str(text: &str) -> Result<Self, LoginError> {
        if text.is_empty() {
            Err(LoginError::Empty)
        } else if text.len() > MAX_LOGIN {
            Err(LoginError::TooLong)
        } else if text.trim() != text || text.chars().any(char::is_control) {
            Err(LoginError::BadCharacter)
        } else {
            Ok(Self(text.to_owned()))
        }
    }
}

impl TryFrom<&str> for Login {
    type Error = LoginError;

    fn try_from(text: &str) -> Result<Self, LoginError> {
        text.parse()
    }
}

impl PartialEq for Login {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl Eq for Login {}

impl Hash for Login {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for byte in self.0.bytes() {
            byte.to_ascii_lowercase().hash(state);
        }
        0xffu8.hash(state);
    }
}

impl fmt::Display for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text is no name or id of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It is empty.
    #[error("it is empty")]
    Empty,
    /// It is longer than a name can be.
    #[error("it is too long")]
    TooLong,
    /// It holds a character that no such name has.
    #[error("it holds a character that no such name has")]
    BadCharacter,
}

/// A node's full DNS name (`laptop.tailnet-example.ts.net`), without the trailing
/// dot that Tailscale prints. Equality and hashing ignore case, as DNS does.
///
/// Non-empty labels of letters, digits, `-` and `_`; at most 253 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeName(String);

impl NodeName {
    /// In lower case, without trailing dot.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first label.
    #[must_use]
    pub fn short(&self) -> &str {
        self.0.split('.').next().unwrap_or(&self.0)
    }

    /// Whether the name lies under `suffix` (`tailnet-example.ts.net`), counted in
    /// whole labels: `evil-tailnet-example.ts.net` does not. Dots at the ends of the
    /// suffix are ignored; nothing lies under an empty one.
    #[must_use]
    pub fn is_under(&self, suffix: &str) -> bool {
        let suffix = suffix.trim_matches('.').to_ascii_lowercase();
        !suffix.is_empty()
            && self
                .0
                .strip_suffix(&suffix)
                .and_then(|rest| rest.strip_suffix('.'))
                .is_some_and(|labels| !labels.is_empty())
    }
}

impl FromStr for NodeName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let name = text.strip_suffix('.').unwrap_or(text);
        if name.is_empty() {
            return Err(NameError::Empty);
        }
        if name.len() > 253 {
            return Err(NameError::TooLong);
        }
        let good = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if name.split('.').any(|label| label.is_empty() || !label.bytes().all(good)) {
            return Err(NameError::BadCharacter);
        }
        Ok(Self(name.to_ascii_lowercase()))
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a Service (`svc:gw`): the prefix and one DNS label, in lower case.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceName(String);

impl ServiceName {
    /// With its prefix.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ServiceName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let label = text.strip_prefix("svc:").ok_or(NameError::BadCharacter)?;
        if label.is_empty() {
            return Err(NameError::Empty);
        }
        if label.len() > 63 {
            return Err(NameError::TooLong);
        }
        let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if !label.bytes().all(good) || label.starts_with('-') || label.ends_with('-') {
            return Err(NameError::BadCharacter);
        }
        Ok(Self(text.to_owned()))
    }
}

/// A node's stable id (`nExAmPLe1CNTRL`; a number on self-hosted control servers):
/// the best key for a device. Case counts.
///
/// Non-empty, at most 128 bytes of visible ASCII.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StableNodeId(String);

impl StableNodeId {
    /// As printed.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for StableNodeId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            Err(NameError::Empty)
        } else if text.len() > 128 {
            Err(NameError::TooLong)
        } else if !text.bytes().all(|b| b.is_ascii_graphic()) {
            Err(NameError::BadCharacter)
        } else {
            Ok(Self(text.to_owned()))
        }
    }
}

impl fmt::Display for StableNodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_never_empty_overlong_or_unprintable() {
        assert_eq!("".parse::<Login>(), Err(LoginError::Empty));
        assert_eq!("a".repeat(255).parse::<Login>(), Err(LoginError::TooLong));
        for bad in ["a\nb", "a\0", "a\u{85}b", " alice", "alice ", "\u{a0}x"] {
            assert_eq!(bad.parse::<Login>(), Err(LoginError::BadCharacter), "{bad:?}");
        }
        assert!("a".repeat(254).parse::<Login>().is_ok());
    }

    #[test]
    fn logins_are_equal_by_ascii_case_only() {
        let login = |text: &str| text.parse::<Login>().unwrap();
        assert_ne!(login("alice@example.com"), login("alice@example.org"));
        // KELVIN SIGN lower-cases to `k` in Unicode, not here.
        assert_ne!(login("\u{212a}im@example.com"), login("kim@example.com"));
        assert_ne!(login("É@example.com"), login("é@example.com"));
        assert_eq!(login("Alice@Example.COM"), login("alice@example.com"));
        assert_eq!(login("Alice@Example.COM").folded(), "alice@example.com");
        assert_eq!(login("Alice@Example.COM").as_str(), "Alice@Example.COM");
        let set = std::collections::HashSet::from([login("ALICE"), login("alice")]);
        assert_eq!(set.len(), 1);
    }

    #[test]
    fn a_name_lies_under_whole_labels_only() {
        let name: NodeName = "Laptop.Tailnet-Example.ts.net.".parse().unwrap();
        assert_eq!(name.as_str(), "laptop.tailnet-example.ts.net");
        assert_eq!(name.short(), "laptop");
        for suffix in ["", ".", "example.ts.net", "laptop.tailnet-example.ts.net"] {
            assert!(!name.is_under(suffix), "{suffix}");
        }
        assert!(name.is_under("tailnet-example.ts.net"));
        assert!(name.is_under("TAILNET-example.ts.net."));
    }

    #[test]
    fn names_and_ids_refuse_what_could_not_be_one() {
        for bad in ["", ".", "a..b", "a b", "a/b", ".a", "é.example", "a\n"] {
            assert!(bad.parse::<NodeName>().is_err(), "{bad:?}");
        }
        for bad in ["", "a b", "é", "a\n"] {
            assert!(bad.parse::<StableNodeId>().is_err(), "{bad:?}");
        }
        for bad in ["", "svc:", "gw", "svc:a.b", "svc:-a", "svc:a-", "svc:A", "svc:a&addr=1", "Svc:a"] {
            assert!(bad.parse::<ServiceName>().is_err(), "{bad:?}");
        }
        assert!("svc:gw-2".parse::<ServiceName>().is_ok());
    }
}
