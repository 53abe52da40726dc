//! The pair that the gateway makes for itself, and keeps.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::support::*;

const CONFIG: &str = r#"{gateway: {tls: {enabled: true, source: "self"}, allowedHosts: ["gw.example"]}}"#;

fn setup(app: &Upstream) -> Setup {
    Setup::new().upstream(app).token(TOKEN).config(CONFIG)
}

fn pair(gateway: &Gateway) -> Pair {
    let read = |name: &str| std::fs::read_to_string(gateway.state_dir().join("tls").join(name)).unwrap();
    Pair { cert: read("self-cert.pem"), key: read("self-key.pem") }
}

fn tls(gateway: &Gateway, args: &[&str]) -> (Option<i32>, serde_json::Value) {
    let home = gateway.state_dir().parent().unwrap().to_owned();
    let mut command = Command::new(env!("CARGO_BIN_EXE_openclaw"));
    command.arg("tls").args(args).arg("--json").env_clear().env("HOME", &home).env("OPENCLAW_HOME", &home);
    let done = command.output().unwrap();
    (done.status.code(), serde_json::from_slice(&done.stdout).unwrap())
}

#[test]
fn a_pair_is_made_once_pinned_and_said() {
    let app = Upstream::echo();
    let mut gateway = setup(&app).start();
    let first = pair(&gateway);
    let dir = gateway.state_dir().join("tls");
    for (path, mode) in
        [(dir.clone(), 0o700), (dir.join("self-key.pem"), 0o600), (dir.join("self-cert.pem"), 0o600)]
    {
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777,
            mode,
            "{}",
            path.display()
        );
    }
    let said = |gateway: &Gateway| {
        let line = gateway.wait_for_log("\"serving TLS with this certificate\"");
        serde_json::from_str::<serde_json::Value>(&line).unwrap()["fingerprint"].as_str().unwrap().to_owned()
    };
    let fingerprint = said(&gateway);
    let (code, shown) = tls(&gateway, &["show"]);
    assert_eq!((code, shown["fingerprint"].as_str()), (Some(0), Some(fingerprint.as_str())));
    assert!(shown["keyPin"].as_str().unwrap().starts_with("sha256//"));
    assert!(!gateway.log().contains("PRIVATE KEY"));

    let request = |gateway: &Gateway| {
        let port = gateway.port();
        format!("GET /x HTTP/1.1\r\nHost: gw.example:{port}\r\nAuthorization: Bearer {TOKEN}\r\n\r\n")
            .into_bytes()
    };
    for name in ["localhost", "127.0.0.1", "::1", "gw.example"] {
        let config = client_config(&[&first], &["http/1.1"]);
        assert!(TlsWire::open(gateway.loopback(), name, &config).is_ok(), "{name}");
        let other = client_config(&[&Pair::of(&[name])], &["http/1.1"]);
        assert!(TlsWire::open(gateway.loopback(), name, &other).is_err(), "{name}: whoever pins another");
    }
    let config = client_config(&[&first], &["http/1.1"]);
    let mut wire = TlsWire::open(gateway.loopback(), "gw.example", &config).unwrap();
    assert_eq!(wire.request(&request(&gateway)).seen().header("x-forwarded-proto").as_deref(), Some("https"));

    gateway.restart();
    assert_eq!(said(&gateway), fingerprint);
    assert!(pair(&gateway).cert == first.cert && pair(&gateway).key == first.key);
}

#[test]
fn threat_099_a_renewed_certificate_is_taken_over_while_it_runs() {
    let app = Upstream::echo();
    let gateway = setup(&app).start();
    let first = pair(&gateway);
    let config = client_config(&[&first], &["http/1.1"]);
    let mut kept = TlsWire::open(gateway.loopback(), "gw.example", &config).unwrap();
    let request =
        format!("GET /x HTTP/1.1\r\nHost: gw.example\r\nAuthorization: Bearer {TOKEN}\r\n\r\n").into_bytes();
    assert_eq!(kept.request(&request).status, 200);
    for args in [&["renew"][..], &["renew", "--new-key"]] {
        let (code, _) = tls(&gateway, args);
        assert_eq!(code, Some(0), "{args:?}");
        let next = pair(&gateway);
        let config = client_config(&[&first, &next], &["http/1.1"]);
        until("the new certificate is shown", || {
            let wire = TlsWire::open(gateway.loopback(), "localhost", &config);
            wire.is_ok_and(|wire| wire.certificate() == next.der().to_vec())
        });
        assert_eq!(kept.request(&request).status, 200, "what was open stays open");
    }
    assert_ne!(pair(&gateway).key, first.key);
}

#[test]
fn a_pair_that_is_lost_or_not_ours_stops_the_start_and_says_what_to_do() {
    let app = Upstream::echo();
    let mut first = setup(&app).start();
    let key = first.state_dir().join("tls/self-key.pem");
    let text = std::fs::read(&key).unwrap();
    first.stop();
    std::fs::remove_file(&key).unwrap();
    let exited = setup(&app).home_of(&first).refuse();
    assert_eq!(exited.code, Some(78), "{}", exited.stderr);
    assert!(exited.stderr.contains("openclaw tls renew --new-key"), "{}", exited.stderr);
    assert!(!key.exists(), "no key was made");

    std::fs::write(&key, "precious").unwrap();
    let exited = setup(&app).home_of(&first).refuse();
    assert_eq!(
        (exited.code, std::fs::read(&key).unwrap()),
        (Some(78), b"precious".to_vec()),
        "{}",
        exited.stderr
    );

    std::fs::write(&key, text).unwrap();
    let again = setup(&app).home_of(&first).start();
    assert!(TlsWire::open(again.loopback(), "localhost", &client_config(&[&pair(&again)], &[])).is_ok());
}

#[test]
fn a_pair_made_while_tailscale_runs_is_for_the_tailnets_names() {
    let (app, tailnet) = (Upstream::echo(), Tailnet::new());
    let setup = Setup::on(&tailnet).upstream(&app).token(TOKEN);
    let gateway = setup.config(r#"{gateway: {tls: {enabled: true, source: "self"}}}"#).start_on_tailnet();
    let config = client_config(&[&pair(&gateway)], &["http/1.1"]);
    for name in [GW, "gw", "gw.tailnet-example.test"] {
        let wire = TlsWire::open(gateway.tailnet(), name, &config);
        assert!(wire.is_ok(), "{name}: {:?}", wire.err());
    }
}
