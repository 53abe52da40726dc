//! The answer's body on its way to the client.
//!
//! Whoever reads the body drives the connection it comes over: a slow client
//! slows its upstream down and nobody else (threat rule 78). When the body has
//! been read to its end the connection goes back to the pool; a body dropped
//! before that takes its connection with it, and the upstream notices.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::task::coop::has_budget_remaining;
use tokio::time::Instant;

use super::close_signal::{CloseReason, CloseSignal};
use super::deadline::Deadline;
use super::exchange::{Answer, Bounds};
use super::pool::{Entry, Kept, Live};
use crate::body::{Body, BodyError, LocalBody};

/// Why a body that had begun was cut short. The client sees its connection or
/// stream break, as it would without us.
#[derive(Debug, thiserror::Error)]
enum Cut {
    #[error("the upstream sent nothing for {0:?}")]
    Idle(Duration),
    #[error("the stream was ended: {0:?}")]
    Closed(CloseReason),
}

/// Turns an answer into its head and the body to send on. A body that is here
/// already is taken whole and its connection is free at once; that is most of
/// them. `keep` says whether the connection may be used again.
pub(super) fn receive(
    answer: Answer,
    entry: &Rc<Entry>,
    bounds: Bounds<'_>,
    keep: bool,
) -> (http::response::Parts, Body) {
    let Answer { response, live, ended, uploading, bodiless } = answer;
    let (parts, incoming) = response.into_parts();
    let live = (!ended).then_some(live);
    let mut source = Source { incoming, live, entry: entry.clone(), keep: keep && !uploading };
    // The next one like it need not go through hyper.
    let short = bodiless && source.incoming.size_hint().exact().is_some();
    if source.incoming.is_end_stream() {
        source.finish(short);
        return (parts, Body::empty());
    }
    let first = match source.now() {
        Poll::Ready(Some(Ok(data))) if source.is_over() => {
            source.finish(short);
            return (parts, Body::full(data));
        }
        Poll::Ready(Some(Ok(data))) => Some(Ok(data)),
        Poll::Ready(Some(Err(error))) => Some(Err(error)),
        Poll::Ready(None) => {
            source.finish(short);
            return (parts, Body::empty());
        }
        Poll::Pending => None,
    };
    if uploading {
        source.hand_off();
    }
    let streamed = Streamed {
        source,
        first,
        deadline: Deadline::at(Instant::now()),
        waiting: false,
        idle: bounds.timeouts.idle,
        signal: bounds.close.clone(),
        closed: None,
    };
    (parts, Body::Local(Box::new(streamed)))
}

/// The body and the connection it comes over.
struct Source {
    incoming: Incoming,
    /// Until it has ended or was handed off.
    live: Option<Box<Live>>,
    entry: Rc<Entry>,
    keep: bool,
}

type Piece = Option<Result<Bytes, hyper::Error>>;

impl Source {
    /// What is here without waiting.
    fn now(&mut self) -> Poll<Piece> {
        self.poll(&mut Context::from_waker(Waker::noop()))
    }

    /// Whether the piece just taken was the last. For a body of unknown length
    /// the connection has to be asked, which reads no further.
    fn is_over(&mut self) -> bool {
        if self.incoming.is_end_stream() {
            return true;
        }
        if self.incoming.size_hint().exact().is_some() {
            return false;
        }
        let mut cx = Context::from_waker(Waker::noop());
        self.drive(&mut cx);
        // A second piece would be lost here, so only the end is asked for.
        self.live.as_ref().is_some_and(|live| live.sender.is_ready())
    }

    /// Drives the connection; lets go of it when it has ended.
    fn drive(&mut self, cx: &mut Context<'_>) {
        if let Some(live) = &mut self.live
            && live.poll(cx).is_ready()
        {
            self.live = None;
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Piece> {
        let mut driven = false;
        loop {
            // While the connection is driven from here only it can bring the
            // next piece, so a waker would wake the task that is running.
            let polled = if self.live.is_some() {
                Pin::new(&mut self.incoming).poll_frame(&mut Context::from_waker(Waker::noop()))
            } else {
                Pin::new(&mut self.incoming).poll_frame(cx)
            };
            match polled {
                // Trailers do not pass: nobody was told that they would come.
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => return Poll::Ready(Some(Ok(data))),
                    Err(_) => driven = false,
                },
                Poll::Ready(Some(Err(error))) => {
                    self.live = None;
                    return Poll::Ready(Some(Err(error)));
                }
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending if self.live.is_some() && !driven => {
                    self.drive(cx);
                    driven = true;
                }
                Poll::Pending => {
                    if !has_budget_remaining() {
                        cx.waker().wake_by_ref();
                    }
                    return Poll::Pending;
                }
            }
        }
    }

    /// The body is at its end. `short` says that it was small and its kind simple.
    fn finish(&mut self, short: bool) {
        let live = self.live.take().filter(|_| self.keep);
        let kept = match live {
            Some(live) if short => live.into_bare().map(Kept::Bare),
            other => other.map(Kept::Live),
        };
        if let Some(kept) = kept {
            self.entry.give_back(kept);
        }
    }

    /// Lets the connection drive itself: an upload that still goes on must not
    /// wait for a client that reads nothing until it has sent everything.
    fn hand_off(&mut self) {
        if let Some(mut live) = self.live.take() {
            tokio::task::spawn_local(async move {
                if let Err(error) = std::future::poll_fn(|cx| live.poll(cx)).await {
                    tracing::debug!(%error, "an upstream connection ended badly");
                }
            });
        }
    }
}

struct Streamed {
    source: Source,
    /// The piece that came with the head.
    first: Piece,
    deadline: Deadline,
    waiting: bool,
    idle: Duration,
    signal: CloseSignal,
    /// The signal being waited for: from the first wait on.
    closed: Option<Pin<Box<dyn Future<Output = CloseReason>>>>,
}

impl Streamed {
    /// Whether waiting has gone on for too long, or was ended.
    fn poll_cut(&mut self, cx: &mut Context<'_>) -> Poll<Cut> {
        if !self.waiting {
            self.waiting = true;
            self.deadline.set(Instant::now() + self.idle);
        }
        if self.deadline.poll(cx).is_ready() {
            return Poll::Ready(Cut::Idle(self.idle));
        }
        let closed = self.closed.get_or_insert_with(|| Box::pin(self.signal.clone().closed()));
        closed.as_mut().poll(cx).map(Cut::Closed)
    }
}

impl HttpBody for Streamed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        // An upstream that always has more is never waited for (threat rule 49).
        if let Some(reason) = this.signal.reason() {
            this.source.live = None;
            return Poll::Ready(Some(Err(Cut::Closed(reason).into())));
        }
        let piece = match this.first.take() {
            Some(first) => Poll::Ready(Some(first)),
            None => this.source.poll(cx),
        };
        match piece {
            Poll::Ready(Some(Ok(data))) => {
                this.waiting = false;
                // The last piece of a known length: nobody polls after it.
                if this.source.incoming.is_end_stream() {
                    this.source.finish(false);
                }
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(error.into()))),
            Poll::Ready(None) => {
                this.source.finish(false);
                Poll::Ready(None)
            }
            Poll::Pending => this.poll_cut(cx).map(|cut| {
                this.source.live = None;
                Some(Err(cut.into()))
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.source.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.source.incoming.size_hint();
        let Some(Ok(first)) = &self.first else { return rest };
        let first = first.len() as u64;
        match rest.exact() {
            Some(rest) => SizeHint::with_exact(rest + first),
            None => SizeHint::default(),
        }
    }
}

/// Never here as a whole: what is has become bytes in [`receive`].
impl LocalBody for Streamed {}
