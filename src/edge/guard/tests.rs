use super::*;
use crate::domain::tailnet::tests::running;
use crate::domain::{PeerAddr, SecretKind};
use crate::ingress::Evidence;
use http::HeaderValue;

const NAME: &str = "gw.tailnet-example.ts.net";

fn facts(host: &str, https: bool) -> IngressFacts {
    IngressFacts {
        via: Via::Tailnet,
        peer: Some(PeerAddr::new("100.64.0.2:4000".parse().unwrap())),
        client: None,
        https,
        host: host.into(),
        local_direct: false,
        evidence: Evidence::None(None),
    }
}

struct Ask {
    host: &'static str,
    https: bool,
    method: Method,
    upgrade: bool,
    headers: Vec<(&'static str, &'static str)>,
    options: GuardOptions,
    principal: Principal,
}

impl Default for Ask {
    fn default() -> Self {
        Self {
            host: NAME,
            https: true,
            method: Method::GET,
            upgrade: false,
            headers: Vec::new(),
            options: GuardOptions::default(),
            principal: Principal::Local,
        }
    }
}

impl Ask {
    fn check(self) -> Result<(), Reason> {
        let running = running();
        let hosts = Hosts {
            configured: &["chat.example.com".to_owned()],
            route: None,
            running: Some(&running),
            local: Some("100.64.0.1".parse().unwrap()),
        };
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            headers.append(*name, HeaderValue::from_static(value));
        }
        let facts = facts(self.host, self.https);
        check(&self.principal, &facts, &self.method, &headers, self.upgrade, &hosts, self.options)
    }
}

fn ws(headers: &[(&'static str, &'static str)]) -> Result<(), Reason> {
    Ask { upgrade: true, headers: headers.to_vec(), ..Ask::default() }.check()
}

fn post(headers: &[(&'static str, &'static str)]) -> Result<(), Reason> {
    Ask { method: Method::POST, headers: headers.to_vec(), ..Ask::default() }.check()
}

#[test]
fn threat_032_foreign_hosts_are_misdirected() {
    for host in [
        "evil.example",
        "127.0.0.1",
        "100.64.0.1.nip.io",
        "gw.tailnet-example.ts.net.evil.com",
        "localhost",
        "100.64.0.9",
        "0.0.0.0",
        "",
        ":80",
        "[",
        "gw.other.ts.net",
        "127.evil.com",
        "2130706433",
    ] {
        assert_eq!(Ask { host, ..Ask::default() }.check(), Err(Reason::HostNotAllowed), "{host:?}");
    }
    for host in [
        NAME,
        "gw",
        "100.64.0.1",
        "100.64.0.1:18789",
        "[fd7a:115c:a1e0::1]:18789",
        "chat.example.com",
        "gw:80",
    ] {
        assert_eq!(Ask { host, ..Ask::default() }.check(), Ok(()), "{host:?}");
    }
}

#[test]
fn threat_033_a_rebound_name_is_refused_even_for_a_plain_get_without_origin() {
    let ask = Ask { host: "rebind.evil.example:18789", https: false, ..Ask::default() };
    assert_eq!(ask.check(), Err(Reason::HostNotAllowed));
}

#[test]
fn threat_029_a_foreign_page_opens_no_websocket() {
    assert_eq!(ws(&[("origin", "https://evil.example")]), Err(Reason::OriginNotAllowed));
    assert_eq!(ws(&[("origin", "https://gw.tailnet-example.ts.net")]), Ok(()));
}

#[test]
fn threat_030_origins_must_be_ours_to_the_letter() {
    for origin in [
        "null",
        "",
        "https://gw.tailnet-example.ts.net.evil.com",
        "https://gw.tailnet-example.ts.net:8443",
        "https://gw.tailnet-example.ts.net:443",
        "https://user@gw.tailnet-example.ts.net",
        "https://GW.tailnet-example.ts.net",
        "http://gw.tailnet-example.ts.net",
        "https://gw.tailnet-example.ts.net/",
        "https://gw",
        "wss://gw.tailnet-example.ts.net",
        "https://xn--gw-.ts.net",
    ] {
        assert_eq!(ws(&[("origin", origin)]), Err(Reason::OriginNotAllowed), "{origin:?}");
        assert_eq!(post(&[("origin", origin)]), Err(Reason::OriginNotAllowed), "{origin:?}");
    }
    let own = ("origin", "https://gw.tailnet-example.ts.net");
    assert_eq!(ws(&[own, own]), Err(Reason::OriginNotAllowed), "two origins");
}

#[test]
fn threat_030_a_program_without_origin_upgrades_only_where_the_route_says_so() {
    assert_eq!(ws(&[]), Err(Reason::OriginNotAllowed));
    assert_eq!(ws(&[("sec-fetch-mode", "websocket")]), Err(Reason::OriginNotAllowed));
    let options = GuardOptions { non_browser_upgrade: true };
    assert_eq!(Ask { upgrade: true, options, ..Ask::default() }.check(), Ok(()));
    let headers = vec![("sec-fetch-mode", "websocket")];
    assert_eq!(
        Ask { upgrade: true, options, headers, ..Ask::default() }.check(),
        Err(Reason::OriginNotAllowed)
    );
    let principal = Principal::SecretHolder { kind: SecretKind::Token, public: false };
    assert_eq!(Ask { upgrade: true, principal, ..Ask::default() }.check(), Ok(()));
}

#[test]
fn threat_031_a_foreign_page_changes_nothing() {
    for site in ["cross-site", "same-site", "bogus"] {
        assert_eq!(post(&[("sec-fetch-site", site)]), Err(Reason::CrossSite), "{site}");
        let own = ("origin", "https://gw.tailnet-example.ts.net");
        assert_eq!(post(&[own, ("sec-fetch-site", site)]), Err(Reason::CrossSite), "{site}");
    }
    assert_eq!(post(&[("sec-fetch-site", "none"), ("sec-fetch-site", "cross-site")]), Err(Reason::CrossSite));
    for method in ["PUT", "PATCH", "DELETE", "PROPFIND", "get", "FROBNICATE"] {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let headers = vec![("sec-fetch-site", "cross-site")];
        assert_eq!(Ask { method, headers, ..Ask::default() }.check(), Err(Reason::CrossSite));
    }
    assert_eq!(post(&[("sec-fetch-site", "same-origin")]), Ok(()));
    assert_eq!(post(&[]), Ok(()), "a program");
}

#[test]
fn a_link_from_elsewhere_still_opens_a_page() {
    let headers = vec![("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")];
    assert_eq!(Ask { headers, ..Ask::default() }.check(), Ok(()));
}
