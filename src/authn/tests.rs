use super::*;
use crate::config::{RateLimit, TrustedProxy};
use crate::domain::tailnet::tests::state;
use crate::domain::{ClientAddr, PeerAddr, Secret, SecretKind, ServeFacts, ServeView};
use http::{HeaderName, HeaderValue, header};
use openclaw_tailscale::parse_whois;
use std::net::{IpAddr, SocketAddr};

/// `whois` knows Alice at .2, Bob at .3 and a tagged machine at .4; .9 cannot be
/// asked about.
struct Directory;

impl Identities for Directory {
    async fn of_peer(&self, ip: IpAddr) -> Verdict {
        let IpAddr::V4(v4) = ip else { return Err(Reason::PeerUnknown) };
        let (login, tags) = match v4.octets()[3] {
            2 => ("alice@example.com", vec![]),
            3 => ("bob@example.com", vec![]),
            4 => ("tagged-devices", vec!["tag:ci"]),
            5 => ("k\u{16b}mi\u{146}a@example.com", vec![]),
            9 => return Err(Reason::WhoisUnavailable),
            _ => return Err(Reason::PeerUnknown),
        };
        let node = serde_json::json!({
            "Node": {"ID": 2, "StableID": "n2", "Name": "phone.tailnet-example.ts.net.", "User": 1, "Tags": tags,
                     "Addresses": [format!("{ip}/32")], "AllowedIPs": [format!("{ip}/32")]},
            "UserProfile": {"ID": 1, "LoginName": login, "DisplayName": "x"}, "CapMap": null
        });
        network::principal(&parse_whois(node.to_string().as_bytes()).unwrap(), state().running().unwrap())
    }

    async fn of_socket(&self, _: SocketAddr) -> Verdict {
        Err(Reason::PeerUnknown)
    }
}

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

fn auth(mode: AuthMode) -> Auth {
    Auth {
        mode,
        token: (mode == AuthMode::Token).then(|| Secret::new(TOKEN)).flatten(),
        password: (mode == AuthMode::Password).then(|| Secret::new(TOKEN)).flatten(),
        allow_tailscale: matches!(mode, AuthMode::Token | AuthMode::Password),
        rate_limit: RateLimit::default(),
        trusted_proxy: (mode == AuthMode::TrustedProxy).then(|| TrustedProxy {
            user_header: HeaderName::from_static("x-user"),
            required_headers: vec![HeaderName::from_static("x-proof")],
            allow_users: vec!["alice".into()],
            allow_loopback: None,
        }),
    }
}

/// Serve is known to have no route to us.
fn quiet() -> ServeView {
    ServeView::Known(Arc::new(ServeFacts {
        web_to_port: 0,
        tcp_to_port: 0,
        tcp_to_unix: 0,
        config: Arc::default(),
        daemon: None,
        run_ssh: None,
        dials_for_others: None,
        ..ServeFacts::default()
    }))
}

struct Ask {
    auth: Auth,
    evidence: Evidence,
    via: Via,
    local_direct: bool,
    headers: Vec<(HeaderName, &'static str)>,
    own_route: bool,
    open_route: bool,
    limiter: Arc<Limiter>,
    peer: &'static str,
    client: Option<&'static str>,
    serve: ServeView,
}

impl Ask {
    fn new(mode: AuthMode, evidence: Evidence) -> Self {
        Self {
            auth: auth(mode),
            evidence,
            via: Via::Tailnet,
            local_direct: false,
            headers: Vec::new(),
            own_route: false,
            open_route: false,
            limiter: Arc::new(Limiter::new(RateLimit::default())),
            peer: "192.0.2.1:9",
            client: Some("192.0.2.1"),
            serve: quiet(),
        }
    }

    fn with(mut self, name: HeaderName, value: &'static str) -> Self {
        self.headers.push((name, value));
        self
    }

    fn bearer(self, value: &'static str) -> Self {
        self.with(header::AUTHORIZATION, value)
    }

    async fn ask_only(&self) -> Result<Authentication, Reason> {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            headers.append(name, HeaderValue::from_static(value));
        }
        let facts = IngressFacts {
            via: self.via,
            peer: Some(PeerAddr::new(self.peer.parse().unwrap())),
            client: self.client.map(|ip| ClientAddr::new(ip.parse().unwrap())),
            https: false,
            host: "gw".into(),
            local_direct: self.local_direct,
            evidence: self.evidence.clone(),
        };
        let secrets = Secrets::new(&self.auth);
        let mut state = state();
        state.serve = self.serve.clone();
        let context = Context {
            auth: &self.auth,
            secrets: &secrets,
            state: &state,
            limiter: &self.limiter,
            subject: Subject::Client(ClientAddr::new("192.0.2.1".parse().unwrap())),
            own_addresses: Some(&["192.168.1.5".parse().unwrap()]),
            own_route: self.own_route,
            open_route: self.open_route,
        };
        let answer = authenticate(&facts, &headers, &context, &Directory).await;
        answer.map_err(|refusal| refusal.reason)
    }

    /// Asks, and permits what was authenticated.
    async fn ask(&self) -> Result<Authentication, Reason> {
        let mut answer = self.ask_only().await?;
        if let Some(bearer) = answer.foreign_bearer.take() {
            bearer.forgive();
        }
        Ok(answer)
    }
}

fn direct(last: u8) -> Evidence {
    Evidence::Direct { peer: IpAddr::from([100, 64, 0, last]), claimed: None }
}

fn serve(last: u8, login: Option<&str>) -> Evidence {
    Evidence::Serve { source: IpAddr::from([100, 64, 0, last]), login: login.map(|l| l.as_bytes().to_vec()) }
}

fn label(answer: Result<Authentication, Reason>) -> String {
    answer.map_or_else(|reason| reason.code().to_owned(), |a| a.principal.label().into_owned())
}

#[tokio::test]
async fn nothing_at_all_is_a_missing_secret() {
    let cases = [(AuthMode::Token, Reason::TokenMissing), (AuthMode::Password, Reason::PasswordMissing)];
    for (mode, reason) in cases {
        assert_eq!(Ask::new(mode, Evidence::None(None)).ask().await.unwrap_err(), reason);
    }
    let reason = Some(Reason::ServePeerUnattested);
    let ask = Ask::new(AuthMode::Token, Evidence::None(reason));
    assert_eq!(ask.ask().await.unwrap_err(), Reason::ServePeerUnattested);
}

#[tokio::test]
async fn threat_009_a_failed_look_up_is_never_nobody_and_never_somebody() {
    assert_eq!(Ask::new(AuthMode::Token, direct(9)).ask().await.unwrap_err(), Reason::WhoisUnavailable);
    assert_eq!(Ask::new(AuthMode::Token, direct(77)).ask().await.unwrap_err(), Reason::PeerUnknown);
    let unavailable = Evidence::Unavailable(Reason::TailscaleNotRunning);
    assert_eq!(Ask::new(AuthMode::Token, unavailable).ask().await.unwrap_err(), Reason::TailscaleNotRunning);
}

#[tokio::test]
async fn an_explicit_secret_decides_first_even_while_whois_is_down() {
    let ask = Ask::new(AuthMode::Token, direct(9)).bearer("Bearer 0123456789abcdef0123456789abcdef");
    let answer = ask.ask().await.unwrap();
    assert!(answer.strip_authorization, "ours, so the app never sees it");
    assert!(matches!(answer.principal, Principal::SecretHolder { kind: SecretKind::Token, public: false }));
    let ask = Ask::new(AuthMode::Token, direct(2)).with(secret::SECRET_HEADER, TOKEN);
    assert_eq!(label(ask.ask().await), "token");
}

#[tokio::test]
async fn threat_046_a_wrong_secret_never_falls_through_to_a_good_identity() {
    let ask = Ask::new(AuthMode::Token, direct(2)).with(secret::SECRET_HEADER, "wrong");
    assert_eq!(ask.ask().await.unwrap_err(), Reason::TokenMismatch);
    let mut ask = Ask::new(AuthMode::Token, direct(2)).bearer("Bearer wrong");
    ask.own_route = true;
    assert_eq!(ask.ask().await.unwrap_err(), Reason::TokenMismatch);
}

#[tokio::test]
async fn an_apps_own_bearer_passes_with_an_identity_and_is_a_wrong_secret_without() {
    let ask = Ask::new(AuthMode::Token, direct(2)).bearer("Bearer sk-of-the-app");
    for _ in 0..50 {
        let answer = ask.ask().await.unwrap();
        assert!(!answer.strip_authorization);
        assert_eq!(answer.principal.label(), "alice@example.com");
    }
    let ask = Ask::new(AuthMode::Token, Evidence::None(None)).bearer("Bearer sk-of-the-app");
    for _ in 0..10 {
        assert_eq!(ask.ask().await.unwrap_err(), Reason::TokenMismatch);
    }
    assert_eq!(ask.ask().await.unwrap_err(), Reason::RateLimited);
}

#[tokio::test]
async fn threat_046_every_way_to_send_a_secret_shares_one_budget() {
    let mut ask = Ask::new(AuthMode::Token, Evidence::None(None)).with(secret::SECRET_HEADER, "wrong");
    for _ in 0..5 {
        assert_eq!(ask.ask().await.unwrap_err(), Reason::TokenMismatch);
    }
    ask.headers = vec![(header::AUTHORIZATION, "Bearer wrong")];
    for _ in 0..5 {
        assert_eq!(ask.ask().await.unwrap_err(), Reason::TokenMismatch);
    }
    ask.headers = vec![(secret::SECRET_HEADER, TOKEN)];
    assert_eq!(ask.ask().await.unwrap_err(), Reason::RateLimited);
    ask.headers = vec![(header::AUTHORIZATION, "Bearer a"), (header::AUTHORIZATION, "Bearer b")];
    assert_eq!(ask.ask().await.unwrap_err(), Reason::BadRequest);
}

#[tokio::test]
async fn threat_043_a_missing_secret_is_not_counted_and_identity_is_never_locked_out() {
    let mut ask = Ask::new(AuthMode::Token, Evidence::None(None));
    for _ in 0..50 {
        assert_eq!(ask.ask().await.unwrap_err(), Reason::TokenMissing);
    }
    ask.headers = vec![(secret::SECRET_HEADER, "wrong")];
    for _ in 0..10 {
        ask.ask().await.unwrap_err();
    }
    ask.headers = Vec::new();
    ask.evidence = direct(2);
    assert_eq!(label(ask.ask().await), "alice@example.com");
    ask.headers = vec![(header::AUTHORIZATION, "Bearer sk-of-the-app")];
    assert_eq!(label(ask.ask().await), "alice@example.com", "the app's bearer, while locked out");
}

#[tokio::test]
async fn threat_054_secrets_in_other_places_are_not_looked_at() {
    for (name, value) in [
        (header::AUTHORIZATION, "Basic OjAxMjM0NTY3ODlhYmNkZWY="),
        (header::COOKIE, "token=0123456789abcdef0123456789abcdef"),
        (HeaderName::from_static("x-api-key"), TOKEN),
    ] {
        let ask = Ask::new(AuthMode::Token, Evidence::None(None)).with(name, value);
        assert_eq!(ask.ask().await.unwrap_err(), Reason::TokenMissing);
    }
}

#[tokio::test]
async fn threat_020_a_claim_of_a_direct_peer_must_agree_by_ascii_case_only() {
    let claim = |text: &str| {
        let claimed = Some(text.as_bytes().to_vec());
        Ask::new(AuthMode::Token, Evidence::Direct { peer: IpAddr::from([100, 64, 0, 3]), claimed })
    };
    for text in ["alice@example.com", "bob@example.com.evil", "bob@example.com.", "b\u{f6}b@example.com"] {
        assert_eq!(claim(text).ask().await.unwrap_err(), Reason::TailscaleUserMismatch, "{text}");
    }
    assert_eq!(label(claim("Bob@Example.com").ask().await), "bob@example.com");
    let tagged = Evidence::Direct {
        peer: IpAddr::from([100, 64, 0, 4]),
        claimed: Some(b"alice@example.com".to_vec()),
    };
    assert_eq!(Ask::new(AuthMode::Token, tagged).ask().await.unwrap_err(), Reason::TailscaleUserMismatch);
}

#[tokio::test]
async fn threat_021_a_login_is_decoded_once() {
    let serve = |login: &str| Ask::new(AuthMode::Token, serve(5, Some(login)));
    let encoded = "=?utf-8?q?k=C5=ABmi=C5=86a=40example.com?=";
    assert_eq!(label(serve(encoded).ask().await), "k\u{16b}mi\u{146}a@example.com");
    assert_eq!(serve("=?utf-8?q?a=0D=0Ab?=").ask().await.unwrap_err(), Reason::BadRequest);
    assert_eq!(serve("=?utf-8?q?=00?=").ask().await.unwrap_err(), Reason::BadRequest);
    let twice = "=?utf-8?q?=3D=3Futf-8=3Fq=3Fk=3F=3D?=";
    assert_eq!(serve(twice).ask().await.unwrap_err(), Reason::BadRequest);
}

#[tokio::test]
async fn threat_024_a_tagged_machine_is_itself_over_serve_and_directly() {
    assert_eq!(label(Ask::new(AuthMode::Token, direct(4)).ask().await), "tag:ci");
    assert_eq!(label(Ask::new(AuthMode::Token, serve(4, None)).ask().await), "tag:ci");
    let named = serve(4, Some("alice@example.com"));
    assert_eq!(Ask::new(AuthMode::Token, named).ask().await.unwrap_err(), Reason::TailscaleUserMismatch);
    assert_eq!(
        Ask::new(AuthMode::Token, serve(2, None)).ask().await.unwrap_err(),
        Reason::TailscaleUserMissing
    );
    let other = serve(2, Some("bob@example.com"));
    assert_eq!(Ask::new(AuthMode::Token, other).ask().await.unwrap_err(), Reason::TailscaleUserMismatch);
}

#[tokio::test]
async fn threat_058_mode_none_is_for_local_processes_and_never_for_what_claims_more() {
    let mut ask = Ask::new(AuthMode::None, Evidence::None(None));
    assert_eq!(ask.ask().await.unwrap_err(), Reason::SecretNotConfigured);
    ask.evidence = Evidence::None(Some(Reason::ServePeerUnattested));
    assert_eq!(ask.ask().await.unwrap_err(), Reason::ServePeerUnattested);
    ask.evidence = Evidence::None(None);
    ask.local_direct = true;
    ask.via = Via::Local;
    assert_eq!(label(ask.ask().await), "local");
    ask.serve = ServeView::Unknown;
    assert_eq!(ask.ask().await.unwrap_err(), Reason::ServeStateUnknown, "not known is not safe");
}

#[tokio::test]
async fn threat_046_a_known_device_that_is_not_permitted_guesses_within_the_budget() {
    let ask = Ask::new(AuthMode::Token, direct(3)).bearer("Bearer guess");
    for _ in 0..10 {
        // Authenticated as Bob, and then refused: nobody forgives the bearer.
        let answer = ask.ask_only().await.unwrap();
        let refusal = answer.foreign_bearer.unwrap().refuse();
        assert_eq!(refusal.reason, Reason::TokenMismatch);
    }
    let answer = ask.ask_only().await.unwrap();
    assert_eq!(answer.foreign_bearer.unwrap().refuse().reason, Reason::RateLimited);
    let right = Ask { limiter: ask.limiter.clone(), ..Ask::new(AuthMode::Token, direct(3)) };
    let right = right.bearer("Bearer 0123456789abcdef0123456789abcdef").ask_only().await.unwrap();
    assert_eq!(right.principal.label(), "bob@example.com", "not compared while locked out");
}

#[tokio::test]
async fn threat_019_in_proxy_mode_no_secret_opens_a_second_way() {
    let token = || {
        let mut ask = Ask::new(AuthMode::TrustedProxy, Evidence::Proxy);
        ask.via = Via::Proxy;
        ask.auth.password = Secret::new(TOKEN);
        ask.bearer("Bearer 0123456789abcdef0123456789abcdef")
    };
    assert_eq!(token().ask().await.unwrap_err(), Reason::TrustedProxyMissingHeader);
    let mut ask = token();
    ask.evidence = Evidence::None(None);
    ask.via = Via::Lan;
    assert_eq!(ask.ask().await.unwrap_err(), Reason::TrustedProxyUntrustedSource);
    ask.via = Via::Local;
    ask.local_direct = true;
    assert_eq!(label(ask.ask().await), "password");
}

#[tokio::test]
async fn threat_017_proxy_mode_believes_listed_proxies_only() {
    let proof = HeaderName::from_static("x-proof");
    let user = HeaderName::from_static("x-user");
    let ask = |name: &'static str| {
        let mut ask = Ask::new(AuthMode::TrustedProxy, Evidence::Proxy);
        ask.via = Via::Proxy;
        ask.with(proof.clone(), "1").with(user.clone(), name)
    };
    assert_eq!(label(ask("alice").ask().await), "proxy:alice");
    assert_eq!(ask("Alice").ask().await.unwrap_err(), Reason::TrustedProxyUserNotAllowed);
    assert_eq!(ask(" ").ask().await.unwrap_err(), Reason::TrustedProxyUserMissing);

    let mut own = ask("alice");
    own.peer = "192.168.1.5:9";
    assert_eq!(own.ask().await.unwrap_err(), Reason::TrustedProxyLocalInterfaceSource);
    let mut loopback = ask("alice");
    loopback.peer = "127.0.0.1:9";
    loopback.auth.trusted_proxy.as_mut().unwrap().allow_loopback = Some(false);
    assert_eq!(loopback.ask().await.unwrap_err(), Reason::TrustedProxyLoopbackSource);
    let mut nobody = ask("alice");
    nobody.client = None;
    assert_eq!(nobody.ask().await.unwrap_err(), Reason::ProxyAttributionRequired);
    let mut through_serve = ask("alice");
    through_serve.via = Via::Serve;
    assert_eq!(through_serve.ask().await.unwrap_err(), Reason::TrustedProxyIsTailscaled);
}

#[tokio::test]
async fn threat_059_an_empty_list_of_proxy_users_is_nobody() {
    let mut ask = Ask::new(AuthMode::TrustedProxy, Evidence::Proxy);
    ask.via = Via::Proxy;
    ask.auth.trusted_proxy.as_mut().unwrap().allow_users.clear();
    let ask =
        ask.with(HeaderName::from_static("x-proof"), "1").with(HeaderName::from_static("x-user"), "alice");
    assert_eq!(ask.ask().await.unwrap_err(), Reason::TrustedProxyUserNotAllowed);
}

#[tokio::test]
async fn an_open_route_admits_anybody_but_not_a_wrong_secret() {
    let mut ask = Ask::new(AuthMode::Token, Evidence::None(None));
    ask.open_route = true;
    assert_eq!(label(ask.ask().await), "public");
    ask.headers = vec![(secret::SECRET_HEADER, "wrong")];
    assert_eq!(ask.ask().await.unwrap_err(), Reason::TokenMismatch);
    ask.headers = Vec::new();
    ask.evidence = direct(9);
    assert_eq!(label(ask.ask().await), "public", "nothing is known of them, and nothing need be");
}

#[tokio::test]
async fn a_socket_that_no_peer_opened_is_unattested() {
    let mut ask = Ask::new(AuthMode::Token, Evidence::Userspace { socket: "127.0.0.1:9".parse().unwrap() });
    ask.via = Via::Userspace;
    assert_eq!(ask.ask().await.unwrap_err(), Reason::ServePeerUnattested);
}

#[test]
fn threat_110_expired_jailed_and_unsigned_machines_are_refused() {
    let ask = |field: &str| {
        let mut json = serde_json::json!({
            "Node": {"ID": 2, "StableID": "n2", "Name": "phone.tailnet-example.ts.net.", "User": 1,
                     "Addresses": ["100.64.0.2/32"], "AllowedIPs": ["100.64.0.2/32"]},
            "UserProfile": {"ID": 1, "LoginName": "alice@example.com", "DisplayName": "x"}, "CapMap": null
        });
        json["Node"][field] = true.into();
        network::principal(&parse_whois(json.to_string().as_bytes()).unwrap(), state().running().unwrap())
            .unwrap_err()
    };
    assert_eq!(ask("Expired"), Reason::NodeExpired);
    assert_eq!(ask("IsJailed"), Reason::NodeJailed);
    assert_eq!(ask("UnsignedPeerAPIOnly"), Reason::NodeUnsigned);
}
