//! Asking tailscaled at its socket: HTTP/1.1, GET only, a connection for each question.
//!
//! A new connection costs 0.1 ms more than a kept one and cannot be stale, or belong
//! to another daemon than the one that listens now. What it promises, whatever the
//! other side does: an answer or an error within the time limit, bounded memory, and
//! nothing left open when a call is given up.
//!
//! Whoever answers here decides who everybody is, so nothing is asked before
//! `trust` has looked at who listens.

mod exchange;
mod trust;

use std::path::Path;
use std::str::FromStr;

use tokio::net::UnixStream;
use tokio::time::{Instant, timeout_at};

use crate::daemon::{of_peer, unreachable};
use crate::text::printable;
use crate::{Error, Limits};

/// The most of the daemon's words that an error carries, in bytes.
const SHOWN: usize = 400;

/// What the daemon answered with status 200.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) body: Vec<u8>,
    pub(crate) etag: Option<ETag>,
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

/// Asks for `target`; `command` is its name in errors.
pub(crate) async fn get(
    command: &'static str,
    socket: &Path,
    target: &str,
    limits: &Limits,
) -> Result<Reply, Failure> {
    let started = Instant::now();
    let asking = ask(command, socket, target, limits);
    let result = match timeout_at(started + limits.timeout, asking).await {
        Ok(result) => result,
        Err(_) => Err(Failure::Lost(Error::TimedOut { command, after: limits.timeout })),
    };
    let elapsed_us = started.elapsed().as_micros();
    tracing::trace!(command, elapsed_us, ok = result.is_ok(), "asked tailscaled");
    result
}

async fn ask(command: &'static str, socket: &Path, target: &str, limits: &Limits) -> Result<Reply, Failure> {
    let connected = UnixStream::connect(socket).await;
    let stream = connected.map_err(|error| Failure::NotConnected(unreachable(socket, error)))?;
    let daemon = of_peer(&stream, socket).map_err(Failure::Lost)?;
    trust::check(socket, daemon.uid).map_err(Failure::Lost)?;
    let got = exchange::get(command, socket, stream, target, limits).await.map_err(Failure::Lost)?;
    if got.status != 200 {
        return Err(Failure::Answered(refusal(command, &got)));
    }
    Ok(Reply { body: got.body, etag: got.etag.and_then(|text| text.parse().ok()) })
}

/// What a status other than 200 means.
fn refusal(command: &'static str, got: &exchange::Answer) -> Error {
    let detail = printable(&got.body, SHOWN);
    match got.status {
        // Somebody else's 404 (another program at the socket, a proxy without its
        // daemon) says nothing about a peer.
        404 if command == "whois" && got.from_tailscaled => Error::NotFound,
        401 | 403 => Error::Denied { command, detail },
        400 => Error::BadArgument { command, detail },
        status => Error::Status { command, status, detail },
    }
}

#[cfg(test)]
mod tests;
