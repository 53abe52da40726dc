//! Gives up on a client that takes nothing of what is written to it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::control::Shared;
use super::gather::poll_write_gathered;
use super::slots::Slot;

/// A socket whose writes fail once they made no progress for too long. It also
/// holds the connection's place in the count, so that an upgraded connection
/// keeps it for as long as its socket is open.
pub(super) struct Stall<T> {
    inner: T,
    limit: Duration,
    shared: Arc<Shared>,
    timer: Option<Pin<Box<Sleep>>>,
    _slot: Slot,
}

impl<T> Stall<T> {
    pub(super) fn new(inner: T, limit: Duration, shared: Arc<Shared>, slot: Slot) -> Self {
        Self { inner, limit, shared, timer: None, _slot: slot }
    }

    /// Ends the wait, or looks whether it was too long.
    fn watch<R>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        if polled.is_ready() {
            self.timer = None;
            return polled;
        }
        let limit = self.limit;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + limit)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing")))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Stall<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Stall<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.inner).poll_write(cx, buf);
        let polled = this.watch(cx, polled);
        if let Poll::Ready(Ok(bytes)) = &polled {
            this.shared.wrote(*bytes);
        }
        polled
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = poll_write_gathered(Pin::new(&mut this.inner), cx, bufs);
        let polled = this.watch(cx, polled);
        if let Poll::Ready(Ok(bytes)) = &polled {
            this.shared.wrote(*bytes);
        }
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.inner).poll_flush(cx);
        // A plain socket has nothing to flush, and this must not end a wait
        // that `poll_write` began.
        if polled.is_ready() { polled } else { this.watch(cx, polled) }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.inner).poll_shutdown(cx);
        this.watch(cx, polled)
    }
}
