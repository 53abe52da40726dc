//! Sending a permitted request to its upstream, and the answer back.
//!
//! This room decides nothing about who may: it takes a [`Permit`] by value, so
//! forwarding without a decision does not compile. It trusts the facts of the
//! ingress and the canonical path it is given. What it guards is the border to
//! the upstream: only we say who is calling, our credentials stay ours, and both
//! sides agree on where a message ends.
//!
//! 1. `upgrade` reads what the request asks its connection to become.
//! 2. `request` takes out what must not pass and adds what is ours.
//! 3. `exchange` sends it over a connection of the worker's `pool`, by itself where it
//!    is all here (`direct`) and for as long as the answer is small, else through hyper.
//! 4. `response` cleans the head, `streamed` carries the body; or a proven 101
//!    becomes a `tunnel`, through `openclaw_kind` where the upstream is a real
//!    OpenClaw gateway.
//!
//! Futures stay on their thread: call this from a task of a `LocalSet` or
//! `LocalRuntime`.

mod authority;
mod close_signal;
mod connect;
mod cookies;
mod deadline;
mod direct;
mod error;
mod exchange;
mod frames;
mod head_lines;
mod hop_headers;
mod identity_headers;
mod io;
mod loop_id;
mod openclaw_kind;
mod owner;
mod pool;
mod protected_headers;
mod request;
mod request_body;
mod response;
mod streamed;
mod strict_json;
mod tls;
mod tunnel;
mod upgrade;

#[cfg(test)]
pub(crate) mod tests;

use std::rc::Rc;

use bytes::Bytes;
use http::header::{SEC_WEBSOCKET_EXTENSIONS, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Version};
use http_body::Body as _;
use hyper::upgrade::OnUpgrade;

pub use close_signal::{CloseReason, CloseSignal, Closer};
pub use cookies::{HOST_SESSION_COOKIE, SESSION_COOKIE};
pub use error::ProxyError;
pub use pool::UpstreamPools;
pub use protected_headers::SECRET_HEADER;

use crate::authz::Permit;
use crate::body::{Body, Upload};
use crate::domain::UpstreamKind;
use crate::ingress::IngressFacts;
use direct::Ask;
use exchange::{Bounds, Got};
use pool::Entry;
use request_body::RequestBody;
use upgrade::Upgrade;

/// Which of the credentials in a request are ours and stay here. Our session
/// cookie and [`SECRET_HEADER`] always do.
#[derive(Clone, Copy, Debug, Default)]
pub struct Credentials<'a> {
    /// Whether `Authorization` carried our own secret. The app's own passes.
    pub authorization_is_ours: bool,
    /// `gateway.auth.trustedProxy.userHeader`, removed in every spelling.
    pub user_header: Option<&'a HeaderName>,
}

/// What forwarding needs to know besides the permit and the request.
#[derive(Clone, Copy)]
pub struct Forward<'a> {
    /// The facts of the request.
    pub facts: &'a IngressFacts,
    /// Sent upstream as `X-Request-Id`.
    pub request_id: &'a HeaderValue,
    /// The path that was authorized: canonical, starting with `/`. The query is
    /// taken from the request.
    pub canonical_path: &'a str,
    /// Which credentials stay here.
    pub credentials: Credentials<'a>,
    /// This worker's connections.
    pub pools: &'a UpstreamPools,
    /// Ends a long wait, a stream or a tunnel.
    pub close: &'a CloseSignal,
    /// Whether the answer may come as [`Body::Lines`], for the caller to add headers to
    /// but not to read or change. `X-Request-Id` is among the lines.
    pub as_lines: bool,
}

/// Whether the answer to this request must end an HTTP/1 connection: it carried
/// an `Upgrade`, so what follows its head may be no request (threat rule 80).
/// [`forward`] sees to it for what it answers; whoever answers instead of it (a
/// refusal, an error) does so too.
pub fn must_close_after<B>(request: &Request<B>) -> bool {
    request.version() < Version::HTTP_2 && request.headers().contains_key(UPGRADE)
}

/// Sends a request to the upstream of the permit's route.
///
/// The answer's body is streamed as the client reads it. A WebSocket is answered
/// with the upstream's 101, and a task of its own carries its bytes from then
/// on, until either side ends it or [`Forward::close`] does.
///
/// # Errors
///
/// When there is no answer to pass on. Nothing has been sent to the client then;
/// [`ProxyError::reason`] says what to tell it.
pub async fn forward(
    permit: Permit,
    mut request: Request<Upload>,
    ctx: Forward<'_>,
) -> Result<Response<Body>, ProxyError> {
    let may_switch = request.body().may_switch();
    let asked = if may_switch { Upgrade::of(&request)? } else { Upgrade::None };
    let close = may_switch && must_close_after(&request);
    let on_upgrade = matches!(asked, Upgrade::WebSocket(_)).then(|| hyper::upgrade::on(&mut request));

    let entry = ctx.pools.entry(&permit.route().upstream);
    let (parts, body) = request.into_parts();
    let bounds = Bounds { timeouts: permit.route().timeouts, close: ctx.close };

    if let (Upgrade::WebSocket(accept), Some(on_upgrade)) = (asked, on_upgrade) {
        let request = request::prepare(&permit, parts, RequestBody::Empty, &ctx, &entry)?;
        // Boxed: the ordinary request need not carry its size.
        return Box::pin(websocket(request, &accept, on_upgrade, &entry, bounds)).await;
    }
    let body = match body {
        Upload::Streaming(body) if !body.is_end_stream() => Err(body),
        Upload::Streaming(_) => Ok(Bytes::new()),
        Upload::Whole(bytes) => Ok(bytes),
    };
    let got = match body {
        Ok(body) => {
            let bytes = request::write(&permit, &parts, &body, &ctx, &entry)?;
            let bodiless = body.is_empty();
            let as_lines = ctx.as_lines.then_some(ctx.request_id);
            let ask = Ask { method: &parts.method, bytes: &bytes, bodiless, as_lines };
            exchange::whole(&entry, ask, bounds).await?
        }
        Err(body) => {
            let request = request::prepare(&permit, parts, RequestBody::streaming(body), &ctx, &entry)?;
            Got::Begun(Box::pin(exchange::streaming(&entry, request, bounds)).await?)
        }
    };
    bounds.check()?;

    let (mut parts, body) = match got {
        // Cleaned line by line, and nobody who upgrades gets these.
        Got::Lines(status, lines) => {
            let mut response = Response::new(Body::Lines(Some(lines)));
            *response.status_mut() = status;
            return Ok(response);
        }
        Got::Whole(response) => {
            let (parts, body) = response.into_parts();
            (parts, Body::full(body))
        }
        Got::Begun(answer) => {
            response::check(&answer.response)?;
            streamed::receive(answer, &entry, bounds, true)
        }
    };
    response::clean(&mut parts, close);
    Ok(Response::from_parts(parts, body))
}

/// The request as the upstream would get it: header rewriting alone, for `benches/`.
#[cfg(feature = "test-fakes")]
#[doc(hidden)]
pub fn rewritten(
    permit: &Permit,
    parts: &http::request::Parts,
    ctx: &Forward<'_>,
) -> Result<Vec<u8>, ProxyError> {
    let entry = ctx.pools.entry(&permit.route().upstream);
    request::write(permit, parts, &Bytes::new(), ctx, &entry)
}

async fn websocket(
    mut request: Request<RequestBody>,
    accept: &HeaderValue,
    on_upgrade: OnUpgrade,
    entry: &Rc<Entry>,
    bounds: Bounds<'_>,
) -> Result<Response<Body>, ProxyError> {
    let headers = request.headers_mut();
    upgrade::set_upgrade(headers);
    let gate = match &entry.upstream.kind {
        UpstreamKind::Plain => None,
        UpstreamKind::OpenClaw { secret } => {
            // The first message has to be read.
            headers.remove(SEC_WEBSOCKET_EXTENSIONS);
            Some(openclaw_kind::Gate::new(secret.clone()))
        }
    };
    let compression = headers.contains_key(SEC_WEBSOCKET_EXTENSIONS);

    // A connection of its own: it never comes back.
    let answer = exchange::fresh(entry, request, bounds).await?;
    bounds.check()?;
    let (status, headers) = (answer.response.status(), answer.response.headers());
    if !upgrade::is_accepted(status, headers, accept, compression)? {
        response::check(&answer.response)?;
        let (mut parts, body) = streamed::receive(answer, entry, bounds, false);
        response::clean(&mut parts, true);
        return Ok(Response::from_parts(parts, body));
    }
    if !answer.ended {
        return Err(ProxyError::BadResponse("its 101 is followed by more HTTP"));
    }
    let (mut parts, _) = answer.response.into_parts();
    let upstream = answer.live.connection.into_parts();
    let tunnel = tunnel::Tunnel {
        upstream: upstream.io.into_inner(),
        from_upstream: upstream.read_buf,
        gate,
        idle: bounds.timeouts.idle,
        close: bounds.close.clone(),
    };
    tokio::task::spawn_local(tunnel.run_on(on_upgrade));

    response::clean(&mut parts, false);
    without_body(&mut parts.headers);
    upgrade::set_upgrade(&mut parts.headers);
    Ok(Response::from_parts(parts, Body::empty()))
}

fn without_body(headers: &mut HeaderMap) {
    headers.remove(http::header::CONTENT_LENGTH);
}
