//! One line per request, written when its answer has been sent.
//!
//! The fields are those of rulings 6. No query, no header value, no secret ever
//! reaches a line: there is no parameter to pass one in.

use std::io::Write;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode};
use http_body::{Body as HttpBody, Frame, SizeHint};

use crate::body::{Body, BodyError, Lines, LocalBody};
use crate::domain::{Principal, Route};
use crate::telemetry::{Style, timestamp};

/// The fields of rulings 6, in their order.
#[derive(serde::Serialize)]
struct JsonLine<'a> {
    ts: String,
    level: &'static str,
    msg: &'static str,
    req: &'a str,
    conn: u64,
    via: &'static str,
    peer: &'a str,
    who: &'a str,
    scheme: &'static str,
    method: &'a str,
    route: Option<&'a str>,
    path: &'a str,
    status: u16,
    decision: &'static str,
    reason: Option<&'static str>,
    duration_ms: f64,
    bytes_in: u64,
    bytes_out: u64,
    complete: bool,
}

/// The line of one request, filled in on its way.
pub struct Line {
    /// How it will look.
    pub style: Style,
    /// The request's number.
    pub request_id: HeaderValue,
    /// The connection's number.
    pub conn: u64,
    /// By which way.
    pub via: &'static str,
    /// The far end, or the client it is attributed to.
    pub peer: String,
    /// Whose it is, once known.
    pub who: Option<Principal>,
    /// By which scheme.
    pub scheme: &'static str,
    /// The method.
    pub method: Method,
    /// The route.
    pub route: Option<Arc<Route>>,
    /// The path, without its query.
    pub path: String,
    /// Whether it was let through, whatever the app made of it.
    pub allowed: bool,
    /// The reason of a refusal, or of an app that did not answer.
    pub reason: Option<&'static str>,
    /// When it arrived.
    pub started: Instant,
    /// Bytes of the request body, as announced.
    pub bytes_in: u64,
}

impl Line {
    fn write(&self, status: StatusCode, bytes_out: u64, complete: bool) {
        let line = match self.style {
            Style::Off => return,
            Style::Json => self.json(status, bytes_out, complete),
            Style::Text => self.text(status, bytes_out, complete),
        };
        // A line that cannot be written is lost; the request is not.
        let _ = std::io::stderr().lock().write_all(line.as_bytes());
    }

    fn decision(&self) -> &'static str {
        if self.allowed { "allow" } else { "deny" }
    }

    fn who(&self) -> std::borrow::Cow<'_, str> {
        self.who.as_ref().map_or("-".into(), Principal::label)
    }

    fn json(&self, status: StatusCode, bytes_out: u64, complete: bool) -> String {
        let line = JsonLine {
            ts: timestamp(),
            level: "info",
            msg: "request",
            req: self.request_id.to_str().unwrap_or_default(),
            conn: self.conn,
            via: self.via,
            peer: &self.peer,
            who: &self.who(),
            scheme: self.scheme,
            method: self.method.as_str(),
            route: self.route.as_ref().map(|route| route.name.as_str()),
            path: &self.path,
            status: status.as_u16(),
            decision: self.decision(),
            reason: self.reason,
            duration_ms: self.duration_ms(),
            bytes_in: self.bytes_in,
            bytes_out,
            complete,
        };
        let mut text = serde_json::to_string(&line).unwrap_or_default();
        text.push('\n');
        text
    }

    fn text(&self, status: StatusCode, bytes_out: u64, complete: bool) -> String {
        format!(
            "{} {} {} {} {} who={} via={} peer={} route={} {:.1}ms {}B{}{}\n",
            timestamp(),
            status.as_u16(),
            self.reason.unwrap_or("ok"),
            self.method,
            self.path.escape_debug(),
            self.who(),
            self.via,
            self.peer,
            self.route.as_ref().map_or("-", |route| route.name.as_str()),
            self.duration_ms(),
            bytes_out,
            if complete { "" } else { " (cut off)" },
            format_args!(" req={}", self.request_id.to_str().unwrap_or_default()),
        )
    }

    /// Milliseconds to three decimals.
    fn duration_ms(&self) -> f64 {
        let micros = u32::try_from(self.started.elapsed().as_micros()).unwrap_or(u32::MAX);
        f64::from(micros) / 1000.0
    }
}

/// A response body that writes its request's line when it ends, however it does.
pub struct LoggedBody {
    body: Body,
    status: StatusCode,
    bytes_out: u64,
    complete: bool,
    line: Line,
}

impl LoggedBody {
    /// Wraps an answer's body.
    pub fn new(body: Body, status: StatusCode, line: Line) -> Self {
        let complete = body.is_end_stream();
        Self { body, status, bytes_out: 0, complete, line }
    }
}

impl HttpBody for LoggedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let frame = Pin::new(&mut this.body).poll_frame(cx);
        match &frame {
            Poll::Ready(Some(Ok(frame))) => {
                this.bytes_out += frame.data_ref().map_or(0, |data| data.len() as u64);
                this.complete = this.body.is_end_stream();
            }
            Poll::Ready(None) => this.complete = true,
            _ => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl LocalBody for LoggedBody {
    fn take_whole(&mut self) -> Option<Bytes> {
        let bytes = self.body.take_whole()?;
        self.bytes_out += bytes.len() as u64;
        self.complete = true;
        Some(bytes)
    }

    fn take_lines(&mut self) -> Option<Lines> {
        let lines = self.body.take_lines()?;
        self.bytes_out += lines.body_len() as u64;
        self.complete = true;
        Some(lines)
    }
}

impl Drop for LoggedBody {
    fn drop(&mut self) {
        // Neither is ever sent a body.
        let bodiless = self.line.method == Method::HEAD || self.status == StatusCode::SWITCHING_PROTOCOLS;
        self.line.write(self.status, self.bytes_out, self.complete || bodiless);
    }
}
