//! One request and its answer on a connected socket.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http_body_util::Full;
use hyper::body::{Body, Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, header};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use super::ETag;
use crate::text::printable;
use crate::{Error, Limits};

/// The only name that tailscaled answers to: a page in a browser cannot send it.
const HOST: &str = "local-tailscaled.sock";

/// A head of more than this is no daemon's.
const MAX_HEAD: usize = 64 << 10;

/// What is asked, of whom, and its name in errors.
#[derive(Clone, Copy)]
pub(crate) struct Question<'a> {
    pub(crate) command: &'static str,
    pub(crate) socket: &'a Path,
    pub(crate) target: &'a str,
    /// A change of the Serve configuration that must name the version it was made from.
    pub(crate) change: Option<Change<'a>>,
}

/// A document that takes the place of the one with this tag.
#[derive(Clone, Copy)]
pub(crate) struct Change<'a> {
    pub(crate) of: &'a ETag,
    pub(crate) document: &'a str,
}

/// What came back, whatever its status.
pub(super) struct Answer {
    pub(super) status: u16,
    /// The daemon's version: a header that it puts on everything it answers.
    pub(super) version: Option<String>,
    pub(super) etag: Option<String>,
    pub(super) body: Vec<u8>,
}

/// Sends the question and reads the whole answer. Dropping the future closes the
/// socket.
pub(super) async fn ask(
    question: Question<'_>,
    stream: UnixStream,
    limits: &Limits,
) -> Result<Answer, Error> {
    let (response, connection) = send(question, stream).await?;
    let broken = |error: hyper::Error| broken(question.command, question.socket, &error);
    let (head, body) = response.into_parts();
    let status = head.status.as_u16();
    let limit = if status == 200 { limits.stdout_bytes } else { limits.stderr_bytes };
    let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
    let too_large = || Error::TooLarge { command: question.command, limit };
    let announced = body.size_hint().lower();
    if announced > limit as u64 {
        return Err(too_large());
    }
    // At once: growing would leave copies behind, and it may be a key.
    let mut whole = Vec::with_capacity(usize::try_from(announced).unwrap_or(0));
    let mut reading = Reading { connection, body };
    while let Some(data) = reading.chunk().await.map_err(broken)? {
        if whole.len() + data.len() > limit {
            return Err(too_large());
        }
        whole.extend_from_slice(&data);
    }
    Ok(Answer {
        status,
        version: header("tailscale-version").map(str::to_owned),
        etag: header("etag").map(str::to_owned),
        body: whole,
    })
}

type Connection = http1::Connection<TokioIo<UnixStream>, Full<Bytes>>;

/// Sends the question and waits for the head of the answer.
pub(super) async fn send(
    question: Question<'_>,
    stream: UnixStream,
) -> Result<(Response<Incoming>, Driver), Error> {
    let Question { command, socket, target, change } = question;
    let broken = |error: hyper::Error| broken(command, socket, &error);
    let mut request = Request::builder().uri(target).header(header::HOST, HOST);
    let body = match change {
        None => Full::default(),
        Some(Change { of, document }) => {
            request = request.method(Method::POST).header(header::IF_MATCH, of.as_str());
            Full::from(document.to_owned())
        }
    };
    let request = request.header(header::CONNECTION, "close").body(body);
    let request = request.map_err(|error| Error::BadArgument { command, detail: error.to_string() })?;
    let mut builder = http1::Builder::new();
    let handshake = builder.max_buf_size(MAX_HEAD).handshake(TokioIo::new(stream));
    let (mut sender, connection): (_, Connection) = handshake.await.map_err(broken)?;
    let answer = sender.send_request(request);
    tokio::pin!(answer);
    let mut driver = Driver { connection: Some(Box::pin(connection)), _sender: sender };
    let response = std::future::poll_fn(|cx| {
        driver.drive(cx);
        answer.as_mut().poll(cx)
    })
    .await;
    Ok((response.map_err(broken)?, driver))
}

/// What moves bytes; nothing arrives without it.
pub(super) struct Driver {
    connection: Option<Pin<Box<Connection>>>,
    /// Without it the connection takes itself for done.
    _sender: http1::SendRequest<Full<Bytes>>,
}

impl Driver {
    /// To be called before what it feeds is polled. What it read before it ended is
    /// still to be had there; so is what ended it.
    fn drive(&mut self, cx: &mut Context<'_>) {
        if self.connection.as_mut().is_some_and(|connection| connection.as_mut().poll(cx).is_ready()) {
            self.connection = None;
        }
    }
}

/// A body that is being read.
pub(super) struct Reading {
    pub(super) connection: Driver,
    pub(super) body: Incoming,
}

impl Reading {
    /// The next piece, or nothing at the end. Nothing is lost when the future is
    /// dropped.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, hyper::Error> {
        std::future::poll_fn(|cx| {
            loop {
                self.connection.drive(cx);
                match std::task::ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                    None => return Poll::Ready(Ok(None)),
                    Some(Err(error)) => return Poll::Ready(Err(error)),
                    Some(Ok(frame)) => {
                        // Trailers say nothing here.
                        if let Ok(data) = frame.into_data() {
                            return Poll::Ready(Ok(Some(data)));
                        }
                    }
                }
            }
        })
        .await
    }
}

pub(super) fn broken(command: &'static str, socket: &Path, error: &hyper::Error) -> Error {
    if error.is_parse() {
        let detail = printable(format!("its answer is no HTTP: {error}").as_bytes(), 200);
        return Error::Garbage { command, detail };
    }
    let source = io::Error::new(io::ErrorKind::UnexpectedEof, error.to_string());
    Error::Socket { path: socket.to_owned(), source: Arc::new(source) }
}
