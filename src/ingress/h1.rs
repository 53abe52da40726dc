//! HTTP/1.1 without hyper: the exchanges that are one read and one write.
//!
//! Most requests arrive whole in one piece and are answered with another. For
//! those, a connection that is driven by a general server costs more than deciding
//! on them. So a connection begins here: the guard has checked each head, `request`
//! takes it apart, the handler answers, `answer` puts the bytes together. At the
//! first request that is anything more (a body that is not all here, a switch of
//! protocols, `Expect`, an absolute target), or answer (one that streams, or a large
//! one), hyper is given the connection from that request's first byte, and keeps it.

mod answer;
pub(super) mod request;

#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::Response;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::control::{ConnControl, InFlight, Shared};
use super::framing::Guard;
use super::handler::Handler;
use super::tracked::TrackedBody;
pub(crate) use request::plain_length;
use request::{Found, Taken};

/// A request that takes more than this is hyper's, and so is the body of an answer
/// that does.
const MOST: usize = 16 * 1024;

thread_local! {
    static IN: RefCell<Box<[u8]>> = RefCell::new(vec![0; MOST].into_boxed_slice());
    static OUT: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(4096));
}

/// How a connection goes on.
pub(super) enum Next {
    /// It is over.
    End,
    /// Through hyper, from the guard's next byte on; with the answer to the request
    /// that begins there, if the handler has given it already.
    Hyper(Option<Response<TrackedBody>>),
}

/// Serves a connection for as long as this suffices. `bare` says that its end is the
/// socket's and needs no goodbye.
///
/// # Errors
///
/// The connection broke, or the client took too long.
pub(super) async fn serve<T, H>(
    guard: &mut Guard<T>,
    handler: &Rc<H>,
    conn: &Rc<H::Conn>,
    shared: &Arc<Shared>,
    bare: bool,
) -> io::Result<Next>
where
    T: AsyncRead + AsyncWrite + Unpin,
    H: Handler,
{
    let control = ConnControl(Arc::clone(shared));
    let mut ending = pin!(control.finishing());
    let mut finish = false;
    loop {
        let read = poll_fn(|cx| match poll_request(guard, cx) {
            // Between two requests there is nothing to finish.
            Poll::Pending if poll_once(&mut finish, ending.as_mut(), cx) => Poll::Ready(Ok(Read::End)),
            polled => polled,
        });
        let Taken { request, raw, close, head_only } = match read.await? {
            Read::Request(taken) => taken,
            Read::More => return Ok(Next::Hyper(None)),
            Read::End => return end(guard, &control, bare).await,
        };
        let in_flight = InFlight::start(Arc::clone(shared));
        let response = {
            let mut answering = pin!(Rc::clone(handler).call(Rc::clone(conn), request));
            let mut aborted = pin!(control.aborted());
            poll_fn(|cx| {
                if let Poll::Ready(response) = answering.as_mut().poll(cx) {
                    return Poll::Ready(Some(response));
                }
                if poll_once(&mut finish, ending.as_mut(), cx) && aborted.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(None);
                }
                guard.poll_gone(cx).map(|()| None)
            })
            .await
        };
        let Some(mut response) = response else { return Ok(Next::End) };
        let close = close || control.is_finishing();
        let written = OUT.with_borrow_mut(|out| answer::write(out, &mut response, head_only, close));
        let Some(close) = written else {
            guard.unread(&raw);
            return Ok(Next::Hyper(Some(response.map(|body| TrackedBody::new(body, in_flight, false)))));
        };
        send(guard, &control).await?;
        if close {
            return end(guard, &control, bare).await;
        }
    }
}

/// Whether `future` has ended: now, or at an earlier call.
fn poll_once(ended: &mut bool, future: Pin<&mut impl Future>, cx: &mut Context<'_>) -> bool {
    *ended = *ended || future.poll(cx).is_ready();
    *ended
}

/// What a connection has to say.
#[expect(
    clippy::large_enum_variant,
    reason = "a request is moved on at once, and is what there nearly always is"
)]
enum Read {
    Request(Taken),
    /// Something that is not for here; it is the guard's next byte again.
    More,
    /// Nothing any more.
    End,
}

fn poll_request<T: AsyncRead + Unpin>(guard: &mut Guard<T>, cx: &mut Context<'_>) -> Poll<io::Result<Read>> {
    IN.with_borrow_mut(|scratch| {
        let mut buf = ReadBuf::new(scratch);
        ready!(Pin::new(&mut *guard).poll_read(cx, &mut buf))?;
        if buf.filled().is_empty() {
            return Poll::Ready(Ok(Read::End));
        }
        loop {
            let found = request::take(buf.filled());
            if let Found::Request(taken) = found {
                guard.unread(&buf.filled()[taken.raw.len()..]);
                return Poll::Ready(Ok(Read::Request(taken)));
            }
            let before = buf.filled().len();
            // The rest of a body may be here already; if not, it is not waited for.
            if let Found::Beginning = found
                && buf.remaining() > 0
                && let Poll::Ready(read) = Pin::new(&mut *guard).poll_read(cx, &mut buf)
            {
                read?;
                if buf.filled().len() > before {
                    continue;
                }
            }
            guard.unread(buf.filled());
            return Poll::Ready(Ok(Read::More));
        }
    })
}

/// Writes what is in [`OUT`].
async fn send<T: AsyncRead + AsyncWrite + Unpin>(
    guard: &mut Guard<T>,
    control: &ConnControl,
) -> io::Result<()> {
    let mut rest = None;
    let mut aborted = pin!(control.aborted());
    poll_fn(|cx| match poll_send(guard, &mut rest, cx) {
        Poll::Pending if aborted.as_mut().poll(cx).is_ready() => {
            Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()))
        }
        polled => polled,
    })
    .await
}

/// `rest` is what the socket did not take at once, and how much of that it has taken
/// since.
fn poll_send<T: AsyncRead + AsyncWrite + Unpin>(
    guard: &mut Guard<T>,
    rest: &mut Option<(Vec<u8>, usize)>,
    cx: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    let (rest, at) = match rest {
        Some(rest) => (&rest.0, &mut rest.1),
        None => OUT.with_borrow_mut(|out| {
            let written = match Pin::new(&mut *guard).poll_write(cx, out) {
                Poll::Ready(written) => written?,
                Poll::Pending => 0,
            };
            let unsent = if written == out.len() { Vec::new() } else { out[written..].to_vec() };
            let rest = rest.insert((unsent, 0));
            io::Result::Ok((&rest.0, &mut rest.1))
        })?,
    };
    while *at < rest.len() {
        match ready!(Pin::new(&mut *guard).poll_write(cx, &rest[*at..]))? {
            0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            written => *at += written,
        }
    }
    Pin::new(guard).poll_flush(cx)
}

/// Says goodbye, unless there is no right even to that.
async fn end<T: AsyncRead + AsyncWrite + Unpin>(
    guard: &mut Guard<T>,
    control: &ConnControl,
    bare: bool,
) -> io::Result<Next> {
    if bare && guard.is_between_requests() {
        return Ok(Next::End);
    }
    let mut aborted = pin!(control.aborted());
    poll_fn(|cx| match aborted.as_mut().poll(cx) {
        Poll::Ready(()) => Poll::Ready(Ok(())),
        Poll::Pending => Pin::new(&mut *guard).poll_shutdown(cx),
    })
    .await?;
    Ok(Next::End)
}
