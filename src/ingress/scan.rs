//! One pass over the headers that could say who is calling.
//!
//! Finds what is there and refuses what two programs could read differently
//! (threat rule 14). Only exact names count; look-alikes such as
//! `Tailscale_User_Login` mean nothing here and are removed before the upstream.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::domain::Reason;

/// The identity and forwarding headers of one request.
#[derive(Debug, Default)]
pub struct Scan<'a> {
    /// `Tailscale-User-Login`.
    pub login: Option<&'a HeaderValue>,
    /// Any non-empty `Tailscale-Funnel-Request`.
    pub funnel: bool,
    /// Any header named `Tailscale-*`.
    pub tailscale: bool,
    /// `X-Forwarded-For`.
    pub forwarded_for: Option<&'a HeaderValue>,
    /// `X-Forwarded-Host`.
    pub forwarded_host: Option<&'a HeaderValue>,
    /// `X-Forwarded-Proto`.
    pub forwarded_proto: Option<&'a HeaderValue>,
    /// `X-Real-IP`.
    pub real_ip: Option<&'a HeaderValue>,
    /// Any of `X-Forwarded-*`, `Forwarded`, `X-Real-IP`.
    pub forwarded: bool,
    /// A `Via` header.
    pub via: bool,
}

/// Scans the headers.
///
/// # Errors
///
/// [`Reason::AmbiguousIdentityHeader`] where a header that may occur once occurs
/// twice, or is empty or joined where it must not be.
pub fn scan<'a>(headers: &'a HeaderMap, user_header: Option<&HeaderName>) -> Result<Scan<'a>, Reason> {
    let mut found = Scan::default();
    for (name, value) in headers {
        let text = name.as_str();
        match text.as_bytes()[0] {
            b't' if text.starts_with("tailscale-") => {
                found.tailscale = true;
                match text {
                    "tailscale-user-login" => {
                        once(&mut found.login, value)?;
                        if value.as_bytes().trim_ascii().is_empty() || value.as_bytes().contains(&b',') {
                            return Err(Reason::AmbiguousIdentityHeader);
                        }
                    }
                    "tailscale-funnel-request" => {
                        single(headers, name)?;
                        found.funnel |= !value.as_bytes().trim_ascii().is_empty();
                    }
                    _ => single(headers, name)?,
                }
            }
            b'x' if text.starts_with("x-forwarded-") => {
                found.forwarded = true;
                match text {
                    "x-forwarded-for" => {
                        once(&mut found.forwarded_for, value)?;
                        if value.as_bytes().split(|b| *b == b',').any(|hop| hop.trim_ascii().is_empty()) {
                            return Err(Reason::AmbiguousIdentityHeader);
                        }
                    }
                    "x-forwarded-host" => once(&mut found.forwarded_host, value)?,
                    "x-forwarded-proto" => once(&mut found.forwarded_proto, value)?,
                    _ => {}
                }
            }
            b'x' if text == "x-real-ip" => {
                found.forwarded = true;
                once(&mut found.real_ip, value)?;
            }
            b'f' if text == "forwarded" => found.forwarded = true,
            b'v' if text == "via" => found.via = true,
            _ => {}
        }
    }
    if let Some(name) = user_header {
        single(headers, name)?;
    }
    Ok(found)
}

fn once<'a>(slot: &mut Option<&'a HeaderValue>, value: &'a HeaderValue) -> Result<(), Reason> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(Reason::AmbiguousIdentityHeader),
    }
}

fn single(headers: &HeaderMap, name: &HeaderName) -> Result<(), Reason> {
    match headers.get_all(name).iter().nth(1) {
        None => Ok(()),
        Some(_) => Err(Reason::AmbiguousIdentityHeader),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            map.append(*name, HeaderValue::from_static(value));
        }
        map
    }

    #[test]
    fn threat_014_what_could_be_read_twice_is_refused() {
        let login = "tailscale-user-login";
        for lines in [
            &[(login, "alice@example.com"), (login, "bob@example.com")][..],
            &[(login, "alice@example.com"), (login, "alice@example.com")],
            &[(login, "alice@example.com, bob@example.com")],
            &[(login, "")],
            &[(login, "  ")],
            &[("x-forwarded-for", "100.64.0.2"), ("x-forwarded-for", "100.64.0.3")],
            &[("x-forwarded-for", ", 100.64.0.2")],
            &[("x-forwarded-for", "")],
            &[("x-forwarded-host", "a"), ("x-forwarded-host", "b")],
            &[("x-forwarded-proto", "https"), ("x-forwarded-proto", "http")],
            &[("tailscale-user-name", "a"), ("tailscale-user-name", "b")],
            &[("tailscale-funnel-request", ""), ("tailscale-funnel-request", "?1")],
        ] {
            let map = headers(lines);
            assert_eq!(scan(&map, None).unwrap_err(), Reason::AmbiguousIdentityHeader, "{lines:?}");
        }
        let user = HeaderName::from_static("x-user");
        let map = headers(&[("x-user", "alice"), ("x-user", "bob")]);
        assert_eq!(scan(&map, Some(&user)).unwrap_err(), Reason::AmbiguousIdentityHeader);
        assert!(scan(&map, None).is_ok());
    }

    #[test]
    fn threat_006_any_funnel_mark_counts() {
        for mark in ["?1", "?0", "1", "yes"] {
            assert!(scan(&headers(&[("tailscale-funnel-request", mark)]), None).unwrap().funnel);
        }
    }

    #[test]
    fn look_alikes_are_not_identity_headers() {
        let map =
            headers(&[("tailscale_user_login", "alice@example.com"), ("x_forwarded_for", "100.64.0.2")]);
        let found = scan(&map, None).unwrap();
        assert!(
            found.login.is_none() && found.forwarded_for.is_none() && !found.tailscale && !found.forwarded
        );
    }
}
