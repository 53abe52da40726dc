//! Who may do what: the entries of `gateway.access` and of a route's `allow`.

use std::fmt;
use std::str::FromStr;

use openclaw_tailscale::Login;

/// What a principal may do. `Admin` covers `User`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// The routes.
    User,
    /// The routes, the dashboard, approvals, configuration and lockdown.
    Admin,
}

/// Whom an entry speaks of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// One login, by ASCII case.
    Login(Login),
    /// `*@domain`: every login of that domain. Stored lower-cased, without `*@`.
    Domain(String),
    /// `tag:x`: machines that carry the tag.
    Tag(String),
    /// `autogroup:member`: every untagged user of this tailnet.
    Member,
    /// `proxy:<user>`: a user that a trusted proxy names; exact.
    Proxy(String),
}

/// Why a `who` was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no login, *@domain, tag:name, autogroup:member or proxy:user")]
pub struct WhoError {
    text: String,
}

impl FromStr for Who {
    type Err = WhoError;

    /// Reads an entry. Logins such as `a@b@c`, `@x`, `tagged-devices` and
    /// anything with blanks or control characters are refused: they could only
    /// ever match somebody by accident (threat rule 23).
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = || WhoError { text: text.to_owned() };
        if text.is_empty() || text.len() > 254 || text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(refused());
        }
        if text == "autogroup:member" {
            return Ok(Self::Member);
        }
        if let Some(tag) = text.strip_prefix("tag:") {
            let ok = tag.starts_with(|c: char| c.is_ascii_alphabetic())
                && tag.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
            return if ok { Ok(Self::Tag(text.to_owned())) } else { Err(refused()) };
        }
        if let Some(user) = text.strip_prefix("proxy:") {
            return if user.is_empty() { Err(refused()) } else { Ok(Self::Proxy(user.to_owned())) };
        }
        if let Some(domain) = text.strip_prefix("*@") {
            let ok = !domain.is_empty()
                && !domain.contains(['@', '*'])
                && !domain.starts_with('.')
                && !domain.ends_with('.');
            return if ok { Ok(Self::Domain(domain.to_ascii_lowercase())) } else { Err(refused()) };
        }
        if text.contains(['*', ':']) || !is_sound_login(text) {
            return Err(refused());
        }
        text.parse().map(Self::Login).map_err(|_| refused())
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Login(login) => f.write_str(login.as_str()),
            Self::Domain(domain) => write!(f, "*@{domain}"),
            Self::Tag(tag) => f.write_str(tag),
            Self::Member => f.write_str("autogroup:member"),
            Self::Proxy(user) => write!(f, "proxy:{user}"),
        }
    }
}

/// Whether a login may match a login or domain entry at all: at most one `@`,
/// nothing empty around it, no placeholder of Tailscale's own. A self-hosted
/// control server may give names without `@`, so its absence is no fault.
pub fn is_sound_login(login: &str) -> bool {
    if login.is_empty() || login.len() > 254 || matches!(login, "tagged-devices" | "device-of-shared-to-user")
    {
        return false;
    }
    if login.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return false;
    }
    match login.split_once('@') {
        None => true,
        Some((local, domain)) => !local.is_empty() && !domain.is_empty() && !domain.contains('@'),
    }
}

/// One entry of an allow list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessEntry {
    /// Whom it speaks of.
    pub who: Who,
    /// What they may do.
    pub role: Role,
    /// Route names they may use; `None` is every route.
    pub routes: Option<Vec<String>>,
    /// Whether the entry also speaks of people of other tailnets.
    pub shared: bool,
    /// Whether it also speaks of devices that forward others' traffic.
    pub via_router: bool,
    /// Unix seconds from which the entry no longer counts.
    pub until: Option<i64>,
}

/// `gateway.access`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// Whether the owner of the gateway's own node is an admin.
    pub owner: bool,
    /// Everybody else. Empty is nobody (threat rule 59).
    pub allow: Vec<AccessEntry>,
}

impl Default for Access {
    fn default() -> Self {
        Self { owner: true, allow: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_that_could_match_by_accident_are_refused() {
        for text in [
            "",
            "*",
            "*@",
            "@example.com",
            "alice@",
            "a@b@c",
            "al ice@example.com",
            "tagged-devices",
            "tag:",
            "tag:-x",
            "proxy:",
            "autogroup:owner",
            "*@*.com",
            "*@a@b",
            "alice@example.com\n",
        ] {
            assert!(text.parse::<Who>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn entries_print_as_they_are_written() {
        for text in ["alice@example.com", "*@example.com", "tag:ci", "autogroup:member", "proxy:bob", "alice"]
        {
            assert_eq!(text.parse::<Who>().unwrap().to_string(), text);
        }
    }
}
