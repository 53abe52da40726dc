//! Headers that are about one connection and end with it (RFC 9110, 7.6.1).
//!
//! Runs on what came in, before anything of ours is added: a client that sends
//! `Connection: Tailscale-User-Login` can only remove its own headers (threat
//! rule 12).

use http::header::{
    CONNECTION, HeaderMap, HeaderName, HeaderValue, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const PROXY_AUTHENTICATION_INFO: HeaderName = HeaderName::from_static("proxy-authentication-info");

/// `TE` goes entirely: trailers are not forwarded (threat rule 15), so asking
/// for them would be asking for something that never arrives.
pub(super) static HOP_BY_HOP: [HeaderName; 9] = [
    KEEP_ALIVE,
    PROXY_AUTHENTICATE,
    PROXY_AUTHENTICATION_INFO,
    PROXY_AUTHORIZATION,
    PROXY_CONNECTION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// The headers of a request that its `Connection` lines name: they are about its
/// connection, too. Mostly none, and never more than it has.
pub(super) struct Named(Vec<HeaderName>);

impl Named {
    pub(super) fn by(headers: &HeaderMap) -> Self {
        let mut names = Vec::new();
        for name in headers.get_all(CONNECTION).iter().flat_map(tokens).filter_map(named) {
            if headers.contains_key(&name) && !names.contains(&name) {
                names.push(name);
            }
        }
        Self(names)
    }

    pub(super) fn has(&self, name: &HeaderName) -> bool {
        self.0.contains(name)
    }
}

/// A token of a `Connection` line as the header it names.
fn named(token: &[u8]) -> Option<HeaderName> {
    if token.eq_ignore_ascii_case(b"keep-alive") || token.eq_ignore_ascii_case(b"close") {
        return None;
    }
    HeaderName::from_bytes(token).ok()
}

/// Whether a header is about its connection, whatever its `Connection` lines say.
pub(super) fn is_hop_by_hop(name: &HeaderName) -> bool {
    // The first letter settles most.
    match name.as_str().as_bytes()[0] {
        b'c' => name == CONNECTION,
        b'k' | b'p' | b't' | b'u' => HOP_BY_HOP.contains(name),
        _ => false,
    }
}

/// Removes the hop-by-hop headers of a response, and whatever its `Connection` lines
/// name.
pub(super) fn remove(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        remove_connection(headers);
    }
    // Looking through the few there are costs less than a search for each.
    if headers.keys().any(is_hop_by_hop) {
        for name in &HOP_BY_HOP {
            headers.remove(name);
        }
    }
}

fn remove_connection(headers: &mut HeaderMap) {
    // One line is the rule; only a second one costs an allocation.
    if headers.get_all(CONNECTION).iter().nth(1).is_some() {
        let lines: Vec<HeaderValue> = headers.get_all(CONNECTION).iter().cloned().collect();
        headers.remove(CONNECTION);
        lines.iter().for_each(|line| remove_named(headers, line));
    } else if let Some(line) = headers.remove(CONNECTION) {
        remove_named(headers, &line);
    }
}

fn remove_named(headers: &mut HeaderMap, line: &HeaderValue) {
    for token in tokens(line) {
        if let Some(name) = named(token) {
            headers.remove(name);
        }
    }
}

/// The comma-separated tokens of one header line, without blanks around them.
pub(super) fn tokens(line: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    line.as_bytes().split(|&b| b == b',').map(<[u8]>::trim_ascii).filter(|token| !token.is_empty())
}

/// Whether any line of `name` has `token`, by ASCII case.
pub(super) fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers.get_all(name).iter().flat_map(tokens).any(|found| found.eq_ignore_ascii_case(token.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(lines: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn threat_012_connection_names_only_what_the_client_sent() {
        let mut headers = map(&[
            ("connection", "close, Tailscale-User-Login, X-Forwarded-For, Authorization"),
            ("tailscale-user-login", "forged@example.com"),
            ("authorization", "Bearer x"),
            ("accept", "*/*"),
        ]);
        remove(&mut headers);
        headers.insert("tailscale-user-login", HeaderValue::from_static("alice@example.com"));
        assert_eq!(headers.len(), 2);
        assert_eq!(headers["tailscale-user-login"], "alice@example.com");
        assert_eq!(headers["accept"], "*/*");
    }

    #[test]
    fn every_hop_by_hop_header_goes() {
        let mut headers = map(&[
            ("connection", "keep-alive"),
            ("connection", "x-one ,, X-Two,not a token"),
            ("keep-alive", "timeout=5"),
            ("proxy-authenticate", "Basic"),
            ("proxy-authentication-info", "x"),
            ("proxy-authorization", "Basic eA=="),
            ("proxy-connection", "keep-alive"),
            ("te", "trailers"),
            ("trailer", "x-sum"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("x-one", "1"),
            ("x-two", "2"),
            ("x-three", "3"),
        ]);
        remove(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-three"]);
    }

    #[test]
    fn threat_074_no_more_names_are_kept_than_there_are_headers() {
        let many = "a,b,x-one,".repeat(10_000);
        let named = Named::by(&map(&[("connection", &many), ("x-one", "1"), ("x-two", "2")]));
        assert_eq!(named.0, ["x-one"]);
    }

    #[test]
    fn tokens_are_found_in_any_line_and_case() {
        let headers = map(&[("connection", "keep-alive"), ("connection", "foo,  UPGRADE ")]);
        assert!(has_token(&headers, &CONNECTION, "upgrade"));
        assert!(!has_token(&headers, &CONNECTION, "upgrad"));
        assert!(!has_token(&headers, &UPGRADE, "websocket"));
    }
}
