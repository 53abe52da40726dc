//! Shared secrets that cannot be printed by accident.
//!
//! Neither type has `Debug`, `Display` or `Serialize`: a secret that would be
//! logged does not compile.

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// A token or password as the operator wrote it. Wiped from memory on drop.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes a secret; surrounding blanks are not part of it (gateway spec 1.1).
    /// Blank input is no secret.
    pub fn new(text: &str) -> Option<Self> {
        let trimmed = text.trim();
        (!trimmed.is_empty()).then(|| Self(Zeroizing::new(trimmed.to_owned())))
    }

    /// The secret itself, for the one place that must send it on.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What the secret is compared by.
    pub fn digest(&self) -> SecretDigest {
        SecretDigest::of(self.0.as_bytes())
    }
}

/// The SHA-256 of a secret: fixed length, so that comparing takes the same time
/// whatever was sent (threat rule 53).
#[derive(Clone)]
pub struct SecretDigest([u8; 32]);

impl SecretDigest {
    /// The digest of some bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Whether `candidate` is the secret. Constant time in its content; its
    /// length is hidden by hashing first.
    pub fn matches(&self, candidate: &[u8]) -> bool {
        Self::of(candidate).0.ct_eq(&self.0).into()
    }
}

impl PartialEq for SecretDigest {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for SecretDigest {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_secret_matches() {
        let digest = Secret::new(" s3cret ").unwrap().digest();
        assert!(!digest.matches(b""));
        assert!(!digest.matches(b"s3cre"));
        assert!(!digest.matches(b"s3cret "));
        assert!(!digest.matches(b"S3cret"));
        assert!(digest.matches(b"s3cret"));
    }

    #[test]
    fn blank_is_no_secret() {
        assert!(Secret::new(" \t\n").is_none());
    }
}
