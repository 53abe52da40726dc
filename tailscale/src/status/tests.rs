use serde_json::{Value, json};

use super::*;
use crate::test_support::{recording, recordings};

fn recorded(name: &str) -> Status {
    parse_status(recording(name).as_bytes()).unwrap()
}

fn with(parent: &str, field: &str, to: Value) -> Result<Status, Error> {
    let mut value: Value = serde_json::from_str(&recording("status-running.json")).unwrap();
    value.pointer_mut(parent).unwrap()[field] = to;
    parse_status(value.to_string().as_bytes())
}

#[track_caller]
fn refused(result: Result<Status, Error>, at: &str) {
    match result {
        Err(Error::WrongShape { field, .. }) => assert_eq!(field, at),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_matters_may_not_be_missing() {
    for field in ["Version", "BackendState", "Self"] {
        refused(with("", field, Value::Null), field);
    }
    refused(parse_status(b"{}"), "Version");
}

#[test]
fn wrong_types_are_refused_and_named() {
    refused(with("", "Version", json!("ERR-BuildInfo")), "Version");
    refused(with("", "TUN", json!("false")), "TUN");
    refused(with("", "TailscaleIPs", json!(["gw"])), "TailscaleIPs[0]");
    refused(with("/Self", "UserID", json!(1.5)), "Self.UserID");
    refused(with("/Self", "Tags", json!({})), "Self.Tags");
    refused(with("/Self", "DNSName", json!("g w.")), "Self.DNSName");
}

#[test]
fn a_node_without_a_person_has_no_owner() {
    assert_eq!(recorded("status-tagged.json").owner(), None);
    assert_eq!(recorded("status-stopped.json").owner(), None);
    assert_eq!(recorded("status-needslogin.json").owner(), None);
    // Its profile is missing, unusable, somebody else's, or the stand-in.
    for users in [
        json!(null),
        json!({}),
        json!({"2": {"ID": 2, "LoginName": "bob@example.com"}}),
        json!({"1": null}),
        json!({"1": {"ID": 1, "LoginName": ""}}),
        json!({"1": {"ID": 2, "LoginName": "alice@example.com"}}),
        json!({"1": {"ID": 1, "LoginName": "tagged-devices"}}),
        json!({"x": {"ID": 1, "LoginName": "alice@example.com"}}),
    ] {
        let status = with("", "User", users.clone()).unwrap();
        assert_eq!(status.owner(), None, "{users}");
    }
}

#[test]
fn a_recorded_running_node_is_read() {
    let status = recorded("status-running.json");
    assert!(status.is_running());
    assert!(status.version.at_least(1, 102, 3));
    assert_eq!(status.tun, Some(true));
    assert_eq!(status.tailscale_ips.len(), 2);
    assert!(status.owns("::ffff:100.64.0.1".parse().unwrap()));
    assert!(!status.owns("100.64.0.2".parse().unwrap()));
    assert_eq!(status.owner().unwrap().login.as_str(), "alice@example.com");
    assert_eq!(status.magic_dns_suffix.as_deref(), Some("tailnet-example.test"));
    assert_eq!(status.current_tailnet.as_ref().unwrap().name, "ctl.lab");
    assert_eq!(status.cert_domains, ["gw.tailnet-example.test"]);
    let node = &status.self_node;
    assert_eq!(node.id.as_ref().unwrap().as_str(), "1");
    assert_eq!(node.dns_name.as_ref().unwrap().as_str(), "gw.tailnet-example.test");
    assert_eq!(node.host_name, "gw");
    assert!(node.online && !node.expired);
    assert!(node.has_capability("https") && node.has_capability("funnel"));
    assert!(!node.has_capability("HTTPS"));
    assert!(!status.has_auth_url);
}

#[test]
fn recorded_states_are_told_apart() {
    let userspace = recorded("status-userspace.json");
    assert_eq!(userspace.tun, Some(false));
    let stopped = recorded("status-stopped.json");
    assert_eq!(stopped.backend_state, BackendState::Stopped);
    assert!(!stopped.tailscale_ips.is_empty());
    let out = recorded("status-needslogin.json");
    assert_eq!(out.backend_state, BackendState::NeedsLogin);
    assert_eq!(out.self_node.id, None);
    assert_eq!(out.self_node.dns_name, None);
    assert_eq!(out.current_tailnet, None);
    assert_eq!(out.magic_dns_suffix, None);
    assert_eq!(recorded("status-tagged.json").self_node.tags, ["tag:ci"]);
}

#[test]
fn every_recorded_answer_is_read() {
    let mut read = 0;
    for entry in std::fs::read_dir(recordings()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.starts_with("status-") && name.ends_with(".json") {
            recorded(&name);
            read += 1;
        }
    }
    assert!(read >= 6, "{read}");
}

#[test]
fn every_state_but_running_is_an_error() {
    for (name, code) in [
        ("NoState", "tailscale_not_ready"),
        ("InUseOtherUser", "tailscale_not_ready"),
        ("NeedsLogin", "tailscale_logged_out"),
        ("NeedsMachineAuth", "tailscale_not_ready"),
        ("Stopped", "tailscale_stopped"),
        ("Starting", "tailscale_not_ready"),
        ("running", "tailscale_not_ready"),
        ("", "tailscale_not_ready"),
    ] {
        let status = with("", "BackendState", json!(name)).unwrap();
        assert!(!status.is_running(), "{name}");
        assert_eq!(status.backend_state.as_error().unwrap().code(), code, "{name}");
        assert_eq!(status.backend_state.as_str(), name);
    }
    assert!(recorded("status-running.json").backend_state.as_error().is_none());
}

#[test]
fn the_login_link_is_noticed_and_dropped() {
    let status = with("", "AuthURL", json!("https://login.example.com/a/secret")).unwrap();
    assert!(status.has_auth_url);
    assert!(!format!("{status:?}").contains("secret"));
}

#[test]
fn arrays_and_objects_may_be_null_and_capabilities_old() {
    for field in ["TailscaleIPs", "Health", "CertDomains", "User", "CurrentTailnet", "TUN"] {
        with("", field, Value::Null).unwrap();
    }
    let status = with("/Self", "CapMap", Value::Null).unwrap();
    assert!(status.self_node.has_capability("https"), "from the old list");
}

#[test]
fn numbers_above_2_pow_53_stay_exact() {
    let id = 9_007_199_254_740_993_i64;
    let mut value: Value = serde_json::from_str(&recording("status-running.json")).unwrap();
    value["Self"]["UserID"] = json!(id);
    value["User"] = json!({id.to_string(): {"ID": id, "LoginName": "alice@example.com"}});
    let status = parse_status(value.to_string().as_bytes()).unwrap();
    assert_eq!(status.owner().unwrap().id, id);
}

#[test]
fn funnel_ports_are_read_from_their_attribute_and_nothing_else() {
    let ports = |attributes: &str| {
        let json = format!(
            r#"{{"Version": "1.102.3", "BackendState": "Running", "Self": {{"ID": "n", "HostName": "gw", "CapMap": {{{attributes}}}}}}}"#
        );
        parse_status(json.as_bytes()).unwrap().self_node.funnel_ports()
    };
    let cap = |query: &str| format!(r#""https://tailscale.com/cap/funnel-ports{query}": null"#);
    for nothing in [
        String::new(),
        r#""funnel": null"#.to_owned(),
        cap(""),
        cap("?ports="),
        cap("?ports=http,-1,70000,9-8,1-2-3"),
        cap("?Ports=443"),
        cap("-more?ports=443"),
    ] {
        assert_eq!(ports(&nothing), [], "{nothing}");
    }
    assert_eq!(ports(&cap("?ports=443,8443,10000")), [443..=443, 8443..=8443, 10000..=10000]);
    assert_eq!(ports(&cap("?ports=443,x,8000-8010")), [443..=443, 8000..=8010]);
}
