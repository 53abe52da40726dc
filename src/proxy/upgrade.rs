//! The WebSocket handshake, both ends of it (RFC 6455, 4).
//!
//! A request is an upgrade only when everything about it says so, and becomes a
//! tunnel only when the upstream's answer proves that it understood the same.
//! Otherwise bytes after the head could be a request to one side and a stream
//! to the other (threat rule 80).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS,
    SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{Method, Request, StatusCode, Version};
use http_body::Body;
use sha1::{Digest, Sha1};

use super::ProxyError;
use super::hop_headers::has_token;

const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");

/// What a request asks its connection to become.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Upgrade {
    /// Nothing.
    None,
    /// Something we do not do (`h2c`): an ordinary request, and the connection
    /// ends with it.
    Ignored,
    /// A WebSocket, with the `Sec-WebSocket-Accept` that proves it.
    WebSocket(HeaderValue),
}

impl Upgrade {
    /// Reads a request's wish.
    ///
    /// # Errors
    ///
    /// A WebSocket handshake with a fault.
    pub(super) fn of<B: Body>(request: &Request<B>) -> Result<Self, ProxyError> {
        let headers = request.headers();
        if !headers.contains_key(UPGRADE) {
            return Ok(Self::None);
        }
        let asked = request.version() == Version::HTTP_11
            && request.method() == Method::GET
            && only(headers, &UPGRADE).is_some_and(|token| token.eq_ignore_ascii_case(b"websocket"))
            && has_token(headers, &CONNECTION, "upgrade");
        if !asked {
            return Ok(Self::Ignored);
        }
        let fault = |what| Err(ProxyError::BadRequest(what));
        if only(headers, &SEC_WEBSOCKET_VERSION) != Some(b"13") {
            return fault("its WebSocket version is not 13");
        }
        let key = only(headers, &SEC_WEBSOCKET_KEY).unwrap_or_default();
        if STANDARD.decode(key).map(|key| key.len()) != Ok(16) {
            return fault("it has no valid Sec-WebSocket-Key");
        }
        if !request.body().is_end_stream() {
            return fault("a WebSocket handshake has no body");
        }
        Ok(Self::WebSocket(accept_of(key)))
    }
}

/// The value of a header that occurs exactly once.
fn only<'a>(headers: &'a HeaderMap, name: &http::HeaderName) -> Option<&'a [u8]> {
    let mut lines = headers.get_all(name).iter();
    let first = lines.next()?;
    lines.next().is_none().then(|| first.as_bytes().trim_ascii())
}

fn accept_of(key: &[u8]) -> HeaderValue {
    let digest = Sha1::new().chain_update(key).chain_update(GUID).finalize();
    HeaderValue::from_maybe_shared(bytes::Bytes::from(STANDARD.encode(digest)))
        .unwrap_or(HeaderValue::from_static(""))
}

/// Says to the next hop that the connection becomes a WebSocket.
pub(super) fn set_upgrade(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, WEBSOCKET);
}

/// Whether an answer turns the connection into the WebSocket that was asked
/// for. `false` for any ordinary answer. `compression` says whether extensions
/// were offered.
///
/// # Errors
///
/// A 101 that proves nothing.
pub(super) fn is_accepted(
    status: StatusCode,
    headers: &HeaderMap,
    accept: &HeaderValue,
    compression: bool,
) -> Result<bool, ProxyError> {
    if status != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(false);
    }
    let fault = |what| Err(ProxyError::BadResponse(what));
    if !only(headers, &UPGRADE).is_some_and(|token| token.eq_ignore_ascii_case(b"websocket")) {
        return fault("its 101 does not switch to a WebSocket");
    }
    if !has_token(headers, &CONNECTION, "upgrade") {
        return fault("its 101 lacks Connection: Upgrade");
    }
    if only(headers, &SEC_WEBSOCKET_ACCEPT) != Some(accept.as_bytes()) {
        return fault("its Sec-WebSocket-Accept does not fit the key");
    }
    if headers.get(CONTENT_LENGTH).is_some_and(|length| length != "0") {
        return fault("its 101 has a body");
    }
    if !compression && headers.contains_key(SEC_WEBSOCKET_EXTENSIONS) {
        return fault("it uses an extension that nobody offered");
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use http_body_util::{Empty, Full};

    use super::*;

    type NoBody = Empty<bytes::Bytes>;

    fn request(lines: &[(&str, &str)]) -> Request<NoBody> {
        let mut request = Request::new(Empty::new());
        for (name, value) in lines {
            request
                .headers_mut()
                .append(http::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        request
    }

    const GOOD: [(&str, &str); 4] = [
        ("upgrade", "WebSocket"),
        ("connection", "keep-alive, Upgrade"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];

    #[test]
    fn the_handshake_of_the_rfc_is_understood() {
        let accept = HeaderValue::from_static("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(Upgrade::of(&request(&GOOD)).unwrap(), Upgrade::WebSocket(accept));
        assert_eq!(Upgrade::of(&request(&[])).unwrap(), Upgrade::None);
        assert_eq!(Upgrade::of(&request(&[("connection", "upgrade")])).unwrap(), Upgrade::None);
    }

    #[test]
    fn threat_080_a_faulty_handshake_is_refused() {
        let with = |at: usize, value: &'static str| {
            let mut lines = GOOD;
            lines[at].1 = value;
            Upgrade::of(&request(&lines))
        };
        assert!(with(2, "8").is_err());
        assert!(with(3, "dGhlIHNhbXBsZQ==").is_err());
        assert!(with(3, "not base64").is_err());
        let mut twice = GOOD.to_vec();
        twice.push(GOOD[3]);
        assert!(Upgrade::of(&request(&twice)).is_err());
        let body = request(&GOOD).map(|_| Full::new(bytes::Bytes::from_static(b"x")));
        assert!(Upgrade::of(&body).is_err());
    }

    #[test]
    fn threat_080_other_upgrades_are_ordinary_requests() {
        let ignored = |lines: &[(&str, &str)]| Upgrade::of(&request(lines)).unwrap() == Upgrade::Ignored;
        assert!(ignored(&[("upgrade", "h2c"), ("connection", "upgrade, http2-settings")]));
        assert!(ignored(&[GOOD[0], ("connection", "close"), GOOD[2], GOOD[3]]));
        assert!(ignored(&[("upgrade", "websocket, h2c"), GOOD[1], GOOD[2], GOOD[3]]));
        let mut post = request(&GOOD);
        *post.method_mut() = Method::POST;
        assert_eq!(Upgrade::of(&post).unwrap(), Upgrade::Ignored);
        let mut old = request(&GOOD);
        *old.version_mut() = Version::HTTP_10;
        assert_eq!(Upgrade::of(&old).unwrap(), Upgrade::Ignored);
    }

    #[test]
    fn threat_080_only_a_proven_101_is_a_tunnel() {
        let accept = HeaderValue::from_static("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let judge = |lines: &[(&str, &str)], compression| {
            let answer = request(lines);
            is_accepted(StatusCode::SWITCHING_PROTOCOLS, answer.headers(), &accept, compression)
        };
        let proof = ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let deflate = ("sec-websocket-extensions", "permessage-deflate");
        assert!(judge(&[GOOD[0], GOOD[1], proof], true).unwrap());
        assert!(judge(&[GOOD[0], GOOD[1], proof, deflate], true).unwrap());
        assert!(judge(&[GOOD[0], GOOD[1], proof, deflate], false).is_err());
        assert!(judge(&[GOOD[1], proof], true).is_err());
        assert!(judge(&[("upgrade", "h2c"), GOOD[1], proof], true).is_err());
        assert!(judge(&[GOOD[0], proof], true).is_err());
        assert!(judge(&[GOOD[0], GOOD[1]], true).is_err());
        assert!(judge(&[GOOD[0], GOOD[1], proof, proof], true).is_err());
        assert!(judge(&[GOOD[0], GOOD[1], ("sec-websocket-accept", "x")], true).is_err());
        assert!(judge(&[GOOD[0], GOOD[1], proof, ("content-length", "3")], true).is_err());
        assert!(!is_accepted(StatusCode::OK, &HeaderMap::new(), &accept, true).unwrap());
    }
}
