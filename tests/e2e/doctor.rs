//! `openclaw doctor`, asked about a gateway that runs, one that does not, and a
//! configuration that cannot.

use std::io::{BufRead as _, Write as _};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::support::*;

struct Said {
    code: Option<i32>,
    json: Value,
    text: String,
}

impl Said {
    fn levels(&self) -> Vec<(&str, &str)> {
        let findings = self.json["findings"].as_array().unwrap();
        findings.iter().map(|f| (f["level"].as_str().unwrap(), f["code"].as_str().unwrap())).collect()
    }

    #[track_caller]
    fn finding(&self, code: &str) -> &Value {
        let findings = self.json["findings"].as_array().unwrap();
        findings
            .iter()
            .find(|finding| finding["code"] == code)
            .unwrap_or_else(|| panic!("{code}: {:#}", self.json))
    }
}

fn doctor(gateway: &Gateway, args: &[&str]) -> Said {
    let home = gateway.state_dir().parent().unwrap().to_owned();
    let ask = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_openclaw"));
        command
            .arg("doctor")
            .args(args)
            .args(more)
            .env_clear()
            .env("HOME", &home)
            .env("OPENCLAW_HOME", &home);
        command.env("OPENCLAW_GATEWAY_PORT", gateway.port().to_string()).output().unwrap()
    };
    let (json, text) = (ask(&["--json"]), ask(&[]));
    Said {
        code: json.status.code(),
        json: serde_json::from_slice(&json.stdout).unwrap(),
        text: String::from_utf8(text.stdout).unwrap(),
    }
}

fn config(tailnet: &Tailnet, more: &str) -> String {
    let bin = tailnet.bin();
    format!(r#"{{gateway: {{bind: "tailnet", tailscale: {{bin: "{}"}}{more}}}}}"#, bin.display())
}

#[test]
fn all_is_well_with_a_gateway_that_is_ready() {
    let (app, tailnet) = (Upstream::echo(), Tailnet::new());
    let setup = Setup::on(&tailnet).upstream(&app).token(TOKEN).config(config(&tailnet, ""));
    let gateway = setup.start_on_tailnet();
    until("it is ready", || gateway.local().get("/readyz").status == 200);
    let said = doctor(&gateway, &[]);
    assert_eq!(said.levels(), [("ok", "configuration"), ("ok", "tailscale"), ("ok", "gateway")]);
    assert_eq!((said.code, &said.json["ok"]), (Some(0), &Value::Bool(true)));
    assert!(said.text.contains("0 errors, 0 warnings") && !said.text.contains('\u{1b}'), "{}", said.text);
    assert!(!said.text.contains(TOKEN));
}

#[test]
fn what_is_wrong_is_named_with_what_mends_it() {
    let (app, tailnet) = (Upstream::echo(), Tailnet::new());
    let setup = Setup::on(&tailnet).upstream(&app).token(TOKEN).config(config(&tailnet, ""));
    let mut gateway = setup.start_on_tailnet();
    tailnet.set(&["backend=Stopped"]);
    until("it is not ready", || gateway.local().get("/readyz").status == 503);
    let said = doctor(&gateway, &[]);
    assert_eq!(said.code, Some(3), "{:#}", said.json);
    assert_eq!(said.levels().iter().filter(|(_, code)| *code == "tailscale_not_running").count(), 2);
    assert_eq!(said.finding("tailscale_not_running")["fix"], "tailscale up");
    assert!(said.text.contains("to mend it: tailscale up"), "{}", said.text);
    tailnet.set(&["backend=Running"]);

    gateway.stop();
    let said = doctor(&gateway, &[]);
    assert_eq!((said.code, &said.finding("gateway_not_running")["level"]), (Some(0), &"warning".into()));
    assert_eq!(doctor(&gateway, &["--fail-on", "warning"]).code, Some(3));

    gateway.write_config("{gateway: {bind: 'lan', prot: 1}}");
    let said = doctor(&gateway, &[]);
    assert_eq!(said.code, Some(78));
    assert!(said.text.contains("prot"), "{}", said.text);
}

#[test]
fn it_ends_soon_whatever_listens_there() {
    let (app, tailnet) = (Upstream::echo(), Tailnet::new());
    let setup = Setup::on(&tailnet).upstream(&app).token(TOKEN).config(config(&tailnet, ""));
    let mut gateway = setup.start_on_tailnet();
    let port = gateway.loopback();
    gateway.stop();
    // Takes connections and says nothing.
    let _silent = std::net::TcpListener::bind(port).unwrap();
    tailnet.set(&["backend=Running", "fault.status=hang"]);
    let began = Instant::now();
    let said = doctor(&gateway, &[]);
    assert!(began.elapsed() < Duration::from_secs(60), "a hang is bounded");
    assert_eq!(said.finding("gateway_not_answering")["level"], "error");
    assert_eq!(said.finding("whois_unavailable")["level"], "error");
}

#[test]
fn threat_099_the_end_and_the_names_of_a_certificate_are_findings() {
    let (app, tailnet) = (Upstream::echo(), Tailnet::new());
    let name = "gw.tailnet-example.test";
    let dir = TlsDir::with(&Pair::ending(&[name], 60));
    let setup = Setup::on(&tailnet)
        .upstream(&app)
        .token(TOKEN)
        .config(config(&tailnet, &format!(", {}", dir.config())));
    let gateway = setup.start_on_tailnet();
    let said = doctor(&gateway, &[]);
    assert_eq!(
        (said.code, &said.finding("certificate")["level"]),
        (Some(0), &"ok".into()),
        "{:#}",
        said.json
    );

    for (names, days, code, exit) in [
        (&[name][..], 13, "certificate_expires_soon", 0),
        (&[name], -1, "certificate_expired", 3),
        (&["other.example"], 60, "certificate_wrong_name", 0),
    ] {
        let pair = Pair::ending(names, days);
        dir.put(&pair.cert, &pair.key);
        // The gateway has taken it over when it shows it.
        until(code, || !doctor(&gateway, &[]).levels().contains(&("warning", "certificate_not_reloaded")));
        let said = doctor(&gateway, &[]);
        let levels = said.levels();
        assert!(levels.iter().any(|(_, found)| *found == code), "{code}: {:#}", said.json);
        assert_eq!(said.code, Some(exit), "{code}: {:#}", said.json);
    }
    let ready = |code: &str| gateway.log().contains(code);
    until("the log has both", || ready("certificate_expires_soon") && ready("certificate_expired"));

    dir.put("garbage", "garbage");
    let said = doctor(&gateway, &[]);
    assert_eq!(said.finding("certificate_unusable")["level"], "error");
}

#[test]
fn the_words_of_another_users_program_are_not_believed() {
    if !may_switch_user("the_words_of_another_users_program_are_not_believed") {
        return;
    }
    let (app, tailnet) = (Upstream::echo(), Tailnet::new());
    let setup = Setup::on(&tailnet).upstream(&app).token(TOKEN).config(config(&tailnet, ""));
    let mut gateway = setup.start_on_tailnet();
    let port = gateway.loopback();
    gateway.stop();
    let body = r#"{"ready": false, "failing": [{"code": "evil\u001b[2J", "detail": "evil", "fix": "evil | sudo sh"}]}"#;
    let length = body.len();
    let _theirs = answer_as(
        NOBODY,
        port,
        format!("HTTP/1.1 503 Service Unavailable\r\nContent-Length: {length}\r\n\r\n{body}").as_bytes(),
    );
    let said = doctor(&gateway, &[]);
    assert_eq!(said.code, Some(3), "{:#}", said.json);
    assert_eq!(said.finding("gateway_of_another_user")["level"], "error");
    assert!(!said.text.contains("evil") && !said.json.to_string().contains("evil"), "{}", said.text);
}

#[test]
fn what_is_said_cannot_steer_a_terminal() {
    let (app, tailnet) = (Upstream::echo(), Tailnet::new());
    let setup = Setup::on(&tailnet).upstream(&app).token(TOKEN).config(config(&tailnet, ""));
    let mut gateway = setup.start_on_tailnet();
    let port = gateway.loopback();
    gateway.stop();
    let listener = std::net::TcpListener::bind(port).unwrap();
    let body =
        r#"{"ready": false, "failing": [{"code": "odd", "detail": "\u001b[2J\u009b1m", "fix": "x\u202ey"}]}"#;
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = std::io::BufReader::new(&stream).lines();
            while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
            let _ = write!(stream, "HTTP/1.1 503 Service Unavailable\r\n\r\n{body}");
        }
    });
    let said = doctor(&gateway, &[]);
    assert_eq!(said.finding("odd")["detail"], r"\u{1b}[2J\u{9b}1m");
    assert_eq!(said.finding("odd")["fix"], r"x\u{202e}y");
    let steers = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
    assert!(!said.text.contains(steers), "{:?}", said.text);
}

#[test]
fn what_serve_publishes_is_held_against_the_journal_without_the_gateway_too() {
    let world = Published::by("localapi");
    world.neighbours();
    let mut gateway = world.start();
    await_ready(&gateway);
    let level = |said: &Said, code: &str| said.finding(code)["level"].clone();
    let detail = |said: &Said, code: &str| said.finding(code)["detail"].as_str().unwrap().to_owned();
    // In its place, while the gateway runs and afterwards.
    let said = doctor(&gateway, &[]);
    assert_eq!((said.code, level(&said, "serve")), (Some(0), "ok".into()), "{:#}", said.json);
    assert!(detail(&said, "serve").contains(&format!("http://{HOST}/ leads to the gateway")));
    gateway.stop();
    let files = || {
        let state = gateway.state_dir().join("state");
        let mut names: Vec<_> = std::fs::read_dir(state).unwrap().map(|f| f.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = (world.text(), files(), world.tailnet.calls("serve").len());
    let said = doctor(&gateway, &[]);
    assert_eq!(level(&said, "serve"), "ok", "{:#}", said.json);
    assert_eq!((world.text(), files(), world.tailnet.calls("serve").len()), before, "it only looks");
    // Taken away, and then somebody else's.
    world.they(&["serve", "--http=80", "--set-path=/", "off"]);
    assert_eq!(level(&doctor(&gateway, &[]), "serve_drift"), "warning");
    world.they(&["serve", "--bg", "--http=80", "http://127.0.0.1:9000"]);
    let said = doctor(&gateway, &[]);
    assert_eq!((said.code, level(&said, "serve_conflict")), (Some(3), "error".into()));
    assert!(detail(&said, "serve_conflict").contains("127.0.0.1:9000"), "{:#}", said.json);
    // A way around the headers, and one to everybody.
    let port = gateway.port();
    world.they(&["serve", "--bg", "--tcp=2223", &format!("tcp://127.0.0.1:{port}")]);
    let said = doctor(&gateway, &[]);
    assert!(detail(&said, "serve_raw_forward").contains("port 2223"), "{:#}", said.json);
    world.they(&["funnel", "--bg", "--https=443", &format!("http://127.0.0.1:{port}")]);
    let said = doctor(&gateway, &[]);
    assert!(detail(&said, "serve_by_hand").contains(&format!("{HOST}:443/")), "{:#}", said.json);
    assert!(detail(&said, "serve_made_public").contains(&format!("{HOST}:443")), "{:#}", said.json);
    // A configuration that cannot be read is said to be that.
    world.tailnet.set(&["fault.serve-status=garbage"]);
    assert_eq!(level(&doctor(&gateway, &[]), "serve_state_unknown"), "warning");
}

#[test]
fn what_is_left_behind_is_told_when_serve_is_off() {
    let world = Published::by("localapi");
    let mut gateway = world.start();
    await_ready(&gateway);
    gateway.signal(rustix::process::Signal::KILL);
    gateway.wait();
    gateway.write_config(&world.config("off"));
    let said = doctor(&gateway, &[]);
    assert_eq!(said.finding("serve_left_behind")["fix"], "openclaw tailscale serve undo", "{:#}", said.json);
}

#[test]
fn root_believes_a_gateway_of_the_user_whose_files_it_reads() {
    use std::os::unix::fs::PermissionsExt;
    if !may_switch_user("root_believes_a_gateway_of_the_user_whose_files_it_reads") {
        return;
    }
    let (app, tailnet) = (Upstream::echo(), Tailnet::new());
    tailnet.give_to(NOBODY);
    let setup = Setup::on(&tailnet).upstream(&app).token(TOKEN).config(config(&tailnet, "")).uid(NOBODY);
    let gateway = setup.start_on_tailnet();
    until("it is ready", || gateway.local().get("/readyz").status == 200);
    let said = doctor(&gateway, &[]);
    assert!(said.levels().contains(&("ok", "gateway")), "{:#}", said.json);
    assert!(said.levels().contains(&("ok", "configuration")), "{:#}", said.json);
    // Root runs no program that another user chose.
    assert_eq!(said.finding("tailscale_absent")["level"], "error", "{:#}", said.json);
    tailnet.set(&["backend=Stopped"]);
    until("it is not ready", || gateway.local().get("/readyz").status == 503);
    assert_eq!(doctor(&gateway, &[]).finding("tailscale_not_running")["fix"], "tailscale up");
    // Files that others may write to, or of two users, say nothing of whose gateway it is.
    let mode = |mode| std::fs::set_permissions(gateway.state_dir(), PermissionsExt::from_mode(mode)).unwrap();
    let owner = |uid| std::os::unix::fs::chown(gateway.state_dir(), Some(uid), None).unwrap();
    let not_believed = |why: &str| {
        let said = doctor(&gateway, &[]);
        let levels = said.levels();
        assert!(
            levels.iter().all(|(_, code)| !["gateway", "tailscale_not_running"].contains(code)),
            "{why}: {levels:?}"
        );
        assert_eq!(said.code, Some(78), "{why}: {:#}", said.json);
    };
    mode(0o770);
    not_believed("writable by a group");
    mode(0o700);
    owner(1);
    not_believed("two owners");
    owner(NOBODY);
    assert!(doctor(&gateway, &[]).levels().contains(&("error", "tailscale_not_running")));
}
