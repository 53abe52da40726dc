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

use http::{HeaderMap, Method, Request, Response, Uri};
use hyper::body::Incoming;
use tokio::task::coop::has_budget_remaining;
use tokio::time::Instant;

use super::ProxyError;
use super::close_signal::{CloseReason, CloseSignal};
use super::pool::{Entry, Live};
use super::request_body::{Progress, RequestBody};
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

/// An answer whose head is here, and the connection its body comes over.
pub(super) struct Answer {
    pub(super) response: Response<Incoming>,
    pub(super) live: Box<Live>,
    /// Whether the connection has ended: it is not to be polled again.
    pub(super) ended: bool,
    /// Whether the upload still goes on.
    pub(super) uploading: bool,
}

struct Failure {
    error: ProxyError,
    unsent: Option<Request<RequestBody>>,
    /// Whether the connection ended without having said anything.
    silent: bool,
}

/// Sends over a kept connection if there is one, else over a new one.
pub(super) async fn pooled(
    entry: &Entry,
    mut request: Request<RequestBody>,
    bounds: Bounds<'_>,
) -> Result<Answer, ProxyError> {
    if let Some(live) = entry.take(Instant::now()) {
        let spare = Spare::of(&request);
        match attempt(live, request, bounds).await {
            Ok(answer) => return Ok(answer),
            Err(Failure { unsent: Some(unsent), .. }) => request = unsent,
            Err(Failure { silent: true, error, .. }) => match spare {
                Some(spare) => request = spare.into_request(),
                None => return Err(error),
            },
            Err(Failure { error, .. }) => return Err(error),
        }
        tracing::debug!(upstream = %entry.upstream.addr, "a kept connection was gone; sending again");
    }
    // Boxed: a request over a kept connection need not carry its size.
    Box::pin(fresh(entry, request, bounds)).await
}

/// Sends over a new connection.
pub(super) async fn fresh(
    entry: &Entry,
    request: Request<RequestBody>,
    bounds: Bounds<'_>,
) -> Result<Answer, ProxyError> {
    let live = entry.connect(bounds.timeouts.connect).await?;
    attempt(live, request, bounds).await.map_err(|failure| failure.error)
}

/// What it takes to send a request again.
struct Spare {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
}

impl Spare {
    fn of(request: &Request<RequestBody>) -> Option<Self> {
        let again = request.method().is_idempotent() && matches!(request.body(), RequestBody::Empty);
        again.then(|| Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            headers: request.headers().clone(),
        })
    }

    fn into_request(self) -> Request<RequestBody> {
        let mut request = Request::new(RequestBody::Empty);
        *request.method_mut() = self.method;
        *request.uri_mut() = self.uri;
        *request.headers_mut() = self.headers;
        request
    }
}

async fn attempt(
    mut live: Box<Live>,
    request: Request<RequestBody>,
    bounds: Bounds<'_>,
) -> Result<Answer, Failure> {
    live.heard.set(false);
    let progress = request.body().progress();
    let mut wait = Wait::new(&mut live, bounds, progress.clone());
    let mut reply = pin!(live.sender.try_send_request(request));
    let mut ended = false;
    let outcome = poll_fn(|cx| {
        ended = live.poll(cx).is_ready();
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
        wait.poll(&mut live, cx).map(Err)
    })
    .await;
    match outcome {
        Ok(Ok(response)) => {
            let uploading = progress.is_some_and(|progress| !progress.is_done());
            Ok(Answer { response, live, ended, uploading })
        }
        Ok(Err(mut failed)) => {
            let unsent = failed.take_message();
            let error = failed.into_error();
            let silent = !live.heard.get() && !error.is_user() && !error.is_parse();
            Err(Failure { error: classify(error), unsent, silent })
        }
        Err(error) => Err(Failure { error, unsent: None, silent: false }),
    }
}

fn classify(error: hyper::Error) -> ProxyError {
    if error.is_user() { ProxyError::RequestBody(error) } else { ProxyError::Response(error) }
}

/// Waiting for the first byte of an answer.
struct Wait<'a> {
    bounds: Bounds<'a>,
    progress: Option<Rc<Progress>>,
    give_up: Instant,
    /// Set once the wait has become a long one.
    closing: Option<Pin<Box<dyn Future<Output = CloseReason>>>>,
}

impl<'a> Wait<'a> {
    fn new(live: &mut Live, bounds: Bounds<'a>, progress: Option<Rc<Progress>>) -> Self {
        let now = Instant::now();
        let give_up = now + bounds.timeouts.first_byte;
        live.deadline.set(give_up.min(now + LONG_WAIT));
        Self { bounds, progress, give_up, closing: None }
    }

    fn poll(&mut self, live: &mut Live, cx: &mut Context<'_>) -> Poll<ProxyError> {
        while live.deadline.poll(cx).is_ready() {
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
            live.deadline.set(self.give_up);
        }
        match &mut self.closing {
            Some(closing) => closing.as_mut().poll(cx).map(ProxyError::Ended),
            None => Poll::Pending,
        }
    }
}
