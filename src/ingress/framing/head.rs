//! One HTTP/1 request head, complete and checked strictly.

use memchr::{memchr, memchr_iter};

use super::{FAULT_METHOD, FramingFault};
use crate::ingress::authority::Parts;

/// How large a head may be.
#[derive(Clone, Copy)]
pub(super) struct HeadLimits {
    pub(super) bytes: usize,
    pub(super) headers: usize,
    pub(super) target: usize,
}

/// How the body of a request is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyFraming {
    /// So many bytes; zero where nothing announced a body.
    Length(u64),
    Chunked,
}

/// What the guard has to know of a good head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) body: BodyFraming,
    /// The client asks to speak another protocol after it.
    pub(super) upgrade: bool,
}

const TOKEN: u8 = 1;
const PATH: u8 = 2;
const QUERY: u8 = 4;

/// What each byte may be part of. A target may hold any printable ASCII but `#`
/// and the few that hyper's own parser refuses: so a refusal is always ours to
/// word.
static CLASS: [u8; 256] = {
    let mut table = [0; 256];
    let mut i = 0x21;
    while i < 0x7f {
        let b = i as u8;
        let mut class = 0;
        if b.is_ascii_alphanumeric()
            || matches!(b, b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^')
            || matches!(b, b'_' | b'`' | b'|' | b'~')
        {
            class |= TOKEN;
        }
        if !matches!(b, b'#' | b'<' | b'>' | b'`') {
            class |= PATH;
        }
        if !matches!(b, b'#' | b'<' | b'>' | b'"') {
            class |= QUERY;
        }
        table[i] = class;
        i += 1;
    }
    table
};

pub(super) fn is_token(b: u8) -> bool {
    CLASS[b as usize] & TOKEN != 0
}

pub(super) fn is_value(b: u8) -> bool {
    b == b'\t' || (b >= 0x20 && b != 0x7f)
}

fn all(bytes: &[u8], class: u8) -> bool {
    // Without an early exit the loop is straight-line code; heads are short.
    bytes.iter().fold(class, |acc, b| acc & CLASS[*b as usize]) != 0
}

fn all_value(bytes: &[u8]) -> bool {
    bytes.iter().fold(true, |good, b| good & is_value(*b))
}

/// Whether the beginning of a head already shows that it is none: its first
/// byte, or a line feed without its carriage return. Asked of unfinished heads,
/// so that a fault is answered at once, and of overlong ones, so that the answer
/// does not depend on how the bytes were cut into reads. The first `seen` bytes
/// were asked about before.
pub(super) fn hopeless(start: &[u8], seen: usize) -> bool {
    let Some(first) = start.first() else { return false };
    if !is_token(*first) && *first != b'\r' {
        return true;
    }
    memchr_iter(b'\n', &start[seen..]).any(|at| seen + at == 0 || start[seen + at - 1] != b'\r')
}

/// The fault of a head that did not end within the limit. `start` is its first
/// [`HeadLimits::bytes`] bytes.
pub(super) fn overlong(start: &[u8], limits: &HeadLimits) -> FramingFault {
    if hopeless(start, 0) {
        return FramingFault::BadRequest;
    }
    let line = &start[..memchr(b'\r', start).unwrap_or(start.len())];
    let target = memchr(b' ', line).map_or(0, |at| {
        let rest = &line[at + 1..];
        memchr(b' ', rest).unwrap_or(rest.len())
    });
    if target > limits.target { FramingFault::UriTooLong } else { FramingFault::HeadersTooLarge }
}

/// Checks a complete head, the empty line included.
pub(super) fn check(head: &[u8], limits: &HeadLimits) -> Result<Head, FramingFault> {
    strict(head, limits).map_err(|fault| if hopeless(head, 0) { FramingFault::BadRequest } else { fault })
}

fn strict(head: &[u8], limits: &HeadLimits) -> Result<Head, FramingFault> {
    const BAD: FramingFault = FramingFault::BadRequest;
    // One empty line before a request is tolerated, as RFC 9112 2.2 asks.
    let head = head.strip_prefix(b"\r\n").unwrap_or(head);
    let (line, mut rest) = split_line(head).ok_or(BAD)?;
    let request = request_line(line, limits)?;

    let mut seen = Seen::default();
    let mut count = 0;
    loop {
        let (line, after) = split_line(rest).ok_or(BAD)?;
        rest = after;
        if line.is_empty() {
            break;
        }
        count += 1;
        if count > limits.headers {
            return Err(FramingFault::HeadersTooLarge);
        }
        seen.header(line).ok_or(BAD)?;
    }
    if !rest.is_empty() {
        return Err(BAD);
    }
    seen.settle(&request).ok_or(BAD)
}

/// The bytes before the first carriage return, and those after its line feed.
fn split_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = memchr(b'\r', bytes)?;
    (bytes.get(at + 1) == Some(&b'\n')).then(|| (&bytes[..at], &bytes[at + 2..]))
}

struct RequestLine<'a> {
    http_11: bool,
    /// Of an absolute target: whether it is https, and its authority.
    absolute: Option<(bool, Parts<'a>)>,
}

fn request_line<'a>(line: &'a [u8], limits: &HeadLimits) -> Result<RequestLine<'a>, FramingFault> {
    const BAD: FramingFault = FramingFault::BadRequest;
    let space = memchr(b' ', line).ok_or(BAD)?;
    let (method, rest) = (&line[..space], &line[space + 1..]);
    if method.is_empty() || !all(method, TOKEN) {
        return Err(BAD);
    }
    // Nobody is given a tunnel to elsewhere, and nobody speaks for the guard.
    if method == b"CONNECT" {
        return Err(FramingFault::MethodNotAllowed);
    }
    if method == FAULT_METHOD.as_bytes() {
        return Err(BAD);
    }
    let space = memchr(b' ', rest).unwrap_or(rest.len());
    let target = &rest[..space];
    if target.len() > limits.target {
        return Err(FramingFault::UriTooLong);
    }
    let http_11 = match rest.get(space + 1..) {
        Some(b"HTTP/1.1") => true,
        Some(b"HTTP/1.0") => false,
        _ => return Err(BAD),
    };
    let absolute = match target.first() {
        Some(b'/') => path(target).map(|()| None),
        Some(b'*') => (target.len() == 1 && method == b"OPTIONS").then_some(None),
        _ => absolute(target).map(Some),
    };
    Ok(RequestLine { http_11, absolute: absolute.ok_or(BAD)? })
}

/// A path and what follows its question mark, checked.
fn path(target: &[u8]) -> Option<()> {
    let end = memchr(b'?', target).unwrap_or(target.len());
    let (path, query) = target.split_at(end);
    (all(path, PATH) && all(query, QUERY)).then_some(())
}

fn absolute(target: &[u8]) -> Option<(bool, Parts<'_>)> {
    let scheme = |name: &[u8]| {
        target
            .get(..name.len())
            .filter(|start| start.eq_ignore_ascii_case(name))
            .map(|_| &target[name.len()..])
    };
    let (https, rest) = match scheme(b"http://") {
        Some(rest) => (false, rest),
        None => (true, scheme(b"https://")?),
    };
    let end = rest.iter().position(|b| matches!(b, b'/' | b'?')).unwrap_or(rest.len());
    path(&rest[end..])?;
    Some((https, Parts::parse(&rest[..end])?))
}

/// The headers that decide where a message ends and for whom it is.
#[derive(Default)]
struct Seen<'a> {
    host: Option<Parts<'a>>,
    length: Option<u64>,
    chunked: bool,
    upgrade: bool,
}

impl<'a> Seen<'a> {
    fn header(&mut self, line: &'a [u8]) -> Option<()> {
        // A folded line begins with white space, which is no token: refused here.
        let colon = memchr(b':', line)?;
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        if name.is_empty() || !all(name, TOKEN) || !all_value(value) {
            return None;
        }
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => {
                let host = Parts::parse(value.trim_ascii())?;
                self.host.replace(host).is_none().then_some(())
            }
            7 if name.eq_ignore_ascii_case(b"upgrade") => {
                self.upgrade = true;
                Some(())
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                let length = content_length(exact(value))?;
                self.length.replace(length).is_none().then_some(())
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                let only = exact(value).eq_ignore_ascii_case(b"chunked");
                (only && !std::mem::replace(&mut self.chunked, true)).then_some(())
            }
            _ => Some(()),
        }
    }

    fn settle(self, request: &RequestLine<'_>) -> Option<Head> {
        match (&request.absolute, &self.host) {
            (Some((https, target)), Some(host)) if !target.same(host, *https) => return None,
            (_, None) if request.http_11 => return None,
            _ => {}
        }
        let body = match (self.length, self.chunked) {
            (Some(_), true) => return None,
            (None, true) if !request.http_11 => return None,
            (None, true) => BodyFraming::Chunked,
            (length, false) => BodyFraming::Length(length.unwrap_or(0)),
        };
        // hyper, too, ignores `Upgrade` on HTTP/1.0.
        Some(Head { body, upgrade: self.upgrade && request.http_11 })
    }
}

/// The value of a framing header: at most one space, then nothing but the value.
/// Tabs and trailing blanks are legal and are also how two parsers are made to
/// disagree.
fn exact(value: &[u8]) -> &[u8] {
    value.strip_prefix(b" ").unwrap_or(value)
}

fn content_length(digits: &[u8]) -> Option<u64> {
    let plain = !digits.is_empty() && digits.len() <= 18 && digits.iter().all(u8::is_ascii_digit);
    if !plain || (digits.len() > 1 && digits[0] == b'0') {
        return None;
    }
    Some(digits.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
}
