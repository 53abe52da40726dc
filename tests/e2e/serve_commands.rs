//! `openclaw tailscale`: the same plan and journal as the gateway's, from outside.

use std::process::Command;

use serde_json::Value;

use super::support::*;

struct Said {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Said {
    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}", self.stdout))
    }
}

/// Runs `openclaw tailscale …` in the home of a gateway.
fn ask(world: &Published, of: &Gateway, args: &[&str]) -> Said {
    let home = of.state_dir().parent().unwrap().to_owned();
    let mut command = Command::new(env!("CARGO_BIN_EXE_openclaw"));
    command.arg("tailscale").args(args).env_clear().env("HOME", &home).env("OPENCLAW_HOME", &home);
    let path = format!("{}:/usr/bin:/bin", world.tailnet.dir().display());
    let done = command.env("PATH", path).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Said { code: done.status.code(), stdout: text(done.stdout), stderr: text(done.stderr) }
}

#[test]
fn apply_and_undo_work_without_a_gateway_and_touch_nothing_else() {
    for client in BOTH {
        let world = Published::by(client);
        world.neighbours();
        let before = world.text();
        let mut gateway = world.setup("serve").start();
        gateway.wait_for_log("serve enabled: ");
        let ask = |args: &[&str]| ask(&world, &gateway, args);
        // While it runs, undoing would be undone.
        let refused = ask(&["serve", "undo"]);
        assert_eq!(refused.code, Some(1));
        assert!(
            refused.stderr.contains("openclaw config set gateway.tailscale.mode off"),
            "{}",
            refused.stderr
        );
        assert_eq!(ask(&["serve", "undo", "--json"]).json()["error"]["code"], "serve_gateway_runs");
        assert_eq!(ask(&["serve", "plan", "--json"]).json()["routes"][0]["standing"], "ours");
        assert_eq!(ask(&["serve", "apply"]).code, Some(0));
        gateway.stop();
        let ask = |args: &[&str]| self::ask(&world, &gateway, args);
        assert_eq!(ask(&["serve", "undo"]).code, Some(0));
        assert_eq!(world.text(), before, "{client}");
        let plan = ask(&["serve", "plan"]);
        assert_eq!((plan.code, world.text()), (Some(0), before.clone()), "a plan changes nothing");
        assert!(plan.stdout.contains("publish port 80 at /"), "{}", plan.stdout);
        let applied = ask(&["serve", "apply"]);
        assert_eq!(applied.code, Some(0), "{}", applied.stderr);
        assert!(applied.stdout.contains(&format!("http://{HOST}/")), "{}", applied.stdout);
        let status = ask(&["serve", "status", "--json"]).json();
        let published = status["published"].as_array().unwrap();
        let ours: Vec<_> = published.iter().filter(|mount| mount["ours"] == true).collect();
        assert_eq!((ours.len(), published.len()), (1, 4), "{status:#}");
        assert_eq!(ask(&["serve", "undo", "--json"]).json()["ok"], true);
        assert_eq!(world.text(), before, "{client}");
    }
}

#[test]
fn what_is_in_the_way_is_named_with_exit_code_1() {
    let world = Published::by("cli");
    let gateway = world.setup("off").start();
    world.they(&["serve", "--bg", "--http=80", "http://127.0.0.1:9000"]);
    let before = world.text();
    gateway.write_config(&world.config("serve"));
    for command in ["plan", "apply"] {
        let said = ask(&world, &gateway, &["serve", command]);
        assert_eq!(said.code, Some(1));
        let text = format!("{}{}", said.stdout, said.stderr);
        assert!(text.contains("leads to http://127.0.0.1:9000"), "{text}");
    }
    assert_eq!(world.text(), before);
}

#[test]
fn status_and_whois_say_what_tailscale_says() {
    let world = Published::by("cli");
    let gateway = world.setup("off").start();
    let ask = |args: &[&str]| ask(&world, &gateway, args);
    let status = ask(&["status", "--json"]).json();
    assert_eq!((&status["ok"], &status["name"]), (&Value::Bool(true), &Value::String(HOST.into())));
    assert!(ask(&["status"]).stdout.contains(HOST));
    assert_eq!(ask(&["whois", BOB, "--json"]).json()["user"]["login"], "bob@example.com");
    let tagged = ask(&["whois", CI, "--json"]).json();
    assert_eq!(
        (&tagged["user"], &tagged["node"]["tags"][0]),
        (&Value::Null, &Value::String("tag:ci".into()))
    );
    let nobody = ask(&["whois", NOBODYS]);
    assert_eq!((nobody.code, nobody.stdout.as_str()), (Some(1), ""));
    assert_eq!(ask(&["whois", "alice"]).code, Some(2));
    world.tailnet.set(&["backend=Stopped"]);
    let stopped = ask(&["status"]);
    assert_eq!(stopped.code, Some(1));
    assert!(stopped.stderr.contains("tailscale up"), "{}", stopped.stderr);
    let serve = ask(&["serve", "status", "--json"]);
    assert_eq!((serve.code, &serve.json()["error"]["code"]), (Some(1), &"tailscale_not_running".into()));
}

#[test]
fn the_words_of_older_guides_get_those_of_today() {
    let world = Published::by("cli");
    let gateway = world.setup("off").start();
    let before = (world.text(), world.tailnet.calls("serve").len());
    let said = ask(&world, &gateway, &["serve", "https:443", "http://127.0.0.1:18789"]);
    assert_eq!((said.code, said.stdout.as_str()), (Some(2), ""));
    for words in [
        "before 1.52",
        "openclaw config set gateway.tailscale.mode serve",
        "tailscale serve --bg --https=443 http://127.0.0.1:18789",
    ] {
        assert!(said.stderr.contains(words), "{words}: {}", said.stderr);
    }
    let json = ask(&world, &gateway, &["serve", "https", "/", "http://127.0.0.1:18789", "--json"]).json();
    assert_eq!(json["error"]["code"], "serve_old_words", "{json:#}");
    assert_eq!(json["error"]["fix"], "openclaw config set gateway.tailscale.mode serve");
    // What is merely mistyped still gets its suggestion.
    let typo = ask(&world, &gateway, &["serve", "stauts"]);
    assert_eq!(typo.code, Some(2));
    assert!(typo.stderr.contains("'status'"), "{}", typo.stderr);
    assert_eq!((world.text(), world.tailnet.calls("serve").len()), before, "nothing was run");
}

#[test]
fn threat_069_another_profile_with_the_same_node_id_forgets_nothing() {
    for client in BOTH {
        let world = Published::by(client);
        world.neighbours();
        let before = world.text();
        let mut gateway = world.setup("serve").start();
        gateway.wait_for_log("serve enabled: ");
        gateway.stop();
        let published = world.json();
        let undo = || ask(&world, &gateway, &["serve", "undo", "--json"]).json();
        // A profile of another control server, which counts its nodes, too. It has a Serve
        // configuration of its own.
        world.tailnet.set(&["tailnet.name=other.example", "serve=null"]);
        assert_eq!(undo()["message"], "Nothing of ours is published.", "{client}");
        // Back in the first one, what stayed there is still known to be ours.
        world.tailnet.set(&["tailnet.name=example.com", &format!("serve={published}")]);
        assert_eq!(undo()["message"], "Taken away.", "{client}");
        assert_eq!(world.text(), before, "{client}");
    }
}
