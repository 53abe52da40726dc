//! Carrying the bytes of a WebSocket, both ways.
//!
//! Bytes are moved as they come and never framed anew. A tunnel that is idle
//! holds no buffer: reads go into one that the whole worker shares, and only
//! what the other side would not take at once is kept. What the upstream sends
//! is followed just far enough to know where one frame ends, so that an end we
//! make ourselves can be said in a proper close frame.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::time::{Instant, timeout};

use super::close_signal::{CloseReason, CloseSignal};
use super::deadline::Deadline;
use super::frames::{self, Cursor};
use super::io::UpstreamIo;
use super::openclaw_kind::{Gate, Refusal};

const SCRATCH: usize = 32 * 1024;
/// How long a client may take to send the message a gate waits for (threat
/// rule 72).
const HELLO: Duration = Duration::from_secs(10);
/// How long an end may take, from our close frame to the client's.
const FAREWELL: Duration = Duration::from_secs(2);
/// The most that is read of a client that does not hear our farewell.
const FAREWELL_BYTES: u64 = 1024 * 1024;

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into_boxed_slice());
}

/// A WebSocket to be.
pub(super) struct Tunnel {
    pub(super) upstream: UpstreamIo,
    /// What the upstream sent right behind its 101.
    pub(super) from_upstream: Bytes,
    /// What the client's first message has to pass.
    pub(super) gate: Option<Gate>,
    pub(super) idle: Duration,
    pub(super) close: CloseSignal,
}

/// How a tunnel ended.
#[derive(Debug)]
enum End {
    BothClosed,
    Idle,
    Refused(Refusal),
    Ended(CloseReason),
}

impl Tunnel {
    /// Carries bytes from when the client's connection has switched.
    pub(super) async fn run_on(self, on_upgrade: OnUpgrade) {
        match on_upgrade.await {
            Ok(client) => self.run(TokioIo::new(client)).await,
            Err(error) => tracing::debug!(%error, "the client's connection did not become a WebSocket"),
        }
    }

    async fn run<C: AsyncRead + AsyncWrite + Unpin>(self, mut client: C) {
        let Self { mut upstream, from_upstream, gate, idle, close } = self;
        let mut lanes = Lanes::new(&from_upstream, gate, idle);
        drop(from_upstream);
        let outcome = {
            let mut closed = pin!(close.closed());
            poll_fn(|cx| {
                if let Poll::Ready(reason) = closed.as_mut().poll(cx) {
                    return Poll::Ready(Ok(End::Ended(reason)));
                }
                lanes.poll(&mut client, &mut upstream, cx)
            })
            .await
        };
        tracing::debug!(?outcome, "a tunnel ended");
        // The upstream sees its end first: nothing more is done in the client's name.
        drop(upstream);
        let (code, reason) = match outcome {
            Ok(End::Refused(why)) => (1008, why),
            Ok(End::Ended(CloseReason::Revoked)) => (1008, "revoked"),
            Ok(End::Ended(CloseReason::Draining)) => (1012, "restarting"),
            Ok(End::BothClosed | End::Idle) | Err(_) => return,
        };
        if let Some(unsent) = lanes.farewell(code, reason) {
            let _ = timeout(FAREWELL, say_farewell(client, &unsent)).await;
        }
    }
}

/// Sends a close frame and waits for the client to hang up: closing with unread
/// bytes would make the system take the frame back.
async fn say_farewell<C: AsyncRead + AsyncWrite + Unpin>(mut client: C, last: &[u8]) -> io::Result<()> {
    client.write_all(last).await?;
    client.shutdown().await?;
    let mut rest = client.take(FAREWELL_BYTES);
    // On the heap: every tunnel would carry it otherwise.
    let mut buffer = vec![0; 4096];
    while rest.read(&mut buffer).await? > 0 {}
    Ok(())
}

/// One direction.
#[derive(Default)]
struct Lane {
    /// Read and not yet taken by the other side. Empty and unallocated at rest.
    unsent: Vec<u8>,
    /// How much of it was taken.
    taken: usize,
    /// Whether something was written since the last flush.
    flush: bool,
    /// Whether nothing more will be read.
    ended: bool,
    /// Whether the other side was told so.
    told: bool,
}

/// What looks at the bytes of a lane: what it answers is sent instead, where it
/// answers anything.
type Look<'a> = &'a mut dyn FnMut(&[u8]) -> Result<Option<Vec<u8>>, Refusal>;

impl Lane {
    /// Moves what can be moved. Ready when this direction is done, or with what
    /// speaks against going on. Sets `moved` for every byte.
    fn poll<R, W>(
        &mut self,
        from: &mut R,
        to: &mut W,
        look: Look<'_>,
        moved: &mut bool,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Result<(), Refusal>>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        loop {
            ready!(self.poll_send(to, moved, cx))?;
            if self.ended {
                if !self.told {
                    ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                    self.told = true;
                }
                return Poll::Ready(Ok(Ok(())));
            }
            let refused = BUFFER.with_borrow_mut(|buffer| self.poll_fill(from, to, buffer, look, moved, cx));
            if let Err(why) = ready!(refused)? {
                return Poll::Ready(Ok(Err(why)));
            }
        }
    }

    /// Sends what is kept, and flushes.
    fn poll_send<W: AsyncWrite + Unpin>(
        &mut self,
        to: &mut W,
        moved: &mut bool,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while self.taken < self.unsent.len() {
            let sent = ready!(Pin::new(&mut *to).poll_write(cx, &self.unsent[self.taken..]))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.taken += sent;
            self.flush = true;
            *moved = true;
        }
        // Given back: a tunnel at rest holds no buffer.
        self.unsent = Vec::new();
        self.taken = 0;
        if self.flush {
            ready!(Pin::new(to).poll_flush(cx))?;
            self.flush = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Reads once, and offers what was read at once; the rest is kept.
    fn poll_fill<R, W>(
        &mut self,
        from: &mut R,
        to: &mut W,
        buffer: &mut [u8],
        look: Look<'_>,
        moved: &mut bool,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Result<(), Refusal>>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let mut buffer = ReadBuf::new(buffer);
        ready!(Pin::new(from).poll_read(cx, &mut buffer))?;
        let read = buffer.filled();
        if read.is_empty() {
            self.ended = true;
            return Poll::Ready(Ok(Ok(())));
        }
        *moved = true;
        match look(read) {
            Err(why) => return Poll::Ready(Ok(Err(why))),
            Ok(Some(instead)) => self.unsent = instead,
            Ok(None) => {
                let sent = match Pin::new(to).poll_write(cx, read) {
                    Poll::Ready(sent) => sent?,
                    Poll::Pending => 0,
                };
                self.flush |= sent > 0;
                self.unsent = read[sent..].to_vec();
            }
        }
        Poll::Ready(Ok(Ok(())))
    }
}

/// Both directions and what watches over them.
struct Lanes {
    up: Lane,
    down: Lane,
    gate: Option<Gate>,
    /// Where the upstream is in its frames.
    cursor: Cursor,
    idle: Duration,
    deadline: Deadline,
    hello: Option<Deadline>,
}

impl Lanes {
    fn new(from_upstream: &[u8], gate: Option<Gate>, idle: Duration) -> Self {
        let now = Instant::now();
        let mut cursor = Cursor::default();
        cursor.pass(from_upstream);
        Self {
            up: Lane::default(),
            down: Lane { unsent: from_upstream.to_vec(), ..Lane::default() },
            hello: gate.is_some().then(|| Deadline::at(now + HELLO)),
            gate,
            cursor,
            idle,
            deadline: Deadline::at(now + idle),
        }
    }

    fn poll<C, U>(&mut self, client: &mut C, upstream: &mut U, cx: &mut Context<'_>) -> Poll<io::Result<End>>
    where
        C: AsyncRead + AsyncWrite + Unpin,
        U: AsyncRead + AsyncWrite + Unpin,
    {
        let mut moved = false;
        let Self { up, down, gate, cursor, .. } = self;
        let down = down.poll(
            upstream,
            client,
            &mut |bytes| {
                cursor.pass(bytes);
                Ok(None)
            },
            &mut moved,
            cx,
        )?;
        let up = up.poll(
            client,
            upstream,
            &mut |bytes| {
                let Some(waiting) = gate else { return Ok(None) };
                let out = waiting.pass(bytes)?;
                if waiting.is_open() {
                    *gate = None;
                }
                Ok(Some(out))
            },
            &mut moved,
            cx,
        )?;
        if let Poll::Ready(Err(why)) = up {
            return Poll::Ready(Ok(End::Refused(why)));
        }
        if up.is_ready() && down.is_ready() {
            return Poll::Ready(Ok(End::BothClosed));
        }
        self.poll_time(moved, cx).map(Ok)
    }

    fn poll_time(&mut self, moved: bool, cx: &mut Context<'_>) -> Poll<End> {
        if self.gate.is_none() {
            self.hello = None;
        }
        if let Some(hello) = &mut self.hello
            && hello.poll(cx).is_ready()
        {
            return Poll::Ready(End::Refused("no connect message in time"));
        }
        if moved {
            self.deadline.set(Instant::now() + self.idle);
        }
        self.deadline.poll(cx).map(|()| End::Idle)
    }

    /// The last bytes for the client: what is still unsent and a close frame.
    /// `None` in the middle of a frame, where a close frame would be payload, and
    /// after the upstream's end, which the client has been told of.
    fn farewell(self, code: u16, reason: &str) -> Option<Vec<u8>> {
        if !self.cursor.is_between_frames() || self.down.ended {
            return None;
        }
        let mut last = self.down.unsent;
        last.drain(..self.down.taken);
        last.extend(frames::close(code, reason));
        Some(last)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;
    use crate::domain::Secret;

    #[tokio::test]
    async fn threat_072_a_client_that_never_says_hello_is_refused() {
        let gate = Gate::new(Secret::new("s3cret").unwrap());
        let mut lanes = Lanes::new(&[], Some(gate), Duration::from_secs(600));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(lanes.poll_time(false, &mut cx).is_pending());
        lanes.hello = Some(Deadline::at(Instant::now()));
        let end = poll_fn(|cx| lanes.poll_time(true, cx)).await;
        assert!(matches!(end, End::Refused(_)));
        lanes.gate = None;
        assert!(lanes.poll_time(true, &mut cx).is_pending());
    }

    #[test]
    fn a_tunnel_is_small() {
        let size = size_of::<Lanes>() + size_of::<Tunnel>();
        assert!(size < 1024, "{size}");
    }
}
