use serde_json::{Value, json};

use super::*;
use crate::test_support::{recording, recordings};

/// The recorded user, changed by `change`.
fn changed(change: impl FnOnce(&mut Value)) -> Result<Whois, Error> {
    let mut value: Value = serde_json::from_str(&recording("whois-user.json")).unwrap();
    change(&mut value);
    parse_whois(value.to_string().as_bytes())
}

/// The same with one field set (by JSON pointer of its parent); `null` as well.
fn with(parent: &str, field: &str, to: Value) -> Result<Whois, Error> {
    changed(|value| value.pointer_mut(parent).unwrap()[field] = to)
}

fn without(parent: &str, field: &str) -> Result<Whois, Error> {
    changed(|value| {
        value.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(field).unwrap();
    })
}

#[track_caller]
fn refused(result: Result<Whois, Error>, at: &str) {
    match result {
        Err(Error::WrongShape { field, .. }) => assert_eq!(field, at),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_matters_may_be_neither_missing_nor_null() {
    for (parent, field, at) in [
        ("", "Node", "Node"),
        ("", "UserProfile", "UserProfile"),
        ("/Node", "ID", "Node.ID"),
        ("/Node", "StableID", "Node.StableID"),
        ("/Node", "Addresses", "Node.Addresses"),
        ("/UserProfile", "ID", "UserProfile.ID"),
        ("/UserProfile", "LoginName", "UserProfile.LoginName"),
    ] {
        refused(without(parent, field), at);
        refused(with(parent, field, Value::Null), at);
    }
    refused(parse_whois(b"{}"), "Node");
}

#[test]
fn what_matters_may_not_be_empty() {
    refused(with("/Node", "StableID", json!("")), "Node.StableID");
    refused(with("/Node", "Addresses", json!([])), "Node.Addresses");
    refused(with("/UserProfile", "LoginName", json!("")), "UserProfile.LoginName");
}

#[test]
fn wrong_types_are_refused_and_named() {
    refused(with("/Node", "ID", json!("2")), "Node.ID");
    refused(with("/Node", "ID", json!(2.5)), "Node.ID");
    refused(with("/Node", "Expired", json!("true")), "Node.Expired");
    refused(with("/Node", "Tags", json!("tag:ci")), "Node.Tags");
    refused(with("/Node", "Tags", json!([null])), "Node.Tags[0]");
    refused(with("/Node", "Addresses", json!(["100.64.0.2/33"])), "Node.Addresses[0]");
    refused(with("/Node", "Addresses", json!(["phone"])), "Node.Addresses[0]");
    refused(with("/Node/Hostinfo", "ShareeNode", json!(1)), "Node.Hostinfo.ShareeNode");
    refused(with("/UserProfile", "LoginName", json!(["alice@example.com"])), "UserProfile.LoginName");
    refused(with("", "CapMap", json!([])), "CapMap");
    refused(with("", "CapMap", json!({"x": "y"})), "CapMap.x");
    refused(with("", "Node", json!([])), "Node");
}

#[test]
fn names_that_could_not_be_are_refused() {
    refused(with("/Node", "Name", json!("phone tailnet.test.")), "Node.Name");
    refused(with("/Node", "StableID", json!("a\nb")), "Node.StableID");
    refused(with("/UserProfile", "LoginName", json!("alice@example.com\u{0}")), "UserProfile.LoginName");
    refused(with("/UserProfile", "LoginName", json!("a\r\nX: y")), "UserProfile.LoginName");
    refused(with("/UserProfile", "LoginName", json!("a".repeat(255))), "UserProfile.LoginName");
}

#[test]
fn a_network_among_the_own_addresses_is_refused() {
    refused(with("/Node", "Addresses", json!(["100.64.0.2/32", "0.0.0.0/0"])), "Node.Addresses");
    refused(with("/Node", "Addresses", json!(["fd7a:115c:a1e0::/64"])), "Node.Addresses");
}

#[test]
fn the_login_of_tagged_devices_without_tags_is_nobody() {
    refused(with("/UserProfile", "LoginName", json!("tagged-devices")), "UserProfile.LoginName");
    refused(with("/UserProfile", "LoginName", json!("Tagged-Devices")), "UserProfile.LoginName");
}

#[test]
fn a_recorded_user_is_read() {
    let whois = parse_whois(recording("whois-user.json").as_bytes()).unwrap();
    let node = &whois.node;
    assert_eq!(node.id, 2);
    assert_eq!(node.stable_id.as_str(), "2");
    assert_eq!(node.name.as_ref().unwrap().as_str(), "phone.tailnet-example.test");
    assert_eq!(node.computed_name, "phone");
    assert!(node.owns("100.64.0.2".parse().unwrap()));
    assert!(node.owns("::ffff:100.64.0.2".parse().unwrap()));
    assert!(node.owns("fd7a:115c:a1e0::2".parse().unwrap()));
    assert!(!node.owns("100.64.0.3".parse().unwrap()));
    assert!(!node.is_router());
    assert!(!(node.expired || node.jailed || node.unsigned || node.wireguard_only || node.sharee_node));
    assert_eq!(node.sharer, None);
    assert_eq!(node.key_expiry, None);
    assert_eq!(node.online, Some(true));
    assert_eq!(node.os.as_deref(), Some("linux"));
    assert_eq!(whois.owner().unwrap().login.as_str(), "alice@example.com");
    assert_eq!(whois.user.display_name, "Alice Example");
    assert_eq!(whois.user.profile_pic_url, None);
    assert!(whois.cap_map.is_empty());
}

#[test]
fn a_recorded_tagged_node_has_no_owner() {
    let whois = parse_whois(recording("whois-tagged.json").as_bytes()).unwrap();
    assert_eq!(whois.node.tags, ["tag:ci"]);
    assert_eq!(whois.owner(), None);
    assert_eq!(whois.cap_map["https://tailscale.com/cap/ingress"], Vec::<Value>::new());
}

#[test]
fn a_recorded_grant_is_read() {
    let whois = parse_whois(recording("whois-grant.json").as_bytes()).unwrap();
    let granted = &whois.cap_map["openclaw.ai/cap/gateway"];
    assert_eq!(granted, &[json!({"role": "user", "routes": ["chat"]})]);
    assert_eq!(whois.user.display_name, "Bøb Ķ");
}

#[test]
fn a_recorded_expired_node_says_so() {
    let whois = parse_whois(recording("whois-expired.json").as_bytes()).unwrap();
    assert!(whois.node.expired);
    assert_eq!(whois.node.key_expiry.as_deref(), Some("2026-11-23T11:42:52.617838042Z"));
}

#[test]
fn every_recorded_answer_is_read() {
    let mut read = 0;
    for entry in std::fs::read_dir(recordings()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if (name.starts_with("whois-") || name == "whoami.json") && name.ends_with(".json") {
            parse_whois(recording(&name).as_bytes()).unwrap_or_else(|e| panic!("{name}: {e}"));
            read += 1;
        }
    }
    assert!(read >= 6, "{read}");
}

#[test]
fn numbers_above_2_pow_53_stay_exact() {
    // The one after 2^53, which a double cannot hold, and the largest.
    for id in [9_007_199_254_740_993_i64, i64::MAX] {
        let whois = changed(|value| {
            value["Node"]["ID"] = json!(id);
            value["UserProfile"]["ID"] = json!(id);
            value["CapMap"] = json!({"x": [{"n": id}, id]});
        })
        .unwrap();
        assert_eq!((whois.node.id, whois.user.id), (id, id));
        assert_eq!(whois.cap_map["x"], [json!({"n": id}), json!(id)]);
    }
    refused(with("/Node", "ID", json!(9_223_372_036_854_775_808_u64)), "Node.ID");
}

#[test]
fn null_grants_are_empty_ones() {
    let whois = with("", "CapMap", json!({"a": null, "b": []})).unwrap();
    assert_eq!(whois.cap_map.len(), 2);
    assert!(whois.cap_map.values().all(Vec::is_empty));
    assert!(without("", "CapMap").unwrap().cap_map.is_empty());
}

#[test]
fn omitted_and_null_flags_are_off_and_legacy_forms_are_read() {
    for field in ["Expired", "IsJailed", "Tags", "Hostinfo", "AllowedIPs", "Sharer", "Name"] {
        with("/Node", field, Value::Null).unwrap();
    }
    let whois = with("/Node", "KeyExpiry", json!("0001-01-01T00:00:00Z")).unwrap();
    assert_eq!(whois.node.key_expiry, None);
    let whois = with("/Node", "Name", json!("")).unwrap();
    assert_eq!(whois.node.name, None);
    let whois = changed(|value| {
        value["UserProfile"]["ProfilePicURL"] = json!("");
        value["UserProfile"]["Roles"] = json!([]);
    });
    assert_eq!(whois.unwrap().user.profile_pic_url, None);
}

#[test]
fn flags_of_special_nodes_are_read() {
    let whois = changed(|value| {
        value["Node"]["Hostinfo"]["ShareeNode"] = json!(true);
        value["Node"]["Sharer"] = json!(77);
        value["Node"]["IsJailed"] = json!(true);
        value["Node"]["UnsignedPeerAPIOnly"] = json!(true);
        value["Node"]["IsWireGuardOnly"] = json!(true);
        value["UserProfile"]["ProfilePicURL"] = json!("https://example.com/a.png");
    });
    let Whois { node, user, .. } = whois.unwrap();
    assert!(node.sharee_node && node.jailed && node.unsigned && node.wireguard_only);
    assert_eq!(node.sharer, Some(77));
    assert_eq!(user.profile_pic_url.as_deref(), Some("https://example.com/a.png"));
}

#[test]
fn routes_beyond_its_own_addresses_make_a_router() {
    for route in ["10.0.0.0/8", "0.0.0.0/0", "::/0", "192.0.2.7/32"] {
        let own = json!(["100.64.0.2/32", "fd7a:115c:a1e0::2/128", route]);
        assert!(with("/Node", "AllowedIPs", own).unwrap().node.is_router(), "{route}");
    }
}

#[test]
fn a_tagged_node_needs_no_login() {
    let whois = changed(|value| {
        value["Node"]["Tags"] = json!(["tag:ci"]);
        value["UserProfile"]["LoginName"] = json!("");
    });
    let whois = whois.unwrap();
    assert!(whois.user.login.is_tagged_devices());
    assert_eq!(whois.owner(), None);
}

#[test]
fn the_local_api_has_the_same_shape() {
    let transcript = recording("localapi.txt");
    let start = transcript.find("{\n\t\"Node\"").unwrap();
    let (_, rest) = transcript.split_at(start);
    let end = rest.find("\n}").unwrap() + 2;
    let (document, _) = rest.split_at(end);
    let whois = parse_whois(document.as_bytes()).unwrap();
    assert_eq!(whois, parse_whois(recording("whois-user.json").as_bytes()).unwrap());
}
