//! Rules of the threat list that the configuration keeps. Named after them.

use std::process::Stdio;

use openclaw::config::GatewayFlags;

use crate::support::Home;

const TOKEN: &str = "0123456789abcdef01234567";

#[test]
fn threat_054_secrets_are_never_printed() {
    let canary = "canary-0123456789-canary-0123";
    let file = format!(
        "{{ gateway: {{ auth: {{ mode: 'token', token: '{canary}' }}, remote: {{ password: '{canary}' }} }},
           agent: {{ apiKey: '{canary}' }}, channels: {{ telegram: {{ botToken: '{canary}' }},
           discord: {{ accounts: {{ a: {{ token: '{canary}' }} }} }} }} }}"
    );
    let home = Home::with_config(&file).var("OPENCLAW_GATEWAY_PASSWORD", canary);
    for args in [
        &["config", "get", "gateway"][..],
        &["config", "get", "gateway.auth.token"],
        &["config", "get", "gateway.auth.token", "--json"],
        &["config", "get", "gateway.auth", "--json", "--source"],
        &["config", "get", "gateway.remote"],
        &["config", "get", "channels", "--json"],
        &["config", "get", "agent.apiKey"],
        &["config", "validate"],
        &["config", "validate", "--json"],
        &["config", "set", "gateway.auth.token", canary],
        &["config", "set", "gateway.auth.password", canary],
        &["config", "set", "gateway.auth.mode", canary, "--strict-json"],
        &["config", "set", "gateway.auth.token", &format!("{{a: \"{canary}\"}}"), "--strict-json"],
        &["gateway", "--token", canary, "--auth", "trusted-proxy"],
        &["gateway", "--upstream", &format!("http://me:{canary}@host")],
    ] {
        let done = home.run(args);
        assert!(!done.stdout.contains(canary) && !done.stderr.contains(canary), "{args:?}: {done:?}");
    }
    assert_eq!(home.ok(&["config", "get", "gateway.auth.token"]).stdout, "__OPENCLAW_REDACTED__\n");
    // Broken in the middle of a secret.
    for broken in
        [format!("{{ gateway: {{ auth: {{ token: '{canary}' x }} }} }}"), format!("token: {canary}\n")]
    {
        let home = Home::with_config(&broken);
        let said = home.start_refused(&[]);
        assert!(!said.contains(canary), "{said}");
    }
}

#[test]
fn threat_054_an_unresolved_reference_is_shown_as_written() {
    let home = Home::with_config("{ gateway: { auth: { token: '${NOT_SET}' } } }");
    assert_eq!(home.ok(&["config", "get", "gateway.auth.token"]).stdout, "${NOT_SET}\n");
    let home = Home::with_config("{ gateway: { auth: { token: '${IS_SET}' } } }").var("IS_SET", TOKEN);
    assert_eq!(home.ok(&["config", "get", "gateway.auth.token"]).stdout, "__OPENCLAW_REDACTED__\n");
}

#[test]
fn threat_057_placeholders_refuse_the_start() {
    for placeholder in
        ["change-me-to-a-long-random-token", "changeme", "undefined", "0000000000000000000000000000"]
    {
        let home = Home::new().var("OPENCLAW_GATEWAY_TOKEN", placeholder);
        let said = home.start_refused(&[]);
        assert!(said.contains("gateway.auth.token: is a placeholder"), "{said}");
        assert!(said.contains("unset OPENCLAW_GATEWAY_TOKEN"), "{said}");
        Home::new().start_refused(&["--token", placeholder]);
    }
    Home::with_config("{ gateway: { auth: { password: 'change-me-now' } } }").start_refused(&[]);
}

#[test]
fn threat_057_short_tokens_warn_outside_loopback() {
    let warned = |text: &str| {
        let home = Home::with_config(text);
        let warnings = home.load(&GatewayFlags::default()).unwrap().config.warnings;
        warnings.iter().any(|warning| warning.contains("has 23 characters"))
    };
    let token = &TOKEN[..23];
    assert!(warned(&format!("{{ gateway: {{ bind: 'lan', auth: {{ token: '{token}' }} }} }}")));
    assert!(warned(&format!(
        "{{ gateway: {{ tailscale: {{ mode: 'serve' }}, auth: {{ token: '{token}' }} }} }}"
    )));
    assert!(!warned(&format!("{{ gateway: {{ auth: {{ token: '{token}' }} }} }}")));
    assert!(!warned(&format!("{{ gateway: {{ bind: 'lan', auth: {{ token: '{TOKEN}' }} }} }}")));
}

#[test]
fn threat_058_mode_none_with_an_exposed_bind_is_refused_when_set_and_at_start() {
    for bind in ["lan", "tailnet", "custom"] {
        let home =
            Home::with_config("{ gateway: { auth: { mode: 'none' }, customBindHost: '192.168.1.10' } }");
        let done = home.refused(&["config", "set", "gateway.bind", bind]);
        assert!(
            done.stderr.contains("gateway.auth.mode") && done.stderr.contains("gateway.bind"),
            "{}",
            done.stderr
        );

        let home = Home::with_config(&format!(
            "{{ gateway: {{ bind: '{bind}', customBindHost: '192.168.1.10' }} }}"
        ));
        home.refused(&["config", "set", "gateway.auth.mode", "none"]);
        let said = home.start_refused(&["--auth", "none"]);
        assert!(said.contains("(from --auth)"), "{said}");
    }
    for mode in ["serve", "funnel"] {
        let home = Home::with_config("{ gateway: { auth: { mode: 'none' } } }");
        home.refused(&["config", "set", "gateway.tailscale.mode", mode]);
        home.start_refused(&["--tailscale", mode]);
        let home = Home::with_config("{ gateway: { auth: { mode: 'none' } } }");
        home.start_refused(&["--bind", "lan"]);
    }
}

#[test]
fn threat_059_empty_lists_are_nobody() {
    let proxy = |users: &str| {
        Home::with_config(&format!(
            "{{ gateway: {{ trustedProxies: ['10.0.0.7'],
               auth: {{ mode: 'trusted-proxy', trustedProxy: {{ userHeader: 'x-forwarded-user' {users} }} }} }} }}"
        ))
    };
    for users in ["", ", allowUsers: []", ", allowUsers: [' ']", ", allowUsers: ['*']"] {
        let said = proxy(users).start_refused(&[]);
        assert!(said.contains("gateway.auth.trustedProxy.allowUsers"), "{users}: {said}");
    }
    assert!(proxy(", allowUsers: ['alice']").load(&GatewayFlags::default()).is_ok());

    let home = Home::with_config("{ gateway: { upstream: 3000, access: { owner: false, allow: [] } } }");
    let gateway = home.load(&GatewayFlags::default()).unwrap().config.gateway;
    assert!(!gateway.access.owner && gateway.access.allow.is_empty());
    let home = Home::with_config("{ gateway: { routes: { a: { upstream: 3000, allow: [] } } } }");
    let gateway = home.load(&GatewayFlags::default()).unwrap().config.gateway;
    // Present and empty, which is not the same as absent.
    assert_eq!(gateway.routes[0].allow, Some(Vec::new()));
    // "*" is nobody's login, and never everybody.
    home.refused(&["config", "set", "gateway.access.allow", "[\"*\"]"]);
}

#[test]
fn threat_060_funnel_wants_a_password_or_token() {
    let home = Home::new();
    let done = home.refused(&["config", "set", "gateway.tailscale.mode", "funnel"]);
    assert!(done.stderr.contains("gateway.auth.token"), "{}", done.stderr);
    home.start_refused(&["--tailscale", "funnel"]);
    home.start_refused(&["--tailscale", "funnel", "--auth", "password"]);
    Home::with_config(&format!("{{ gateway: {{ auth: {{ token: '{TOKEN}' }} }} }}")).start_refused(&[
        "--tailscale",
        "funnel",
        "--auth",
        "password",
    ]);
    for secret in ["token", "password"] {
        let home = Home::with_config(&format!("{{ gateway: {{ auth: {{ {secret}: '{TOKEN}' }} }} }}"));
        home.ok(&["config", "set", "gateway.tailscale.mode", "funnel"]);
        assert!(home.load(&GatewayFlags::default()).is_ok());
    }
}

#[test]
fn threat_060_a_route_for_everybody_must_be_said_to_be() {
    let home = Home::with_config("{ gateway: { routes: { hooks: { upstream: 3000 } } } }");
    home.refused(&["config", "set", "gateway.routes.hooks.public", "open"]);
    home.ok(&["config", "set", "gateway.routes.hooks.public", "open", "--open"]);
    // Known from now on.
    home.ok(&["config", "set", "gateway.port", "18800"]);
}

#[test]
fn threat_093_what_others_can_write_refuses_the_start() {
    let home = Home::with_config("{}");
    home.chmod(&home.config(), 0o666);
    assert!(home.start_refused(&[]).contains("chmod 600"));
    home.chmod(&home.config(), 0o640);
    let warnings = home.load(&GatewayFlags::default()).unwrap().config.warnings;
    assert!(warnings.iter().any(|warning| warning.contains("0640")), "{warnings:?}");
    home.chmod(&home.config(), 0o600);
    home.chmod(&home.path().join(".openclaw"), 0o777);
    assert!(home.start_refused(&[]).contains("chmod 700"));
    home.chmod(&home.path().join(".openclaw"), 0o700);
    assert!(home.load(&GatewayFlags::default()).is_ok());

    home.write(".openclaw/config.json", "{ $include: 'part.json5' }");
    let part = home.write(".openclaw/part.json5", "{}");
    home.chmod(&part, 0o666);
    assert!(home.start_refused(&[]).contains("part.json5"));
}

#[test]
fn threat_093_files_are_private_from_the_start_under_any_umask() {
    let home = Home::new();
    let script =
        format!("umask 000; exec {} config set gateway.auth.token {TOKEN}", env!("CARGO_BIN_EXE_openclaw"));
    let set = || {
        let mut command = std::process::Command::new("/bin/sh");
        command.args(["-c", &script]).env_clear().env("HOME", home.path()).stdout(Stdio::null());
        assert!(command.status().unwrap().success());
    };
    set();
    home.ok(&["config", "set", "gateway.port", "18800"]);
    assert_eq!(home.mode(".openclaw"), 0o700);
    for name in ["config.json", "config.json.bak", "config.json.lock"] {
        assert_eq!(home.mode(&format!(".openclaw/{name}")), 0o600, "{name}");
    }
}

#[test]
fn threat_094_secrets_and_configurations_are_files_and_nothing_else() {
    let home = Home::new();
    let real = home.write("real-token", TOKEN);
    let link = home.path().join("link");
    std::os::unix::fs::symlink(&real, &link).unwrap();
    let said = home.start_refused(&["--token-file", link.to_str().unwrap()]);
    assert!(said.contains("symbolic link"), "{said}");
    home.start_refused(&["--token-file", home.path().to_str().unwrap()]);
    home.start_refused(&["--token-file", "missing"]);
    home.start_refused(&[
        "--password-file",
        home.write("empty", "\n").to_str().unwrap(),
        "--auth",
        "password",
    ]);
    home.start_refused(&["--token-file", home.write("two", "a\nb\n").to_str().unwrap()]);
    let open = home.write("open", TOKEN);
    home.chmod(&open, 0o666);
    home.start_refused(&["--token-file", open.to_str().unwrap()]);

    // A FIFO does not hang the start.
    let fifo = home.path().join("fifo");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    assert!(home.start_refused(&["--config", fifo.to_str().unwrap()]).contains("FIFO"));
    assert!(home.start_refused(&["--config", home.path().to_str().unwrap()]).contains("directory"));
    home.start_refused(&["--token-file", fifo.to_str().unwrap()]);
    assert!(home.start_refused(&["--config", "missing.json"]).contains("does not exist"));
}

#[test]
fn threat_094_a_linked_configuration_is_written_where_it_leads_and_never_forked() {
    let home = Home::new();
    let real = home.write("dotfiles/config.json", "{ gateway: { port: 18800 } }");
    home.write(".openclaw/x", "");
    std::os::unix::fs::symlink(&real, home.config()).unwrap();
    home.ok(&["config", "set", "gateway.port", "18900"]);
    assert!(home.config().is_symlink());
    assert!(std::fs::read_to_string(&real).unwrap().contains("18900"));
}

#[test]
fn threat_095_no_concurrent_set_is_lost() {
    let home = Home::with_config("// kept\n{}\n");
    let children: Vec<_> = (0..40)
        .map(|i| {
            let mut command = home.command();
            command.args([
                "config",
                "set",
                &format!("session.identityLinks.p{i}"),
                &format!("[\"telegram:{i}\"]"),
            ]);
            command.stdout(Stdio::null()).spawn().unwrap()
        })
        .collect();
    // Valid at every instant.
    for _ in 0..50 {
        assert!(json5::from_str::<serde_json::Value>(&home.text()).is_ok());
    }
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let links = home.ok(&["config", "get", "session.identityLinks"]).json();
    assert_eq!(links.as_object().unwrap().len(), 40);
    assert!(home.text().starts_with("// kept\n"));
    let left: Vec<_> = std::fs::read_dir(home.path().join(".openclaw"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".tmp"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn threat_095_a_killed_set_leaves_the_old_file_or_the_new() {
    let home = Home::with_config("{ gateway: { port: 10000 } }\n");
    for port in 10_001_u64..10_041 {
        let mut command = home.command();
        command.args(["config", "set", "gateway.port", &port.to_string()]).stdout(Stdio::null());
        let mut child = command.spawn().unwrap();
        // Not waited for: the kill lands wherever it lands.
        std::thread::sleep(std::time::Duration::from_micros(port % 40 * 100));
        child.kill().unwrap();
        child.wait().unwrap();
        let value: serde_json::Value = json5::from_str(&home.text()).unwrap();
        assert!(
            value["gateway"]["port"].as_u64().is_some_and(|now| (10_000..=port).contains(&now)),
            "{value}"
        );
    }
}

#[test]
fn threat_103_what_only_looks_local_is_not() {
    for host in ["0x7f.1", "127.1", "0", "2130706433"] {
        let home = Home::new();
        let done = home.run(&["gateway", "--upstream", &format!("http://{host}")]);
        assert_eq!(done.code, 2, "{host}: {done:?}");
        let bind = format!("{{ gateway: {{ bind: 'custom', customBindHost: '{host}' }} }}");
        Home::with_config(&bind).start_refused(&[]);
    }
    // A name that begins like loopback is a name: no owner can be checked there.
    for host in ["127.evil.com", "localhost.evil.com"] {
        let text = format!("{{ gateway: {{ upstream: {{ url: 'http://{host}:1', ownerUid: 0 }} }} }}");
        assert!(Home::with_config(&text).start_refused(&[]).contains("is elsewhere"));
    }
    for host in ["127.0.0.1", "[::ffff:127.0.0.1]", "localhost."] {
        let text = format!("{{ gateway: {{ upstream: {{ url: 'http://{host}:1', ownerUid: 0 }} }} }}");
        assert!(Home::with_config(&text).load(&GatewayFlags::default()).is_ok(), "{host}");
    }
}

#[test]
fn loopback_proxies_and_tailscale_do_not_go_together() {
    let home = Home::with_config("{ gateway: { trustedProxies: ['127.0.0.1', '::1'] } }");
    let done = home.refused(&["config", "set", "gateway.tailscale.mode", "serve"]);
    assert!(done.stderr.contains("gateway.trustedProxies"), "{}", done.stderr);
    home.start_refused(&["--tailscale", "serve"]);
    let home = Home::with_config("{ gateway: { tailscale: { mode: 'serve' } } }");
    home.refused(&["config", "set", "gateway.trustedProxies", "[\"127.0.0.0/8\"]"]);
    home.refused(&["config", "set", "gateway.trustedProxies", "[\"::1\"]"]);
    home.ok(&["config", "set", "gateway.trustedProxies", "[\"10.0.0.7\"]"]);
}
