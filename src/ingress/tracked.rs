//! One request on its way through the handler, and its answer's body, counted.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONNECTION, HeaderValue};
use http::{Request, Response, StatusCode, Version};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;

use super::control::{InFlight, Shared};
use super::handler::Handler;
use crate::body::{Body, BodyError, Upload};

/// Passes a request to the handler and settles what its answer means for the
/// connection.
pub(super) async fn answer<H: Handler>(
    handler: Rc<H>,
    conn: Rc<H::Conn>,
    shared: Arc<Shared>,
    req: Request<Incoming>,
) -> Result<Response<TrackedBody>, std::convert::Infallible> {
    let in_flight = InFlight::start(Arc::clone(&shared));
    let h2 = req.version() == Version::HTTP_2;
    // hyper's own mark, so that both agree on what asks to switch protocols.
    let switching = !h2 && req.extensions().get::<OnUpgrade>().is_some();
    let mut response = handler.call(conn, req.map(Upload::Streaming)).await;
    if switching {
        let accepted = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        shared.answer_switch(accepted);
        if !accepted {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
    }
    Ok(response.map(|body| TrackedBody::new(body, in_flight, h2)))
}

/// A response body that says when it ended, and on HTTP/2 for how long the
/// client has not taken any of it.
pub(super) struct TrackedBody {
    pub(super) inner: Body,
    in_flight: InFlight,
    /// Of HTTP/2: whether it is the client that has to move. `None` elsewhere,
    /// where the socket itself tells.
    client_moves: Option<bool>,
}

impl TrackedBody {
    pub(super) fn new(inner: Body, in_flight: InFlight, h2: bool) -> Self {
        let mut body = Self { inner, in_flight, client_moves: h2.then_some(false) };
        if !body.inner.is_end_stream() {
            body.client_must_move(true);
        }
        body
    }

    fn client_must_move(&mut self, now: bool) {
        let Some(before) = self.client_moves.replace(now) else {
            self.client_moves = None;
            return;
        };
        let shared = &self.in_flight.0;
        match (before, now) {
            (false, true) => shared.start_waiting(),
            (true, false) => shared.stop_waiting(),
            _ => {}
        }
    }
}

impl HttpBody for TrackedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        if this.client_moves.is_none() {
            return Pin::new(&mut this.inner).poll_frame(cx);
        }
        // Being asked for more means that the client took what there was.
        this.client_must_move(false);
        let polled = Pin::new(&mut this.inner).poll_frame(cx);
        if let Poll::Ready(Some(Ok(_))) = &polled {
            this.client_must_move(true);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for TrackedBody {
    fn drop(&mut self) {
        if self.client_moves.is_some() {
            self.client_must_move(false);
        }
    }
}
