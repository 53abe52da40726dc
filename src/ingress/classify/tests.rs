use super::*;
use crate::domain::ServeFacts;
use crate::domain::tailnet::tests::state;
use crate::ingress::UnixPeer;
use http::HeaderValue;
use openclaw_tailscale::{BackendState, DaemonProcess};
use std::sync::Arc;

const DAEMON: u32 = 0;
const OURS: u32 = 1000;

fn serving() -> TailnetState {
    let mut state = state();
    state.serve = ServeView::Known(Arc::new(ServeFacts {
        web_to_port: 1,
        tcp_to_port: 0,
        tcp_to_unix: 0,
        config: Arc::default(),
        daemon: Some(DaemonProcess { uid: DAEMON, pid: Some(7) }),
        run_ssh: Some(false),
        dials_for_others: Some(false),
        ..ServeFacts::default()
    }));
    state
}

fn without_tun() -> TailnetState {
    let mut state = serving();
    let mut running = Running::clone(state.running().unwrap());
    running.tun = Some(false);
    state.phase = Phase::Running(Arc::new(running));
    state.tun = Some(false);
    state
}

struct Ask {
    peer: &'static str,
    local: &'static str,
    headers: Vec<(&'static str, &'static str)>,
    state: TailnetState,
    trusted: Vec<&'static str>,
    socket_uid: Option<u32>,
    user_header: Option<HeaderName>,
    at_accept: Option<AtAccept>,
}

impl Default for Ask {
    fn default() -> Self {
        Self {
            peer: "127.0.0.1:5000",
            local: "127.0.0.1:18789",
            headers: Vec::new(),
            state: serving(),
            trusted: Vec::new(),
            socket_uid: Some(OURS),
            user_header: None,
            at_accept: None,
        }
    }
}

impl Ask {
    fn classify(self) -> Result<Classified, Reason> {
        let conn = ConnFacts {
            id: 1,
            listener: ListenerKind::Ordinary,
            endpoint: Endpoint::Tcp {
                peer: PeerAddr::new(self.peer.parse().unwrap()),
                local: LocalAddr::new(self.local.parse().unwrap()),
            },
            tls: None,
            accepted: std::time::Instant::now(),
            at_accept: AtAccept { loopback: true, unix: true, ingress: true },
        };
        self.on(&conn)
    }

    fn unix(self) -> Result<Classified, Reason> {
        let peer = UnixPeer { uid: DAEMON, pid: Some(7) };
        let conn = ConnFacts {
            id: 1,
            listener: ListenerKind::ServeUnix,
            endpoint: Endpoint::Unix(peer),
            tls: None,
            accepted: std::time::Instant::now(),
            at_accept: AtAccept { loopback: true, unix: true, ingress: true },
        };
        self.on(&conn)
    }

    fn on(self, conn: &ConnFacts) -> Result<Classified, Reason> {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            headers.append(*name, HeaderValue::from_static(value));
        }
        let at_accept = self.at_accept.unwrap_or(AtAccept { loopback: true, unix: true, ingress: true });
        let trusted: Vec<IpNetwork> = self.trusted.iter().map(|net| net.parse().unwrap()).collect();
        let policy = Policy {
            trusted_proxies: &trusted,
            allow_real_ip_fallback: false,
            user_header: self.user_header.as_ref(),
            our_uid: OURS,
            trust_local_users: false,
            at_accept,
        };
        classify(conn, &headers, "gw".into(), &self.state, &policy, &|| self.socket_uid)
    }

    fn evidence(self) -> Evidence {
        self.classify().unwrap().facts.evidence
    }
}

/// A complete and consistent set, as Serve would send it for Alice.
fn alice_headers() -> Vec<(&'static str, &'static str)> {
    vec![
        ("x-forwarded-for", "100.64.0.2"),
        ("x-forwarded-host", "gw.tailnet-example.ts.net"),
        ("x-forwarded-proto", "https"),
        ("tailscale-user-login", "alice@example.com"),
        ("tailscale-user-name", "Alice"),
        ("tailscale-headers-info", "https://tailscale.com/s/serve-headers"),
    ]
}

fn unattested() -> Evidence {
    Evidence::None(Some(Reason::ServePeerUnattested))
}

#[test]
fn threat_002_a_local_process_with_a_perfect_header_set_is_nobody() {
    for socket_uid in [None, Some(OURS), Some(65534)] {
        let found = Ask { headers: alice_headers(), socket_uid, ..Ask::default() }.classify().unwrap();
        assert_eq!(found.facts.evidence, unattested());
        assert_eq!(found.facts.via, Via::Local);
        assert!(!found.facts.local_direct);
        assert_eq!(found.unattested, Some(Condition::SocketIsNotDaemons));
    }
}

#[test]
fn threat_004_identity_headers_mean_nothing_while_no_route_of_ours_exists() {
    let mut state = serving();
    state.serve = ServeView::Known(Arc::new(ServeFacts {
        web_to_port: 0,
        ..ServeFacts::clone(state.serve_facts().unwrap())
    }));
    let found = Ask { headers: alice_headers(), socket_uid: Some(DAEMON), state, ..Ask::default() }
        .classify()
        .unwrap();
    assert_eq!(found.facts.evidence, unattested());
    assert_eq!(found.unattested, Some(Condition::NotOneWebHandler));
}

#[test]
fn an_attested_loopback_connection_names_its_source() {
    let found =
        Ask { headers: alice_headers(), socket_uid: Some(DAEMON), ..Ask::default() }.classify().unwrap();
    assert_eq!(found.facts.via, Via::Serve);
    assert!(found.facts.https);
    assert_eq!(found.facts.client.unwrap().to_string(), "100.64.0.2");
    let login = Some(b"alice@example.com".to_vec());
    assert_eq!(found.facts.evidence, Evidence::Serve { source: "100.64.0.2".parse().unwrap(), login });
}

#[test]
fn threat_005_a_direct_peer_is_whoever_the_socket_says() {
    let headers = vec![("tailscale-user-login", "alice@example.com")];
    let found = Ask { peer: "100.64.0.3:9", local: "100.64.0.1:18789", headers, ..Ask::default() }
        .classify()
        .unwrap();
    assert_eq!(found.facts.via, Via::Tailnet);
    let claimed = Some(b"alice@example.com".to_vec());
    assert_eq!(found.facts.evidence, Evidence::Direct { peer: "100.64.0.3".parse().unwrap(), claimed });
    assert!(found.unexpected_identity_header);
}

#[test]
fn threat_006_a_funnel_mark_ends_every_identity() {
    let mut headers = alice_headers();
    headers.push(("tailscale-funnel-request", "?1"));
    for found in [
        Ask { headers: headers.clone(), socket_uid: Some(DAEMON), ..Ask::default() }.classify().unwrap(),
        Ask { headers, ..Ask::default() }.unix().unwrap(),
    ] {
        assert_eq!(found.facts.via, Via::Funnel);
        assert_eq!(found.facts.evidence, Evidence::None(None));
    }
}

#[test]
fn threat_007_our_own_tailnet_address_is_local_and_not_the_owner() {
    for peer in ["100.64.0.1:9", "[::ffff:100.64.0.1]:9"] {
        let found = Ask { peer, local: "100.64.0.1:18789", ..Ask::default() }.classify().unwrap();
        assert_eq!(found.facts.via, Via::Local);
        assert_eq!(found.facts.evidence, Evidence::None(Some(Reason::OwnAddress)));
        assert!(!found.facts.local_direct);
    }
    // The same through Serve: it names the node's owner to any local process.
    let mut headers = alice_headers();
    headers[0].1 = "100.64.0.1";
    let found = Ask { headers, socket_uid: Some(DAEMON), ..Ask::default() }.evidence();
    assert_eq!(found, Evidence::None(Some(Reason::OwnAddress)));
}

#[test]
fn threat_107_serve_names_exactly_one_tailnet_address() {
    let ask = |value: &'static str| {
        let mut headers = alice_headers();
        headers[0].1 = value;
        Ask { headers, socket_uid: Some(DAEMON), ..Ask::default() }
    };
    assert!(matches!(ask("100.64.0.2, 100.64.0.3").classify(), Err(Reason::AmbiguousIdentityHeader)));
    for value in ["nobody", "127.0.0.1", "::1", "8.8.8.8", "192.168.1.7"] {
        assert!(matches!(ask(value).evidence(), Evidence::None(Some(_))), "{value}");
    }
    let mut headers = alice_headers();
    headers.remove(1);
    let found = Ask { headers, socket_uid: Some(DAEMON), ..Ask::default() }.evidence();
    assert_eq!(found, unattested(), "no X-Forwarded-Host");
}

#[test]
fn threat_013_a_forwarding_tailnet_peer_is_a_proxy_and_nobody() {
    for header in ["x-forwarded-for", "x-forwarded-prefix", "forwarded", "x-real-ip", "via"] {
        let headers = vec![(header, "100.64.0.2")];
        let ask = Ask { peer: "100.64.0.3:9", local: "100.64.0.1:18789", headers, ..Ask::default() };
        assert_eq!(ask.evidence(), Evidence::None(Some(Reason::ProxiedPeer)), "{header}");
    }
}

#[test]
fn threat_104_a_cgnat_address_elsewhere_is_not_a_tailnet_peer() {
    let headers = alice_headers();
    let found = Ask { peer: "100.64.0.2:9", local: "192.168.1.5:18789", headers, ..Ask::default() }
        .classify()
        .unwrap();
    assert_eq!(found.facts.via, Via::Lan);
    assert_eq!(found.facts.evidence, unattested());
}

#[test]
fn lan_hosts_have_no_business_at_a_tailnet_address() {
    let state = serving();
    let own: Vec<IpAddr> = vec!["192.168.1.5".parse().unwrap()];
    let local = LocalAddr::new("100.64.0.1:18789".parse().unwrap());
    let off = |peer: &str| is_off_tailnet(PeerAddr::new(peer.parse().unwrap()), local, &state, &own);
    assert!(off("192.168.1.77:9"));
    assert!(off("[2001:db8::1]:9"));
    assert!(!off("192.168.1.5:9"), "this host");
    assert!(!off("100.64.0.1:9"), "this host");
    assert!(!off("100.64.0.2:9"));
}

#[test]
fn threat_062_while_tailscale_is_down_the_tailnet_is_unavailable_not_unauthorized() {
    let cases = [
        (Phase::Down { detail: String::new(), fix: None, gone: false }, Reason::WhoisUnavailable),
        (Phase::NotRunning { state: BackendState::Stopped }, Reason::TailscaleNotRunning),
        (Phase::Unknown, Reason::TailscaleNotRunning),
    ];
    for (phase, reason) in cases {
        let state = TailnetState { phase, ..serving() };
        let ask =
            Ask { peer: "100.64.0.2:9", local: "100.64.0.1:18789", state: state.clone(), ..Ask::default() };
        assert_eq!(ask.evidence(), Evidence::Unavailable(reason));
        let through_serve = match state.phase {
            Phase::Unknown => Reason::ServeStateUnknown,
            _ => reason,
        };
        let ask = Ask { headers: alice_headers(), socket_uid: Some(DAEMON), state, ..Ask::default() };
        assert_eq!(ask.evidence(), Evidence::Unavailable(through_serve));
    }
    let state = TailnetState { serve: ServeView::Unknown, ..serving() };
    let ask = Ask { headers: alice_headers(), socket_uid: Some(DAEMON), state, ..Ask::default() };
    assert_eq!(ask.evidence(), Evidence::Unavailable(Reason::ServeStateUnknown));
}

#[test]
fn threat_003_the_unix_ingress_is_believed_while_its_conditions_hold() {
    let found = Ask { headers: alice_headers(), ..Ask::default() }.unix().unwrap();
    assert_eq!(found.facts.via, Via::Serve);
    assert_eq!(&*found.facts.host, "gw.tailnet-example.ts.net", "Host is localhost there");
    let mut state = serving();
    state.serve = ServeView::Known(Arc::new(ServeFacts {
        tcp_to_unix: 1,
        config: Arc::default(),
        ..ServeFacts::clone(state.serve_facts().unwrap())
    }));
    let found = Ask { headers: alice_headers(), state, ..Ask::default() }.unix().unwrap();
    assert_eq!(found.facts.evidence, unattested());
    assert_eq!(found.unattested, Some(Condition::TcpForward));
}

#[test]
fn userspace_networking_makes_loopback_a_way_in() {
    let ask =
        |socket_uid| Ask { headers: alice_headers(), socket_uid, state: without_tun(), ..Ask::default() };
    let found = ask(Some(DAEMON)).classify().unwrap();
    assert_eq!(found.facts.via, Via::Userspace);
    assert_eq!(found.facts.evidence, Evidence::Userspace { socket: "127.0.0.1:5000".parse().unwrap() });
    assert_eq!(found.facts.client, None);
    assert_eq!(ask(Some(OURS)).evidence(), unattested());
    let plain = Ask { state: without_tun(), ..Ask::default() }.classify().unwrap();
    assert!(!plain.facts.local_direct, "loopback is not local then");
}

#[test]
fn threat_017_a_loopback_proxy_is_never_tailscaled() {
    let user_header = Some(HeaderName::from_static("x-user"));
    let quiet = || {
        let mut state = serving();
        state.serve = ServeView::Known(Arc::new(ServeFacts {
            web_to_port: 0,
            ..ServeFacts::clone(state.serve_facts().unwrap())
        }));
        state
    };
    let headers = || vec![("x-forwarded-for", "192.0.2.7"), ("x-user", "alice")];
    let ask = |socket_uid, state| Ask {
        headers: headers(),
        trusted: vec!["127.0.0.1"],
        socket_uid,
        state,
        user_header: user_header.clone(),
        ..Ask::default()
    };
    assert_eq!(ask(Some(33), serving()).evidence(), Evidence::Unavailable(Reason::TrustedProxyUnsafe));
    assert_eq!(ask(Some(33), without_tun()).evidence(), Evidence::Unavailable(Reason::TrustedProxyUnsafe));
    assert_eq!(
        ask(Some(DAEMON), quiet()).evidence(),
        Evidence::Unavailable(Reason::TrustedProxyIsTailscaled)
    );
    let found = ask(Some(33), quiet()).classify().unwrap();
    assert_eq!(found.facts.evidence, Evidence::Proxy);
    assert_eq!(found.facts.client.unwrap().to_string(), "192.0.2.7");
}

#[test]
fn threat_109_a_second_proxy_beside_serve_inherits_no_identity() {
    let ask = |socket_uid| Ask {
        headers: alice_headers(),
        socket_uid,
        trusted: vec!["10.0.0.0/8"],
        ..Ask::default()
    };
    assert_eq!(ask(Some(33)).evidence(), unattested());
    assert!(matches!(ask(Some(DAEMON)).evidence(), Evidence::Serve { .. }));
}

#[test]
fn a_plain_local_request_is_local_direct() {
    let found = Ask::default().classify().unwrap();
    assert!(found.facts.local_direct);
    for header in ["x-forwarded-for", "x-real-ip", "forwarded", "via"] {
        let found = Ask { headers: vec![(header, "192.0.2.7")], ..Ask::default() }.classify().unwrap();
        assert!(!found.facts.local_direct, "{header}");
    }
}

#[test]
fn threat_006_a_funnel_mark_counts_on_every_connection() {
    let mut headers = alice_headers();
    headers.push(("tailscale-funnel-request", "?1"));
    for (state, socket_uid) in [(serving(), Some(OURS)), (without_tun(), Some(DAEMON)), (serving(), None)] {
        let found = Ask { headers: headers.clone(), state, socket_uid, ..Ask::default() }.classify().unwrap();
        assert_eq!(found.facts.via, Via::Funnel);
        assert_eq!(found.facts.client, None, "nobody vouches for the address");
        assert_eq!(found.facts.evidence, Evidence::None(None));
    }
    let found = Ask { headers, peer: "100.64.0.3:9", local: "100.64.0.1:18789", ..Ask::default() }
        .classify()
        .unwrap();
    assert_eq!(found.facts.via, Via::Funnel);
    assert_eq!(found.facts.evidence, Evidence::None(None));
}

#[test]
fn threat_002_a_connection_from_before_the_facts_proves_nothing_under_them() {
    let ask = || Ask {
        headers: alice_headers(),
        socket_uid: Some(DAEMON),
        at_accept: Some(AtAccept::NONE),
        ..Ask::default()
    };
    let found = ask().classify().unwrap();
    assert_eq!((found.facts.evidence, found.unattested), (unattested(), Some(Condition::OlderThanFacts)));
    assert_eq!(ask().unix().unwrap().unattested, Some(Condition::OlderThanFacts));
    // What is wrong now as well is what the log names.
    let found = Ask { socket_uid: Some(OURS), ..ask() }.classify().unwrap();
    assert_eq!((found.facts.evidence, found.unattested), (unattested(), Some(Condition::SocketIsNotDaemons)));
}

#[test]
fn threat_017_a_loopback_proxy_is_believed_only_while_loopback_is_known_to_be_closed() {
    let user_header = Some(HeaderName::from_static("x-user"));
    let headers = vec![("x-forwarded-for", "192.0.2.7"), ("x-user", "alice")];
    let ask = |state, socket_uid| Ask {
        headers: headers.clone(),
        trusted: vec!["127.0.0.1"],
        user_header: user_header.clone(),
        state,
        socket_uid,
        ..Ask::default()
    };
    let unknown = TailnetState { serve: ServeView::Unknown, ..serving() };
    assert_eq!(ask(unknown, Some(33)).evidence(), Evidence::Unavailable(Reason::TrustedProxyUnsafe));
    assert_eq!(
        ask(TailnetState::unknown(), Some(33)).evidence(),
        Evidence::Unavailable(Reason::TrustedProxyUnsafe)
    );
    assert_eq!(ask(serving(), None).evidence(), Evidence::Unavailable(Reason::TrustedProxyUnsafe));
    let gone = Phase::Down { detail: String::new(), fix: None, gone: true };
    let gone = TailnetState { phase: gone, serve: ServeView::Unknown, ..serving() };
    assert_eq!(ask(gone.clone(), Some(33)).evidence(), Evidence::Proxy);
    let mut claims = ask(gone, Some(33));
    claims.headers.push(("tailscale-user-login", "alice@example.com"));
    assert_eq!(claims.evidence(), Evidence::Unavailable(Reason::TrustedProxyIsTailscaled));
}

#[test]
fn a_proxy_with_a_tailnet_address_is_believed_on_the_tailnet_only() {
    let ask = |local| Ask { peer: "100.64.0.7:9", local, trusted: vec!["100.64.0.7"], ..Ask::default() };
    assert_eq!(ask("192.168.1.5:18789").evidence(), Evidence::None(None));
    assert_eq!(ask("100.64.0.1:18789").evidence(), Evidence::Proxy);
    let phase = Phase::Down { detail: String::new(), fix: None, gone: true };
    let down = Ask { state: TailnetState { phase, ..serving() }, ..ask("100.64.0.1:18789") };
    assert_eq!(down.evidence(), Evidence::Unavailable(Reason::WhoisUnavailable));
}
