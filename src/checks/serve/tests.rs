use openclaw_tailscale::parse_serve_config;
use serde_json::{Value, json};

use super::*;

const SOCKET: &str = "unix:/run/openclaw/serve.sock";

fn node() -> NodeFacts {
    NodeFacts { id: "nGw".into(), tailnet: "example.com".into(), name: "gw.example.ts.net".into() }
}

fn route(target: &str, session: bool) -> Route {
    Route { https: true, port: 443, path: "/".into(), target: target.into(), session, funnel: false }
}

fn placed(route: &Route) -> Entry {
    Entry::intended(route, &node()).in_phase(Phase::Placed)
}

struct Case {
    found: Value,
    wanted: Vec<Route>,
    journal: Result<Vec<Entry>, String>,
    runs: bool,
    is_on: bool,
}

impl Default for Case {
    fn default() -> Self {
        let ours = route(SOCKET, false);
        Self {
            found: json!({}),
            journal: Ok(vec![placed(&ours)]),
            wanted: vec![ours],
            runs: true,
            is_on: true,
        }
    }
}

impl Case {
    fn codes(self) -> Vec<(Level, String)> {
        self.findings().into_iter().map(|finding| (finding.level, finding.code)).collect()
    }

    fn findings(self) -> Vec<Finding> {
        let published = Published {
            found: parse_serve_config(self.found.to_string().as_bytes()).unwrap(),
            node: node(),
            own: vec!["100.64.0.1".parse().unwrap()],
            journal: self.journal,
            wanted: self.wanted,
            socket: "/run/user/0/openclaw/serve.sock".into(),
        };
        let entries = published.journal.as_deref().unwrap_or_default();
        let look = Look { published: &published, port: 18789, entries, runs: self.runs, is_on: self.is_on };
        look.findings()
    }
}

fn site(target: &str) -> Value {
    json!({"TCP": {"443": {"HTTPS": true}}, "Web": {"gw.example.ts.net:443": {"Handlers": {"/": {"Proxy": target}}}}})
}

fn with(mut config: Value, key: &str, value: Value) -> Value {
    config[key] = value;
    config
}

#[test]
fn a_managed_route_in_its_place_is_well() {
    assert_eq!(Case { found: site(SOCKET), ..Case::default() }.codes(), [(Level::Ok, "serve".into())]);
    let by_hand = Case { found: site(SOCKET), journal: Ok(Vec::new()), ..Case::default() };
    assert!(by_hand.findings()[0].detail.contains("somebody else published it"));
}

#[test]
fn a_route_that_vanished_is_drift_and_one_that_was_never_there_is_not() {
    assert_eq!(Case::default().codes(), [(Level::Warning, "serve_drift".into())]);
    let first = |runs| Case { journal: Ok(Vec::new()), runs, ..Case::default() }.codes();
    assert_eq!(first(true), [(Level::Warning, "serve_pending".into())]);
    assert_eq!(first(false), [(Level::Info, "serve_not_published".into())]);
    // What lives as long as the gateway is not missed after it.
    let session = route("http://127.0.0.1:40001", true);
    let ended =
        Case { journal: Ok(vec![placed(&session)]), wanted: vec![session], runs: false, ..Case::default() };
    assert_eq!(ended.codes(), [(Level::Info, "serve_not_published".into())]);
}

#[test]
fn a_foreign_route_on_our_mount_is_named_and_its_secrets_are_not() {
    let found = site("http://user:word@127.0.0.1:9000/secret/path?k=v");
    let findings = Case { found, ..Case::default() }.findings();
    assert_eq!((findings[0].level, findings[0].code.as_str()), (Level::Error, "serve_conflict"));
    assert!(findings[0].detail.contains("127.0.0.1:9000"), "{}", findings[0].detail);
    assert!(!findings[0].detail.contains("secret") && !findings[0].detail.contains("word"));
    assert!(findings[0].fix.as_ref().unwrap().contains("gateway.tailscale.serve.port"));
}

#[test]
fn threat_006_a_site_that_somebody_made_public_is_told() {
    let found = with(site(SOCKET), "AllowFunnel", json!({"gw.example.ts.net:443": true}));
    let codes = Case { found, ..Case::default() }.codes();
    assert!(codes.contains(&(Level::Warning, "serve_made_public".into())), "{codes:?}");
    let found = with(site("http://127.0.0.1:18789"), "AllowFunnel", json!({"gw.example.ts.net:443": true}));
    let by_hand =
        Case { found, wanted: Vec::new(), journal: Ok(Vec::new()), is_on: false, ..Case::default() };
    assert_eq!(
        by_hand.codes(),
        [(Level::Info, "serve_by_hand".into()), (Level::Warning, "serve_made_public".into())]
    );
}

#[test]
fn threat_002_a_raw_forward_to_any_door_of_ours_is_told() {
    for (target, is_on, level) in [
        ("127.0.0.1:18789", true, Level::Error),
        ("localhost:18789", false, Level::Warning),
        ("100.64.0.1:18789", false, Level::Warning),
        (SOCKET, true, Level::Error),
        ("unix:/run/user/0/openclaw/serve.sock", true, Level::Error),
    ] {
        let found =
            with(site(SOCKET), "TCP", json!({"443": {"HTTPS": true}, "2222": {"TCPForward": target}}));
        let codes = Case { found, is_on, ..Case::default() }.codes();
        assert!(codes.contains(&(level, "serve_raw_forward".into())), "{target}: {codes:?}");
    }
    let elsewhere =
        with(site(SOCKET), "TCP", json!({"443": {"HTTPS": true}, "22": {"TCPForward": "127.0.0.1:22"}}));
    assert_eq!(Case { found: elsewhere, ..Case::default() }.codes(), [(Level::Ok, "serve".into())]);
}

#[test]
fn what_is_left_of_an_earlier_run_is_told() {
    let off = Case { found: site(SOCKET), wanted: Vec::new(), is_on: false, ..Case::default() };
    assert_eq!(off.codes(), [(Level::Warning, "serve_left_behind".into())]);
}

#[test]
fn nothing_is_said_where_nothing_concerns_us() {
    let others = site("http://127.0.0.1:9000");
    for journal in [Ok(Vec::new()), Err("locked".to_owned())] {
        let case =
            Case { found: others.clone(), wanted: Vec::new(), journal, is_on: false, ..Case::default() };
        assert_eq!(case.codes(), []);
    }
    let unreadable = Case { journal: Err("locked".to_owned()), ..Case::default() };
    assert!(unreadable.codes().contains(&(Level::Warning, "serve_journal_unreadable".into())));
}
