//! What an upstream is told about who is calling (rulings 4).
//!
//! Runs last: by now every incoming copy of these names is gone, whatever its
//! spelling, and `Connection` can no longer remove anything. The values were
//! built once per identity, so a request only copies references.

use std::io::Write as _;
use std::net::IpAddr;

use http::header::{HeaderName, HeaderValue};

use super::head_lines::HeadLines;

use crate::domain::identity::IdentityHeaders;
use crate::domain::route::IdentityHeaderNames;
use crate::domain::{ClientAddr, Principal};
use crate::ingress::IngressFacts;

const LOGIN: HeaderName = HeaderName::from_static("tailscale-user-login");
const NAME: HeaderName = HeaderName::from_static("tailscale-user-name");
const PROFILE_PIC: HeaderName = HeaderName::from_static("tailscale-user-profile-pic");
const HEADERS_INFO: HeaderName = HeaderName::from_static("tailscale-headers-info");
const HEADERS_INFO_VALUE: HeaderValue = HeaderValue::from_static("https://tailscale.com/s/serve-headers");
const X_FORWARDED_USER: HeaderName = HeaderName::from_static("x-forwarded-user");
const REMOTE_USER: HeaderName = HeaderName::from_static("remote-user");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Says who is calling. Tagged machines, secret holders, local processes and
/// the public are nobody: they get no header.
pub(super) fn put_identity(out: &mut impl HeadLines, principal: &Principal, names: IdentityHeaderNames) {
    let user = match principal {
        Principal::User(user) => {
            if names.tailscale {
                put_tailscale(out, &user.headers);
            }
            &user.headers.login
        }
        Principal::Proxy(user) => &user.header,
        Principal::Node(_) | Principal::SecretHolder { .. } | Principal::Local | Principal::Public => return,
    };
    if names.x_forwarded_user {
        out.put(&X_FORWARDED_USER, user);
    }
    if names.remote_user {
        out.put(&REMOTE_USER, user);
    }
}

fn put_tailscale(out: &mut impl HeadLines, values: &IdentityHeaders) {
    out.put(&LOGIN, &values.login);
    out.put(&NAME, &values.name);
    if let Some(pic) = &values.profile_pic {
        out.put(&PROFILE_PIC, pic);
    }
    out.put(&HEADERS_INFO, &HEADERS_INFO_VALUE);
}

/// Says how the request came in: one address, the authority asked for, the
/// scheme the client spoke.
pub(super) fn put_forwarding(out: &mut impl HeadLines, facts: &IngressFacts, host: &HeaderValue) {
    if let Some(client) = facts.client {
        put_address(out, client);
    }
    out.put(&X_FORWARDED_HOST, host);
    out.put_text(&X_FORWARDED_PROTO, if facts.https { b"https" } else { b"http" });
}

fn put_address(out: &mut impl HeadLines, client: ClientAddr) {
    if let IpAddr::V4(v4) = client.ip() {
        // Written by hand: formatting is a hundred times the work, and most are these.
        let mut text = [0_u8; 15];
        let mut len = 0;
        for (at, octet) in v4.octets().into_iter().enumerate() {
            if at > 0 {
                text[len] = b'.';
                len += 1;
            }
            for (unit, shown) in [(100, octet > 99), (10, octet > 9), (1, true)] {
                if shown {
                    text[len] = b'0' + octet / unit % 10;
                    len += 1;
                }
            }
        }
        return out.put_text(&X_FORWARDED_FOR, &text[..len]);
    }
    // The longest address has 45 characters; the stack holds it.
    let mut text = [0_u8; 48];
    let mut rest = &mut text[..];
    if write!(rest, "{client}").is_ok() {
        let unused = rest.len();
        out.put_text(&X_FORWARDED_FOR, &text[..text.len() - unused]);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::HeaderMap;

    use super::*;
    use crate::domain::{ProxyUser, SecretKind, TailnetNode};
    use crate::ingress::Via;
    use crate::proxy::tests::support::alice;

    const ALL: IdentityHeaderNames =
        IdentityHeaderNames { tailscale: true, x_forwarded_user: true, remote_user: true };

    fn set(principal: &Principal, names: IdentityHeaderNames) -> Vec<String> {
        let mut headers = HeaderMap::new();
        put_identity(&mut headers, principal, names);
        let mut lines: Vec<_> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        lines.sort();
        lines
    }

    #[test]
    fn a_user_is_named_under_the_configured_names() {
        assert_eq!(
            set(&alice(), IdentityHeaderNames::default()),
            [
                "tailscale-headers-info: https://tailscale.com/s/serve-headers",
                "tailscale-user-login: alice@example.com",
                "tailscale-user-name: =?utf-8?q?Al=C3=AFce?=",
            ]
        );
        let names = IdentityHeaderNames { tailscale: false, x_forwarded_user: true, remote_user: true };
        assert_eq!(
            set(&alice(), names),
            ["remote-user: alice@example.com", "x-forwarded-user: alice@example.com"]
        );
    }

    #[test]
    fn a_proxy_user_never_gets_tailscale_names() {
        let bob = Principal::Proxy(Arc::new(ProxyUser {
            name: "bob".into(),
            header: HeaderValue::from_static("bob"),
        }));
        assert_eq!(set(&bob, ALL), ["remote-user: bob", "x-forwarded-user: bob"]);
        assert!(set(&bob, IdentityHeaderNames::default()).is_empty());
    }

    #[test]
    fn nobody_else_is_named() {
        let node = TailnetNode {
            tags: vec!["tag:ci".into()],
            node_id: "n1".parse().unwrap(),
            node_name: "ci".into(),
            addr: None,
            router: false,
            grants: Default::default(),
        };
        for principal in [
            Principal::Node(Arc::new(node)),
            Principal::SecretHolder { kind: SecretKind::Token, public: false },
            Principal::Local,
            Principal::Public,
        ] {
            assert!(set(&principal, ALL).is_empty(), "{}", principal.label());
        }
    }

    #[test]
    fn an_address_is_written_as_it_is_displayed() {
        for text in ["0.0.0.0", "1.20.100.255", "9.10.99.101", "100.64.0.200", "::1", "fd7a:115c::9"] {
            let mut headers = HeaderMap::new();
            put_address(&mut headers, ClientAddr::new(text.parse().unwrap()));
            assert_eq!(headers["x-forwarded-for"], text);
        }
    }

    #[test]
    fn forwarding_names_one_address() {
        let mut headers = HeaderMap::new();
        let mut facts = IngressFacts {
            local_direct: false,
            evidence: crate::ingress::Evidence::None(None),
            via: Via::Tailnet,
            peer: None,
            client: Some(ClientAddr::new("::ffff:100.64.0.2".parse().unwrap())),
            https: true,
            host: "gw.example".into(),
        };
        put_forwarding(&mut headers, &facts, &HeaderValue::from_static("gw.example"));
        assert_eq!(headers["x-forwarded-for"], "100.64.0.2");
        assert_eq!(headers["x-forwarded-host"], "gw.example");
        assert_eq!(headers["x-forwarded-proto"], "https");

        facts.client = Some(ClientAddr::new("fd7a:115c:a1e0:ab12:4843:cd96:6258:b240".parse().unwrap()));
        facts.https = false;
        headers.clear();
        put_forwarding(&mut headers, &facts, &HeaderValue::from_static("gw.example"));
        assert_eq!(headers["x-forwarded-for"], "fd7a:115c:a1e0:ab12:4843:cd96:6258:b240");
        assert_eq!(headers["x-forwarded-proto"], "http");
    }
}
