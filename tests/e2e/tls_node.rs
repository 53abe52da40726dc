//! HTTPS on the tailnet addresses with the certificate that Tailscale gives the node.

use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicU8, Ordering};

use super::support::*;

const NAME: &str = "gw.tailnet-example.test";
const HTTPS: u16 = 4443;

/// A tailnet with addresses of its own, so that a fixed port on them is nobody
/// else's.
struct Net {
    tailnet: Tailnet,
    base: [u8; 3],
}

impl Net {
    fn new() -> Self {
        static NEXT: AtomicU8 = AtomicU8::new(0);
        let pid = std::process::id();
        let base = [127, 128 + (pid % 120) as u8, (pid / 120) as u8 ^ NEXT.fetch_add(1, Ordering::Relaxed)];
        let [a, b, c] = base;
        let net = format!("{a}.{b}.{c}");
        let tailnet = Tailnet::playing(&format!(
            r#"{{tailnet: {{suffix: "tailnet-example.test", name: "example.com"}},
                users: {{alice: {{id: 1, login: "alice@example.com", name: "Alice"}},
                         bob: {{id: 2, login: "bob@example.com", name: "Bob"}}}},
                self: {{name: "gw", ips: ["{net}.1"], user: "alice", nodeCaps: {{https: null}}}},
                peers: {{phone: {{ips: ["{net}.2"], user: "alice"}}, bobpc: {{ips: ["{net}.3"], user: "bob"}}}}}}"#
        ));
        Self { tailnet, base }
    }

    fn ip(&self, last: u8) -> IpAddr {
        let [a, b, c] = self.base;
        IpAddr::from([a, b, c, last])
    }

    fn setup(&self, app: &Upstream) -> Setup {
        self.setup_at(app, HTTPS)
    }

    fn setup_at(&self, app: &Upstream, port: u16) -> Setup {
        let config = format!(r#"{{gateway: {{tls: {{enabled: true, source: "tailscale", port: {port}}}}}}}"#);
        Setup::on(&self.tailnet).upstream(app).token(TOKEN).config(config)
    }

    /// The authority that the fake signs with.
    fn authority(&self) -> std::io::Result<Pair> {
        let cert = std::fs::read_to_string(self.tailnet.dir().join("ca.pem"))?;
        Ok(Pair { cert, key: String::new() })
    }

    fn site(&self) -> SocketAddr {
        SocketAddr::new(self.ip(1), HTTPS)
    }

    fn plain(&self, gateway: &Gateway) -> Client {
        Client::to(SocketAddr::new(self.ip(1), gateway.port())).from(self.ip(2))
    }

    /// A connection over TLS from Alice's phone (2) or Bob's computer (3).
    fn tls(&self, from: u8, name: &str) -> std::io::Result<TlsWire> {
        TlsWire::open_from(
            self.ip(from),
            self.site(),
            name,
            &client_config(&[&self.authority()?], &["http/1.1"]),
        )
    }

    /// What the node's certificate is replaced by on its next reading.
    fn give(&self, pair: &Pair, name: &str) {
        for (file, text) in [("node.crt", pair.cert.as_str()), ("node.key", &pair.key), ("node.name", name)] {
            std::fs::write(self.tailnet.dir().join(file), text).unwrap();
        }
    }
}

fn request(method: &str, target: &str, name: &str) -> Vec<u8> {
    format!("{method} {target} HTTP/1.1\r\nHost: {name}\r\nContent-Length: 0\r\n\r\n").into_bytes()
}

fn failing(gateway: &Gateway) -> Vec<(String, String)> {
    let ready = gateway.local().get("/readyz").json();
    let text = |fault: &serde_json::Value, field: &str| fault[field].as_str().unwrap_or_default().to_owned();
    let faults = ready["failing"].as_array().cloned().unwrap_or_default();
    faults
        .iter()
        .map(|fault| (text(fault, "code"), format!("{} {}", text(fault, "detail"), text(fault, "fix"))))
        .collect()
}

#[test]
fn the_tailnet_is_served_over_https_and_the_plain_port_sends_there() {
    let (app, net) = (Upstream::echo(), Net::new());
    let gateway = net.setup(&app).start_on_tailnet();
    gateway.wait_for_log("\"listening for HTTPS on the tailnet\"");
    let host = format!("{NAME}:{HTTPS}");
    let mut alice = net.tls(2, NAME).unwrap();
    let seen = alice.request(&request("GET", "/x", &host)).seen();
    assert_eq!(seen.login().as_deref(), Some("alice@example.com"));
    assert_eq!(seen.header("x-forwarded-proto").as_deref(), Some("https"));
    net.tls(3, NAME).unwrap().request(&request("GET", "/x", &host)).assert_refused(403, "not_allowed");
    // Only for its name, and only by its authority.
    assert!(net.tls(2, "other.example").is_err());
    assert!(TlsWire::open(net.site(), NAME, &client_config(&[&Pair::of(&[NAME])], &[])).is_err());

    let plain = net.plain(&gateway);
    let browser = plain.with("Accept", "text/html,*/*;q=0.8");
    let moved = |target: &str| {
        let answer = browser.get(target);
        assert_eq!(answer.status, 308, "{target}");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        answer.header("location").unwrap().to_owned()
    };
    assert_eq!(moved("/a/b?c=d"), format!("https://{host}/a/b?c=d"));
    assert_eq!(moved("/?token=secret"), format!("https://{host}/"));
    // Whatever Host or path says, it is our own name.
    let evil = browser.host("evil.example").get("/x");
    assert_eq!(evil.header("location"), Some(format!("https://{host}/x").as_str()));
    for target in ["/@evil.example", "/.evil.example"] {
        assert!(moved(target).starts_with(&format!("https://{host}/")), "{target}");
    }
    for target in ["//evil.example/", "/\\evil.example"] {
        let answer = browser.get(target);
        let location = answer.header("location").unwrap_or("none").to_owned();
        assert!(
            location == "none" || location.starts_with(&format!("https://{host}/")),
            "{target}: {location}"
        );
    }
    for answer in [
        browser.request("POST", "/", b"x"),
        plain.get("/"),
        plain.with("Accept", "application/json").get("/"),
        plain.bearer(TOKEN).get("/"),
    ] {
        answer.assert_refused(403, "https_required");
    }
    assert_eq!(browser.websocket("/").unwrap_err().code(), "https_required");
    assert_eq!(plain.get("/healthz").status, 200);
    // Loopback stays plain.
    assert_eq!(gateway.local().bearer(TOKEN).get("/x").status, 200);
    assert_eq!(gateway.local().with("Accept", "text/html").get("/x").status, 401);
    until("it is ready", || gateway.local().get("/readyz").status == 200);
    let line = gateway.request_line("/a/b");
    assert_eq!((line["status"].as_u64(), line["reason"].as_str()), (Some(308), Some("https_required")));
}

#[test]
fn threat_101_what_becomes_public_is_said_before_it_is_asked_for() {
    let (app, net) = (Upstream::echo(), Net::new());
    net.tailnet.set(&["fault.cert=gate:cert"]);
    let gateway = net.setup(&app).start_on_tailnet();
    until("the certificate is asked for", || !net.tailnet.calls("cert").is_empty());
    let log = gateway.log();
    let line = log.lines().find(|line| line.contains("certificate transparency")).expect("said before");
    assert!(line.contains(NAME), "{line}");
    // Meanwhile the plain port serves, and says that it is not all.
    assert_eq!(net.plain(&gateway).get("/x").seen().login().as_deref(), Some("alice@example.com"));
    assert_eq!(failing(&gateway)[0].0, "certificate_missing");
    net.tailnet.release("cert");
    gateway.wait_for_log("\"listening for HTTPS on the tailnet\"");
    until("plain HTTP is over", || net.plain(&gateway).get("/x").status == 403);
    let kept = gateway.state_dir().join("tls/tailscale.pem");
    assert_eq!(std::fs::metadata(kept).unwrap().permissions().mode() & 0o7777, 0o600);
    assert!(!gateway.log().contains("PRIVATE KEY"));
}

#[test]
fn without_certificates_plain_http_serves_and_the_fix_is_named() {
    let (app, net) = (Upstream::echo(), Net::new());
    net.tailnet.set(&["tailnet.certDomains=[]"]);
    let gateway = net.setup(&app).start_on_tailnet();
    until("the fault is named", || {
        failing(&gateway).iter().any(|(code, text)| {
            code == "certificate_missing" && text.contains("enable HTTPS certificates in the admin console")
        })
    });
    assert!(net.tailnet.calls("cert").is_empty(), "nothing is asked for in vain");
    assert_eq!(net.plain(&gateway).get("/x").status, 200);
    net.tailnet.set(&[&format!("tailnet.certDomains=[\"{NAME}\"]")]);
    until("HTTPS is there", || net.site().port() == HTTPS && net.plain(&gateway).get("/x").status == 403);
    until("it is ready", || gateway.local().get("/readyz").status == 200);
}

#[test]
fn a_refused_certificate_is_asked_for_again() {
    let (app, net) = (Upstream::echo(), Net::new());
    net.tailnet.set(&["fault.cert=exit:1:Access denied: cert access denied*1"]);
    let gateway = net.setup(&app).start_on_tailnet();
    let line = gateway.wait_for_log("no HTTPS on the tailnet yet");
    assert!(line.contains("TS_PERMIT_CERT_UID"), "{line}");
    gateway.wait_for_log("\"listening for HTTPS on the tailnet\"");
    assert_eq!(net.tailnet.calls("cert").len(), 2);
}

#[test]
fn a_kept_certificate_serves_when_tailscale_gives_none() {
    let (app, net) = (Upstream::echo(), Net::new());
    let mut gateway = net.setup(&app).start_on_tailnet();
    gateway.wait_for_log("\"listening for HTTPS on the tailnet\"");
    let first = net.tls(2, NAME).unwrap().certificate();
    net.tailnet.set(&["fault.cert=exit:1:Access denied: cert access denied"]);
    gateway.restart();
    gateway.wait_for_log("\"listening for HTTPS on the tailnet\"");
    assert_eq!(net.tls(2, NAME).unwrap().certificate(), first);
    assert_eq!(net.tailnet.calls("cert").len(), 1, "it is young: nothing is asked");
    assert!(!gateway.log().contains("certificate transparency"), "nothing becomes public");

    // A file that is broken is had again.
    std::fs::write(gateway.state_dir().join("tls/tailscale.pem"), "garbage").unwrap();
    net.tailnet.set(&["fault.cert=none"]);
    gateway.restart();
    gateway.wait_for_log("\"listening for HTTPS on the tailnet\"");
    assert!(net.tls(2, NAME).is_ok());
}

#[test]
fn threat_099_it_is_renewed_in_time_and_for_another_name() {
    let (app, net) = (Upstream::echo(), Net::new());
    // 90 days long, of which 29 are left: more than two thirds are over.
    let old = Pair::ending(&[NAME], 29);
    net.give(&old, NAME);
    let mut gateway = net.setup(&app).start_on_tailnet();
    until("the same again is refused", || gateway.log().contains("the same certificate again"));
    let config = client_config(&[&old], &["http/1.1"]);
    let mut kept = TlsWire::open_from(net.ip(2), net.site(), NAME, &config).unwrap();
    let host = format!("{NAME}:{HTTPS}");
    assert_eq!(kept.request(&request("GET", "/x", &host)).status, 200);
    assert_eq!(gateway.local().get("/readyz").json()["warnings"][0]["code"], "certificate_not_renewed");
    let calls = net.tailnet.calls("cert");
    let validity = calls[1]["argv"]
        .as_array()
        .unwrap()
        .iter()
        .any(|word| word.as_str().unwrap().contains("min-validity"));
    assert!(validity, "a new one is asked for, not the old one again: {calls:?}");

    // At the next start there is a new one.
    std::fs::remove_file(net.tailnet.dir().join("node.name")).unwrap();
    gateway.restart();
    gateway.wait_for_log("\"listening for HTTPS on the tailnet\"");
    until("the new one is shown", || {
        net.tls(2, NAME).is_ok_and(|wire| wire.certificate() != old.der().to_vec())
    });

    let mut kept = net.tls(2, NAME).unwrap();
    net.tailnet.set(&["self.name=moved"]);
    let moved = "moved.tailnet-example.test";
    until("the new name has a certificate", || net.tls(2, moved).is_ok());
    // What was open stays open, under the name it was opened for.
    assert_eq!(kept.request(&request("GET", "/healthz", &host)).status, 200);
    let browser = net.plain(&gateway).with("Accept", "text/html");
    until("the new name is where HTTPS is", || {
        browser.get("/x").header("location") == Some(format!("https://{moved}:{HTTPS}/x").as_str())
    });
}

#[test]
fn a_port_that_serve_listens_on_is_named_and_left_to_it() {
    let (app, net) = (Upstream::echo(), Net::new());
    let route = format!(
        r#"serve={{"TCP":{{"{HTTPS}":{{"HTTPS":true}}}},"Web":{{"{NAME}:{HTTPS}":{{"Handlers":{{"/":{{"Proxy":"http://127.0.0.1:3999"}}}}}}}}}}"#
    );
    let gateway = net.setup(&app).start_on_tailnet();
    gateway.wait_for_log("\"listening for HTTPS on the tailnet\"");
    net.tailnet.set(&[&route]);
    until("the route is named", || {
        failing(&gateway).iter().any(|(code, text)| {
            code == "https_port_taken" && text.contains(&format!("{NAME}:{HTTPS}/ -> http://127.0.0.1:3999"))
        })
    });
    assert!(std::net::TcpStream::connect(net.site()).is_err(), "it is let go");
    assert_eq!(net.plain(&gateway).get("/x").status, 200, "nobody is sent to another's site");
    net.tailnet.set(&["serve=null"]);
    until("it is ours again", || net.tls(2, NAME).is_ok());
    assert_eq!(net.plain(&gateway).get("/x").code(), "https_required");
}

#[test]
fn a_port_that_is_not_permitted_is_replaced_and_the_command_named() {
    if !may_switch_user("a_port_that_is_not_permitted_is_replaced_and_the_command_named") {
        return;
    }
    let below = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap_or_default();
    if below.trim() != "1024" {
        eprintln!("SKIPPED: ports below 1024 are free here");
        return;
    }
    let (app, net) = (Upstream::echo(), Net::new());
    net.tailnet.give_to(NOBODY);
    let gateway = net.setup_at(&app, 443).uid(NOBODY).start_on_tailnet();
    let line = gateway.wait_for_log("not permitted to listen on port 443");
    assert!(line.contains("setcap cap_net_bind_service") && line.contains("8443"), "{line}");
    gateway.wait_for_log("\"listening for HTTPS on the tailnet\"");
    let site = SocketAddr::new(net.ip(1), 8443);
    let config = client_config(&[&net.authority().unwrap()], &["http/1.1"]);
    until("HTTPS is there", || TlsWire::open_from(net.ip(2), site, NAME, &config).is_ok());
    let moved = net.plain(&gateway).with("Accept", "text/html").get("/");
    assert_eq!(moved.header("location"), Some(format!("https://{NAME}:8443/").as_str()));
}

#[test]
fn it_takes_the_tailnet_and_a_port_of_its_own() {
    for (more, key) in [
        (r#"bind: "loopback", tls: {enabled: true, source: "tailscale"}"#, "gateway.tls.source"),
        (
            r#"bind: "tailnet", port: 18999, tls: {enabled: true, source: "tailscale", port: 18999}"#,
            "gateway.tls.port",
        ),
        (
            r#"bind: "tailnet", tailscale: {mode: "serve"}, tls: {enabled: true, source: "tailscale"}"#,
            "gateway.tls.port",
        ),
    ] {
        let exited = Setup::bare().token(TOKEN).config(format!("{{gateway: {{{more}}}}}")).refuse();
        assert!(exited.code == Some(78) && exited.stderr.contains(key), "{more}: {}", exited.stderr);
    }
}

#[test]
fn threat_099_a_new_one_that_is_due_already_is_not_followed_by_another_at_once() {
    let (app, net) = (Upstream::echo(), Net::new());
    let (first, second) = (Pair::ending(&[NAME], 29), Pair::ending(&[NAME], 28));
    net.give(&first, NAME);
    let mut gateway = net.setup(&app).start_on_tailnet();
    until("the same again is refused", || gateway.log().contains("the same certificate again"));
    let before = net.tailnet.calls("cert").len();

    // As with a clock that is far ahead: each is new, and none is young.
    net.give(&second, NAME);
    gateway.restart();
    let config = client_config(&[&second], &["http/1.1"]);
    until("the second is shown", || {
        TlsWire::open_from(net.ip(2), net.site(), NAME, &config)
            .is_ok_and(|wire| wire.certificate() == second.der().to_vec())
    });
    // The keeper does one thing after another: what it asks next is this.
    net.tailnet.set(&["self.name=moved"]);
    until("the new name has a certificate", || net.tls(2, "moved.tailnet-example.test").is_ok());
    let calls = net.tailnet.calls("cert").split_off(before);
    assert_eq!(calls.len(), 2, "{calls:?}");
}
