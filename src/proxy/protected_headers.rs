//! Names that only we may say to an upstream (rulings 4).
//!
//! Apps behind CGI-like interfaces see `Tailscale_User_Login`,
//! `Tailscale-User-Login` and, in some, `Tailscale.User.Login` as one variable,
//! so every byte that is no letter or digit counts as `-` (threat rule 11).
//! Other names with an underscore pass: they are the app's own business.

use http::header::HeaderName;

/// The header a client may send our token in.
pub const SECRET_HEADER: HeaderName = HeaderName::from_static("x-openclaw-gateway-token");

/// What else is removed, besides the fixed list.
#[derive(Clone, Copy)]
pub(super) struct Extra<'a> {
    /// `gateway.auth.trustedProxy.userHeader`.
    pub(super) user_header: Option<&'a HeaderName>,
    /// Whether the upstream is a real OpenClaw gateway, which would read
    /// `X-OpenClaw-Scopes`.
    pub(super) openclaw: bool,
}

/// Whether a name is protected, in whichever spelling.
pub(super) fn is_protected(name: &HeaderName, extra: Extra<'_>) -> bool {
    // Lower case, as it always is.
    let name = name.as_str().as_bytes();
    let fixed = match name.first() {
        Some(b't') => begins(name, b"tailscale-") || same(name, b"true-client-ip"),
        Some(b'x') => name.get(1).is_some_and(|&b| fold(b) == b'-') && is_protected_x(&name[2..]),
        Some(b'f') => same(name, b"forwarded"),
        Some(b'r') => begins(name, b"remote-"),
        Some(b'c') => begins(name, b"cf-connecting-ip"),
        Some(b'v') => name == b"via",
        _ => false,
    };
    fixed
        || extra.user_header.is_some_and(|user| same(name, user.as_str().as_bytes()))
        || (extra.openclaw && same(name, b"x-openclaw-scopes"))
}

/// `rest` is what follows `x-`.
fn is_protected_x(rest: &[u8]) -> bool {
    match rest.first() {
        Some(b'f') => begins(rest, b"forwarded-") || same(rest, b"forwarded"),
        Some(b'r') => begins(rest, b"remote-") || begins(rest, b"rewrite-") || same(rest, b"real-ip"),
        Some(b'w') => begins(rest, b"webauth-"),
        Some(b'a') => begins(rest, b"auth-request-"),
        Some(b'o') => begins(rest, b"original-") || same(rest, b"openclaw-gateway-token"),
        Some(b'c') => same(rest, b"client-ip"),
        _ => false,
    }
}

fn fold(byte: u8) -> u8 {
    if byte.is_ascii_alphanumeric() { byte } else { b'-' }
}

fn begins(name: &[u8], prefix: &[u8]) -> bool {
    name.len() >= prefix.len() && name.iter().zip(prefix).all(|(&a, &b)| fold(a) == b)
}

fn same(name: &[u8], other: &[u8]) -> bool {
    name.len() == other.len() && name.iter().zip(other).all(|(&a, &b)| fold(a) == fold(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Extra<'static> = Extra { user_header: None, openclaw: false };

    fn gone(name: &str, extra: Extra<'_>) -> bool {
        is_protected(&HeaderName::from_bytes(name.as_bytes()).unwrap(), extra)
    }

    #[test]
    fn threat_013_every_name_of_rulings_4_goes() {
        for name in [
            "Tailscale-User-Login",
            "Tailscale-App-Capabilities",
            "Tailscale-Anything",
            "X-Forwarded-For",
            "X-Forwarded-Prefix",
            "X-Forwarded-Uri",
            "X-Forwarded-Method",
            "X-Forwarded",
            "Forwarded",
            "X-Real-IP",
            "Remote-User",
            "Remote-Groups",
            "X-Remote-User",
            "X-Webauth-User",
            "X-Auth-Request-Email",
            "X-Original-URL",
            "X-Rewrite-URL",
            "True-Client-IP",
            "CF-Connecting-IP",
            "X-Client-IP",
            "X-OpenClaw-Gateway-Token",
            "Via",
        ] {
            assert!(gone(name, NONE), "{name}");
        }
    }

    #[test]
    fn threat_011_every_spelling_goes() {
        for name in [
            "Tailscale_User_Login",
            "TAILSCALE_USER-LOGIN",
            "tailscale.user.login",
            "X_Forwarded_For",
            "X-Forwarded_For",
            "x_real_ip",
            "REMOTE_USER",
            "X_WEBAUTH_USER",
            "x_openclaw_gateway_token",
            "True_Client_IP",
        ] {
            assert!(gone(name, NONE), "{name}");
        }
    }

    #[test]
    fn what_the_app_needs_stays() {
        for name in [
            "tailscale",
            "x-request-id",
            "x_csrf_token",
            "x-requested-with",
            "accept",
            "range",
            "cookie",
            "x-openclaw-scopes",
            "remote",
            "viax",
            "x",
            "_x-forwarded-for",
        ] {
            assert!(!gone(name, NONE), "{name}");
        }
    }

    #[test]
    fn the_configured_user_header_goes_in_every_spelling() {
        let user = HeaderName::from_static("x-pomerium_email");
        let extra = Extra { user_header: Some(&user), openclaw: false };
        assert!(gone("X-Pomerium-Email", extra));
        assert!(gone("x_pomerium_email", extra));
        assert!(!gone("x-pomerium-email", NONE));
    }

    #[test]
    fn threat_025_scopes_do_not_reach_a_real_gateway() {
        let extra = Extra { user_header: None, openclaw: true };
        assert!(gone("X-OpenClaw-Scopes", extra));
        assert!(gone("x_openclaw_scopes", extra));
    }
}
