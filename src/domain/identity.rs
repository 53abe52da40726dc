//! Who a request belongs to.

use std::net::IpAddr;
use std::sync::Arc;

use http::HeaderValue;
use openclaw_tailscale::{Login, StableNodeId};

use super::{TailnetGrants, rfc2047};

/// A person on a tailnet, as `whois` of an address said.
#[derive(Clone, Debug)]
pub struct TailnetUser {
    /// The login name, compared by ASCII case only.
    pub login: Login,
    /// The control server's id for the user; pinned on first use.
    pub user_id: i64,
    /// What the user calls themself. A label: nothing is ever decided on it.
    pub display_name: String,
    /// The device the request came from.
    pub node_id: StableNodeId,
    /// The device's name without its final dot, or a computed one.
    pub node_name: String,
    /// The device's first tailnet address.
    pub addr: Option<IpAddr>,
    /// Whether this is a member of our own tailnet (rulings 1.11); everybody
    /// else was shared in and needs an entry that says `shared: true`.
    pub member: bool,
    /// Whether the device forwards other machines' traffic (threat rule 105).
    pub router: bool,
    /// What the tailnet's policy grants them here.
    pub grants: TailnetGrants,
    /// The identity headers an upstream gets, built once per identity.
    pub headers: IdentityHeaders,
}

/// The values of the identity headers, ready to be set.
#[derive(Clone, Debug)]
pub struct IdentityHeaders {
    /// `Tailscale-User-Login`, RFC 2047 where it is not ASCII.
    pub login: HeaderValue,
    /// `Tailscale-User-Name`, RFC 2047 where it is not ASCII.
    pub name: HeaderValue,
    /// `Tailscale-User-Profile-Pic`; omitted when there is none.
    pub profile_pic: Option<HeaderValue>,
}

impl IdentityHeaders {
    /// The values for one user. A name or picture that cannot be sent is left
    /// out, since it is only a label; without a login there is nothing to send.
    pub fn new(login: &str, name: &str, profile_pic: Option<&str>) -> Option<Self> {
        let profile_pic = profile_pic
            .filter(|url| !url.is_empty() && url.bytes().all(|b| b.is_ascii_graphic()))
            .and_then(|url| HeaderValue::from_str(url).ok());
        Some(Self {
            login: rfc2047::header_value(login).filter(|value| !value.is_empty())?,
            name: rfc2047::header_value(name).unwrap_or_else(|| HeaderValue::from_static("")),
            profile_pic,
        })
    }
}

/// A tagged machine on the tailnet. Never a person, whatever its profile says.
#[derive(Clone, Debug)]
pub struct TailnetNode {
    /// The tags, each starting with `tag:`. Never empty.
    pub tags: Vec<String>,
    /// The device.
    pub node_id: StableNodeId,
    /// The device's name without its final dot, or a computed one.
    pub node_name: String,
    /// The device's first tailnet address.
    pub addr: Option<IpAddr>,
    /// Whether the device forwards other machines' traffic.
    pub router: bool,
    /// What the tailnet's policy grants it here.
    pub grants: TailnetGrants,
}

/// A user that a trusted reverse proxy vouched for.
#[derive(Clone, Debug)]
pub struct ProxyUser {
    /// The configured user header's value, trimmed; compared exactly.
    pub name: String,
    /// The same for the upstream, RFC 2047 where it is not ASCII.
    pub header: HeaderValue,
}

/// Which shared secret was presented.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SecretKind {
    /// `gateway.auth.token`
    Token,
    /// `gateway.auth.password`
    Password,
}

/// Who a request belongs to, after authentication and before authorization.
#[derive(Clone, Debug)]
pub enum Principal {
    /// A person on the tailnet.
    User(Arc<TailnetUser>),
    /// A tagged machine on the tailnet.
    Node(Arc<TailnetNode>),
    /// A user that a trusted proxy named.
    Proxy(Arc<ProxyUser>),
    /// Whoever holds the token or password. `public` when the request came in
    /// through Funnel, where a secret never carries the admin role.
    SecretHolder {
        /// Which secret.
        kind: SecretKind,
        /// Whether it came through Funnel.
        public: bool,
    },
    /// A local process in mode `none`.
    Local,
    /// Anybody: a request without any credential, for routes open to all.
    Public,
}

impl Principal {
    /// Whether the identity is carried by the network rather than by something
    /// the client deliberately sent: a page of another site could use it too,
    /// so such requests pass the browser guard (rulings 5).
    pub fn is_ambient(&self) -> bool {
        matches!(self, Self::User(_) | Self::Node(_) | Self::Proxy(_) | Self::Local)
    }

    /// The tailnet address of the device, where there is one.
    pub fn addr(&self) -> Option<IpAddr> {
        match self {
            Self::User(user) => user.addr,
            Self::Node(node) => node.addr,
            _ => None,
        }
    }

    /// What the tailnet's policy grants the caller here.
    pub fn grants(&self) -> Option<&TailnetGrants> {
        match self {
            Self::User(user) => Some(&user.grants),
            Self::Node(node) => Some(&node.grants),
            _ => None,
        }
    }

    /// Whether both are the same person on the same device, or the same machine,
    /// in the same standing. What they are granted may differ.
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::User(a), Self::User(b)) => {
                a.login == b.login
                    && a.user_id == b.user_id
                    && a.node_id == b.node_id
                    && (a.member, a.router) == (b.member, b.router)
            }
            (Self::Node(a), Self::Node(b)) => {
                a.node_id == b.node_id && a.tags == b.tags && a.router == b.router
            }
            (Self::Proxy(a), Self::Proxy(b)) => a.name == b.name,
            (Self::SecretHolder { .. }, Self::SecretHolder { .. }) => true,
            (Self::Local, Self::Local) | (Self::Public, Self::Public) => true,
            _ => false,
        }
    }

    /// A short label for logs: `alice@example.com`, `tag:ci`, `proxy:bob`,
    /// `token`, `local`, `public`. Control characters cannot occur: logins and
    /// tags are checked when parsed, and proxy users when read.
    pub fn label(&self) -> std::borrow::Cow<'_, str> {
        match self {
            Self::User(user) => user.login.as_str().into(),
            Self::Node(node) => node.tags.join(",").into(),
            Self::Proxy(user) => format!("proxy:{}", user.name).into(),
            Self::SecretHolder { kind: SecretKind::Token, .. } => "token".into(),
            Self::SecretHolder { kind: SecretKind::Password, .. } => "password".into(),
            Self::Local => "local".into(),
            Self::Public => "public".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threat_021_values_that_could_break_a_head_are_never_made() {
        assert!(IdentityHeaders::new("a@b\r\nX: y", "n", None).is_none());
        assert!(IdentityHeaders::new("", "n", None).is_none());
        let odd = IdentityHeaders::new("a@b", "n\0", Some("https://x/ y")).unwrap();
        assert!(odd.name.is_empty() && odd.profile_pic.is_none());
        assert!(IdentityHeaders::new("a@b", "n", Some("https://x/\u{e9}")).unwrap().profile_pic.is_none());
        let built = IdentityHeaders::new("b\u{f8}b@example.com", "B\u{f8}b \u{136}", Some("")).unwrap();
        assert_eq!(built.login, "=?utf-8?q?b=C3=B8b@example.com?=");
        assert_eq!(built.name, "=?utf-8?q?B=C3=B8b_=C4=B6?=");
        assert!(built.profile_pic.is_none());
    }
}
