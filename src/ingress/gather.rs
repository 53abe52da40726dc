//! Small vectored writes as plain ones.
//!
//! hyper hands a head and its body over as two pieces. The kernel takes longer to
//! be told of two pieces than we take to put small ones together.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::AsyncWrite;

/// Up to so many bytes are put together. More are not worth the copy.
const SMALL: usize = 1024;

/// Like [`AsyncWrite::poll_write_vectored`], which it calls for what is not small.
pub(crate) fn poll_write_gathered<T: AsyncWrite + ?Sized>(
    io: Pin<&mut T>,
    cx: &mut Context<'_>,
    bufs: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    if let [only] = bufs {
        return io.poll_write(cx, only);
    }
    let mut together = [0; SMALL];
    let mut len = 0;
    for buf in bufs {
        let Some(place) = together.get_mut(len..len + buf.len()) else {
            return io.poll_write_vectored(cx, bufs);
        };
        place.copy_from_slice(buf);
        len += buf.len();
    }
    io.poll_write(cx, &together[..len])
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    /// Remembers what it was given, and takes at most so much at a time.
    struct Sink {
        taken: Vec<u8>,
        vectored: bool,
        most: usize,
    }

    impl AsyncWrite for Sink {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            let this = self.get_mut();
            let len = buf.len().min(this.most);
            this.taken.extend_from_slice(&buf[..len]);
            Poll::Ready(Ok(len))
        }

        fn poll_write_vectored(
            self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            bufs: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let this = self.get_mut();
            this.vectored = true;
            Pin::new(this).poll_write(cx, &bufs.iter().flat_map(|buf| buf.to_vec()).collect::<Vec<u8>>())
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn write(pieces: &[&[u8]], most: usize) -> (usize, Sink) {
        let mut sink = Sink { taken: Vec::new(), vectored: false, most };
        let slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
        let mut cx = Context::from_waker(Waker::noop());
        let Poll::Ready(Ok(written)) = poll_write_gathered(Pin::new(&mut sink), &mut cx, &slices) else {
            panic!("a sink is always ready");
        };
        (written, sink)
    }

    #[test]
    fn small_pieces_go_out_as_one_in_their_order() {
        let (written, sink) = write(&[b"head", b"", b"body"], usize::MAX);
        assert_eq!((written, sink.taken.as_slice(), sink.vectored), (8, &b"headbody"[..], false));
        let (written, sink) = write(&[b"head", b"body"], 6);
        assert_eq!((written, sink.taken.as_slice()), (6, &b"headbo"[..]), "a short write stays one");
        assert_eq!(write(&[], usize::MAX).0, 0);
    }

    #[test]
    fn large_pieces_are_not_copied() {
        let large = [b'x'; SMALL];
        let (written, sink) = write(&[b"h", &large], usize::MAX);
        assert_eq!((written, sink.vectored), (SMALL + 1, true));
        let (written, sink) = write(&[&large], usize::MAX);
        assert_eq!((written, sink.vectored), (SMALL, false));
    }
}
