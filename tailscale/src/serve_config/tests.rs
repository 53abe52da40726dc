use super::*;
use crate::test_support::{outputs_of, recording};

fn parse(text: &str) -> ServeConfig {
    parse_serve_config(text.as_bytes()).unwrap()
}

/// The recorded configurations, in order.
fn recorded() -> Vec<ServeConfig> {
    let runs = outputs_of(&recording("serve.txt"), "$ tailscale serve status --json");
    runs.iter().map(|text| parse(text)).collect()
}

fn count(web: usize, tcp: usize) -> TargetsPort {
    TargetsPort { web, tcp }
}

#[test]
fn an_entry_that_cannot_be_read_is_refused() {
    for text in [
        r#"{"TCP": []}"#,
        r#"{"TCP": {"443": true}}"#,
        r#"{"TCP": {"x": {"HTTPS": true}}}"#,
        r#"{"TCP": {"70000": {"HTTPS": true}}}"#,
        r#"{"TCP": {"443": {"TCPForward": 9000}}}"#,
        r#"{"Web": {"gw:443": {"Handlers": {"/": {"Proxy": ["http://127.0.0.1:9000"]}}}}}"#,
        r#"{"AllowFunnel": {"gw:443": "false"}}"#,
        r#"{"Foreground": {"s": {"TCP": {"443": {"HTTPS": 1}}}}}"#,
    ] {
        let error = parse_serve_config(text.as_bytes()).unwrap_err();
        assert_eq!(error.code(), "tailscale_output_wrong_shape", "{text}");
    }
}

#[test]
fn nothing_published_has_three_spellings() {
    for text in ["{}", "null", r#"{"TCP": null, "Web": {}, "Foreground": {"s": null}}"#] {
        assert!(parse(text).is_empty(), "{text}");
    }
}

#[test]
fn the_recorded_configurations_are_read() {
    let configs = recorded();
    let [empty, first, all, foreground, after, reset] = &configs[..] else {
        panic!("{} recordings", configs.len());
    };
    assert!(empty.is_empty() && reset.is_empty());
    assert_eq!(first.targets_port(9000), count(1, 0));
    assert_eq!(all.targets_port(9000), count(3, 1));
    assert_eq!(all.targets_port(443), count(0, 0));
    assert_eq!(foreground.targets_port(9000), count(4, 1));
    assert_eq!(after, all);

    let socket = Path::new("/run/openclaw/serve.sock");
    assert_eq!(all.targets_unix(socket), count(1, 0));
    assert_eq!(first.targets_unix(socket), count(0, 0));

    let forward = all.tcp_forwards().next().unwrap();
    assert_eq!((forward.port, forward.target.as_str()), (2222, "127.0.0.1:9000"));
    let guarded = all.web_handlers().find(|handler| handler.mount == "/guarded").unwrap();
    assert_eq!(guarded.host_port, "gw.tailnet-example.test:80");
    assert_eq!(guarded.proxy.as_deref(), Some("http://127.0.0.1:9000/s/3f9c0e7d/"));
    let capped = all.web_handlers().find(|handler| !handler.accept_app_caps.is_empty()).unwrap();
    assert_eq!(capped.accept_app_caps, ["openclaw.ai/cap/gateway"]);
    let http = all.listeners().find(|listener| listener.port == 80).unwrap();
    assert!(http.http && !http.https);

    let session = Origin::Foreground("217445f34d8771a8".to_owned());
    let mine: Vec<_> = foreground.web_handlers().filter(|h| h.origin == session).collect();
    assert_eq!(mine.len(), 1);
    assert!(mine[0].host_port.ends_with(":9443"));
}

#[test]
fn a_recorded_funnel_is_seen() {
    let runs = outputs_of(&recording("funnel.txt"), "$ tailscale funnel status --json");
    let config = parse(&runs[0]);
    assert_eq!(config.funnel_hosts().count(), 1);
    assert!(config.is_funnel("gw.tailnet-example.test:443"));
    assert!(!config.is_funnel("gw.tailnet-example.test:8443"));
}

#[test]
fn a_funnel_that_is_off_is_none() {
    let config = parse(r#"{"AllowFunnel": {"gw:443": false, "gw:8443": null}}"#);
    assert_eq!(config.funnel_hosts().count(), 0);
}

#[test]
fn nothing_hides_in_a_nested_configuration() {
    let inner = r#"{"TCP": {"1": {"TCPForward": "localhost:9000", "TerminateTLS": "gw", "ProxyProtocol": 2}},
        "Web": {"gw:443": {"Handlers": {"/": {"Proxy": "9000"}}}}, "AllowFunnel": {"gw:443": true}}"#;
    let text = format!(
        r#"{{"Services": {{"svc:gw": {inner}}}, "Foreground": {{"s1": {{"Services": {{"svc:x": {inner}}}}}, "s2": {inner}}}}}"#
    );
    let config = parse(&text);
    assert_eq!(config.targets_port(9000), count(3, 3));
    let origins: Vec<_> = config.funnel_hosts().map(|host| host.origin.clone()).collect();
    for origin in [
        Origin::Service("svc:gw".to_owned()),
        Origin::Service("svc:x".to_owned()),
        Origin::Foreground("s2".to_owned()),
    ] {
        assert!(origins.contains(&origin), "{origin:?}");
    }
    let forward = config.tcp_forwards().next().unwrap();
    assert_eq!(forward.terminate_tls.as_deref(), Some("gw"));
    assert_eq!(forward.proxy_protocol, 2);
}

#[test]
fn own_addresses_count_when_they_are_known() {
    let config = parse(r#"{"TCP": {"1": {"TCPForward": "192.0.2.7:9000"}}}"#);
    assert_eq!(config.targets_port(9000), count(0, 0));
    assert_eq!(config.targets_port_at(9000, &["192.0.2.7".parse().unwrap()]), count(0, 1));
}

#[test]
fn files_texts_and_redirects_are_no_targets() {
    let config = parse(
        r#"{"Web": {"gw:443": {"Handlers": {"/a": {"Path": "/srv/9000"}, "/b": {"Text": "127.0.0.1:9000"},
            "/c": {"Redirect": "http://127.0.0.1:9000"}, "/d": {}, "/e": null}}}}"#,
    );
    assert_eq!(config.targets_port(9000), count(0, 0));
    assert_eq!(config.web_handlers().count(), 4);
}
