//! The body of a request and that of a response: what is streamed, or bytes that are
//! already here.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;

/// Why a body ended early.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// A request body.
pub enum Upload {
    /// All of it came with the head; nothing, mostly.
    Whole(Bytes),
    /// What the client is sending.
    Streaming(Incoming),
}

impl Upload {
    /// Whether its request may be one to switch protocols. What came whole never is: its
    /// connection would have to be given away.
    pub fn may_switch(&self) -> bool {
        matches!(self, Self::Streaming(_))
    }
}

impl HttpBody for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Streaming(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_empty(),
            Self::Streaming(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Streaming(body) => body.size_hint(),
        }
    }
}

/// A response body that never leaves its thread.
pub trait LocalBody: HttpBody<Data = Bytes, Error = BodyError> {
    /// All of it, where it is here without waiting; it is at its end then.
    fn take_whole(&mut self) -> Option<Bytes> {
        None
    }

    /// The same for [`Body::Lines`].
    fn take_lines(&mut self) -> Option<Lines> {
        None
    }
}

/// A body that is here, and header lines in front of it as they are sent.
pub struct Lines {
    /// The lines, each with its end, then the body.
    pub bytes: Vec<u8>,
    /// How much of it is lines.
    pub head: usize,
    /// Whether `Date` is among them.
    pub dated: bool,
}

impl Lines {
    /// The length of the body.
    pub fn body_len(&self) -> usize {
        self.bytes.len() - self.head
    }
}

/// A response body.
pub enum Body {
    /// Nothing, or bytes that are already here.
    Full(Option<Bytes>),
    /// All of an upstream's answer, its header lines too: those in the response are
    /// besides. Only for who asked for it: it cannot be streamed. `None` once taken.
    Lines(Option<Lines>),
    /// What the upstream is sending.
    Upstream(Incoming),
    /// What an upstream is sending over a connection of this worker's own pool,
    /// which the body itself drives. It never leaves its thread.
    Local(Box<dyn LocalBody + Unpin>),
    /// Anything else that streams: a guarded or rewritten upstream body.
    Boxed(Pin<Box<dyn HttpBody<Data = Bytes, Error = BodyError> + Send>>),
}

impl Body {
    /// A body without a byte.
    pub fn empty() -> Self {
        Self::Full(None)
    }

    /// A body of these bytes.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self::Full((!bytes.is_empty()).then_some(bytes))
    }

    /// All of it, where it is here without waiting; it is at its end then.
    pub fn take_whole(&mut self) -> Option<Bytes> {
        match self {
            Self::Full(bytes) => Some(bytes.take().unwrap_or_default()),
            Self::Local(body) => body.take_whole(),
            Self::Lines(_) | Self::Upstream(_) | Self::Boxed(_) => None,
        }
    }

    /// The same, for an answer whose header lines come with it.
    pub fn take_lines(&mut self) -> Option<Lines> {
        match self {
            Self::Lines(lines) => lines.take(),
            Self::Local(body) => body.take_lines(),
            Self::Full(_) | Self::Upstream(_) | Self::Boxed(_) => None,
        }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            // Without its header lines it would be another answer.
            Self::Lines(lines) => Poll::Ready(lines.take().map(|_| Err("these lines are no body".into()))),
            Self::Upstream(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            Self::Local(body) => Pin::new(body).poll_frame(cx),
            Self::Boxed(body) => body.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(bytes) => bytes.is_none(),
            Self::Lines(lines) => lines.is_none(),
            Self::Upstream(body) => body.is_end_stream(),
            Self::Local(body) => body.is_end_stream(),
            Self::Boxed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Self::Lines(lines) => SizeHint::with_exact(lines.as_ref().map_or(0, |l| l.body_len() as u64)),
            Self::Upstream(body) => body.size_hint(),
            Self::Local(body) => body.size_hint(),
            Self::Boxed(body) => body.size_hint(),
        }
    }
}
