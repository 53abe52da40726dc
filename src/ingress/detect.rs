//! Tells HTTP/2 with prior knowledge from HTTP/1.1 on a plain connection.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What the first bytes of a connection say.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// Anything that is not HTTP/2.
    Http1,
    /// The whole preface was read.
    Http2,
    /// The client closed before it said which.
    Nothing,
}

/// Reads until the protocol is certain; what was read is in the buffer.
pub(super) async fn detect<T: AsyncRead + Unpin>(io: &mut T) -> io::Result<(Protocol, BytesMut)> {
    let mut first = BytesMut::new();
    loop {
        // On the stack of one poll, not in the future of every connection.
        let read = poll_fn(|cx| {
            let mut scratch = [0; 4096];
            let mut buf = ReadBuf::new(&mut scratch);
            match pin!(&mut *io).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) => {
                    first.extend_from_slice(buf.filled());
                    Poll::Ready(Ok(buf.filled().len()))
                }
                Poll::Ready(Err(e)) => Poll::Ready(Err(e)),
                Poll::Pending => Poll::Pending,
            }
        })
        .await?;
        if first.len() >= PREFACE.len() && first.starts_with(PREFACE) {
            return Ok((Protocol::Http2, first));
        }
        if !PREFACE.starts_with(&first) {
            return Ok((Protocol::Http1, first));
        }
        if read == 0 {
            return Ok((Protocol::Nothing, first));
        }
    }
}

/// A socket of which some bytes were read already.
pub(super) struct Replay<T> {
    first: BytesMut,
    inner: T,
}

impl<T> Replay<T> {
    pub(super) fn new(first: BytesMut, inner: T) -> Self {
        Self { first, inner }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Replay<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.first.is_empty() {
            return Pin::new(&mut this.inner).poll_read(cx, buf);
        }
        let len = this.first.len().min(buf.remaining());
        buf.put_slice(&this.first[..len]);
        this.first.advance(len);
        if this.first.is_empty() {
            this.first = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Replay<T> {
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

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    async fn protocol_of(parts: &[&[u8]]) -> (Protocol, Vec<u8>) {
        let (mut client, mut server) = tokio::io::duplex(64);
        let feed = async {
            for part in parts {
                client.write_all(part).await.unwrap();
                tokio::task::yield_now().await;
            }
            drop(client);
        };
        let (found, ()) = tokio::join!(detect(&mut server), feed);
        let (protocol, first) = found.unwrap();
        (protocol, first.to_vec())
    }

    #[tokio::test]
    async fn the_preface_is_recognised_however_it_is_cut() {
        assert_eq!(protocol_of(&[PREFACE]).await, (Protocol::Http2, PREFACE.to_vec()));
        assert_eq!(protocol_of(&[b"P", &PREFACE[1..20], &PREFACE[20..]]).await.0, Protocol::Http2);
        assert_eq!(protocol_of(&[b"P", b"OST / "]).await, (Protocol::Http1, b"POST / ".to_vec()));
        assert_eq!(protocol_of(&[b"PRI * HTTP/1.1\r\n"]).await.0, Protocol::Http1);
        assert_eq!(protocol_of(&[b"PRI"]).await.0, Protocol::Nothing);
        assert_eq!(protocol_of(&[]).await.0, Protocol::Nothing);
    }
}
