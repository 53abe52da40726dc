//! The strict head guard: what hyper would read generously is refused before
//! hyper sees it.
//!
//! hyper's parser takes bare line feeds, and with `Transfer-Encoding` present it
//! forgets that there was a `Content-Length`; a service behind it cannot tell.
//! So [`Guard`] sits between the socket and hyper, follows the byte stream with
//! a small state machine ([`machine`]) and passes it on unchanged while it is
//! beyond doubt. The first head that is not is replaced by a request with a
//! method no client can send, to which [`framing_fault`] is the key. The service
//! answers it in its turn, after earlier pipelined requests, and the connection
//! closes. Not one byte after a fault reaches hyper (threat rule 79).
//!
//! A fault inside a body ends that body with an error instead: its request is
//! already on the way.

mod chunked;
mod guard;
mod head;
mod machine;

#[cfg(test)]
mod tests;

use http::header::{CONTENT_LENGTH, HOST};
use http::{Request, Version};

pub(super) use guard::Guard;

use super::Limits;
use super::authority::authority_of;

/// Why a request was refused before anything else was asked of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FramingFault {
    /// 400: it could be read in two ways, or in none.
    BadRequest,
    /// 414: the request target is too long.
    UriTooLong,
    /// 431: the headers are too large or too many.
    HeadersTooLarge,
    /// 405: CONNECT. Nobody is given a tunnel to elsewhere.
    MethodNotAllowed,
}

/// The method of the request that stands in for a refused head. The guard
/// refuses it when a client sends it.
const FAULT_METHOD: &str = "OPENCLAW-FRAMING-FAULT";

impl FramingFault {
    /// The status of the answer.
    pub fn status(self) -> http::StatusCode {
        match self {
            Self::BadRequest => http::StatusCode::BAD_REQUEST,
            Self::UriTooLong => http::StatusCode::URI_TOO_LONG,
            Self::HeadersTooLarge => http::StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::MethodNotAllowed => http::StatusCode::METHOD_NOT_ALLOWED,
        }
    }

    /// The request that stands in for the refused head.
    fn stand_in(self) -> &'static [u8] {
        match self {
            Self::BadRequest => {
                b"OPENCLAW-FRAMING-FAULT /400 HTTP/1.1\r\nHost: invalid\r\nConnection: close\r\n\r\n"
            }
            Self::UriTooLong => {
                b"OPENCLAW-FRAMING-FAULT /414 HTTP/1.1\r\nHost: invalid\r\nConnection: close\r\n\r\n"
            }
            Self::HeadersTooLarge => {
                b"OPENCLAW-FRAMING-FAULT /431 HTTP/1.1\r\nHost: invalid\r\nConnection: close\r\n\r\n"
            }
            Self::MethodNotAllowed => {
                b"OPENCLAW-FRAMING-FAULT /405 HTTP/1.1\r\nHost: invalid\r\nConnection: close\r\n\r\n"
            }
        }
    }
}

/// Whether this request must be refused for its framing, and how. The first
/// thing to ask of every request; a refused one has no other meaningful part.
///
/// On HTTP/1.1 it recognises what the guard put in the place of a refused head.
/// On HTTP/2, where frames and not bytes carry the head and the h2 crate checks
/// them, it adds the checks of meaning: one authority, one length, bounded
/// target and header count (threat rule 82).
pub fn framing_fault<B>(req: &Request<B>, limits: &Limits) -> Option<FramingFault> {
    if req.method().as_str() == FAULT_METHOD {
        return Some(match req.uri().path() {
            "/414" => FramingFault::UriTooLong,
            "/431" => FramingFault::HeadersTooLarge,
            "/405" => FramingFault::MethodNotAllowed,
            _ => FramingFault::BadRequest,
        });
    }
    if req.version() != Version::HTTP_2 {
        return None;
    }
    h2_fault(req, limits)
}

fn h2_fault<B>(req: &Request<B>, limits: &Limits) -> Option<FramingFault> {
    let target = req.uri().path_and_query().map_or(0, |target| target.as_str().len());
    if target > limits.max_target_bytes {
        return Some(FramingFault::UriTooLong);
    }
    let headers = req.headers();
    if headers.len() > limits.max_headers {
        return Some(FramingFault::HeadersTooLarge);
    }
    if req.method() == http::Method::CONNECT {
        return Some(FramingFault::BadRequest);
    }
    let path = req.uri().path();
    let options = path == "*" && req.method() == http::Method::OPTIONS;
    if !(path.starts_with('/') || options) || !path.is_ascii() {
        return Some(FramingFault::BadRequest);
    }
    // The raw number of lines: two equal ones are as suspect as two others.
    if headers.get_all(CONTENT_LENGTH).iter().count() > 1 || headers.get_all(HOST).iter().count() > 1 {
        return Some(FramingFault::BadRequest);
    }
    let https = match req.uri().scheme_str() {
        Some("http") => false,
        Some("https") => true,
        // Without `:authority` the h2 crate leaves out a scheme it has checked.
        None if req.uri().authority().is_none() => false,
        _ => return Some(FramingFault::BadRequest),
    };
    authority_of(req, https).err()
}
