//! From a refusal to an answer: one exhaustive place.
//!
//! Programs get JSON with a coarse `type` and an exact `code`; people get a page
//! that says who they are, why they were refused and what to do. Neither says
//! anything of the inside; that is in the log.

use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};

use crate::authn::Refusal;
use crate::body::{Body, Upload};
use crate::domain::{Principal, Reason};
use crate::page;

/// What the answer needs to know of the request.
pub struct Asked<'a> {
    /// Whether it is a browser's that wants a page: [`wants_page`].
    pub page: bool,
    /// Its number.
    pub request_id: &'a str,
    /// Who asked, if that is known.
    pub principal: Option<&'a Principal>,
    /// Whether it carries a body or wants an upgrade: the connection then ends
    /// with the answer, so that no byte of it can pass for another request.
    pub close: bool,
}

/// Answers a refusal.
pub fn refuse(refusal: Refusal, asked: &Asked<'_>) -> Response<Body> {
    let reason = refusal.reason;
    let mut response = if asked.page {
        let html = page::refusal(reason, asked.principal, asked.request_id);
        html_page(reason.status(), html)
    } else {
        json(reason.status(), &error_body(reason, asked.request_id))
    };
    let headers = response.headers_mut();
    match refusal.retry_after {
        Some(after) => {
            let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        None if reason.status() == StatusCode::SERVICE_UNAVAILABLE => {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
        }
        None => {}
    }
    if matches!(
        reason,
        Reason::TokenMissing | Reason::TokenMismatch | Reason::PasswordMissing | Reason::PasswordMismatch
    ) {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"openclaw\""));
    }
    if reason.status() == StatusCode::METHOD_NOT_ALLOWED {
        headers
            .insert(header::ALLOW, HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
    }
    if asked.close || reason.status() == StatusCode::BAD_REQUEST {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

#[derive(serde::Serialize)]
struct ErrorBody<'a> {
    error: ErrorFields<'a>,
}

/// In the order of rulings 2.
#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct ErrorFields<'a> {
    r#type: &'static str,
    code: &'static str,
    message: &'static str,
    request_id: &'a str,
}

fn error_body(reason: Reason, request_id: &str) -> ErrorBody<'_> {
    let error =
        ErrorFields { r#type: reason.kind(), code: reason.code(), message: reason.message(), request_id };
    ErrorBody { error }
}

/// Whether a request asks its connection to become another protocol's.
pub fn asks_to_switch(request: &Request<Upload>) -> bool {
    request.body().may_switch() && request.headers().contains_key(header::UPGRADE)
}

/// For a request that does not ask to switch protocols: a page goes to GET and HEAD that prefer one, and to nobody else (rulings 2).
pub fn wants_page(method: &Method, headers: &HeaderMap) -> bool {
    (method == Method::GET || method == Method::HEAD)
        && headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).is_some_and(prefers_html)
}

/// Whether `text/html` is asked for by name, and no later than JSON.
fn prefers_html(accept: &str) -> bool {
    let mut html = 0.0f32;
    let mut json = 0.0f32;
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default();
        let is = |wanted: &str| kind.eq_ignore_ascii_case(wanted);
        let quality = parts
            .find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")))
            .map_or(1.0, |q| q.parse().unwrap_or(0.0));
        if is("text/html") || is("application/xhtml+xml") {
            html = html.max(quality);
        } else if is("application/json") {
            json = json.max(quality);
        }
    }
    html > 0.0 && html >= json
}

/// A JSON answer of our own.
pub fn json(status: StatusCode, value: &impl serde::Serialize) -> Response<Body> {
    let body = serde_json::to_vec(value).unwrap_or_default();
    let mut response = Response::new(Body::full(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    own_headers(headers);
    response
}

/// The metrics' text.
pub fn metrics(text: String) -> Response<Body> {
    let mut response = Response::new(Body::full(text));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(crate::metrics::CONTENT_TYPE));
    own_headers(headers);
    response
}

/// Sends a browser to the same page over HTTPS. Kept by nobody: the certificate may
/// be gone tomorrow. `close` as in [`Asked`].
pub fn elsewhere(location: &str, close: bool) -> Response<Body> {
    let mut response = Response::new(Body::full(""));
    let headers = response.headers_mut();
    own_headers(headers);
    match HeaderValue::try_from(location) {
        Ok(location) => {
            headers.insert(header::LOCATION, location);
            *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
        }
        Err(_) => *response.status_mut() = StatusCode::BAD_REQUEST,
    }
    if close {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// A page of our own, under a policy that lets nothing run or be framed.
pub fn html_page(status: StatusCode, html: String) -> Response<Body> {
    let mut response = Response::new(Body::full(html));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(page::POLICY));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    own_headers(headers);
    response
}

/// What every answer of our own carries.
pub fn own_headers(headers: &mut HeaderMap) {
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("same-origin"),
    );
    headers.insert(
        HeaderName::from_static("cross-origin-opener-policy"),
        HeaderValue::from_static("same-origin"),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_goes_to_browsers_only() {
        for accept in
            ["*/*", "application/json", "application/json, text/html;q=0.5", "text/html;q=0", "text/*", ""]
        {
            assert!(!prefers_html(accept), "{accept:?}");
        }
        assert!(prefers_html("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"));
    }
}
