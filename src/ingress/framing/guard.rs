//! The guard itself: a socket that only yields what the machine let pass, and
//! that gives up on clients that dawdle.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::head::HeadLimits;
use super::machine::{Machine, Place, Stop};
use crate::ingress::Limits;
use crate::ingress::control::{ConnControl, Shared, Switch};

/// What a client may send behind a request to switch protocols before it is
/// answered.
const MAX_EARLY: usize = 16 * 1024;
/// What a client may send while it waits for an answer, and still be listened to.
const MAX_AHEAD: usize = 512;
/// What is thrown away of a refused client's bytes before it is cut off.
const MAX_LINGER: usize = 1024 * 1024;

/// A socket behind the strict head guard. See [the module](super).
pub(in crate::ingress) struct Guard<T> {
    inner: T,
    shared: Arc<Shared>,
    limits: Limits,
    machine: Machine,
    /// Read but not passed on: an unfinished head, or what waits for an answer.
    held: BytesMut,
    /// So many bytes at the start of `held` may be passed on.
    ready: usize,
    /// So many bytes behind those were searched for the end of a head.
    searched: usize,
    /// There are bytes in `held` that the machine was not shown.
    fresh: bool,
    waiting: Waiting,
    timer: Pin<Box<Sleep>>,
    shutdown: Shutdown,
    /// Once the stream is another protocol's: ends when it is to be cut off.
    aborted: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

/// Since when the guard waits for the client.
#[derive(Clone, Copy)]
enum Waiting {
    /// It does not.
    No,
    /// For the rest of a head, the one after so many.
    Head(Instant, u64),
    /// For more of a body.
    Body(Instant),
}

enum Shutdown {
    Open,
    /// Our side is shut; the client's last bytes are thrown away.
    Lingering {
        until: Instant,
        bytes: usize,
    },
}

impl<T> Guard<T> {
    /// Guards a socket of which `first` was read already.
    pub(in crate::ingress) fn new(inner: T, first: BytesMut, shared: Arc<Shared>, limits: Limits) -> Self {
        let head = HeadLimits {
            bytes: limits.max_head_bytes,
            // hyper takes no more.
            headers: limits.max_headers.min(100),
            target: limits.max_target_bytes,
        };
        let timer = Box::pin(sleep_until(Instant::now() + limits.first_byte));
        Self {
            inner,
            shared,
            limits,
            machine: Machine::new(head),
            fresh: !first.is_empty(),
            held: first,
            ready: 0,
            searched: 0,
            waiting: Waiting::No,
            timer,
            shutdown: Shutdown::Open,
            aborted: None,
        }
    }

    /// Passes on what may be passed on.
    fn give(&mut self, buf: &mut ReadBuf<'_>) {
        let len = self.ready.min(buf.remaining());
        buf.put_slice(&self.held[..len]);
        self.held.advance(len);
        self.ready -= len;
        if self.held.is_empty() {
            // An idle connection keeps no buffer here.
            self.held = BytesMut::new();
        }
    }

    /// Whether nothing of a further request has come.
    pub(in crate::ingress) fn is_between_requests(&self) -> bool {
        self.machine.place == Place::Head && self.held.is_empty()
    }

    /// Takes back what it gave, to give it again. The machine is not shown it twice.
    pub(in crate::ingress) fn unread(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let behind = std::mem::replace(&mut self.held, BytesMut::from(bytes));
        self.held.unsplit(behind);
        self.ready += bytes.len();
    }

    /// Shows the machine what is held and was not shown yet.
    fn feed_held(&mut self) {
        self.fresh = false;
        let (good, stop) = self.machine.feed(&self.held[self.ready..], self.searched);
        self.settle(self.ready + good, stop);
    }

    /// Shows the machine what was just read into `buf` behind `before`.
    fn feed_read(&mut self, buf: &mut ReadBuf<'_>, before: usize) {
        let read = &buf.filled()[before..];
        let (good, stop) = self.machine.feed(read, 0);
        if stop == Stop::End {
            return;
        }
        self.held.extend_from_slice(&read[good..]);
        buf.set_filled(before + good);
        self.settle(0, stop);
    }

    /// Of `held`, `good` bytes may be passed on; `stop` says what the rest is.
    fn settle(&mut self, good: usize, stop: Stop) {
        self.ready = good;
        self.searched = 0;
        match stop {
            Stop::End | Stop::Undecided => {}
            Stop::Unfinished => self.searched = self.held.len() - good,
            Stop::Fault(fault) => {
                self.held.truncate(good);
                self.held.extend_from_slice(fault.stand_in());
                self.ready = self.held.len();
            }
            Stop::BrokenBody => self.held.truncate(good),
        }
    }

    /// What is held behind a request to switch protocols, now that it may have
    /// been answered.
    fn follow_switch(&mut self) {
        match self.shared.switch() {
            Switch::Pending => {}
            Switch::Accepted => {
                self.machine.place = Place::Opaque;
                self.ready = self.held.len();
                let control = ConnControl(Arc::clone(&self.shared));
                self.aborted = Some(Box::pin(async move { control.aborted().await }));
            }
            // Whatever comes now was meant for the other protocol.
            Switch::Refused => {
                self.machine.place = Place::Refused;
                self.held = BytesMut::new();
            }
        }
    }

    /// By when the client must have sent something.
    fn deadline(&mut self) -> Option<Instant> {
        let limits = &self.limits;
        match self.machine.place {
            Place::Head if !self.held.is_empty() => {
                let heads = self.machine.heads;
                let since = match self.waiting {
                    Waiting::Head(since, after) if after == heads => since,
                    _ if heads == 0 => self.shared.started(),
                    _ => Instant::now(),
                };
                self.waiting = Waiting::Head(since, heads);
                Some(since + limits.head)
            }
            // Set when the guard was made.
            Place::Head if self.machine.heads == 0 => Some(self.timer.deadline()),
            Place::Head => {
                self.waiting = Waiting::No;
                // With a request under way, look again later: nobody polls a
                // reader merely because an answer ended.
                Some(self.shared.idle_since().unwrap_or_else(Instant::now) + limits.idle)
            }
            Place::Body { .. } | Place::Chunked { .. } => {
                let since = match self.waiting {
                    Waiting::Body(since) => since,
                    _ => Instant::now(),
                };
                self.waiting = Waiting::Body(since);
                Some(since + limits.body_idle)
            }
            Place::Undecided | Place::Opaque | Place::Refused => None,
        }
    }

    /// Waits, unless the client is out of time.
    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let Some(deadline) = self.deadline() else { return Poll::Pending };
            // A timer that is set too early is left alone: re-arming it costs
            // more, on every request, than looking again when it fires.
            if self.timer.deadline() > deadline || self.timer.is_elapsed() {
                if deadline <= Instant::now() {
                    return Poll::Ready(Err(io::Error::new(
                        io::ErrorKind::TimedOut,
                        "the client is too slow",
                    )));
                }
                self.timer.as_mut().reset(deadline);
            }
            ready!(self.timer.as_mut().poll(cx));
        }
    }
}

impl<T: AsyncRead + Unpin> Guard<T> {
    /// Reads for the other protocol. No hyper is left to drop this socket when
    /// its right is taken away, so it ends by itself.
    fn read_opaque(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.shared.is_aborted() {
            let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
            if polled.is_ready() {
                return polled;
            }
            if let Some(aborted) = &mut self.aborted {
                ready!(aborted.as_mut().poll(cx));
            }
        }
        self.aborted = None;
        Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()))
    }
}

impl<T: AsyncRead + Unpin> Guard<T> {
    /// Whether the client has gone, while it waits for an answer. What it sends
    /// meanwhile is kept; once that is a whole request, or much, it is not listened to
    /// any further.
    pub(in crate::ingress) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // Little is to be expected, and this runs with every request.
        let mut scratch = [0; MAX_AHEAD];
        while self.ready == 0 && self.held.len() < MAX_AHEAD {
            let mut buf = ReadBuf::new(&mut scratch);
            match ready!(Pin::new(&mut self.inner).poll_read(cx, &mut buf)) {
                Ok(()) if !buf.filled().is_empty() => {
                    self.held.extend_from_slice(buf.filled());
                    self.fresh = true;
                }
                _ => return Poll::Ready(()),
            }
        }
        Poll::Pending
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Guard<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        loop {
            if this.fresh {
                this.feed_held();
            }
            if this.machine.place == Place::Undecided && this.ready == 0 {
                this.follow_switch();
            }
            if this.ready > 0 {
                this.give(buf);
                return Poll::Ready(Ok(()));
            }
            match this.machine.place {
                Place::Opaque => return this.read_opaque(cx, buf),
                // A broken body is an error where it breaks. After a refused
                // head there is nothing; an end of file would make hyper drop
                // the answer that is being prepared.
                Place::Refused if this.machine.broken => {
                    return Poll::Ready(Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "the body is not framed as announced",
                    )));
                }
                Place::Refused => return Poll::Pending,
                Place::Undecided if this.held.len() > MAX_EARLY => {
                    return Poll::Ready(Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "too much was sent before the switch of protocols",
                    )));
                }
                Place::Head | Place::Body { .. } | Place::Chunked { .. } | Place::Undecided => {}
            }
            match Pin::new(&mut this.inner).poll_read(cx, buf) {
                Poll::Pending => return this.wait(cx),
                Poll::Ready(Err(e)) => return Poll::Ready(Err(e)),
                Poll::Ready(Ok(())) => {}
            }
            if buf.filled().len() == before {
                return Poll::Ready(Ok(()));
            }
            if let Waiting::Body(_) = this.waiting {
                this.waiting = Waiting::No;
            }
            if this.held.is_empty() {
                this.feed_read(buf, before);
                if buf.filled().len() > before {
                    return Poll::Ready(Ok(()));
                }
            } else {
                this.held.extend_from_slice(&buf.filled()[before..]);
                buf.set_filled(before);
                this.fresh = true;
            }
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Guard<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    /// Shuts our side, then throws away what the client still sends: closing
    /// with bytes unread resets the connection, and the client may lose the
    /// answer that says why (threat rules 73 and 81).
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Shutdown::Open = this.shutdown {
            ready!(Pin::new(&mut this.inner).poll_shutdown(cx))?;
            // Between two requests nothing is to be expected.
            if this.machine.place == Place::Opaque || this.is_between_requests() {
                return Poll::Ready(Ok(()));
            }
            let until = Instant::now() + this.limits.linger;
            this.timer.as_mut().reset(until);
            this.shutdown = Shutdown::Lingering { until, bytes: 0 };
        }
        let Shutdown::Lingering { until, bytes } = &mut this.shutdown else { return Poll::Ready(Ok(())) };
        let mut scratch = [0; 4096];
        loop {
            let mut buf = ReadBuf::new(&mut scratch);
            match Pin::new(&mut this.inner).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => *bytes += buf.filled().len(),
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => {
                    ready!(this.timer.as_mut().poll(cx));
                    return Poll::Ready(Ok(()));
                }
            }
            if *bytes > MAX_LINGER || Instant::now() >= *until {
                return Poll::Ready(Ok(()));
            }
        }
    }
}
