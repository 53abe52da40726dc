//! Which keys there are, what each takes and what holds where it is absent.
//!
//! One table serves everything that must agree on it: the check of a file (all
//! faults at once, closed objects), how `config set` reads a value, what
//! `config get` hides and prints for an unset key, and `config schema`.

mod check;
mod export;
mod gateway;
mod other;

use serde_json::{Map, Value};

use super::keypath::{KeyPath, Segment};

pub(crate) use check::check;
pub(crate) use check::{nearest, suggest};
pub use export::json_schema;
pub(crate) use gateway::{AUTH_MODE, BIND, TAILSCALE_MODE};

/// What a key takes.
pub(crate) enum Kind {
    /// true or false.
    Bool,
    /// Only false, next to something else.
    False,
    /// A whole number in a range.
    Int(i64, i64),
    /// Any text.
    Text,
    /// Text that is never printed.
    Secret,
    /// One of some words.
    Word(&'static [&'static str]),
    /// A list.
    List(&'static Kind),
    /// A closed object.
    Object(&'static [Field]),
    /// An object with free names.
    Map(&'static Kind),
    /// The first alternative of the value's JSON type. The text says what is
    /// right.
    OneOf(&'static [Kind], &'static str),
}

/// One key of a closed object.
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) doc: &'static str,
    /// What holds where it is absent, as JSON.
    pub(crate) default: Option<&'static str>,
}

impl Field {
    const fn new(name: &'static str, kind: Kind, doc: &'static str) -> Self {
        Self { name, kind, doc, default: None }
    }

    const fn or(mut self, default: &'static str) -> Self {
        self.default = Some(default);
        self
    }
}

/// The whole file.
pub(crate) const ROOT: Kind = Kind::Object(&[
    Field::new("$schema", Kind::Text, "for editors"),
    Field::new("gateway", gateway::GATEWAY, "the gateway"),
    Field::new("session", other::SESSION, "which chat messages share a conversation"),
    Field::new("channels", other::CHANNELS, "chat channels and who may write there"),
    Field::new("pairing", other::PAIRING, "pairing codes"),
    Field::new("agent", other::AGENT, "the agent that chat messages go to"),
    Field::new("security", other::SECURITY, "the security audit"),
]);

/// What a path leads to; `None` where there is no such key.
pub(crate) fn at(path: &KeyPath) -> Option<&'static Kind> {
    path.segments().iter().try_fold(&ROOT, |kind, segment| step(kind, segment))
}

fn step(kind: &'static Kind, segment: &Segment) -> Option<&'static Kind> {
    match (kind, segment) {
        (Kind::Object(fields), Segment::Key(key)) => {
            fields.iter().find(|field| field.name == key).map(|field| &field.kind)
        }
        (Kind::Map(inner), Segment::Key(_)) | (Kind::List(inner), Segment::Index(_)) => Some(inner),
        (Kind::OneOf(kinds, _), _) => kinds.iter().find_map(|kind| step(kind, segment)),
        _ => None,
    }
}

impl Kind {
    /// Whether a value typed at it is text as it stands, so that a token of
    /// digits stays a token (security spec 6.2).
    pub(crate) fn takes_only_text(&self) -> bool {
        matches!(self, Self::Text | Self::Secret | Self::Word(_))
    }

    /// What holds for its keys where they are absent.
    pub(crate) fn defaults(&self) -> Option<Value> {
        let Self::Object(fields) = self else { return None };
        let mut map = Map::new();
        for field in *fields {
            let value = match field.default {
                Some(text) => serde_json::from_str(text).ok(),
                None => field.kind.defaults(),
            };
            if let Some(value) = value {
                map.insert(field.name.to_owned(), value);
            }
        }
        (!map.is_empty()).then_some(Value::Object(map))
    }
}

/// Whether a value at a path is a secret: by the table, and by the names of
/// security spec 6.3 for keys the table does not know.
pub(crate) fn is_secret(path: &KeyPath) -> bool {
    if matches!(at(path), Some(Kind::Secret)) {
        return true;
    }
    let Some(key) = path.segments().iter().rev().find_map(|segment| match segment {
        Segment::Key(key) => Some(key.to_ascii_lowercase()),
        Segment::Index(_) => None,
    }) else {
        return false;
    };
    let counts = ["maxtokens", "maxoutputtokens", "maxinputtokens", "maxcompletiontokens", "contexttokens"];
    let counts_too = ["totaltokens", "tokencount", "tokenlimit", "tokenbudget", "passwordfile"];
    if counts.iter().chain(&counts_too).any(|word| key.ends_with(word)) || key.ends_with("file") {
        return false;
    }
    // `.?` of the rule stands for one separator, if any.
    let joined: String = key.chars().filter(|c| c.is_ascii_alphanumeric()).collect();
    joined.ends_with("token")
        || ["password", "secret", "apikey", "encryptkey", "privatekey"]
            .iter()
            .any(|word| joined.contains(word))
        || joined.ends_with("serviceaccount")
        || joined.ends_with("serviceaccountref")
}

/// What stands in a secret's place.
pub const REDACTED: &str = "__OPENCLAW_REDACTED__";

/// A value with every secret in it replaced by [`REDACTED`]. A reference such as
/// `${NAME}` is no secret and stays.
pub(crate) fn redact(path: &KeyPath, value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            Value::Object(map.iter().map(|(k, v)| (k.clone(), redact(&path.key(k), v))).collect())
        }
        Value::Array(list) => {
            Value::Array(list.iter().enumerate().map(|(i, v)| redact(&path.index(i), v)).collect())
        }
        Value::String(text) if super::substitute::is_reference(text) => value.clone(),
        Value::String(_) | Value::Number(_) if is_secret(path) => Value::String(REDACTED.to_owned()),
        _ => value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn threat_054_secrets_are_known_by_table_and_by_name() {
        let path = |text: &str| text.parse::<KeyPath>().unwrap();
        for text in [
            "gateway.auth.token",
            "gateway.auth.password",
            "channels.telegram.botToken",
            "channels.discord.accounts.a.token",
            "x.apiKey",
            "x.api_key",
            "x.webhookSecret",
            "x.private-key",
        ] {
            assert!(is_secret(&path(text)), "{text}");
        }
        for text in
            ["gateway.auth.tokenFile", "gateway.auth.mode", "x.maxTokens", "gateway.upstream.tokenFile"]
        {
            assert!(!is_secret(&path(text)), "{text}");
        }
        let value = json!({"auth": {"token": "s3cret", "mode": "token", "password": "${PASS}"}});
        let shown = redact(&path("gateway"), &value);
        assert_eq!(shown, json!({"auth": {"token": REDACTED, "mode": "token", "password": "${PASS}"}}));
    }

    #[test]
    fn every_default_is_what_its_key_takes() {
        let defaults = ROOT.defaults().unwrap();
        assert_eq!(check(&defaults), Vec::new());
        let at = |text: &str| text.parse::<KeyPath>().unwrap().find(&defaults).cloned();
        assert_eq!(
            at("gateway.auth.rateLimit"),
            Some(json!({"maxAttempts": 10, "windowMs": 60000, "lockoutMs": 300_000, "exemptLoopback": true}))
        );
        assert_eq!(at("gateway.port"), Some(json!(18789)));
    }
}
