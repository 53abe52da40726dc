//! Versions of `tailscale` and tailscaled.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

use crate::{Error, json};

/// A Tailscale version. Ordered and compared by its three numbers only; the suffix
/// (`-t0123456789ab-g...`) names a commit.
#[derive(Debug, Clone)]
pub struct Version {
    /// First number.
    pub major: u32,
    /// Second number; odd ones are development releases.
    pub minor: u32,
    /// Third number, 0 when absent.
    pub patch: u32,
    text: String,
}

impl Version {
    /// As printed.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether this is the given version or a later one.
    #[must_use]
    pub fn at_least(&self, major: u32, minor: u32, patch: u32) -> bool {
        self.numbers() >= (major, minor, patch)
    }

    fn numbers(&self) -> (u32, u32, u32) {
        (self.major, self.minor, self.patch)
    }
}

/// The text does not begin like `1.102.3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a version like 1.102.3")]
pub struct VersionError;

impl FromStr for Version {
    type Err = VersionError;

    /// Reads `1.102.3`, `1.102.3-t0123456789ab-gabcdef012345` or `1.102`.
    fn from_str(text: &str) -> Result<Self, VersionError> {
        if text.len() > 128 || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(VersionError);
        }
        let numbers = text.split(['-', '+']).next().unwrap_or_default();
        let mut parts = numbers.split('.').map(number);
        let (Some(Some(major)), Some(Some(minor))) = (parts.next(), parts.next()) else {
            return Err(VersionError);
        };
        let patch = parts.next().unwrap_or(Some(0)).ok_or(VersionError)?;
        if parts.next().is_some() {
            return Err(VersionError);
        }
        Ok(Self { major, minor, patch, text: text.to_owned() })
    }
}

/// Digits only: `u32::from_str` would take a plus sign too.
fn number(digits: &str) -> Option<u32> {
    let plain = digits.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.numbers() == other.numbers()
    }
}

impl Eq for Version {}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        self.numbers().cmp(&other.numbers())
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What `tailscale version --json` says about the command line tool. The daemon may
/// be of another version: security gates go by [`crate::Status::version`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionInfo {
    /// The short version.
    pub short: Version,
    /// The long version, as printed; empty when absent.
    pub long: String,
    /// The capability version it speaks.
    pub cap: Option<i64>,
    /// The macOS variant (`appstore`, `macsys`, `darwin`), where it says so.
    pub os_variant: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    short: Option<String>,
    major_minor_patch: Option<String>,
    long: Option<String>,
    cap: Option<i64>,
    os_variant: Option<String>,
}

/// Parses the output of `tailscale version --json`.
///
/// # Errors
/// When it is not one JSON object, or names no version.
pub fn parse_version(bytes: &[u8]) -> Result<VersionInfo, Error> {
    const COMMAND: &str = "version";
    let wire: Wire = json::decode(COMMAND, bytes)?;
    let (field, text) = match (wire.short, wire.major_minor_patch) {
        (Some(text), _) => ("short", text),
        (None, Some(text)) => ("majorMinorPatch", text),
        (None, None) => return Err(Error::wrong_shape(COMMAND, "short", "it is missing")),
    };
    let short =
        text.parse().map_err(|error: VersionError| Error::wrong_shape(COMMAND, field, error.to_string()))?;
    Ok(VersionInfo {
        short,
        long: wire.long.unwrap_or_default(),
        cap: wire.cap,
        os_variant: wire.os_variant.filter(|text| !text.is_empty()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::{json_after, recording};

    #[test]
    fn what_is_no_version_is_refused() {
        for bad in ["", "1", "1.", "x.1", "1.2.3.4", "1.+2.3", "-1.2", "1.2.99999999999", "1.2 "] {
            assert!(bad.parse::<Version>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn versions_are_ordered_by_number() {
        let version = |text: &str| text.parse::<Version>().unwrap();
        assert!(version("1.98.10") > version("1.98.9-t0123456789ab"));
        assert!(version("1.102.3") > version("1.98.1"));
        assert_eq!(version("1.102.3-t0"), version("1.102.3-t1"));
        assert!(version("1.98.1").at_least(1, 98, 1));
        assert!(!version("1.98.0").at_least(1, 98, 1));
        assert!(version("1.102").at_least(1, 102, 0));
        assert_eq!(version("1.102.3-t0").to_string(), "1.102.3-t0");
    }

    #[test]
    fn the_recorded_answer_is_read() {
        let text = json_after(&recording("version.txt"), "$ tailscale version --json");
        let info = parse_version(text.as_bytes()).unwrap();
        assert!(info.short.at_least(1, 102, 3));
        assert_eq!(info.cap, Some(142));
        assert_eq!(info.os_variant, None);
    }

    #[test]
    fn an_answer_without_version_names_the_field() {
        let error = parse_version(b"{}").unwrap_err();
        assert!(matches!(&error, Error::WrongShape { field, .. } if field == "short"), "{error}");
    }
}
