//! The commands as the guide prints them (security spec 6 and 11).

use openclaw::config::{Bind, GatewayFlags, Provenance};
use serde_json::json;

use crate::support::Home;

#[test]
fn bad_flags_are_usage_errors() {
    let home = Home::new();
    for args in [
        &["gateway", "--port", "65536"][..],
        &["gateway", "--port", "x"],
        &["gateway", "--bind", "0.0.0.0"],
        &["gateway", "--auth", "basic"],
        &["gateway", "--tailscale", "on"],
        &["gateway", "--token", " "],
        &["gateway", "--token", "a", "--token-file", "b"],
        &["gateway", "--password", "a", "--password-file", "b"],
        &["gateway", "--upstream", "nowhere"],
        &["gateway", "--nonsense"],
        &["config", "get"],
        &["config", "get", "a..b"],
        &["config", "set", "gateway.port"],
        &["config", "get", "gateway.__proto__"],
        &["nonsense"],
    ] {
        let done = home.run(args);
        assert_eq!(done.code, 2, "{args:?}: {done:?}");
        assert_eq!(done.stdout, "", "{args:?}");
    }
    // Nothing was made on the way.
    assert!(!home.path().join(".openclaw").exists());
}

#[test]
fn refused_sets_leave_the_file_alone() {
    let home = Home::with_config("{ gateway: { port: 18800 } } // mine\n");
    for (key, value, says) in [
        ("gateway.port", "0", "takes a whole number from 1 to 65535"),
        ("gateway.port", "nonsense", "takes a whole number"),
        ("gateway.bind", "0.0.0.0", "did you mean lan?"),
        ("gateway.auht.mode", "token", "did you mean gateway.auth?"),
        ("gateway.port.x", "1", "gateway.port is a plain value"),
        ("session.dmScope", "per-chanel-peer", "per-channel-peer"),
        ("gateway.auth.token", "change-me-now", "placeholder"),
        ("gateway.auth.token", "__OPENCLAW_REDACTED__", "placeholder"),
        ("channels.discord.token", "__OPENCLAW_REDACTED__", "marker"),
        ("gateway.trustedProxies", "[\"127.evil.com\"]", "no address or network"),
        ("gateway.auth.rateLimit.windowMs", "Infinity", "takes a whole number"),
        ("gateway.upstream", "http://169.254.169.254", "never dialled"),
        ("gateway.routes", "{a: {upstream: 3000, public: \"open\"}}", "--open"),
    ] {
        let done = home.refused(&["config", "set", key, value]);
        assert!(done.stderr.contains(says), "{key} {value}: {}", done.stderr);
    }
    home.refused(&["config", "set", "--strict-json", "gateway.bind", "lan"]);
    home.refused(&["config", "unset", "gateway.bind"]);
    let read_only = Home::new().var("OPENCLAW_CONFIG_READONLY", "1");
    read_only.refused(&["config", "set", "gateway.bind", "lan"]);
}

#[test]
fn the_guides_lines_succeed_in_the_guides_order() {
    let home = Home::new();
    for args in [
        &["config", "set", "gateway.bind", "lan"][..],
        &["config", "set", "gateway.auth.mode", "token"],
        &["config", "set", "gateway.auth.token", "1234567890123456789012345678901234567890"],
        &["config", "set", "gateway.auth.mode", "password"],
        &["config", "set", "gateway.auth.password", "007"],
        &["config", "set", "session.dmScope", "per-channel-peer"],
        &["config", "set", "session.dmScope", "per-account-channel-peer"],
        &["config", "set", "channels.discord.dmPolicy", "pairing"],
        &["config", "set", "channels.telegram.dmPolicy", "pairing"],
        &["config", "set", "channels.telegram.allowFrom", "[123456789]"],
        &["config", "set", "gateway.bind", "loopback"],
        &["config", "set", "gateway.trustedProxies", "[\"127.0.0.1\", \"::1\"]"],
        &["config", "set", "gateway.auth.mode", "none"],
        &["config", "set", "gateway.auth.mode", "token"],
    ] {
        home.ok(args);
    }
    assert_eq!(home.ok(&["config", "get", "gateway.trustedProxies"]).json(), json!(["127.0.0.1", "::1"]));
    let written: serde_json::Value = json5::from_str(&home.text()).unwrap();
    assert_eq!(written["gateway"]["auth"]["password"], json!("007"));
    assert_eq!(written["gateway"]["auth"]["token"], json!("1234567890123456789012345678901234567890"));

    // The recommended remote setup, on a home of its own.
    let home = Home::new();
    home.ok(&["config", "set", "gateway.bind", "tailnet"]);
    home.ok(&["config", "set", "gateway.tailscale.mode", "serve"]);
    home.ok(&["config", "set", "gateway.auth.allowTailscale", "true"]);
    let loaded = home.load(&GatewayFlags::default()).unwrap();
    assert!(loaded.needs_token() && loaded.config.gateway.auth.allow_tailscale);
}

#[test]
fn a_lan_without_its_token_warns_when_set_and_refuses_to_start() {
    let home = Home::new();
    let done = home.ok(&["config", "set", "gateway.bind", "lan"]);
    assert!(done.stderr.contains("would not start like this yet"), "{}", done.stderr);
    let refusal = home.start_refused(&[]);
    assert!(refusal.contains("gateway.auth.token: is missing, and gateway.bind is \"lan\""), "{refusal}");
    assert!(refusal.contains("openclaw config set gateway.auth.token"), "{refusal}");
}

#[test]
fn get_prints_what_holds() {
    let home = Home::new();
    let limits = json!({"maxAttempts": 10, "windowMs": 60000, "lockoutMs": 300_000, "exemptLoopback": true});
    assert_eq!(home.ok(&["config", "get", "gateway.auth.rateLimit"]).json(), limits);
    assert_eq!(home.ok(&["config", "get", "gateway.port"]).stdout, "18789\n");
    assert_eq!(home.ok(&["config", "get", "gateway.bind"]).stdout, "loopback\n");
    assert_eq!(home.ok(&["config", "get", "gateway.bind", "--json"]).stdout, "\"loopback\"\n");
    assert_eq!(home.ok(&["config", "get", "gateway.auth.mode"]).stdout, "token\n");
    let unset = home.refused(&["config", "get", "gateway.customBindHost"]);
    assert!(unset.stderr.contains("no default"), "{}", unset.stderr);
    let unknown = home.refused(&["config", "get", "gateway.bindd"]);
    assert!(unknown.stderr.contains("did you mean gateway.bind?"), "{}", unknown.stderr);
    let as_json = home.refused(&["config", "get", "gateway.bindd", "--json"]).json();
    assert_eq!(as_json["error"]["type"], "cli_error");

    // A file with a fault can still be looked into, and mended.
    let home = Home::with_config("{ gateway: { port: 'x', bind: 'lan', nonsense: 1 } }");
    assert_eq!(home.ok(&["config", "get", "gateway.bind"]).stdout, "lan\n");
    home.ok(&["config", "set", "gateway.port", "18800"]);
    home.ok(&["config", "unset", "gateway.nonsense"]);
}

#[test]
fn every_value_knows_where_it_came_from() {
    let source = |home: &Home, key: &str| {
        home.ok(&["config", "get", key, "--json", "--source"]).json()["source"].clone()
    };
    let home = Home::with_config("{ gateway: { port: 18800, bind: 'tailnet' } }")
        .var("OPENCLAW_GATEWAY_PORT", "18900");
    assert_eq!(source(&home, "gateway.port"), json!({"kind": "env", "name": "OPENCLAW_GATEWAY_PORT"}));
    assert_eq!(
        source(&home, "gateway.bind"),
        json!({"kind": "file", "path": home.config().display().to_string()})
    );
    assert_eq!(source(&home, "gateway.auth.rateLimit"), json!({"kind": "default"}));

    let flags = GatewayFlags { port: Some(0), ..GatewayFlags::default() };
    let loaded = home.load(&flags).unwrap();
    assert_eq!((loaded.config.gateway.port, loaded.config.gateway.bind), (0, Bind::Tailnet));
    assert_eq!(loaded.provenance.of("gateway.port"), &Provenance::Flag("--port"));
}

#[test]
fn a_flag_beats_a_variable_beats_the_file_beats_the_default() {
    let secret = |text: &str| openclaw::domain::Secret::new(text);
    let token = |home: &Home, flags: &GatewayFlags| {
        home.load(flags).unwrap().config.gateway.auth.token.map(|token| token.expose().to_owned())
    };
    let none = GatewayFlags::default();
    let file = "{ gateway: { auth: { token: 'from-the-file-0123456789' } } }";
    assert_eq!(token(&Home::new(), &none), None);
    assert_eq!(token(&Home::with_config(file), &none).as_deref(), Some("from-the-file-0123456789"));
    let home = Home::with_config(file).var("OPENCLAW_GATEWAY_TOKEN", " from-a-variable-01234567 ");
    assert_eq!(token(&home, &none).as_deref(), Some("from-a-variable-01234567"));
    let flags = GatewayFlags { token: secret("from-a-flag-0123456789ab"), ..none.clone() };
    assert_eq!(token(&home, &flags).as_deref(), Some("from-a-flag-0123456789ab"));
    let warnings = home.load(&none).unwrap().config.warnings;
    assert!(
        warnings.iter().any(|w| w.contains("the variable OPENCLAW_GATEWAY_TOKEN counts")),
        "{warnings:?}"
    );
}

#[test]
fn a_secret_on_the_command_line_is_warned_about_and_a_file_is_not() {
    let home = Home::new();
    home.write("token", "from-a-file-0123456789ab\n");
    let flags = GatewayFlags { token_file: Some("token".into()), ..GatewayFlags::default() };
    let loaded = home.load(&flags).unwrap();
    assert_eq!(loaded.config.warnings, Vec::<String>::new());
    assert_eq!(loaded.provenance.of("gateway.auth.token"), &Provenance::Flag("--token-file"));
    assert!(loaded.files.contains(&home.path().join("token")));
    let flags = GatewayFlags {
        token: openclaw::domain::Secret::new("0123456789abcdef01234567"),
        ..GatewayFlags::default()
    };
    assert!(home.load(&flags).unwrap().config.warnings[0].contains("prefer --token-file"));

    let home = Home::new().var("OPENCLAW_GATEWAY_TOKEN_FILE", "token");
    home.write("token", "from-a-file-0123456789ab\n");
    assert!(home.load(&GatewayFlags::default()).unwrap().config.gateway.auth.token.is_some());
    let home = home.var("OPENCLAW_GATEWAY_TOKEN", "x");
    assert!(home.start_refused(&[]).contains("both set"));
}

#[test]
fn only_the_secret_of_the_mode_in_force_is_handed_on() {
    let home = Home::with_config(
        "{ gateway: { auth: { mode: 'token', token: '0123456789abcdef01234567', password: 'p-0123456789' } } }",
    );
    let auth = home.load(&GatewayFlags::default()).unwrap().config.gateway.auth;
    assert!(auth.token.is_some() && auth.password.is_none());
    let flags = GatewayFlags { auth: Some(openclaw::config::AuthMode::None), ..GatewayFlags::default() };
    let auth = home.load(&flags).unwrap().config.gateway.auth;
    assert!(auth.token.is_none() && auth.password.is_none() && !auth.allow_tailscale);
}

#[test]
fn tailnet_identity_is_on_where_the_tailnet_comes_in_and_nowhere_else() {
    let allows = |text: &str| {
        let home = Home::with_config(&format!("{{ gateway: {{ {text} }} }}"));
        home.load(&GatewayFlags::default()).unwrap().config.gateway.auth.allow_tailscale
    };
    let token = "auth: { token: '0123456789abcdef01234567' }";
    assert!(!allows(""));
    assert!(!allows(&format!("bind: 'lan', {token}")));
    assert!(!allows("bind: 'auto'"));
    assert!(!allows("bind: 'tailnet', auth: { allowTailscale: false, token: '0123456789abcdef01234567' }"));
    assert!(allows("bind: 'tailnet'"));
    assert!(allows("tailscale: { mode: 'serve' }"));
    assert!(allows(&format!("tailscale: {{ mode: 'funnel' }}, {token}")));
    assert!(allows("auth: { allowTailscale: true }"));

    // In a container auto is every address, the tailnet's among them, and no
    // address there is safe without a secret.
    let home = Home::with_config("{ gateway: { bind: 'auto' } }");
    let refused =
        openclaw::config::load(&GatewayFlags::default(), &home.env().in_container(true)).err().unwrap();
    assert_eq!(refused.problems()[0].key, "gateway.auth.token");
}

#[test]
fn dotenv_files_of_the_state_directory_count_and_those_of_the_working_directory_never_name_us() {
    let home = Home::new();
    home.write(".openclaw/.env", "export OPENCLAW_GATEWAY_TOKEN = \"from-the-state-dir-012345\"\n");
    home.write(
        ".env",
        "OPENCLAW_GATEWAY_PORT=1\nOPENCLAW_GATEWAY_TOKEN=from-the-working-dir-0123\nCHAT=3000\n",
    );
    home.write(".openclaw/config.json", "{ gateway: { upstream: \"http://127.0.0.1:${CHAT}\" } }");
    let loaded = home.load(&GatewayFlags::default()).unwrap();
    assert_eq!(loaded.config.gateway.port, 18789);
    assert_eq!(loaded.config.gateway.auth.token.unwrap().expose(), "from-the-state-dir-012345");
    assert_eq!(loaded.config.gateway.routes[0].upstream.addr.to_string(), "http://127.0.0.1:3000");
    assert!(loaded.config.warnings.iter().any(|warning| warning.contains("working directory is ignored")));
}

#[test]
fn old_names_and_files_are_mentioned_and_not_used() {
    let home = Home::new().var("CLAWDBOT_GATEWAY_TOKEN", "old").var("MOLTBOT_STATE_DIR", "/nowhere");
    home.write(".openclaw/openclaw.json", "{ gateway: { bind: 'lan' } }");
    let loaded = home.load(&GatewayFlags::default()).unwrap();
    assert_eq!(loaded.config.gateway.bind, Bind::Loopback);
    let said = loaded.config.warnings.join("\n");
    assert_eq!(said.matches("CLAWDBOT_").count(), 1, "{said}");
    assert!(said.contains("openclaw config import"), "{said}");
}

#[test]
fn comments_order_and_references_survive_a_set() {
    let text = "// mine\n{\n  gateway: {\n    auth: { token: \"${MY_TOKEN}\" }, // a reference\n    port: 18800,\n  },\n}\n";
    let home = Home::with_config(text).var("MY_TOKEN", "0123456789abcdef01234567");
    home.ok(&["config", "set", "gateway.port", "18900"]);
    assert_eq!(home.text(), text.replace("18800", "18900"));
    let backup = std::fs::read_to_string(home.path().join(".openclaw/config.json.bak")).unwrap();
    assert_eq!(backup, text);
    home.ok(&["config", "set", "gateway.bind", "tailnet"]);
    assert!(home.text().contains("    port: 18900,\n    bind: \"tailnet\",\n  },"), "{}", home.text());
    home.ok(&["config", "unset", "gateway.port"]);
    assert!(!home.text().contains("port"), "{}", home.text());
    assert!(home.text().contains("${MY_TOKEN}") && home.text().contains("// mine"), "{}", home.text());

    let before = home.text();
    let same = home.ok(&["config", "set", "gateway.bind", "tailnet"]);
    assert!(same.stdout.starts_with("No change"), "{}", same.stdout);
    assert_eq!(home.text(), before);
}

#[test]
fn a_value_can_come_from_standard_input() {
    let home = Home::new();
    let done = home
        .run_with_stdin(&["config", "set", "gateway.auth.token", "--stdin"], "0123456789abcdef01234567\n");
    assert_eq!(done.code, 0, "{done:?}");
    let loaded = home.load(&GatewayFlags::default()).unwrap();
    assert_eq!(loaded.config.gateway.auth.token.unwrap().expose(), "0123456789abcdef01234567");
}

#[test]
fn places_can_be_chosen() {
    let home = Home::new().var("OPENCLAW_CONFIG_PATH", "~/elsewhere/c.json5");
    let path = home.path().join("elsewhere/c.json5");
    assert_eq!(home.ok(&["config", "file"]).stdout, format!("{}\n", path.display()));
    assert_eq!(home.ok(&["config", "file", "--json"]).json(), json!({"path": path.display().to_string()}));
    home.ok(&["config", "set", "gateway.port", "18800"]);
    assert!(path.exists());
    // The flag comes before the variable, and makes what it names.
    home.ok(&["config", "set", "gateway.port", "18900", "--config", "other/c.json"]);
    assert_eq!(home.ok(&["--config", "other/c.json", "config", "get", "gateway.port"]).stdout, "18900\n");
    assert_eq!(home.ok(&["config", "get", "gateway.port"]).stdout, "18800\n");
    home.refused(&["config", "get", "gateway.port", "--config", "missing.json"]);
}

#[test]
fn validate_says_what_is_wrong_and_what_is_only_odd() {
    let home = Home::new();
    assert!(home.refused(&["config", "validate"]).stderr.contains("Config file not found"));
    let home = Home::with_config("{ gateway: { bind: 'lan', auth: { token: 'short' } } }");
    let done = home.ok(&["config", "validate"]);
    assert!(
        done.stdout.starts_with("Config valid: ") && done.stdout.contains("2 warning(s):\n! "),
        "{}",
        done.stdout
    );
    let home = Home::with_config("{ gateway: { port: 'x', auht: {} } }");
    let done = home.refused(&["config", "validate"]);
    assert!(done.stderr.starts_with("OpenClaw config is invalid: "), "{}", done.stderr);
    assert_eq!(done.stderr.matches('\u{d7}').count(), 2, "{}", done.stderr);
    let issues = home.refused(&["config", "validate", "--json"]).json()["issues"].clone();
    assert_eq!(issues[0]["path"], "gateway.auht");
}

#[test]
fn version_and_schema_are_printed() {
    let home = Home::new();
    assert_eq!(home.ok(&["--version"]).stdout, home.ok(&["version"]).stdout);
    let schema = home.ok(&["config", "schema"]).json();
    assert_eq!(schema["properties"]["gateway"]["properties"]["port"]["default"], 18789);
    assert_eq!(schema["additionalProperties"], false);
}
