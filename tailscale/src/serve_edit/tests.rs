use super::*;
use crate::test_support::{errors_of, recording};

fn mount() -> Mount {
    Mount {
        https: true,
        port: 443,
        path: "/".into(),
        target: ProxyTarget::Unix("/run/openclaw/serve.sock".into()),
        funnel: false,
    }
}

fn line(args: Vec<OsString>) -> String {
    args.iter().map(|arg| arg.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

#[test]
fn threat_069_off_always_names_its_mount_and_nothing_is_reset() {
    assert_eq!(line(mount().off_args().unwrap()), "serve --yes --https=443 --set-path=/ off");
    let public = Mount { funnel: true, path: "/x".into(), ..mount() };
    assert_eq!(line(public.off_args().unwrap()), "serve --yes --https=443 --set-path=/x off");
}

#[test]
fn what_cannot_be_a_mount_is_never_run() {
    let wrong = [
        Mount { port: 0, ..mount() },
        Mount { path: "x".into(), ..mount() },
        Mount { path: "/x\n".into(), ..mount() },
        Mount { target: ProxyTarget::Unix("run/serve.sock".into()), ..mount() },
        Mount { https: false, funnel: true, ..mount() },
    ];
    for mount in wrong {
        assert!(mount.publish_args(true).is_err(), "{mount:?}");
    }
}

#[test]
fn each_edit_has_its_exact_arguments() {
    assert_eq!(
        line(mount().publish_args(true).unwrap()),
        "serve --bg --yes --https=443 --set-path=/ unix:/run/openclaw/serve.sock"
    );
    let session =
        Mount { https: false, port: 80, path: "/x".into(), target: ProxyTarget::Loopback(4000), ..mount() };
    assert_eq!(
        line(session.publish_args(false).unwrap()),
        "serve --yes --http=80 --set-path=/x http://127.0.0.1:4000"
    );
    let public = Mount { funnel: true, ..mount() };
    assert!(line(public.publish_args(true).unwrap()).starts_with("funnel --bg --yes --https=443 "));
}

#[test]
fn a_link_to_consent_at_is_seen_and_a_served_address_is_not() {
    let mut watch = ConsentWatch::default();
    let served =
        ["", "Available within your tailnet:", "", "https://gw.tailnet-example.ts.net/", "|-- proxy x"];
    for line in served {
        assert_eq!(watch.line(line.as_bytes()), None, "{line}");
    }
    let mut watch = ConsentWatch::default();
    let asking = ["", "Serve is not enabled on your tailnet.", "To enable, visit:", ""];
    for line in asking {
        assert_eq!(watch.line(line.as_bytes()), None, "{line}");
    }
    let url = "https://login.tailscale.com/f/serve?node=n1";
    assert_eq!(watch.line(format!("         {url}").as_bytes()).as_deref(), Some(url));
    // In words that we do not know, and with something that a terminal would obey.
    assert_eq!(ConsentWatch::default().line(url.as_bytes()).as_deref(), Some(url));
    let shown = ConsentWatch::default().line(format!("{url}\u{1b}[31m").as_bytes()).unwrap();
    assert!(!shown.contains('\u{1b}'), "{shown}");
}

/// The code of what a recorded command said.
#[track_caller]
fn recorded(args: &str) -> &'static str {
    let runs = errors_of(&recording("serve.txt"), &format!("$ tailscale {args}"));
    failed("serve", 1, runs.first().unwrap_or_else(|| panic!("{args} is not recorded")).as_bytes()).code()
}

#[test]
fn recorded_refusals_are_told_apart() {
    assert_eq!(recorded("serve --https=443 --set-path=/nope off"), "serve_no_such_mount");
    assert_eq!(recorded("serve --bg --http=2222 9000"), "serve_port_taken");
    assert_eq!(recorded("serve --bg --https=9443 9000"), "serve_port_taken");
    assert_eq!(recorded("serve https:443 http://127.0.0.1:9000"), "serve_program_too_old");
    assert_eq!(recorded("serve https / http://127.0.0.1:9000"), "serve_program_too_old");
}

#[test]
fn sentences_from_the_source_are_told_apart() {
    for (said, code) in [
        (
            "Another client is changing the serve config; please try again.\nsending serve config: Preconditions failed: etag mismatch",
            "serve_raced",
        ),
        (
            "sending serve config: 401 Unauthorized: must be root, or be an operator and able to run 'sudo tailscale' to serve a path or Unix socket",
            "serve_needs_root",
        ),
        (
            "sending serve config: Access denied: serve config denied\n\nUse 'sudo tailscale serve --bg 18789'.\nTo not require root, use 'sudo tailscale set --operator=$USER' once.",
            "serve_denied",
        ),
        ("sending serve config: updating config: listener already exists for port 443", "serve_port_taken"),
        (
            "sending serve config: updating config: want to serve \"https\", but port 443 is already serving \"tcp\"",
            "serve_port_taken",
        ),
        (
            "sending serve config: updating config: can't reconfigure tailscaled when using a config file; config file is locked",
            "serve_locked",
        ),
        (
            "sending serve config: updating config: Unable to turn on Funnel while shields-up is enabled",
            "funnel_shields_up",
        ),
        (
            "Funnel not available; \"funnel\" node attribute not set. See https://tailscale.com/s/no-funnel.",
            "funnel_unavailable",
        ),
        (
            "error: port 9999 is not allowed for funnel; allowed ports are: 443,8443,10000",
            "funnel_unavailable",
        ),
        (
            "error enabling https feature: error 501 Not Implemented: {\"error\":\"not implemented\"}",
            "serve_not_offered",
        ),
        ("error: invalid number of arguments (7)\n\nUSAGE", "serve_program_too_old"),
        ("Tailscale is stopped.", "tailscale_stopped"),
        ("Logged out.", "tailscale_logged_out"),
        (
            "error getting serve config: getting serve config: Failed to connect to local Tailscale daemon for /localapi/v0/serve-config; not running?",
            "tailscale_daemon_down",
        ),
        ("2026/11/23 11:42:44 lost connection to tailscaled: EOF", "tailscale_failed"),
    ] {
        assert_eq!(failed("serve", 1, said.as_bytes()).code(), code, "{said}");
    }
    assert_eq!(failed("serve", 2, b"flag provided but not defined: -bg").code(), "serve_program_too_old");
}
