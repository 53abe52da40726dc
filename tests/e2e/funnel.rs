//! What can be opened to the internet, and that it ends.

use rustix::process::Signal;
use tokio_tungstenite::tungstenite;
use tungstenite::Message;

use super::support::*;

/// Waits for the close frame; its code and reason.
#[track_caller]
fn closed(socket: &mut PublicSocket) -> (u16, String) {
    loop {
        match socket.read().expect("it ended without a close frame") {
            Message::Close(Some(frame)) => return (frame.code.into(), frame.reason.to_string()),
            Message::Close(None) => panic!("a close frame without a reason"),
            _ => {}
        }
    }
}

#[test]
fn threat_060_how_long_and_which_path_have_to_be_said() {
    let public = Public::not_served(Tailnet::new(), "mode: \"serve\"");
    for (args, says) in [
        (&["--path", "/hooks"][..], &["--for", "--forever"][..]),
        (&["--for", "2h"], &["--path"]),
        (&["--for", "2h", "--forever", "--path", "/hooks"], &["--for", "--forever"]),
        (&["--for", "0s", "--path", "/hooks"], &["--for"]),
        (&["--for", "2 hours", "--path", "/hooks"], &["--for", "2h"]),
        (&["--for", "2h", "--path", "hooks"], &["--path"]),
        (&["--for", "2h", "--path", "/hooks/../app"], &["--path"]),
        (&["off"], &["--path", "--all"]),
    ] {
        let done = public.openclaw(&[&["funnel"], args].concat());
        assert_eq!(done.code, Some(2), "{args:?}: {done:?}");
        for word in says {
            assert!(done.stderr.contains(word), "{args:?}: {done:?}");
        }
    }
    assert!(public.tailnet.calls("funnel").is_empty());
}

#[test]
fn threat_060_what_is_not_public_is_not_opened_and_nothing_is_asked_of_tailscale() {
    let public = Public::start();
    for (args, says) in [
        (&["--path", "/"][..], "gateway.routes.app.public secret"),
        (&["--path", "/app"], "route app"),
        (&["--path", "/hooksy"], "route app"),
        (&["--path", "/_openclaw"], "own"),
        (&["--path", "/_openclaw/whoami"], "own"),
        (&["--path", "/github"], "--open"),
        (&["--path", "/hooks", "--open"], "leave --open out"),
        (&["--path", "/hooks", "--port", "9999"], "443, 8443 or 10000"),
    ] {
        let said = public.refused(&[&["--for", "2h", "--yes"], args].concat());
        assert!(said.contains(says), "{args:?}: {said}");
        assert!(!said.contains("certificate transparency"), "announced, and then refused: {said}");
    }
    // The tailnet does not permit it.
    for (node, says) in [
        (r#"{funnel: null, https: null}"#, "may use: none"),
        (r#"{https: null, "https://tailscale.com/cap/funnel-ports?ports=443": null}"#, "nodeAttrs"),
        (r#"{funnel: null, "https://tailscale.com/cap/funnel-ports?ports=443": null}"#, "admin/dns"),
        (
            r#"{https: null, funnel: null, "https://tailscale.com/cap/funnel-ports?ports=8443": null}"#,
            "may use: 8443",
        ),
    ] {
        public.tailnet.set(&[&format!("self.nodeCaps={node}")]);
        let mut said = String::new();
        until("the node attributes are known", || {
            said = public.refused(&["--for", "2h", "--path", "/hooks"]);
            said.contains(says)
        });
    }
    assert!(public.tailnet.calls("funnel").is_empty(), "Funnel was asked for");
    assert!(public.internet().try_get("/hooks").is_none());
    let status = public.openclaw(&["funnel", "status"]);
    assert_eq!(status.stdout, "Nothing is open to the internet.\n");
}

#[test]
fn threat_060_without_a_gateway_or_an_ingress_nothing_is_kept_for_later() {
    let mut public = Public::start();
    public.gateway.stop();
    for how_long in [&["--for", "2h"][..], &["--forever"]] {
        let said = public.refused(&[how_long, &["--yes", "--path", "/hooks"]].concat());
        assert!(said.contains("no gateway runs") && said.contains("openclaw gateway"), "{said}");
    }
    public.gateway.start_again();
    let status = public.openclaw(&["funnel", "status", "--json"]);
    let status: serde_json::Value = serde_json::from_str(&status.stdout).unwrap();
    assert_eq!(status, serde_json::json!({"gatewayRuns": true, "funnels": []}));

    let public = Public::not_served(Tailnet::new(), "mode: \"off\"");
    let said = public.refused(&["--for", "2h", "--yes", "--path", "/hooks"]);
    assert!(said.contains("openclaw config set gateway.tailscale.mode serve"), "{said}");
}

#[test]
fn threat_060_a_trusted_proxys_gateway_opens_nothing() {
    let (tailnet, app) = (Tailnet::new(), Upstream::echo());
    let config = format!(
        r#"{{gateway: {{
            tailscale: {{mode: "serve"}},
            auth: {{mode: "trusted-proxy", trustedProxy: {{userHeader: "x-forwarded-user", allowUsers: ["a"]}}}},
            trustedProxies: ["192.0.2.1"],
            routes: {{hooks: {{path: "/hooks", upstream: "{}", public: "open"}}}},
        }}}}"#,
        app.flag()
    );
    let gateway = Setup::new().tailscale(&tailnet).config(config).start();
    let done = gateway.openclaw(&["funnel", "--for", "2h", "--yes", "--open", "--path", "/hooks"]);
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(done.stderr.contains("openclaw config set gateway.auth.mode token"), "{done:?}");
    assert!(tailnet.calls("funnel").is_empty());
}

#[test]
fn threat_101_the_name_is_announced_before_anything_is_published() {
    let tailnet = Tailnet::new().with(&["fault.funnel=gate:publish"]);
    let public = Public::start_with(tailnet, "mode: \"serve\", client: \"cli\"");
    let mut command = public.gateway.command(&["funnel", "--for", "2h", "--path", "/hooks"]);
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stderr = std::io::BufReader::new(child.stderr.take().unwrap());
    let mut said = String::new();
    while !said.contains("finds it within minutes") && !said.contains("find it within minutes") {
        let read = std::io::BufRead::read_line(&mut stderr, &mut said).unwrap();
        assert!(read > 0, "it ended without the announcement: {said}");
    }
    assert!(said.contains(&format!("https://{HOST}/hooks")), "{said}");
    assert!(said.contains("certificate transparency"), "{said}");
    assert!(!public.is_published(443), "announced only when it was done");
    assert!(public.internet().try_get("/hooks").is_none());
    public.tailnet.release("publish");
    let done = child.wait_with_output().unwrap();
    assert!(done.status.success(), "{said}");
    assert!(String::from_utf8(done.stdout).unwrap().contains("Open until"));
    assert!(public.is_published(443));
}

#[test]
fn threat_006_the_internet_gets_to_the_opened_path_and_no_further() {
    let public = Public::start();
    // Less than its route.
    public.open(&["--for", "2h", "--path", "/hooks/deep"]);
    for target in ["/hooks", "/hooks/", "/hooks/deeper", "/hooks/x/deep"] {
        public.internet().token(TOKEN).get(target).assert_refused(403, "not_public");
    }
    assert_eq!(public.internet().token(TOKEN).get("/hooks/deep/x").seen().target(), "/hooks/deep/x");
    let opened = public.open(&["--for", "2h", "--path", "/hooks"]);
    assert_eq!(opened["url"], format!("https://{HOST}/hooks"));
    assert_eq!((&opened["route"], &opened["open"]), (&"hooks".into(), &false.into()));
    let internet = public.internet();
    let reached = public.app.requests().len();
    for target in ["/", "/hooksy", "/Hooks", "/github", "/_openclaw/whoami", "/_openclaw/", "/hook"] {
        for door in [
            public.internet(),
            internet.token(TOKEN),
            internet.token("wrong"),
            internet.with("Tailscale-User-Login", "alice@example.com"),
        ] {
            door.get(target).assert_refused(403, "not_public");
        }
    }
    for target in ["/hooks/../", "/hooks/%2e%2e/", "/hooks%2f..%2f", "/hooks/..;/"] {
        internet.token(TOKEN).get(target).assert_refused(400, "bad_path");
    }
    internet.get("/hooks").assert_refused(401, "token_missing");
    internet
        .with("Tailscale-User-Login", "alice@example.com")
        .get("/hooks")
        .assert_refused(401, "token_missing");
    assert_eq!(internet.websocket("/hooks/ws").unwrap_err(), 401);
    assert_eq!(public.app.requests().len(), reached, "something reached the app");

    let answer = internet.token(TOKEN).with("Tailscale-User-Login", "alice@example.com").get("/hooks/x");
    let seen = answer.seen();
    assert_eq!((seen.target(), seen.login()), ("/hooks/x", None));
    assert_eq!(seen.header("x-openclaw-gateway-token"), None);
    // People of the tailnet come in as before, by the same port.
    assert_eq!(public.tailnet_door("phone").get("/").seen().login().as_deref(), Some("alice@example.com"));
    assert_eq!(public.gateway.request_line("/hooks/x")["via"], "funnel");
}

#[test]
fn threat_048_whoever_guesses_there_is_locked_out_by_their_public_address() {
    let public = Public::start();
    public.open(&["--for", "2h", "--path", "/hooks"]);
    for number in 0..10 {
        public
            .internet()
            .token(&format!("guess-{number}"))
            .get("/hooks")
            .assert_refused(401, "token_mismatch");
    }
    let forged = public.internet().with("X-Forwarded-For", "198.51.100.9");
    forged.token(TOKEN).get("/hooks").assert_refused(429, "rate_limited");
    // Nobody else is: not the tailnet, not this machine.
    public.tailnet_door("phone").get("/").seen();
    public.gateway.local().bearer(TOKEN).get("/").seen();
}

#[test]
fn a_webhook_for_everybody_has_to_be_opened_as_such() {
    let public = Public::start();
    public.open(&["--forever", "--open", "--path", "/github"]);
    let seen = public.internet().get("/github/push").seen();
    assert_eq!((seen.target(), seen.login()), ("/github/push", None));
    public.internet().get("/hooks").assert_refused(403, "not_public");
    let status = public.openclaw(&["funnel", "status"]);
    assert!(status.stdout.contains("for ever") && status.stdout.contains("everybody"), "{status:?}");
    let ready = public.gateway.local().get("/readyz").json();
    assert_eq!(ready["funnel"][0]["url"], format!("https://{HOST}/github"));
    assert_eq!(
        (&ready["funnel"][0]["until"], &ready["funnel"][0]["open"]),
        (&serde_json::Value::Null, &true.into())
    );
    // The public learns nothing of it.
    assert_eq!(public.internet().get("/readyz").json()["funnel"], serde_json::Value::Null);
}

/// As if the time until now had been enough.
fn let_time_pass(public: &Public, path: &str) {
    let db = public.gateway.state_dir().join("state/tailnet-gateway.db");
    let db = rusqlite::Connection::open(db).unwrap();
    let changed = db.execute("UPDATE funnel_grant SET until = opened_at WHERE path = ?1", [path]).unwrap();
    assert_eq!(changed, 1);
}

#[test]
fn threat_060_it_closes_itself() {
    let public = Public::start();
    public.open(&["--for", "3s", "--path", "/hooks"]);
    until("Tailscale has closed the port", || !public.is_published(443));
    until("the row is gone", || public.openclaw(&["funnel", "status"]).stdout.contains("Nothing"));
    assert!(public.internet().try_get("/hooks").is_none());
    public.tailnet_door("phone").get("/").seen();
}

#[test]
fn threat_060_at_its_end_nobody_comes_in_and_whoever_is_in_is_put_out() {
    let public = Public::start();
    public.open(&["--for", "2h", "--path", "/hooks"]);
    let internet = public.internet().token(TOKEN);
    let mut socket = internet.websocket("/hooks/ws").unwrap();
    assert!(socket.read().unwrap().is_text(), "the echo says what it saw");
    let mut phone =
        public.tailnet_door("phone").with("Origin", &format!("https://{HOST}")).websocket("/ws").unwrap();
    assert!(phone.read().unwrap().is_text());
    let_time_pass(&public, "/hooks");
    assert_eq!(closed(&mut socket), (1008, "revoked".into()));
    // From then on, whether Tailscale has closed the port yet or not.
    if let Some(answer) = internet.try_get("/hooks") {
        answer.assert_refused(403, "not_public");
    }
    until("Tailscale has closed the port", || !public.is_published(443));
    assert!(public.internet().try_get("/hooks").is_none());
    // Nobody else was put out, and Serve goes on.
    phone.send(Message::text("still here")).unwrap();
    assert_eq!(phone.read().unwrap().into_text().unwrap(), "still here");
    public.tailnet_door("phone").get("/").seen();
}

#[test]
fn threat_060_a_stream_ends_with_its_grant() {
    let public = Public::start();
    public.open(&["--for", "2h", "--path", "/hooks"]);
    let mut stream = public.internet().token(TOKEN).connect().unwrap();
    stream.send(
        format!("GET /hooks/sse HTTP/1.1\r\nHost: {HOST}\r\nX-OpenClaw-Gateway-Token: {TOKEN}\r\n\r\n")
            .as_bytes(),
    );
    let asked = |request: &Vec<u8>| request.starts_with(b"GET /hooks/sse");
    until("the stream began", || public.app.requests().iter().any(asked));
    let done = public.openclaw(&["funnel", "off", "--path", "/hooks"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.stdout.contains(&format!("https://{HOST}/hooks")), "{done:?}");
    assert!(!public.is_published(443), "off is answered when it is done");
    let _ = stream.rest();
}

#[test]
fn threat_060_after_a_crash_what_has_ended_is_closed_and_what_has_not_goes_on() {
    let mut public = Public::start();
    public.open(&["--for", "2h", "--path", "/hooks"]);
    public.open(&["--for", "2h", "--open", "--path", "/github", "--port", "8443"]);
    public.internet().token(TOKEN).get("/hooks").seen();
    public.gateway.signal(Signal::KILL);
    public.gateway.wait();
    assert!(public.is_published(443), "nobody was there to close it");
    let_time_pass(&public, "/hooks");
    let status = public.openclaw(&["funnel", "status", "--json"]);
    let status: serde_json::Value = serde_json::from_str(&status.stdout).unwrap();
    assert_eq!((&status["gatewayRuns"], &status["funnels"][0]["state"]), (&false.into(), &"ended".into()));
    public.gateway.start_again();
    until("Tailscale has closed the port", || {
        if let Some(answer) = public.internet().token(TOKEN).try_get("/hooks") {
            // 502 is tailscaled's, while nobody listens.
            assert!(matches!(answer.status, 403 | 502), "{}", answer.text());
        }
        !public.is_published(443)
    });
    until("the other one goes on", || {
        public.internet_at(8443).try_get("/github").is_some_and(|answer| answer.status == 200)
    });
    public.internet_at(8443).token(TOKEN).get("/hooks").assert_refused(403, "not_public");
    let status = public.openclaw(&["funnel", "status"]).stdout;
    assert!(status.contains(":8443/github") && !status.contains("/hooks"), "{status}");
}

#[test]
fn threat_060_what_is_made_private_is_not_open_any_more() {
    let public = Public::start();
    public.open(&["--forever", "--path", "/hooks"]);
    let mut socket = public.internet().token(TOKEN).websocket("/hooks/ws").unwrap();
    assert!(socket.read().unwrap().is_text());
    // More public than it was announced is another thing, too.
    public.change_hooks("mode: \"serve\"", "open");
    assert_eq!(closed(&mut socket), (1008, "revoked".into()));
    until("Tailscale has closed the port", || !public.is_published(443));
    let line = public.gateway.wait_for_log("not open to the internet any more");
    assert!(line.contains("everybody would be let in"), "{line}");
}

#[test]
fn threat_101_under_another_name_it_is_closed() {
    let public = Public::start();
    public.open(&["--forever", "--path", "/hooks"]);
    public.tailnet.set(&["self.name=renamed"]);
    public.gateway.wait_for_log("this node is now renamed.tailnet-example.test");
    until("the row says so", || public.openclaw(&["funnel", "status"]).stdout.contains("Nothing"));
}

#[test]
fn threat_060_somebody_elses_mount_is_never_made_public() {
    let foreign = format!(
        r#"serve={{"TCP":{{"443":{{"HTTPS":true}},"2222":{{"TCPForward":"127.0.0.1:22"}}}},"Web":{{"{HOST}:443":{{"Handlers":{{"/other":{{"Proxy":"http://127.0.0.1:9"}}}}}}}}}}"#
    );
    let public = Public::start_with(Tailnet::new().with(&[&foreign]), "mode: \"serve\"");
    let before = public.serve();
    let said = public.refused(&["--for", "2h", "--yes", "--path", "/hooks"]);
    assert!(said.contains("/other") && said.contains("not opened"), "{said}");
    assert_eq!(public.serve(), before);
    // On a port of its own it is nobody else's business.
    let opened = public.open(&["--for", "2h", "--path", "/hooks", "--port", "8443"]);
    assert_eq!(opened["url"], format!("https://{HOST}:8443/hooks"));
    public.internet_at(8443).token(TOKEN).get("/hooks").seen();
    public.internet_at(8443).token(TOKEN).get("/").assert_refused(403, "not_public");
    assert!(!public.is_published(443));
    assert_eq!(public.openclaw(&["funnel", "off", "--all"]).code, Some(0));
    assert_eq!(public.serve(), before, "everything else is as it was");
}

#[test]
fn threat_006_somebody_elses_funnel_opens_nothing() {
    let public = Public::start();
    public.open(&["--for", "2h", "--path", "/hooks", "--port", "8443"]);
    // Somebody opens our own port by hand; a grant for another port is none for it, but
    // for the path it is: Funnel does not say by which port a request came.
    let by_hand = std::process::Command::new(public.tailnet.bin())
        .args(["funnel", "--bg", "--https=10000", "--set-path=/"])
        .arg(format!("unix:{}", public.ingress().display()))
        .env_clear()
        .output()
        .unwrap();
    assert!(by_hand.status.success(), "{by_hand:?}");
    until("it is public", || public.internet_at(10000).try_get("/").is_some());
    public.internet_at(10000).token(TOKEN).get("/").assert_refused(403, "not_public");
    public.internet_at(10000).get("/_openclaw/whoami").assert_refused(403, "not_public");
    public.openclaw(&["funnel", "off", "--all"]);
    public.internet_at(10000).token(TOKEN).get("/hooks").assert_refused(403, "not_public");
}

#[test]
fn mode_funnel_is_not_ready_while_nothing_is_open() {
    let public = Public::start_with(Tailnet::new(), "mode: \"funnel\"");
    let failing = |public: &Public| {
        let ready = public.gateway.local().get("/readyz").json();
        let failing = ready["failing"].as_array().cloned().unwrap_or_default();
        failing.into_iter().find(|fault| fault["code"] == "funnel_not_open")
    };
    let fault = failing(&public).expect("it is ready, and nothing is open");
    assert!(fault["fix"].as_str().unwrap().contains("openclaw funnel --for"), "{fault}");
    public.open(&["--for", "2h", "--path", "/hooks"]);
    until("it is ready", || failing(&public).is_none());
    public.internet().token(TOKEN).get("/hooks").seen();
    public.openclaw(&["funnel", "off", "--all"]);
    until("it is not ready any more", || failing(&public).is_some());
}

#[test]
fn threat_060_where_serve_ends_with_the_gateway_funnel_does_too() {
    // tailscaled before 1.94 knows no unix targets: a loopback port, for as long as we run.
    let tailnet = Tailnet::new().with(&["version=1.92.0"]);
    let mut public = Public::not_served(tailnet, "mode: \"serve\"");
    public.open(&["--for", "2h", "--path", "/hooks"]);
    public.internet().token(TOKEN).get("/hooks/x").seen();
    public.internet().token(TOKEN).get("/").assert_refused(403, "not_public");
    public.gateway.signal(Signal::KILL);
    public.gateway.wait();
    until("Tailscale has closed the port", || !public.is_published(443));
    until("nobody is let in", || public.internet().try_get("/hooks").is_none());
    public.gateway.start_again();
    until("it goes on", || {
        public.internet().token(TOKEN).try_get("/hooks").is_some_and(|answer| answer.status == 200)
    });
    assert_eq!(public.openclaw(&["funnel", "off", "--all"]).code, Some(0));
    assert!(!public.is_published(443));
}
