use super::*;
use crate::domain::tailnet::tests::{running, serve_facts};

const OURS: u32 = 1000;

fn options() -> Options {
    Options {
        unix: Some("/run/openclaw/serve.sock".into()),
        loopback: Some(4000),
        our_uid: 0,
        unix_refused: false,
        trust_local_users: false,
        knows_owners: true,
        before: None,
    }
}

fn version(text: &str) -> Running {
    Running { version: text.parse().unwrap(), ..running() }
}

fn facts() -> ServeFacts {
    // Another user's daemon, and nothing in the way.
    ServeFacts { web_to_port: 0, has_operator: Some(false), ..serve_facts() }
}

#[track_caller]
fn chosen(options: &Options, running: &Running, facts: &ServeFacts) -> (&'static str, Option<Trouble>) {
    let choice = choose(options, running, facts);
    let word = match choice.ingress {
        Some(Ingress::Unix(_)) => "unix",
        Some(Ingress::Loopback(4000)) => "loopback",
        Some(Ingress::Loopback(_)) => panic!("another port"),
        None => "none",
    };
    (word, choice.trouble)
}

#[test]
fn nothing_is_published_while_tailscaled_is_unknown() {
    let (word, trouble) = chosen(&options(), &running(), &ServeFacts { daemon: None, ..facts() });
    assert_eq!((word, trouble.unwrap().code), ("none", "serve_state_unknown"));
}

#[test]
fn where_nobody_can_be_told_from_serve_nothing_is_published() {
    let here = Options { knows_owners: false, unix: None, ..options() };
    let (word, trouble) = chosen(&here, &running(), &facts());
    assert_eq!((word, trouble.unwrap().code), ("none", "serve_no_ingress"));
    let trusting = Options { trust_local_users: true, ..here };
    assert_eq!(chosen(&trusting, &running(), &facts()), ("loopback", None));
    let nowhere = Options { unix: None, loopback: None, ..options() };
    assert_eq!(chosen(&nowhere, &running(), &facts()).0, "none");
}

#[test]
fn threat_069_an_operator_is_not_locked_out_by_a_unix_target() {
    let operator = ServeFacts { has_operator: Some(true), daemon: Some(daemon(0)), ..facts() };
    let gateway = Options { our_uid: 0, ..options() };
    let (word, trouble) = chosen(&gateway, &running(), &operator);
    // tailscaled and the gateway are both root: nobody gets an identity on loopback.
    assert_eq!((word, trouble.as_ref().unwrap().code), ("loopback", "serve_identity_off"));
    // Releases that do not ask for sudo lock nobody out.
    assert_eq!(chosen(&gateway, &version("1.98.4"), &operator), ("unix", None));
    // The operator is us, as far as is known.
    let ours = Options { our_uid: OURS, ..options() };
    assert_eq!(chosen(&ours, &running(), &operator), ("unix", None));
    let refused = Options { unix_refused: true, ..ours };
    assert_eq!(chosen(&refused, &running(), &operator), ("loopback", None));
}

#[test]
fn what_is_not_known_locks_nobody_out_and_takes_nothing_away() {
    let unread = ServeFacts { has_operator: None, daemon: Some(daemon(0)), ..facts() };
    let gateway = Options { our_uid: 0, ..options() };
    assert_eq!(chosen(&gateway, &running(), &unread).0, "loopback");
    let unix = Options { before: Some(Ingress::Unix("/run/openclaw/serve.sock".into())), ..gateway };
    assert_eq!(chosen(&unix, &running(), &unread).0, "unix");
    let gone = ServeFacts { daemon: None, ..facts() };
    let (word, trouble) = chosen(&unix, &running(), &gone);
    assert_eq!((word, trouble.unwrap().code), ("unix", "serve_state_unknown"));
}

#[test]
fn a_daemon_that_may_not_open_the_socket_is_not_sent_there() {
    let other = ServeFacts { daemon: Some(daemon(1001)), ..facts() };
    let (word, trouble) = chosen(&Options { our_uid: OURS, ..options() }, &running(), &other);
    assert_eq!((word, trouble), ("loopback", None));
}

#[test]
fn where_the_unix_ingress_gives_no_identity_that_is_said() {
    for odd in [
        ServeFacts { tcp_to_unix: 1, ..facts() },
        ServeFacts { run_ssh: Some(true), ..facts() },
        ServeFacts { run_ssh: None, ..facts() },
    ] {
        let (word, trouble) = chosen(&options(), &running(), &odd);
        assert_eq!((word, trouble.unwrap().code), ("unix", "serve_identity_off"));
    }
}

fn daemon(uid: u32) -> openclaw_tailscale::DaemonProcess {
    openclaw_tailscale::DaemonProcess { uid, pid: Some(77) }
}

#[test]
fn each_condition_that_fails_on_loopback_is_named_with_its_mend() {
    let here = Options { our_uid: OURS, unix_refused: true, ..options() };
    let check = |running: Running, facts: ServeFacts| {
        let (word, trouble) = chosen(&here, &running, &facts);
        let trouble = trouble.unwrap();
        assert_eq!((word, trouble.code), ("loopback", "serve_identity_off"), "{}", trouble.detail);
        (trouble.detail, trouble.fix.unwrap_or_default())
    };
    assert!(check(Running { tun: Some(false), ..running() }, facts()).0.contains("userspace"));
    assert!(check(running(), ServeFacts { run_ssh: Some(true), ..facts() }).1.contains("--ssh=false"));
    assert!(check(running(), ServeFacts { run_ssh: None, ..facts() }).0.contains("SSH"));
    assert!(check(running(), ServeFacts { dials_for_others: Some(true), ..facts() }).1.contains("socks5"));
    assert!(
        check(running(), ServeFacts { daemon: Some(daemon(OURS)), ..facts() }).0.contains("our own user")
    );
    assert!(check(running(), ServeFacts { tcp_to_ingress: 1, ..facts() }).0.contains("raw TCP"));
    // Without unix targets, and too old for loopback as well.
    let old = Options { unix_refused: false, ..here.clone() };
    let (word, trouble) = chosen(&old, &version("1.92.5"), &facts());
    assert_eq!(word, "loopback");
    assert!(trouble.unwrap().fix.unwrap().contains("1.98.1"));
}

#[test]
fn root_without_an_operator_takes_the_unix_ingress() {
    assert_eq!(chosen(&options(), &running(), &facts()), ("unix", None));
    // In a container tailscaled is root as well: its pid tells it apart.
    let same = ServeFacts { daemon: Some(daemon(0)), ..facts() };
    assert_eq!(chosen(&options(), &running(), &same), ("unix", None));
    let unknown = openclaw_tailscale::DaemonProcess { uid: 0, pid: None };
    let (word, trouble) = chosen(&options(), &running(), &ServeFacts { daemon: Some(unknown), ..facts() });
    assert_eq!((word, trouble.unwrap().code), ("loopback", "serve_identity_off"));
}
