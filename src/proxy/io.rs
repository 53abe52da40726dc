//! The byte stream to an upstream.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::client::TlsStream;

use crate::ingress::poll_write_gathered;

/// What an upstream is reached over.
pub(super) enum Transport {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A transport that remembers whether anything was heard on it: a request is
/// only ever sent again when its connection said nothing (see `exchange`).
pub(super) struct UpstreamIo {
    transport: Transport,
    heard: Rc<Cell<bool>>,
    again: Option<Box<Replay>>,
}

/// An exchange that hyper takes over after the request went out.
struct Replay {
    /// Whether hyper has written the request, which goes nowhere.
    asked: bool,
    /// What is already here of the answer.
    answer: Bytes,
}

impl UpstreamIo {
    pub(super) fn new(transport: Transport) -> Self {
        Self { transport, heard: Rc::default(), again: None }
    }

    /// Lets hyper have an exchange of which the request, which has no body, went
    /// out already and the answer has begun with these bytes: what is written
    /// until they have been read is thrown away, and they are there to be read
    /// once something was written. hyper takes bytes before that for bytes that
    /// nobody asked for.
    pub(super) fn replay(&mut self, answer: Bytes) {
        self.again = Some(Box::new(Replay { asked: false, answer }));
    }

    /// Waits until something has arrived.
    #[cfg(test)]
    pub(super) async fn readable(&self) {
        match &self.transport {
            Transport::Tcp(io) => io.readable().await,
            Transport::Unix(io) => io.readable().await,
            Transport::Tls(io) => io.get_ref().0.readable().await,
        }
        .unwrap();
    }

    pub(super) fn is_tls(&self) -> bool {
        matches!(self.transport, Transport::Tls(_))
    }

    /// Set with every byte that arrives; whoever holds it may clear it.
    pub(super) fn heard(&self) -> Rc<Cell<bool>> {
        self.heard.clone()
    }
}

macro_rules! each {
    ($transport:expr, $io:ident => $call:expr) => {
        match $transport {
            Transport::Tcp($io) => {
                let $io = Pin::new($io);
                $call
            }
            Transport::Unix($io) => {
                let $io = Pin::new($io);
                $call
            }
            Transport::Tls($io) => {
                let $io = Pin::new($io);
                $call
            }
        }
    };
}

impl AsyncRead for UpstreamIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(again) = &mut this.again {
            if !again.asked {
                return Poll::Pending;
            }
            let len = again.answer.len().min(buf.remaining());
            buf.put_slice(&again.answer.split_to(len));
            if !again.answer.has_remaining() {
                this.again = None;
            }
            this.heard.set(true);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        ready!(each!(&mut this.transport, io => io.poll_read(cx, buf)))?;
        if buf.filled().len() > before {
            this.heard.set(true);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for UpstreamIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let Some(again) = &mut this.again {
            again.asked = true;
            return Poll::Ready(Ok(buf.len()));
        }
        each!(&mut this.transport, io => io.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let Some(again) = &mut this.again {
            again.asked = true;
            return Poll::Ready(Ok(bufs.iter().map(|buf| buf.len()).sum()));
        }
        each!(&mut this.transport, io => poll_write_gathered(io, cx, bufs))
    }

    /// Always: hyper then keeps what it has not written of a body apart, and does not call
    /// a connection ready for another request before that is gone. Otherwise a connection
    /// taken from it (`pool::Live::into_bare`) could lack the end of a body.
    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(&mut self.get_mut().transport, io => io.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(&mut self.get_mut().transport, io => io.poll_shutdown(cx))
    }
}
