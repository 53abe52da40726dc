//! What holds for a key, as `config get` prints it: the file, else a variable,
//! else the default. Secrets come out as a marker.

use std::path::Path;

use serde_json::{Value, json};

use super::document::Document;
use super::error::ConfigError;
use super::flags::GatewayFlags;
use super::keypath::KeyPath;
use super::provenance::{Provenance, Provenances};
use super::{Env, build, schema};

/// What was found at a key.
#[derive(Clone, Debug, PartialEq)]
pub enum Lookup {
    /// A value, secrets replaced by [`super::REDACTED`].
    Found {
        /// The value.
        value: Value,
        /// Where it came from.
        source: Provenance,
    },
    /// A key without value or default.
    Unset,
    /// No such key.
    Unknown {
        /// The known key that is closest.
        near: Option<String>,
    },
}

/// Looks a key up. A file with faults is no obstacle as long as it can be read:
/// how else should they be found (security spec 6.2).
///
/// # Errors
/// Where the file cannot be read at all.
pub fn lookup(key: &KeyPath, config: Option<&Path>, env: &Env) -> Result<Lookup, ConfigError> {
    let document = Document::read(config, env)?;
    let (effective, provenance) = effective(&document);
    Ok(match key.find(&effective) {
        Some(value) => {
            Lookup::Found { value: schema::redact(key, value), source: source(key, &document, &provenance) }
        }
        None if schema::at(key).is_some() => Lookup::Unset,
        None => Lookup::Unknown { near: schema::suggest(key) },
    })
}

fn source(key: &KeyPath, document: &Document, provenance: &Provenances) -> Provenance {
    match provenance.of(&key.to_string()) {
        // An object of which any part is written counts as written.
        Provenance::Default if key.find(&document.value).is_some() => {
            Provenance::File(document.file_of(&key.to_string()))
        }
        from => from.clone(),
    }
}

fn effective(document: &Document) -> (Value, Provenances) {
    let mut effective = schema::ROOT.defaults().unwrap_or_default();
    overlay(&mut effective, &document.value);
    for (path, text) in &document.unresolved {
        // A reference that leads nowhere is shown as it is written.
        let _unshowable = path.set(&mut effective, Value::from(text.as_str()));
    }
    let Some(resolved) = build::resolve(document, &GatewayFlags::default()) else {
        return (effective, Provenances::default());
    };
    let gateway = &resolved.config.gateway;
    let mut put = |key: &str, value: Value| {
        if let Ok(path) = key.parse::<KeyPath>() {
            let _unshowable = path.set(&mut effective, value);
        }
    };
    put("gateway.port", json!(gateway.port));
    put("gateway.auth.mode", json!(gateway.auth.mode.as_str()));
    put("gateway.auth.allowTailscale", json!(gateway.auth.allow_tailscale));
    put("gateway.tailscale.serve.port", json!(gateway.tailscale.serve.port));
    if let Some(port) = gateway.admin_port {
        put("gateway.admin.port", json!(port));
    }
    // Present, never shown: the marker takes their place.
    for (key, secret) in
        [("gateway.auth.token", &gateway.auth.token), ("gateway.auth.password", &gateway.auth.password)]
    {
        if secret.is_some() {
            put(key, Value::from(schema::REDACTED));
        }
    }
    (effective, resolved.provenance)
}

fn overlay(under: &mut Value, over: &Value) {
    match (under, over) {
        (Value::Object(under), Value::Object(over)) => {
            for (key, value) in over {
                overlay(under.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (under, over) => *under = over.clone(),
    }
}
