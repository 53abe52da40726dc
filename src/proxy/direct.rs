//! The short way: a request that is all here, and an answer that arrives whole.
//!
//! Most exchanges are one small write and one small read. For those, a driven
//! connection costs more than all the rest of a request, so they are made on the
//! bare socket. Nothing is decided generously here: an answer that is anything but
//! a final head with one plain length and exactly that many bytes behind it, all of
//! it here at once, is handed to hyper from its first byte (see
//! [`UpstreamIo::replay`]), and hyper reads it as if it had sent the request.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, Response, StatusCode};
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};

use super::ProxyError;
use super::exchange::{Bounds, Got, Wait};
use super::io::UpstreamIo;
use super::pool::Bare;
use super::response::{self, AnswerLine};
use crate::ingress::plain_length;

/// What is looked at of an answer. A larger one is hyper's.
const MOST: usize = 16 * 1024;
/// Like hyper's own limit.
const MAX_HEADERS: usize = 100;

thread_local! {
    static IN: RefCell<Box<[u8]>> = RefCell::new(vec![0; MOST].into_boxed_slice());
}

/// What came back.
pub(super) enum Heard {
    /// All of the answer; the connection is between two exchanges again.
    All(Got),
    /// The beginning of one that takes more than this.
    Beginning(Bytes),
}

/// Nothing came back.
pub(super) struct Lost {
    pub(super) error: ProxyError,
    /// Whether another connection may be tried: not a byte came back, and of the
    /// request not a byte went out, or it ended the connection unanswered.
    pub(super) unsent: bool,
    pub(super) silent: bool,
}

/// A request that is all here.
#[derive(Clone, Copy)]
pub(super) struct Ask<'a> {
    pub(super) method: &'a Method,
    /// As it is sent.
    pub(super) bytes: &'a [u8],
    pub(super) bodiless: bool,
    /// The number of the request, if the answer may be [`Got::Lines`].
    pub(super) as_lines: Option<&'a HeaderValue>,
}

/// Sends a request and waits for the first of its answer.
pub(super) async fn ask(bare: &mut Bare, ask: Ask<'_>, bounds: Bounds<'_>) -> Result<Heard, Lost> {
    let mut wait = Wait::new(&mut bare.deadline, bounds, None);
    let (mut sent, mut flushed) = (0, false);
    poll_fn(|cx| {
        match poll_send(&mut bare.io, ask.bytes, &mut sent, &mut flushed, cx) {
            Poll::Ready(Ok(())) => {
                if let Poll::Ready(heard) = hear(&mut bare.io, ask, cx) {
                    return Poll::Ready(heard);
                }
            }
            Poll::Ready(Err(error)) => {
                // Of what TLS took before it failed, a piece may be gone.
                let unsent = sent == 0 && (ask.bodiless || !bare.io.is_tls());
                let lost = Lost { error: ProxyError::Lost(error), unsent, silent: true };
                return Poll::Ready(Err(lost));
            }
            Poll::Pending => {}
        }
        let error = ready!(wait.poll(&mut bare.deadline, cx));
        Poll::Ready(Err(Lost { error, unsent: false, silent: false }))
    })
    .await
}

/// `sent` bytes have gone out; `flushed` says that they have left us, too.
fn poll_send(
    io: &mut UpstreamIo,
    bytes: &[u8],
    sent: &mut usize,
    flushed: &mut bool,
    cx: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    while *sent < bytes.len() {
        match ready!(Pin::new(&mut *io).poll_write(cx, &bytes[*sent..]))? {
            0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            written => *sent += written,
        }
    }
    if !*flushed {
        ready!(Pin::new(io).poll_flush(cx))?;
        *flushed = true;
    }
    Poll::Ready(Ok(()))
}

fn hear(io: &mut UpstreamIo, ask: Ask<'_>, cx: &mut Context<'_>) -> Poll<Result<Heard, Lost>> {
    IN.with_borrow_mut(|buffer| {
        let mut buffer = ReadBuf::new(buffer);
        let read = ready!(Pin::new(io).poll_read(cx, &mut buffer));
        let lost = |error| Poll::Ready(Err(Lost { error, unsent: false, silent: true }));
        match read {
            Err(error) => lost(ProxyError::Lost(error)),
            Ok(()) if buffer.filled().is_empty() => {
                lost(ProxyError::BadResponse("its connection ended without one"))
            }
            Ok(()) => {
                let bytes = buffer.filled();
                Poll::Ready(Ok(match whole(bytes, ask) {
                    Some(got) => Heard::All(got),
                    None => Heard::Beginning(Bytes::copy_from_slice(bytes)),
                }))
            }
        }
    })
}

/// The answer, if these bytes are one from its first byte to its last and nothing
/// about it needs a second thought.
fn whole(bytes: &[u8], ask: Ask<'_>) -> Option<Got> {
    let mut headers = [const { std::mem::MaybeUninit::uninit() }; MAX_HEADERS];
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let parsing = config.parse_response_with_uninit_headers(&mut parsed, bytes, &mut headers);
    let httparse::Status::Complete(head) = parsing.ok()? else { return None };
    if parsed.version != Some(1) {
        return None;
    }
    let status = StatusCode::from_u16(parsed.code?).ok()?;
    // Its own words for a status are for hyper to carry.
    if status.is_informational() || parsed.reason != status.canonical_reason() {
        return None;
    }
    let mut length = None;
    let mut lines = ask.as_lines.map(|request_id| response::lines(request_id, bytes.len()));
    for line in &*parsed.headers {
        let kind = AnswerLine::of(line.name.as_bytes());
        match kind {
            AnswerLine::Length if length.replace(plain_length(line.value)?).is_some() => return None,
            AnswerLine::TransferEncoding => return None,
            AnswerLine::Connection if !line.value.eq_ignore_ascii_case(b"keep-alive") => return None,
            _ => {}
        }
        if let Some(lines) = &mut lines {
            response::pass(lines, kind, line);
        }
    }
    let bodiless = match status {
        StatusCode::NO_CONTENT => length.is_none().then_some(true)?,
        StatusCode::NOT_MODIFIED => true,
        _ => *ask.method == Method::HEAD,
    };
    if bytes.len() - head != if bodiless { 0 } else { length? } {
        return None;
    }
    if let Some(mut lines) = lines {
        lines.bytes.extend_from_slice(&bytes[head..]);
        return Some(Got::Lines(status, lines));
    }
    let mut headers = HeaderMap::with_capacity(parsed.headers.len() + 2);
    for line in &*parsed.headers {
        let name = HeaderName::from_bytes(line.name.as_bytes()).ok()?;
        headers.append(name, HeaderValue::from_bytes(line.value).ok()?);
    }
    let mut response = Response::new(Bytes::copy_from_slice(&bytes[head..]));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Some(Got::Whole(response))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Status, number of headers and body; in both forms, or in none.
    fn read(answer: &str, method: Method) -> Option<(u16, usize, String)> {
        let ask = Ask { method: &method, bytes: b"", bodiless: true, as_lines: None };
        let as_lines =
            whole(answer.as_bytes(), Ask { as_lines: Some(&HeaderValue::from_static("r1")), ..ask });
        let Some(Got::Whole(response)) = whole(answer.as_bytes(), ask) else {
            assert!(as_lines.is_none(), "{answer:?}");
            return None;
        };
        let body = String::from_utf8(response.body().to_vec()).unwrap();
        let Some(Got::Lines(status, lines)) = as_lines else { panic!("not as lines: {answer:?}") };
        assert_eq!((status, &lines.bytes[lines.head..]), (response.status(), body.as_bytes()));
        Some((response.status().as_u16(), response.headers().len(), body))
    }

    #[test]
    fn threat_079_only_what_cannot_be_read_twice_takes_the_short_way() {
        for answer in [
            // Not all here, or more than all.
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\noks",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n",
            "HTTP/1.1 204 No Content\r\n\r\nx",
            "HTTP/1.1 304 Not Modified\r\n\r\nx",
            // Lengths.
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
            "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok",
            "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
            "HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551618\r\n\r\nok",
            "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding : chunked\r\nContent-Length: 2\r\n\r\nok",
            // Who ends the connection, and what it becomes.
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
            "HTTP/1.1 200 OK\r\nConnection: keep-alive, x-a\r\nContent-Length: 2\r\n\r\nok",
            "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
            "HTTP/1.1 100 Continue\r\n\r\n",
            "HTTP/1.1 101 Switching Protocols\r\nContent-Length: 0\r\n\r\n",
            // No HTTP.
            "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nok",
            "HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 2\r\n\r\nok",
            "HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok",
            "HTTP/2 200 OK\r\nContent-Length: 2\r\n\r\nok",
            "",
            // Its own words.
            "HTTP/1.1 200 Fine\r\nContent-Length: 2\r\n\r\nok",
        ] {
            assert_eq!(read(answer, Method::GET), None, "{answer:?}");
        }
        let many = "X: y\r\n".repeat(MAX_HEADERS);
        assert_eq!(read(&format!("HTTP/1.1 200 OK\r\n{many}Content-Length: 0\r\n\r\n"), Method::GET), None);
    }

    #[test]
    fn plain_answers_do() {
        let ok = "HTTP/1.1 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 2\r\n\r\n";
        assert_eq!(read(&format!("{ok}ok"), Method::GET), Some((200, 2, "ok".into())));
        assert_eq!(read(ok, Method::HEAD), Some((200, 2, String::new())));
        assert_eq!(read(&format!("{ok}ok"), Method::HEAD), None);
        let cookies = "HTTP/1.1 404 Not Found\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(read(cookies, Method::GET), Some((404, 3, String::new())));
        assert_eq!(read("HTTP/1.1 204 No Content\r\n\r\n", Method::GET), Some((204, 0, String::new())));
        let unmodified = "HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n";
        assert_eq!(read(unmodified, Method::GET), Some((304, 1, String::new())));
    }
}
