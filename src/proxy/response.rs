//! What a client gets to see of an answer.

use http::header::{CONNECTION, CONTENT_LENGTH, HeaderValue, TRANSFER_ENCODING};
use http::response::Parts;
use http::{Response, StatusCode, Version};

use super::head_lines::HeadLines as _;
use super::request::X_REQUEST_ID;
use super::{ProxyError, cookies, hop_headers};
use crate::body::Lines;

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

/// What an upstream's header line is to us. [`clean`] and [`check`] say the same of
/// header maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AnswerLine {
    /// For the client.
    Passes,
    /// `Date`, which passes, too.
    Date,
    /// `Content-Length`.
    Length,
    /// `Set-Cookie`, which passes unless the cookie is ours.
    SetCookie,
    /// `Connection`.
    Connection,
    /// `Transfer-Encoding`.
    TransferEncoding,
    /// Not for the client.
    Stays,
}

impl AnswerLine {
    /// By its name, in any case. Its length settles most.
    pub(super) fn of(name: &[u8]) -> Self {
        let (line, names): (_, &[&[u8]]) = match name.len() {
            2 => (Self::Stays, &[b"te"]),
            4 => (Self::Date, &[b"date"]),
            7 => (Self::Stays, &[b"trailer", b"upgrade"]),
            10 if name[0].eq_ignore_ascii_case(&b's') => (Self::SetCookie, &[b"set-cookie"]),
            10 if name[0].eq_ignore_ascii_case(&b'c') => (Self::Connection, &[b"connection"]),
            10 => (Self::Stays, &[b"keep-alive"]),
            // Ours is there already.
            12 => (Self::Stays, &[b"x-request-id"]),
            14 => (Self::Length, &[b"content-length"]),
            15 => (Self::Stays, &[b"clear-site-data"]),
            16 => (Self::Stays, &[b"proxy-connection"]),
            17 => (Self::TransferEncoding, &[b"transfer-encoding"]),
            18 => (Self::Stays, &[b"proxy-authenticate"]),
            19 => (Self::Stays, &[b"proxy-authorization"]),
            25 => (Self::Stays, &[b"proxy-authentication-info"]),
            _ => return Self::Passes,
        };
        let found = names.iter().any(|known| name.eq_ignore_ascii_case(known));
        if found { line } else { Self::Passes }
    }
}

/// Lines for an answer of about so many bytes, with the request's number.
pub(super) fn lines(request_id: &HeaderValue, size: usize) -> Lines {
    let mut lines = Lines { bytes: Vec::with_capacity(size + 64), head: 0, dated: false };
    lines.bytes.put_text(&X_REQUEST_ID, request_id.as_bytes());
    lines.head = lines.bytes.len();
    lines
}

/// Adds a line of this kind, if it is for the client. `Connection` never is.
pub(super) fn pass(lines: &mut Lines, kind: AnswerLine, line: &httparse::Header<'_>) {
    match kind {
        AnswerLine::Stays | AnswerLine::Connection | AnswerLine::TransferEncoding => return,
        AnswerLine::SetCookie if cookies::sets_ours(line.value) => return,
        AnswerLine::Date => lines.dated = true,
        AnswerLine::SetCookie | AnswerLine::Length | AnswerLine::Passes => {}
    }
    lines.bytes.extend_from_slice(line.name.as_bytes());
    lines.bytes.extend_from_slice(b": ");
    lines.bytes.extend_from_slice(line.value);
    lines.bytes.extend_from_slice(b"\r\n");
    lines.head = lines.bytes.len();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both(sent: &[(&str, &str)]) -> (Vec<String>, Vec<String>) {
        let mut response = Response::new(());
        for (name, value) in sent {
            let name: http::HeaderName = name.parse().unwrap();
            response.headers_mut().append(name, value.parse().unwrap());
        }
        let (mut parts, ()) = response.into_parts();
        clean(&mut parts, false);
        // The edge does this.
        parts.headers.insert("x-request-id", HeaderValue::from_static("r1"));
        let mut map: Vec<String> = parts
            .headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        let headers: Vec<httparse::Header<'_>> =
            sent.iter().map(|(name, value)| httparse::Header { name, value: value.as_bytes() }).collect();
        let mut lines = lines(&HeaderValue::from_static("r1"), 0);
        headers.iter().for_each(|line| pass(&mut lines, AnswerLine::of(line.name.as_bytes()), line));
        assert_eq!(lines.body_len(), 0);
        let text = String::from_utf8(lines.bytes[..lines.head].to_vec()).unwrap();
        let mut bare: Vec<String> = text
            .split_terminator("\r\n")
            .map(|line| {
                line.split_once(": ")
                    .map(|(name, value)| format!("{}: {value}", name.to_lowercase()))
                    .unwrap()
            })
            .collect();
        map.sort();
        bare.sort();
        (map, bare)
    }

    #[test]
    fn threat_012_lines_and_header_maps_are_cleaned_alike() {
        let (map, bare) = both(&[
            ("Connection", "keep-alive"),
            ("KEEP-ALIVE", "timeout=5"),
            ("Proxy-Authenticate", "Basic"),
            ("proxy-authentication-info", "x"),
            ("Proxy-Authorization", "Basic eA=="),
            ("Proxy-Connection", "keep-alive"),
            ("TE", "trailers"),
            ("Trailer", "x-sum"),
            ("Upgrade", "h2c"),
            ("X-Request-ID", "theirs"),
            ("Clear-Site-Data", "\"cookies\""),
            ("Set-Cookie", "openclaw_session=evil"),
            ("set-cookie", " __host-openclaw_session=evil"),
            ("Set-Cookie", "=openclaw_session=evil"),
            ("SET-COOKIE", "theirs=1; HttpOnly"),
            ("Set-Cookie", "note=openclaw_session"),
            ("Content-Length", "4"),
            ("Date", "Thu, 01 Jan 1970 00:00:00 GMT"),
            ("Content-Type", "text/html"),
            ("Server", "x"),
            ("Vary", "Accept"),
            ("Via", "1.1 them"),
            ("X-Requested-In", "1"),
            ("Keep-Alivf", "not it"),
        ]);
        assert_eq!(map, bare);
        assert_eq!(bare.len(), 11);
    }

    #[test]
    fn every_hop_by_hop_name_is_known_as_a_line() {
        for name in &hop_headers::HOP_BY_HOP {
            let upper = name.as_str().to_uppercase();
            assert_ne!(AnswerLine::of(upper.as_bytes()), AnswerLine::Passes, "{name}");
        }
    }
}
