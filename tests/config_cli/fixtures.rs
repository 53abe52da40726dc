//! `fixtures/config`: what must load, and what must be refused with which words.
//!
//! After a wanted change of a message: `UPDATE_SNAPSHOTS=1 cargo test --test
//! config_cli`, and read the difference.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use openclaw::config::{Env, GatewayFlags, Loaded, load};
use serde_json::Value;

use crate::support::Home;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/config").join(name)
}

/// The fixtures of a folder. An empty folder proves nothing.
fn fixtures(name: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder(name))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json5"))
        .collect();
    files.sort();
    assert!(files.len() > 10, "{name}: {files:?}");
    files
}

fn stem(path: &Path) -> &str {
    path.file_stem().and_then(|stem| stem.to_str()).unwrap()
}

/// A home with the fixture as its configuration, and the files fixtures name.
fn home_of(fixture: &Path) -> Home {
    let home = Home::with_config(&std::fs::read_to_string(fixture).unwrap());
    home.write(".openclaw/token", "0123456789abcdef0123456789abcdef\n");
    home.write(".openclaw/cert.pem", "");
    home.write(".openclaw/key.pem", "");
    for part in ["auth.json5", "password.json5"] {
        let text = std::fs::read_to_string(folder("valid/parts").join(part)).unwrap();
        home.write(&format!(".openclaw/parts/{part}"), &text);
    }
    home.var("CHAT_TOKEN", "fedcba9876543210fedcba9876543210").var("CHAT_HOST", "chat.example.com")
}

fn loaded(name: &str) -> Loaded {
    home_of(&folder("valid").join(name).with_extension("json5")).load(&GatewayFlags::default()).unwrap()
}

#[test]
fn invalid_examples_are_refused_with_these_words() {
    let update = std::env::var_os("UPDATE_SNAPSHOTS").is_some();
    for fixture in fixtures("invalid") {
        let home = home_of(&fixture);
        let said = home.start_refused(&[]).replace(&home.path().display().to_string(), "HOME");
        let snapshot = fixture.with_extension("txt");
        if update {
            std::fs::write(&snapshot, &said).unwrap();
        }
        let expected = std::fs::read_to_string(&snapshot).unwrap_or_default();
        assert_eq!(said, expected, "{}", stem(&fixture));
        assert!(!said.contains("hunter2"), "{}: {said}", stem(&fixture));

        let validated = home.run(&["config", "validate", "--json"]);
        assert_eq!(
            (validated.code, &validated.json()["valid"]),
            (1, &Value::Bool(false)),
            "{}",
            stem(&fixture)
        );
    }
}

#[test]
fn valid_examples_load() {
    for fixture in fixtures("valid") {
        let home = home_of(&fixture);
        if let Err(error) = home.load(&GatewayFlags::default()) {
            panic!("{}: {error}", stem(&fixture));
        }
        let validated = home.ok(&["config", "validate", "--json"]);
        assert_eq!(validated.json()["valid"], Value::Bool(true), "{}", stem(&fixture));
    }
}

/// Every key of the schema stands in a valid example: what the table of keys
/// accepts, the types behind it can hold.
#[test]
fn valid_examples_name_every_key() {
    let mut named = BTreeSet::new();
    for fixture in fixtures("valid") {
        let text = std::fs::read_to_string(fixture).unwrap();
        collect_values(&json5::from_str(&text).unwrap(), "", &mut named);
    }
    for part in ["auth", "password"] {
        let text = std::fs::read_to_string(folder("valid/parts").join(part).with_extension("json5")).unwrap();
        // The nested part belongs under gateway.auth.
        let prefix = if part == "password" { "gateway.auth" } else { "" };
        collect_values(&json5::from_str(&text).unwrap(), prefix, &mut named);
    }
    let mut keys = BTreeSet::new();
    collect_schema(&openclaw::config::json_schema(), "", &mut keys);
    assert!(keys.len() > 150, "{}", keys.len());
    // Entries of a route speak of that route alone: the key is known and refused.
    keys.remove("gateway.routes.*.allow.routes");
    let missing: Vec<_> = keys.difference(&named).collect();
    assert!(missing.is_empty(), "no valid example has {missing:?}");
}

fn collect_values(value: &Value, path: &str, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for (key, inner) in map {
                let free =
                    matches!(path, "gateway.routes" | "session.identityLinks") || path.ends_with(".accounts");
                let here = format!("{path}.{}", if free { "*" } else { key.as_str() });
                let here = here.trim_start_matches('.').to_owned();
                into.insert(here.clone());
                collect_values(inner, &here, into);
            }
        }
        Value::Array(list) => list.iter().for_each(|inner| collect_values(inner, path, into)),
        _ => {}
    }
}

fn collect_schema(schema: &Value, path: &str, into: &mut BTreeSet<String>) {
    for (key, inner) in schema["properties"].as_object().into_iter().flatten() {
        let here = format!("{path}.{key}").trim_start_matches('.').to_owned();
        into.insert(here.clone());
        collect_schema(inner, &here, into);
    }
    for inner in schema["anyOf"].as_array().into_iter().flatten() {
        collect_schema(inner, path, into);
    }
    collect_schema_of(&schema["items"], path, into);
    collect_schema_of(&schema["additionalProperties"], &format!("{path}.*"), into);
}

fn collect_schema_of(schema: &Value, path: &str, into: &mut BTreeSet<String>) {
    if schema.is_object() {
        collect_schema(schema, path, into);
    }
}

#[test]
fn the_recommended_setup_needs_no_secret_and_generates_one_for_this_machine() {
    let loaded = loaded("tailnet");
    assert!(loaded.needs_token());
    assert!(loaded.config.gateway.auth.token.is_none());
    assert!(loaded.config.gateway.auth.allow_tailscale);
    assert_eq!(loaded.config.gateway.tls_tailscale_port, Some(443));
    assert_eq!(loaded.config.gateway.admin_port, Some(18790));
}

#[test]
fn a_generated_token_is_installed_and_kept_over_a_reload() {
    let home = Home::new();
    let mut first = home.load(&GatewayFlags::default()).unwrap();
    let token = openclaw::config::GeneratedToken::create(&first.config.state_dir).unwrap();
    first.install(&token);
    let mut again = home.load(&GatewayFlags::default()).unwrap();
    again.install(&token);
    let exposed = |loaded: &Loaded| loaded.config.gateway.auth.token.as_ref().unwrap().expose().to_owned();
    assert_eq!(exposed(&first), exposed(&again));
    assert_eq!(home.mode(".openclaw/run/token"), 0o600);
    drop(token);
    assert!(!home.path().join(".openclaw/run/token").exists());

    // A configured token is not replaced.
    let home = Home::new().var("OPENCLAW_GATEWAY_TOKEN", "0123456789abcdef01234567");
    let mut configured = home.load(&GatewayFlags::default()).unwrap();
    assert!(!configured.needs_token());
    configured.install(&openclaw::config::GeneratedToken::create(&configured.config.state_dir).unwrap());
    assert_eq!(exposed(&configured), "0123456789abcdef01234567");
}

#[test]
fn routes_are_ordered_most_specific_first_and_ports_of_their_own_are_apart() {
    let gateway = loaded("routes").config.gateway;
    let names: Vec<_> = gateway.routes.iter().map(|route| route.name.as_str()).collect();
    assert_eq!(names, ["chat", "wiki", "api"]);
    assert_eq!(gateway.routes_by_port[&18801][0].name.as_str(), "agent");
    assert_eq!(gateway.admin_port, Some(18900));
    assert_eq!(gateway.allowed_hosts, ["chat.example.com", "fd7a::1"]);
}

#[test]
fn a_real_openclaw_behind_is_for_admins_and_must_run_as_us() {
    let gateway = loaded("openclaw-behind").config.gateway;
    let route = &gateway.routes[0];
    assert_eq!(route.role, openclaw::domain::Role::Admin);
    assert_eq!(route.upstream.owner_uid, Some(rustix::process::geteuid().as_raw()));
}

#[test]
fn parts_come_first_and_their_own_keys_are_overridden() {
    let loaded = loaded("include");
    assert_eq!(loaded.config.gateway.port, 18801);
    assert!(loaded.config.gateway.auth.password.is_some());
    assert!(loaded.files.iter().any(|file| file.ends_with("parts/password.json5")));
}

#[test]
fn an_unset_variable_is_absent_with_a_warning() {
    let loaded = loaded("variables");
    assert_eq!(loaded.config.gateway.allowed_origins, ["https://chat.example.com"]);
    assert!(
        loaded.config.warnings.iter().any(|warning| warning.contains("NOT_SET")),
        "{:?}",
        loaded.config.warnings
    );
    let token = loaded.config.gateway.auth.token.unwrap();
    assert_eq!(token.expose(), "fedcba9876543210fedcba9876543210");
}

#[test]
fn nothing_can_be_loaded_without_a_home() {
    let error = load(&GatewayFlags::default(), &Env::default()).err().unwrap();
    assert!(error.to_string().contains("OPENCLAW_STATE_DIR"));
}
