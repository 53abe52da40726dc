//! Flags, the log of calls, and what is not foreseen.

use crate::fake::Fake;

#[test]
fn flags_are_read_as_go_reads_them() {
    let fake = Fake::with("lab");
    let right = fake.run(&["whois", "--json", "100.64.0.2"]).out();
    for args in [
        &["whois", "-json", "100.64.0.2"][..],
        &["whois", "--json=true", "100.64.0.2"],
        &["whois", "--json", "--proto", "tcp", "100.64.0.2"],
        &["whois", "--json", "--proto=tcp", "--", "100.64.0.2"],
        &["--socket=/tmp/x", "whois", "--json", "100.64.0.2"],
        &["--socket", "/tmp/x", "whois", "--json", "100.64.0.2"],
    ] {
        let ran = fake.run(args);
        assert_eq!((ran.code, ran.out()), (Some(0), right.clone()), "{args:?}");
    }
    for (args, code, text) in [
        (&["whois", "--json", "true", "100.64.0.2"][..], 1, "too many arguments"),
        (&["whois", "--json", "--json", "100.64.0.2"], 2, "invalid boolean flag json"),
        (&["whois", "--json=perhaps", "x"], 2, "invalid boolean value \"perhaps\" for -json"),
        (&["whois", "--proto"], 2, "flag needs an argument: -proto"),
        (&["whois", "--help"], 0, "USAGE"),
        (&["serve"], 0, "USAGE"),
        (&["serve", "--https=x", "1"], 2, "invalid value \"x\" for flag -https"),
        (&["funnel", "--http=80", "1"], 2, "flag provided but not defined: -http"),
        (&["--bogus", "status"], 2, "flag provided but not defined: -bogus"),
        (&[], 0, "USAGE"),
    ] {
        let ran = fake.run(args);
        assert_eq!((ran.code, ran.out().as_str()), (Some(code), ""), "{args:?}");
        assert!(ran.stderr.contains(text), "{args:?}: {}", ran.stderr);
    }
}

#[test]
fn calls_are_recorded_with_what_they_were_given() {
    let fake = Fake::with("lab");
    let mut command = fake.command(&["whois", "100.64.0.99"]);
    command.env("SECRET", "x");
    assert_eq!(command.output().unwrap().status.code(), Some(1));
    let calls = fake.calls();
    assert_eq!(calls.len(), 2);
    let (started, ended) = (&calls[0], &calls[1]);
    assert_eq!(started["argv"][1], "whois");
    assert_eq!(started["command"], "whois");
    assert_eq!(started["env"], serde_json::json!(["SECRET"]));
    assert_eq!((&started["stdin"], &started["stdout"]), (&"null".into(), &"pipe".into()));
    assert_eq!((&ended["exit"], &ended["id"]), (&1.into(), &started["id"]));
    assert!(ended["at"].as_i64() > started["at"].as_i64());
    // Names of variables only, never what they hold.
    assert!(!fake.tool("calls", &[]).contains("\"x\""));
    assert_eq!(fake.tool("calls", &["--command", "status"]), "");
    assert_eq!(fake.tool("calls", &["--command", "whois"]).lines().count(), 2);
}

#[test]
fn one_call_too_many_fails_loudly() {
    let fake = Fake::with("lab");
    fake.set(&[r#"maxCalls.whois={each: 2, "100.64.0.2": 1}"#]);
    assert_eq!(fake.run(&["whois", "100.64.0.2"]).code, Some(0));
    let ran = fake.run(&["whois", "100.64.0.2"]);
    assert_eq!(ran.code, Some(99));
    assert!(ran.stderr.contains("the scenario allows 1"), "{}", ran.stderr);
    assert!(fake.calls().iter().any(|c| c["event"] == "unexpected"));
    assert_eq!(fake.run(&["whois", "100.64.0.3"]).code, Some(0));
    assert_eq!(fake.run(&["whois", "100.64.0.3"]).code, Some(0));
    assert_eq!(fake.run(&["whois", "100.64.0.3"]).code, Some(99));
}

#[test]
fn what_the_fake_cannot_play_fails_loudly() {
    let fake = Fake::with("lab");
    for args in [&["up"][..], &["ping", "phone"], &["debug", "netmap"], &["serve", "drain", "svc:x"]] {
        let ran = fake.run(args);
        assert_eq!(ran.code, Some(99), "{args:?}");
        assert!(ran.stderr.contains("does not know how"), "{}", ran.stderr);
    }
    // The real one refuses this itself.
    assert_eq!(fake.run(&["nonsense"]).code, Some(1));
    fake.set(&[r#"expect=["status"]"#]);
    assert_eq!(fake.run(&["whois", "100.64.0.2"]).code, Some(99));
    assert_eq!(fake.run(&["status"]).code, Some(0));
}

#[test]
fn an_unknown_key_is_named() {
    let fake = Fake::playing("{peers: {bob: {ips: ['100.64.0.3'], expird: true}}}");
    let ran = fake.run(&["status"]);
    assert_eq!(ran.code, Some(99));
    assert!(ran.stderr.contains("unknown field `expird`"), "{}", ran.stderr);
    // Nor does a tool call leave such a state behind.
    let fake = Fake::with("lab");
    let ran = fake.try_tool("set", &["peer.phone.expird=true"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("expird"), "{}", ran.stderr);
    let ran = fake.try_tool("set", &["peer.phone.user=nobody"]);
    assert!(ran.stderr.contains("unknown user \"nobody\""), "{}", ran.stderr);
    let ran = fake.try_tool("set", &["fault.whois=explode"]);
    assert!(ran.stderr.contains("unknown kind of fault"), "{}", ran.stderr);
    assert_eq!(fake.run(&["status"]).code, Some(0));
}

#[test]
fn identities_change_between_two_calls() {
    let fake = Fake::with("namespaces");
    let who = |ip: &str| {
        let ran = fake.run(&["whois", "--json", ip]);
        (ran.code == Some(0)).then(|| ran.json())
    };
    let login = |ip: &str| who(ip).unwrap()["UserProfile"]["LoginName"].clone();
    assert_eq!(login("100.64.0.3"), "bob@example.com");
    // A new owner, then a tag, then another machine at the same address.
    fake.set(&["peer.bobpc.user=carol"]);
    assert_eq!(login("100.64.0.3"), "carol@example.com");
    fake.set(&["peer.bobpc.user=null", r#"peer.bobpc.tags=["tag:x"]"#]);
    assert_eq!(login("100.64.0.3"), "tagged-devices");
    fake.set(&["peer.bobpc=null", r#"peer.fresh={ips: ["100.64.0.3"], user: "alice", id: 77}"#]);
    assert_eq!(who("100.64.0.3").unwrap()["Node"]["ID"], 77);
    fake.set(&["peer.fresh=null"]);
    assert_eq!(who("100.64.0.3"), None);
    // Those left keep their numbers.
    assert_eq!(who("100.64.0.10").unwrap()["Node"]["ID"], 10);
    fake.tool("reset", &[]);
    assert_eq!(login("100.64.0.3"), "bob@example.com");
}

#[test]
fn special_nodes_are_marked_as_such() {
    let fake = Fake::with("namespaces");
    let node = |ip: &str| fake.run(&["whois", "--json", ip]).json();
    let eve = node("100.64.0.5");
    assert_eq!(eve["Node"]["Hostinfo"]["ShareeNode"], true);
    assert_eq!(eve["Node"]["Name"], "eve.other-tailnet.test.");
    // Beyond what a double holds.
    assert_eq!(eve["UserProfile"]["ID"], 4_503_599_627_370_497_001_i64);
    assert_eq!(node("100.64.0.6")["Node"]["Expired"], true);
    assert_eq!(node("100.64.0.7")["Node"]["IsJailed"], true);
    assert_eq!(node("100.64.0.8")["Node"]["UnsignedPeerAPIOnly"], true);
    assert_eq!(node("100.64.0.9")["Node"]["AllowedIPs"][1], "192.168.7.0/24");
}

#[test]
fn an_old_client_prints_zero_times_and_roles() {
    let fake = Fake::with("namespaces");
    fake.set(&["version=1.94.1"]);
    let json = fake.run(&["whois", "--json", "100.64.0.2"]).json();
    assert_eq!(json["Node"]["KeyExpiry"], "0001-01-01T00:00:00Z");
    assert_eq!(json["UserProfile"]["Roles"], serde_json::json!([]));
    fake.set(&["version=1.48.2"]);
    assert_eq!(fake.run(&["serve", "status", "--json"]).out(), "null\n");
    let ran = fake.run(&["serve", "https:443", "http://127.0.0.1:18789"]);
    assert_eq!(ran.code, Some(0), "nothing was done, and it does not say so");
    assert!(ran.stderr.starts_with("error: invalid number of arguments"));
}

#[test]
fn a_certificate_is_written_once() {
    let fake = Fake::with("lab");
    let run = || {
        let mut command = fake.command(&["cert", "gw.tailnet-example.test"]);
        let output = command.current_dir(fake.dir()).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let name = "gw.tailnet-example.test";
    let wrote = format!("Wrote public cert to {name}.crt\nWrote private key to {name}.key\n");
    assert_eq!(run(), wrote);
    assert!(run().starts_with("Public cert unchanged at"));
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(fake.dir().join(format!("{name}.key"))).unwrap().permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);
    let ran = fake.run(&["cert", "other.test"]);
    assert!(ran.stderr.contains("invalid domain \"other.test\"; must be one of ["));
    fake.set(&["tailnet.certDomains=[]"]);
    assert!(fake.run(&["cert", name]).stderr.contains("does not support getting TLS certs"));
}

#[test]
fn prefs_are_those_of_the_scenario() {
    let fake = Fake::with("lab");
    fake.set(&["prefs.RunSSH=true", "prefs.OperatorUser=gw"]);
    let json = fake.run(&["debug", "prefs"]).json();
    assert_eq!((&json["RunSSH"], &json["OperatorUser"]), (&true.into(), &"gw".into()));
}
