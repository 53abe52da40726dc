//! The request body on its way upstream.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

/// Where an upload stands, seen from outside while the connection has the body.
#[derive(Default)]
pub(super) struct Progress {
    moved: Cell<bool>,
    done: Cell<bool>,
}

impl Progress {
    /// Whether a piece went out since the last call.
    pub(super) fn take_moved(&self) -> bool {
        self.moved.replace(false)
    }

    /// Whether all of it was handed to the connection.
    pub(super) fn is_done(&self) -> bool {
        self.done.get()
    }
}

/// The client's body without its trailers: those never pass (threat rule 15).
pub(super) enum RequestBody {
    Empty,
    Streaming { incoming: Incoming, progress: Rc<Progress> },
}

impl RequestBody {
    pub(super) fn streaming(incoming: Incoming) -> Self {
        Self::Streaming { incoming, progress: Rc::default() }
    }

    /// `None` where there is no body.
    pub(super) fn progress(&self) -> Option<Rc<Progress>> {
        match self {
            Self::Empty => None,
            Self::Streaming { progress, .. } => Some(progress.clone()),
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Self::Streaming { incoming, progress } = self.get_mut() else { return Poll::Ready(None) };
        loop {
            let frame = ready!(Pin::new(&mut *incoming).poll_frame(cx));
            progress.moved.set(true);
            match frame {
                Some(Ok(frame)) if !frame.is_data() => {}
                Some(Ok(frame)) => {
                    progress.done.set(incoming.is_end_stream());
                    return Poll::Ready(Some(Ok(frame)));
                }
                other => {
                    progress.done.set(other.is_none());
                    return Poll::Ready(other);
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Streaming { incoming, .. } => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Streaming { incoming, .. } => incoming.size_hint(),
        }
    }
}
