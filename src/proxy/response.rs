//! What a client gets to see of an answer.

use http::header::{CONNECTION, CONTENT_LENGTH, HeaderValue, TRANSFER_ENCODING};
use http::response::Parts;
use http::{Response, StatusCode, Version};

use super::{ProxyError, cookies, hop_headers};

/// Refuses heads that two programs could frame differently. Runs before the
/// hop-by-hop headers go.
pub(super) fn check<B>(answer: &Response<B>) -> Result<(), ProxyError> {
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Err(ProxyError::BadResponse("it switches protocols unasked"));
    }
    if answer.headers().contains_key(TRANSFER_ENCODING) && answer.headers().contains_key(CONTENT_LENGTH) {
        return Err(ProxyError::BadResponse("it has both a length and a transfer encoding"));
    }
    // hyper reads other codings too, and would hand on chunk lines as content.
    let mut codings = answer.headers().get_all(TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next()
        && (codings.next().is_some() || !coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked"))
    {
        return Err(ProxyError::BadResponse("its transfer encoding is not chunked"));
    }
    Ok(())
}

/// Takes out what is not for the client. `close` ends the client's connection
/// after this answer.
pub(super) fn clean(parts: &mut Parts, close: bool) {
    hop_headers::remove(&mut parts.headers);
    cookies::protect_ours(&mut parts.headers);
    // Equal lengths in several lines are one length.
    if parts.headers.get_all(CONTENT_LENGTH).iter().nth(1).is_some()
        && let Some(length) = parts.headers.remove(CONTENT_LENGTH)
    {
        parts.headers.insert(CONTENT_LENGTH, length);
    }
    // An answer in HTTP/1.0 is still an answer of ours, in HTTP/1.1.
    parts.version = Version::HTTP_11;
    if close {
        parts.headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
}
