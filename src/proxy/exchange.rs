//! One request sent and the head of its answer received.
//!
//! A request is sent again, once and on a connection of its own, only where the
//! upstream cannot have acted on it twice: the connection handed it back unsent,
//! or it has no body, its method is idempotent, it went out on a kept connection
//! and not one byte came back.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use tokio::task::coop::has_budget_remaining;
use tokio::time::Instant;

use super::ProxyError;
use super::close_signal::{CloseReason, CloseSignal};
use super::deadline::Deadline;
use super::direct::{self, Ask, Heard, Lost};
use super::pool::{Bare, Entry, Kept, Live};
use super::request_body::{Progress, RequestBody};
use crate::body::Lines;
use crate::domain::route::Timeouts;

/// A wait longer than this also listens for the close signal. Shorter ones do
/// not pay for it.
const LONG_WAIT: Duration = Duration::from_secs(1);

/// What bounds an exchange.
#[derive(Clone, Copy)]
pub(super) struct Bounds<'a> {
    pub(super) timeouts: Timeouts,
    pub(super) close: &'a CloseSignal,
}

impl Bounds<'_> {
    /// Fails once the signal has come: after every wait that did not listen for it.
    pub(super) fn check(&self) -> Result<(), ProxyError> {
        self.close.reason().map_or(Ok(()), |reason| Err(ProxyError::Ended(reason)))
    }
}

/// What a request got.
pub(super) enum Got {
    /// A whole answer.
    Whole(Response<Bytes>),
    /// The same, with its header lines cleaned and as they are sent.
    Lines(StatusCode, Lines),
    /// The head of one.
    Begun(Answer),
}

/// An answer whose head is here, and the connection its body comes over.
pub(super) struct Answer {
    pub(super) response: Response<Incoming>,
    pub(super) live: Box<Live>,
    /// Whether the connection has ended: it is not to be polled again.
    pub(super) ended: bool,
    /// Whether the upload still goes on.
    pub(super) uploading: bool,
    /// Whether the request had no body.
    pub(super) bodiless: bool,
}

pub(super) struct Failure {
    error: ProxyError,
    unsent: Option<Request<RequestBody>>,
}

/// Sends a request that is all here over a kept connection if there is one, else over a
/// new one.
pub(super) async fn whole(entry: &Rc<Entry>, ask: Ask<'_>, bounds: Bounds<'_>) -> Result<Got, ProxyError> {
    let Some(mut bare) = entry.take_bare(Instant::now()) else {
        // Boxed: a request over a kept connection need not carry its size.
        return Box::pin(whole_anew(entry, ask, bounds)).await;
    };
    match direct::ask(&mut bare, ask, bounds).await {
        Ok(Heard::All(got)) => {
            entry.give_back(Kept::Bare(bare));
            return Ok(got);
        }
        Ok(Heard::Beginning(bytes)) => return Box::pin(go_on(bare, bytes, ask.method, bounds)).await,
        Err(Lost { unsent: true, .. }) => {}
        Err(Lost { silent: true, .. }) if ask.bodiless && ask.method.is_idempotent() => {}
        Err(Lost { error, .. }) => return Err(error),
    }
    say_again(entry);
    Box::pin(whole_anew(entry, ask, bounds)).await
}

async fn whole_anew(entry: &Rc<Entry>, ask: Ask<'_>, bounds: Bounds<'_>) -> Result<Got, ProxyError> {
    let mut bare = connect(entry, bounds).await?;
    match direct::ask(&mut bare, ask, bounds).await.map_err(|lost| lost.error)? {
        Heard::All(got) => {
            entry.give_back(Kept::Bare(bare));
            Ok(got)
        }
        Heard::Beginning(bytes) => go_on(bare, bytes, ask.method, bounds).await,
    }
}

/// Lets hyper read an answer that has begun. What it is told of the request goes
/// nowhere and is no more than it needs to read the answer to it.
async fn go_on(
    bare: Box<Bare>,
    bytes: Bytes,
    method: &Method,
    bounds: Bounds<'_>,
) -> Result<Got, ProxyError> {
    let live = bare.into_live(Some(bytes)).await?;
    let mut request = Request::new(RequestBody::Empty);
    *request.method_mut() = method.clone();
    attempt(live, request, bounds).await.map(Got::Begun).map_err(|failure| failure.error)
}

/// Sends a request whose body is still coming.
pub(super) async fn streaming(
    entry: &Rc<Entry>,
    mut request: Request<RequestBody>,
    bounds: Bounds<'_>,
) -> Result<Answer, ProxyError> {
    let live = match entry.take(Instant::now()) {
        Some(Kept::Live(live)) => live,
        Some(Kept::Bare(bare)) => bare.into_live(None).await?,
        None => return fresh(entry, request, bounds).await,
    };
    match attempt(live, request, bounds).await {
        Ok(answer) => return Ok(answer),
        Err(Failure { unsent: Some(unsent), .. }) => request = unsent,
        Err(Failure { error, .. }) => return Err(error),
    }
    say_again(entry);
    fresh(entry, request, bounds).await
}

fn say_again(entry: &Entry) {
    tracing::debug!(upstream = %entry.upstream.addr, "a kept connection was gone; sending again");
}

/// Sends over a new connection, through hyper.
pub(super) async fn fresh(
    entry: &Entry,
    request: Request<RequestBody>,
    bounds: Bounds<'_>,
) -> Result<Answer, ProxyError> {
    let live = connect(entry, bounds).await?.into_live(None).await?;
    attempt(live, request, bounds).await.map_err(|failure| failure.error)
}

/// A new connection, for a request whose right has not ended meanwhile.
async fn connect(entry: &Entry, bounds: Bounds<'_>) -> Result<Box<Bare>, ProxyError> {
    let bare = entry.connect(bounds.timeouts.connect).await?;
    bounds.check()?;
    Ok(bare)
}

pub(super) async fn attempt(
    mut live: Box<Live>,
    request: Request<RequestBody>,
    bounds: Bounds<'_>,
) -> Result<Answer, Failure> {
    live.heard.set(false);
    live.uploaded |= !matches!(request.body(), RequestBody::Empty);
    let progress = request.body().progress();
    let bodiless = matches!(request.body(), RequestBody::Empty);
    let mut wait = Wait::new(&mut live.deadline, bounds, progress.clone());
    let mut reply = pin!(live.sender.try_send_request(request));
    let mut ended = false;
    let outcome = poll_fn(|cx| {
        ended = live.poll(cx).is_ready();
        if live.replays && !ended {
            // That wrote the request, unless the task's budget was used up; the answer
            // is here.
            ended = live.poll(cx).is_ready();
            live.replays = !live.heard.get();
        }
        // The reply can only come from the line above, in this very task, so
        // it needs no waker: a real one would only make the task run again.
        if let Poll::Ready(reply) = reply.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return Poll::Ready(Ok(reply));
        }
        if ended {
            return Poll::Ready(Err(ProxyError::BadResponse("its connection ended without one")));
        }
        if !has_budget_remaining() {
            cx.waker().wake_by_ref();
        }
        wait.poll(&mut live.deadline, cx).map(Err)
    })
    .await;
    match outcome {
        Ok(Ok(response)) => {
            let uploading = progress.is_some_and(|progress| !progress.is_done());
            Ok(Answer { response, live, ended, uploading, bodiless })
        }
        Ok(Err(mut failed)) => {
            let unsent = failed.take_message();
            Err(Failure { error: classify(failed.into_error()), unsent })
        }
        Err(error) => Err(Failure { error, unsent: None }),
    }
}

fn classify(error: hyper::Error) -> ProxyError {
    if error.is_user() { ProxyError::RequestBody(error) } else { ProxyError::Response(error) }
}

/// Waiting for the first byte of an answer.
pub(super) struct Wait<'a> {
    bounds: Bounds<'a>,
    progress: Option<Rc<Progress>>,
    give_up: Instant,
    /// Set once the wait has become a long one.
    closing: Option<Pin<Box<dyn Future<Output = CloseReason>>>>,
}

impl<'a> Wait<'a> {
    pub(super) fn new(deadline: &mut Deadline, bounds: Bounds<'a>, progress: Option<Rc<Progress>>) -> Self {
        let now = Instant::now();
        let give_up = now + bounds.timeouts.first_byte;
        deadline.set(give_up.min(now + LONG_WAIT));
        Self { bounds, progress, give_up, closing: None }
    }

    pub(super) fn poll(&mut self, deadline: &mut Deadline, cx: &mut Context<'_>) -> Poll<ProxyError> {
        // An upload that never pauses uses up the task's budget in every turn, and
        // then neither timer nor signal would answer.
        if !has_budget_remaining()
            && let Some(reason) = self.bounds.close.reason()
        {
            return Poll::Ready(ProxyError::Ended(reason));
        }
        while deadline.poll(cx).is_ready() {
            let now = Instant::now();
            // The time to answer starts when the upload has ended or stalled.
            if self.progress.as_ref().is_some_and(|progress| progress.take_moved()) {
                self.give_up = now + self.bounds.timeouts.first_byte;
            }
            if now >= self.give_up {
                return Poll::Ready(ProxyError::FirstByteTimeout(self.bounds.timeouts.first_byte));
            }
            if self.closing.is_none() {
                self.closing = Some(Box::pin(self.bounds.close.clone().closed()));
            }
            deadline.set(self.give_up);
        }
        match &mut self.closing {
            Some(closing) => closing.as_mut().poll(cx).map(ProxyError::Ended),
            None => Poll::Pending,
        }
    }
}
