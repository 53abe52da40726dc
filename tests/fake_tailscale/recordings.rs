//! The fake prints what Tailscale 1.102.3 printed.
//!
//! Byte for byte, with these exceptions: session ids of foreground serving are
//! random, and the daemon's socket and pause are given where it is down.

use std::process::Stdio;

use crate::fake::{Fake, recording, repo};
use crate::transcript::{similar, steps};

#[test]
fn whois_json_is_the_recorded_json() {
    let fake = Fake::with("lab");
    for (addr, file) in [
        ("100.64.0.2", "whois-user.json"),
        ("fd7a:115c:a1e0::2", "whois-user.json"),
        ("100.64.0.3", "whois-grant.json"),
        ("100.64.0.4", "whois-tagged.json"),
        ("100.64.0.1", "whois-self.json"),
    ] {
        let ran = fake.run(&["whois", "--json", addr]);
        assert_eq!(ran.out(), recording(file), "{addr}");
        assert_eq!(ran.code, Some(0));
    }
    assert_eq!(fake.run(&["whoami", "--json"]).out(), recording("whoami.json"));
}

#[test]
fn whois_of_an_expired_peer_is_the_recorded_json() {
    let fake = Fake::with("lab");
    fake.set(&[
        "peer.bobpc.expired=true",
        "peer.bobpc.keyExpiry=2026-11-23T11:42:52.617838042Z",
        r#"peer.bobpc.caps={"openclaw.ai/cap/gateway": [{role: "admin", routes: ["chat"]}]}"#,
    ]);
    let ran = fake.run(&["whois", "--json", "100.64.0.3"]);
    assert_eq!(ran.out(), recording("whois-expired.json"));
}

#[test]
fn status_json_is_the_recorded_json() {
    let fake = Fake::with("lab");
    let ran = fake.run(&["status", "--json"]);
    assert_eq!(ran.out(), recording("status-running-peers.json"));
    let ran = fake.run(&["status", "--json", "--peers=false"]);
    assert_eq!(ran.out(), recording("status-running.json"));
}

// The other states were recorded on other nodes, so the node is replaced first.
#[test]
fn status_json_in_other_states_is_the_recorded_json() {
    let fake = Fake::with("lab");
    fake.set(&[
        "self.name=phone",
        "self.id=2",
        r#"self.ips=["100.64.0.2", "fd7a:115c:a1e0::2"]"#,
        "self.user=null",
        r#"self.tags=["tag:ci"]"#,
        r#"self.endpoints=["10.77.0.3:41641"]"#,
        "self.key=nodekey:28f9e3fe3172a21862423fa9ee1bb1efdc3a6e70506f74d06687dea838a4eb50",
        "self.created=2026-11-23T11:42:01.979793208Z",
        "backend=Stopped",
    ]);
    let status = ["status", "--json", "--peers=false"];
    assert_eq!(fake.run(&status).out(), recording("status-stopped.json"));

    fake.set(&["backend=NeedsLogin", "self.name=vm"]);
    assert_eq!(fake.run(&status).out(), recording("status-needslogin.json"));

    fake.set(&[
        "backend=Running",
        "self.name=ci",
        "self.id=4",
        r#"self.ips=["100.64.0.4", "fd7a:115c:a1e0::4"]"#,
        r#"self.endpoints=["10.77.0.5:41641"]"#,
        "self.peerApi=[37067, 40203]",
        "self.key=nodekey:ba43946b538b772c142566a706886e41675849c0f0fe61eaf9e081f6a551f552",
        "self.created=2026-11-23T11:42:07.077691281Z",
    ]);
    assert_eq!(fake.run(&status).out(), recording("status-tagged.json"));

    fake.set(&[
        "tun=false",
        "self.name=usgw",
        "self.id=5",
        "self.tags=[]",
        "self.user=alice",
        r#"self.ips=["100.64.0.5", "fd7a:115c:a1e0::5"]"#,
        r#"self.endpoints=["10.77.0.6:41641"]"#,
        "self.peerApi=[41053, 41053]",
        "self.key=nodekey:2382e32d62a3327b7f7e659ab617bfd42dc3869f70fe1e308a1611bf149bcb1d",
        "self.created=2026-11-23T11:42:09.981414963Z",
    ]);
    assert_eq!(fake.run(&status).out(), recording("status-userspace.json"));
}

#[test]
fn short_transcripts_replay() {
    let fake = Fake::with("lab");
    for file in ["whois.txt", "whois-errors.txt", "version.txt", "ip-wait.txt", "status.txt"] {
        for step in steps(file) {
            step.replay(&fake);
        }
    }
}

#[test]
fn the_transcript_of_revocations_replays() {
    let fake = Fake::with("lab");
    for step in steps("revocation.txt") {
        match step.heading.as_deref() {
            Some(h) if h.starts_with("policy") => {
                fake.set(&[
                    r#"peer.bobpc.caps={"openclaw.ai/cap/gateway": [{role: "admin", routes: ["chat"]}]}"#,
                ]);
            }
            Some("bob's key expires") => fake.set(&["peer.bobpc.expired=true"]),
            Some("phone becomes tagged") => fake.set(&[
                "peer.phone.user=null",
                r#"peer.phone.tags=["tag:ci"]"#,
                r#"peer.phone.caps={"https://tailscale.com/cap/ingress": []}"#,
            ]),
            Some("usgw is deleted") => fake.set(&["peer.usgw=null"]),
            Some(h) if h.starts_with("the gateway's own") => {
                fake.set(&["backend=Stopped"]);
                fake.set(&["backend=Running"]);
            }
            other => panic!("unknown heading {other:?}"),
        }
        step.replay(&fake);
    }
}

#[test]
fn the_transcript_of_states_replays() {
    let fake = Fake::with("lab");
    // The recording was made on the phone, its whois asks about the gateway.
    fake.set(&[
        r#"self.ips=["100.64.0.2", "fd7a:115c:a1e0::2"]"#,
        r#"peer.phone.ips=["100.64.0.1", "fd7a:115c:a1e0::1"]"#,
        "peer.phone.name=gw",
        "peer.phone.id=1",
        "self.id=2",
        "self.name=phone",
        "downPause=0s",
        "downPid=19078",
    ]);
    for step in steps("states.txt") {
        match step.heading.as_deref() {
            Some("Stopped") => fake.set(&["backend=Stopped"]),
            Some("NeedsLogin") => fake.set(&["backend=NeedsLogin"]),
            Some("tailscaled not running") => fake.set(&["daemon=down"]),
            None => {}
            other => panic!("unknown heading {other:?}"),
        }
        step.replay(&fake);
    }
}

// serve.txt was recorded with the commands of funnel.txt run in its middle:
// after them the handlers on 443 are gone.
#[test]
fn the_transcripts_of_serve_and_funnel_replay() {
    let fake = Fake::with("lab");
    let mut in_front = None;
    let mut after_interrupt = false;
    for step in steps("serve.txt") {
        match step.heading.as_deref() {
            Some(h) if h.starts_with("while a foreground") => {
                let mut child = fake.command(&["serve", "--https=9443", "9000"]);
                in_front = Some(child.stdout(Stdio::piped()).spawn().unwrap());
                fake.until("it serves", || {
                    let ran = fake.run(&["serve", "status", "--json"]);
                    ran.out().contains("\"Foreground\"")
                });
                let ran = fake.run(&["serve", "status", "--json"]);
                let json = ran.json();
                let session = json["Foreground"].as_object().unwrap().keys().next().unwrap();
                assert_eq!(session.len(), 16);
                let recorded = recording("serve.txt");
                let shown = ran.out().replace(session, "217445f34d8771a8");
                let marked: String = shown.lines().map(|l| format!("out| {l}\n")).collect();
                assert!(recorded.contains(&marked), "foreground status differs:\n{shown}");
                continue;
            }
            Some("after its SIGINT") => {
                let mut child = in_front.take().expect("a foreground process");
                interrupt(child.id());
                assert_eq!(child.wait().unwrap().code(), Some(0));
                after_interrupt = true;
            }
            None => {}
            other => panic!("unknown heading {other:?}"),
        }
        if after_interrupt && step.is("serve --https=443 off") {
            after_interrupt = false;
            for step in steps("funnel.txt") {
                step.replay(&fake);
            }
        }
        step.replay(&fake);
    }
}

#[test]
fn a_foreground_command_ends_with_its_exit_line() {
    let fake = Fake::with("lab");
    let child = fake.command(&["serve", "--https=9443", "9000"]).spawn().unwrap();
    fake.until("it serves", || fake.run(&["serve", "status", "--json"]).out().contains("\"Foreground\""));
    // A reset by somebody else ends it as well.
    assert_eq!(fake.run(&["serve", "reset"]).code, Some(0));
    let output = child.wait_with_output().unwrap();
    let expected = "Available within your tailnet:\n\n\
        https://gw.tailnet-example.test:9443/\n|-- proxy http://127.0.0.1:9000\n\n\
        Press Ctrl+C to exit.\n";
    similar(&String::from_utf8_lossy(&output.stdout), expected, "stdout");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_killed_foreground_command_leaves_nothing() {
    let fake = Fake::with("lab");
    let mut child = fake.command(&["serve", "--https=9443", "9000"]).spawn().unwrap();
    fake.until("it serves", || fake.run(&["serve", "status", "--json"]).out().contains("\"Foreground\""));
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(fake.run(&["serve", "status", "--json"]).out(), "{}\n");
}

fn interrupt(pid: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
}

#[test]
fn every_scenario_of_the_folder_plays() {
    let mut seen = 0;
    for entry in std::fs::read_dir(repo().join("fixtures/scenarios")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "json5") {
            let fake = Fake::playing(&std::fs::read_to_string(&path).unwrap());
            let ran = fake.run(&["version"]);
            assert_eq!(ran.code, Some(0), "{}: {}", path.display(), ran.stderr);
            seen += 1;
        }
    }
    assert!(seen > 10, "the folder of scenarios was not found");
}
