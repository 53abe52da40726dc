//! The short way: a request without a body, and an answer that arrives whole.
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
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING};
use http::{Method, Request, Response, StatusCode};
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};

use super::ProxyError;
use super::exchange::{Bounds, Wait};
use super::io::UpstreamIo;
use super::pool::Bare;

/// What is looked at of an answer. A larger one is hyper's.
const MOST: usize = 16 * 1024;
/// Like hyper's own limit.
const MAX_HEADERS: usize = 100;

thread_local! {
    static OUT: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(4096));
    static IN: RefCell<Box<[u8]>> = RefCell::new(vec![0; MOST].into_boxed_slice());
}

/// What came back.
pub(super) enum Heard {
    /// All of the answer; the connection is between two exchanges again.
    Whole(Response<Bytes>),
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

/// Sends a request that has no body and waits for the first of its answer.
pub(super) async fn ask<B>(bare: &mut Bare, request: &Request<B>, bounds: Bounds<'_>) -> Result<Heard, Lost> {
    let mut wait = Wait::new(&mut bare.deadline, bounds, None);
    let mut sending = Sending::New;
    poll_fn(|cx| {
        if let Poll::Ready(sent) = sending.poll(&mut bare.io, request, cx) {
            if let Err(error) = sent {
                let unsent = matches!(sending, Sending::New);
                return Poll::Ready(Err(Lost { error: ProxyError::Lost(error), unsent, silent: true }));
            }
            if let Poll::Ready(heard) = hear(&mut bare.io, request.method(), cx) {
                return Poll::Ready(heard);
            }
        }
        let error = ready!(wait.poll(&mut bare.deadline, cx));
        Poll::Ready(Err(Lost { error, unsent: false, silent: false }))
    })
    .await
}

/// How much of the request went out.
enum Sending {
    /// Nothing.
    New,
    /// All but these, from there on.
    Rest(Vec<u8>, usize),
    /// All, but it may not have left us.
    Written,
    /// All.
    Done,
}

impl Sending {
    fn poll<B>(
        &mut self,
        io: &mut UpstreamIo,
        request: &Request<B>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            match self {
                Self::New => OUT.with_borrow_mut(|head| {
                    write_head(head, request);
                    let written = match Pin::new(&mut *io).poll_write(cx, head) {
                        Poll::Ready(written) => written?,
                        Poll::Pending => 0,
                    };
                    *self = match written == head.len() {
                        true => Self::Written,
                        false => Self::Rest(head.clone(), written),
                    };
                    io::Result::Ok(())
                })?,
                Self::Rest(head, at) => {
                    *at += ready!(Pin::new(&mut *io).poll_write(cx, &head[*at..]))?;
                    if *at == head.len() {
                        *self = Self::Written;
                    }
                }
                Self::Written => {
                    ready!(Pin::new(&mut *io).poll_flush(cx))?;
                    *self = Self::Done;
                }
                Self::Done => return Poll::Ready(Ok(())),
            }
        }
    }
}

/// Names and values were checked when they became names and values.
fn write_head<B>(head: &mut Vec<u8>, request: &Request<B>) {
    head.clear();
    head.extend_from_slice(request.method().as_str().as_bytes());
    head.push(b' ');
    head.extend_from_slice(request.uri().path_and_query().map_or("/", |target| target.as_str()).as_bytes());
    head.extend_from_slice(b" HTTP/1.1\r\n");
    for (name, value) in request.headers() {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
}

fn hear(io: &mut UpstreamIo, method: &Method, cx: &mut Context<'_>) -> Poll<Result<Heard, Lost>> {
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
                let bytes = Bytes::copy_from_slice(buffer.filled());
                Poll::Ready(Ok(match whole(&bytes, method) {
                    Some(response) => Heard::Whole(response),
                    None => Heard::Beginning(bytes),
                }))
            }
        }
    })
}

/// The answer, if these bytes are one from its first byte to its last and nothing
/// about it needs a second thought.
fn whole(bytes: &Bytes, method: &Method) -> Option<Response<Bytes>> {
    let mut lines = [const { std::mem::MaybeUninit::uninit() }; MAX_HEADERS];
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let parsing = config.parse_response_with_uninit_headers(&mut parsed, bytes, &mut lines);
    let httparse::Status::Complete(head) = parsing.ok()? else { return None };
    if parsed.version != Some(1) {
        return None;
    }
    let status = StatusCode::from_u16(parsed.code?).ok()?;
    // Its own words for a status are for hyper to carry.
    if status.is_informational() || parsed.reason != status.canonical_reason() {
        return None;
    }
    let mut headers = HeaderMap::with_capacity(parsed.headers.len() + 2);
    let mut length = None;
    for line in &*parsed.headers {
        let name = HeaderName::from_bytes(line.name.as_bytes()).ok()?;
        if name == CONTENT_LENGTH {
            if length.replace(plain_length(line.value)?).is_some() {
                return None;
            }
        } else if name == TRANSFER_ENCODING
            || (name == CONNECTION && !line.value.eq_ignore_ascii_case(b"keep-alive"))
        {
            return None;
        }
        let value = HeaderValue::from_maybe_shared(bytes.slice_ref(line.value)).ok()?;
        headers.append(name, value);
    }
    let body = bytes.slice(head..);
    let bodiless = match status {
        StatusCode::NO_CONTENT => length.is_none().then_some(true)?,
        StatusCode::NOT_MODIFIED => true,
        _ => *method == Method::HEAD,
    };
    if body.len() != if bodiless { 0 } else { length? } {
        return None;
    }
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Some(response)
}

fn plain_length(digits: &[u8]) -> Option<usize> {
    let plain = !digits.is_empty() && digits.len() <= 9 && digits.iter().all(u8::is_ascii_digit);
    plain.then(|| digits.iter().fold(0, |sum, digit| sum * 10 + usize::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(answer: &str, method: Method) -> Option<(u16, usize, String)> {
        let response = whole(&Bytes::copy_from_slice(answer.as_bytes()), &method)?;
        let body = String::from_utf8(response.body().to_vec()).unwrap();
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

    #[test]
    fn a_head_is_written_as_it_is() {
        let request = Request::builder()
            .method("PURGE")
            .uri("/a?b=%20")
            .header("Host", "x")
            .header("X-B", "1")
            .header("X-B", "2")
            .body(())
            .unwrap();
        let mut head = b"rest of another".to_vec();
        write_head(&mut head, &request);
        assert_eq!(
            String::from_utf8(head).unwrap(),
            "PURGE /a?b=%20 HTTP/1.1\r\nhost: x\r\nx-b: 1\r\nx-b: 2\r\n\r\n"
        );
    }
}
