//! One request out of the bytes that the guard let pass.

use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING, UPGRADE,
};
use http::uri::PathAndQuery;
use http::{Method, Request, Uri};
use memchr::{memchr, memchr_iter};

use crate::body::Upload;

/// A request that is all here.
pub(in crate::ingress) struct Taken {
    pub(in crate::ingress) request: Request<Upload>,
    /// Its bytes.
    pub(in crate::ingress) raw: Bytes,
    /// Whether the client wants no other after it.
    pub(in crate::ingress) close: bool,
    /// Whether it is a HEAD, whose answer has no body.
    pub(in crate::ingress) head_only: bool,
}

/// At first there is room for at most so many headers.
const HEADERS: usize = 24;

/// What there is at the start of some bytes.
#[expect(
    clippy::large_enum_variant,
    reason = "a request is moved on at once, and is what there nearly always is"
)]
pub(in crate::ingress) enum Found {
    Request(Taken),
    /// A request whose body is not all here.
    Beginning,
    /// Anything that hyper knows better.
    Other,
}

/// Looks at `bytes`, which the guard has checked and which begin with a head.
pub(in crate::ingress) fn take(bytes: &[u8]) -> Found {
    find(bytes).unwrap_or(Found::Other)
}

fn find(bytes: &[u8]) -> Option<Found> {
    // Target and values are pieces of one copy.
    let all = Bytes::copy_from_slice(bytes);
    let (line, mut rest) = split_line(&all)?;
    let (method, line) = line.split_at(memchr(b' ', line)?);
    let target = line[1..].strip_suffix(b" HTTP/1.1").filter(|target| target.starts_with(b"/"))?;
    let method = Method::from_bytes(method).ok()?;
    let target = PathAndQuery::from_maybe_shared(all.slice_ref(target)).ok()?;

    let mut headers = HeaderMap::with_capacity(memchr_iter(b'\n', rest).take(HEADERS).count());
    let (mut length, mut connection) = (None, None);
    loop {
        let (line, after) = split_line(rest)?;
        rest = after;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_at(memchr(b':', line)?);
        let name = HeaderName::from_bytes(name).ok()?;
        let value = value[1..].trim_ascii();
        if name == CONTENT_LENGTH {
            if length.replace(plain_length(value)?).is_some() {
                return None;
            }
        } else if name == CONNECTION {
            if connection.replace(is_close(value)?).is_some() {
                return None;
            }
        } else if name == TRANSFER_ENCODING || name == UPGRADE || name == EXPECT {
            return None;
        }
        headers.append(name, HeaderValue::from_maybe_shared(all.slice_ref(value)).ok()?);
    }
    let end = all.len() - rest.len();
    let Some(raw) = all.get(..end.checked_add(length.unwrap_or(0))?) else { return Some(Found::Beginning) };
    let raw = all.slice_ref(raw);
    let head_only = method == Method::HEAD;
    let mut request = Request::new(Upload::Whole(raw.slice(end..)));
    *request.method_mut() = method;
    *request.uri_mut() = Uri::from(target);
    *request.headers_mut() = headers;
    Some(Found::Request(Taken { request, raw, close: connection.unwrap_or(false), head_only }))
}

fn split_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (line, rest) = bytes.split_at(memchr(b'\r', bytes)?);
    Some((line, rest.strip_prefix(b"\r\n")?))
}

/// Whether `Connection` asks for the end; `None` when it asks for anything else.
fn is_close(value: &[u8]) -> Option<bool> {
    if value.eq_ignore_ascii_case(b"keep-alive") {
        Some(false)
    } else {
        value.eq_ignore_ascii_case(b"close").then_some(true)
    }
}

/// A length as everybody writes it: of so few digits that it cannot overflow, and no
/// zero before others.
pub(crate) fn plain_length(digits: &[u8]) -> Option<usize> {
    let plain = !digits.is_empty() && digits.len() <= 9 && digits.iter().all(u8::is_ascii_digit);
    let plain = plain && (digits.len() == 1 || digits[0] != b'0');
    plain.then(|| digits.iter().fold(0, |sum, digit| sum * 10 + usize::from(digit - b'0')))
}
