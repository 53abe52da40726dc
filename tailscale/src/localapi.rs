//! Asking tailscaled at its socket: HTTP/1.1, a connection for each question.
//!
//! A new connection costs 0.1 ms more than a kept one and cannot be stale, or belong
//! to another daemon than the one that listens now. What it promises, whatever the
//! other side does: an answer or an error within the time limit, bounded memory, and
//! nothing left open when a call is given up.
//!
//! Whoever answers here decides who everybody is, so nothing is asked before
//! `trust` has looked at who listens.

mod exchange;
mod stream;
mod trust;

pub(crate) use exchange::{Change, Question};
pub(crate) use stream::{Line, Stream};

use std::path::Path;
use std::str::FromStr;

use tokio::net::UnixStream;
use tokio::time::{Instant, timeout_at};

use crate::daemon::{of_peer, unreachable};
use crate::text::printable;
use crate::{Error, Limits, Version};

/// The most of the daemon's words that an error carries, in bytes.
const SHOWN: usize = 400;

/// What the daemon answered with status 200.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) body: Vec<u8>,
    pub(crate) etag: Option<ETag>,
    /// The daemon's, if it is one.
    pub(crate) version: Option<Version>,
}

/// Why there is no [`Reply`].
#[derive(Debug)]
pub(crate) enum Failure {
    /// Nobody could be asked: the only failure after which asking elsewhere is right.
    NotConnected(Error),
    /// Somebody was there, and no whole answer came of it.
    Lost(Error),
    /// The daemon's answer is that there is none.
    Answered(Error),
}

impl Failure {
    /// What it was.
    pub(crate) fn into_error(self) -> Error {
        match self {
            Self::NotConnected(error) | Self::Lost(error) | Self::Answered(error) => error,
        }
    }
}

/// The version of a Serve configuration: what a change must name in `If-Match`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ETag(String);

impl ETag {
    /// As it was sent, without quotes.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ETag {
    type Err = ();

    /// The daemon sends a hash in hex; nothing else is echoed into a header.
    fn from_str(text: &str) -> Result<Self, ()> {
        let hex = (1..=128).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if hex { Ok(Self(text.to_owned())) } else { Err(()) }
    }
}

/// Asks, and reads the whole answer.
pub(crate) async fn ask(question: Question<'_>, limits: &Limits) -> Result<Reply, Failure> {
    within(question, limits, async {
        let stream = connect(question.socket).await?;
        let got = exchange::ask(question, stream, limits).await.map_err(Failure::Lost)?;
        if got.status != 200 {
            return Err(Failure::Answered(refusal(question.command, &got)));
        }
        Ok(Reply {
            body: got.body,
            etag: got.etag.and_then(|text| text.parse().ok()),
            version: got.version.and_then(|text| text.parse().ok()),
        })
    })
    .await
}

/// Asks for what is told as it happens. The limits bound the time until it begins.
pub(crate) async fn open(question: Question<'_>, limits: &Limits) -> Result<Stream, Failure> {
    within(question, limits, async {
        let stream = connect(question.socket).await?;
        let (response, connection) = exchange::send(question, stream).await.map_err(Failure::Lost)?;
        let status = response.status().as_u16();
        if status != 200 {
            let answer = exchange::Answer { status, version: None, etag: None, body: Vec::new() };
            return Err(Failure::Answered(refusal(question.command, &answer)));
        }
        let reading = exchange::Reading { connection, body: response.into_body() };
        let socket = question.socket.to_owned();
        Ok(Stream {
            command: question.command,
            socket,
            reading,
            rest: Vec::new(),
            searched: 0,
            skipping: false,
        })
    })
    .await
}

async fn within<T>(
    Question { command, .. }: Question<'_>,
    limits: &Limits,
    asking: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let started = Instant::now();
    let result = match timeout_at(started + limits.timeout, asking).await {
        Ok(result) => result,
        Err(_) => Err(Failure::Lost(Error::TimedOut { command, after: limits.timeout })),
    };
    let elapsed_us = started.elapsed().as_micros();
    tracing::trace!(command, elapsed_us, ok = result.is_ok(), "asked tailscaled");
    result
}

/// A connection to somebody who may be believed.
async fn connect(socket: &Path) -> Result<UnixStream, Failure> {
    let connected = UnixStream::connect(socket).await;
    let stream = connected.map_err(|error| Failure::NotConnected(unreachable(socket, error)))?;
    let daemon = of_peer(&stream, socket).map_err(Failure::Lost)?;
    trust::check(socket, daemon.uid).map_err(Failure::Lost)?;
    Ok(stream)
}

/// Whether a listener of this user at this path is believed.
pub(crate) fn is_believed(socket: &Path, uid: u32) -> bool {
    trust::check(socket, uid).is_ok()
}

/// What a status other than 200 means.
fn refusal(command: &'static str, got: &exchange::Answer) -> Error {
    let detail = printable(&got.body, SHOWN);
    match got.status {
        // Somebody else's 404 (another program at the socket, a proxy without its
        // daemon) says nothing about a peer.
        404 if command == "whois" && got.version.is_some() => Error::NotFound,
        401 | 403 => Error::Denied { command, detail },
        400 => Error::BadArgument { command, detail },
        status => Error::Status { command, status, detail },
    }
}

#[cfg(test)]
mod tests;
