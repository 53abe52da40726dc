//! Where each value came from, for messages and for `config get --source`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde_json::{Value, json};

/// Where a value came from. A flag beats a variable, which beats the file, which
/// beats the default (design D1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Provenance {
    /// A command-line flag such as `--port`.
    Flag(&'static str),
    /// An environment variable, also one of a `.env` file.
    Env(String),
    /// A configuration file.
    File(PathBuf),
    /// Nobody said anything.
    Default,
    /// Made at the start.
    Generated,
}

impl Provenance {
    /// `{"kind": "env", "name": "OPENCLAW_GATEWAY_PORT"}` and the like.
    pub fn to_json(&self) -> Value {
        match self {
            Self::Flag(name) => json!({"kind": "flag", "name": name}),
            Self::Env(name) => json!({"kind": "env", "name": name}),
            Self::File(path) => json!({"kind": "file", "path": path.display().to_string()}),
            Self::Default => json!({"kind": "default"}),
            Self::Generated => json!({"kind": "generated"}),
        }
    }
}

impl fmt::Display for Provenance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) => f.write_str(name),
            Self::Env(name) => write!(f, "the variable {name}"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Default => f.write_str("the default"),
            Self::Generated => f.write_str("generated at the start"),
        }
    }
}

/// Where each key's value came from.
#[derive(Clone, Debug, Default)]
pub struct Provenances(BTreeMap<String, Provenance>);

impl Provenances {
    pub(crate) fn record(&mut self, key: impl Into<String>, from: Provenance) {
        self.0.insert(key.into(), from);
    }

    /// Where a key's value came from; [`Provenance::Default`] for a key nobody
    /// set. Asked about a key inside a list or object that came as a whole, it
    /// answers for that one.
    pub fn of(&self, key: &str) -> &Provenance {
        let mut key = key;
        loop {
            if let Some(found) = self.0.get(key) {
                return found;
            }
            match key.rfind(['.', '[']) {
                Some(end) => key = &key[..end],
                None => return &Provenance::Default,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unset_is_default_and_parts_answer_for_their_whole() {
        let mut known = Provenances::default();
        known.record("gateway.port", Provenance::Flag("--port"));
        known.record("gateway.trustedProxies", Provenance::Env("X".into()));
        assert_eq!(known.of("gateway.bind"), &Provenance::Default);
        assert_eq!(known.of("gateway.port"), &Provenance::Flag("--port"));
        assert_eq!(known.of("gateway.trustedProxies[0]"), &Provenance::Env("X".into()));
    }
}
