//! What an upstream gets to see of a request.
//!
//! The order matters and is fixed: what the client said about its connection
//! goes, then every name that only we may say, then our own credentials; only
//! after that is anything of ours added.

use bytes::Bytes;
use http::header::{
    AUTHORIZATION, CONTENT_LENGTH, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING,
};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Extensions, Method, Request, Uri, Version};

use super::pool::Entry;
use super::protected_headers::{self, Extra};
use super::request_body::RequestBody;
use super::{Forward, ProxyError, authority, cookies, hop_headers, identity_headers, loop_id, openclaw_kind};
use crate::authz::Permit;
use crate::domain::{HostMode, Route, UpstreamKind};

/// As many headers as are added at most, and as one more.
const OURS: usize = 12;
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Makes the outgoing request, in place: the incoming header map becomes the
/// outgoing one.
pub(super) fn prepare(
    permit: &Permit,
    mut parts: Parts,
    body: RequestBody,
    ctx: &Forward<'_>,
    entry: &Entry,
) -> Result<Request<RequestBody>, ProxyError> {
    let route = permit.route();
    let openclaw = matches!(route.upstream.kind, UpstreamKind::OpenClaw { .. });
    let headers = &mut parts.headers;

    frame(headers, &parts.method, &body)?;
    let client_host = authority::of_client(headers, &ctx.facts.host)?;
    hop_headers::remove(headers);
    if let RequestBody::Streaming { .. } = body
        && !headers.contains_key(CONTENT_LENGTH)
    {
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    protected_headers::remove(headers, Extra { user_header: ctx.credentials.user_header, openclaw });
    cookies::remove_ours(headers, parts.version >= Version::HTTP_2);
    if ctx.credentials.authorization_is_ours {
        headers.remove(AUTHORIZATION);
    }
    // We answer it ourselves, when the upstream's connection asks for the body.
    headers.remove(EXPECT);

    // Room for what is ours, at once.
    headers.reserve(OURS);
    loop_id::mark(headers)?;
    headers.insert(X_REQUEST_ID, ctx.request_id.clone());
    parts.uri = target(&parts.uri, ctx.canonical_path, route)?;
    match &route.upstream.kind {
        UpstreamKind::Plain => {
            let host = match route.upstream.host {
                HostMode::Preserve => client_host.clone(),
                HostMode::Upstream => entry.host.clone(),
            };
            headers.insert(HOST, host);
            identity_headers::set_forwarding(headers, ctx.facts, client_host);
            identity_headers::set_identity(headers, permit.principal(), route.upstream.identity_headers);
        }
        UpstreamKind::OpenClaw { secret } => {
            headers.insert(HOST, entry.host.clone());
            openclaw_kind::set_authorization(headers, parts.uri.path(), secret)?;
        }
    }

    parts.version = Version::HTTP_11;
    parts.extensions = Extensions::new();
    Ok(Request::from_parts(parts, body))
}

/// Makes sure that the upstream finds the end of the request where we do.
fn frame(headers: &mut HeaderMap, method: &Method, body: &RequestBody) -> Result<(), ProxyError> {
    if *method == Method::CONNECT {
        return Err(ProxyError::BadRequest("CONNECT is not forwarded"));
    }
    if headers.contains_key(TRANSFER_ENCODING) {
        // The body was read by its chunks; a length beside them is a lie.
        headers.remove(CONTENT_LENGTH);
    }
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let length = lengths.next();
    if lengths.next().is_some() {
        return Err(ProxyError::BadRequest("it has two lengths"));
    }
    let empty = length.is_none_or(|length| length == "0");
    if matches!(body, RequestBody::Empty) && !empty {
        return Err(ProxyError::BadRequest("its length does not fit its body"));
    }
    Ok(())
}

/// The request target: the route's prefix cut off where it says so, the
/// upstream's base path in front, the query as it came.
fn target(uri: &Uri, canonical_path: &str, route: &Route) -> Result<Uri, ProxyError> {
    let no_path = || ProxyError::BadRequest("its path is not below the route's");
    let path =
        if route.strip { route.path.strip(canonical_path).ok_or_else(no_path)? } else { canonical_path };
    if !path.starts_with('/') {
        return Err(no_path());
    }
    let base = route.upstream.base_path.as_str();
    let unchanged = uri.path_and_query().filter(|_| base.is_empty() && path == uri.path());
    let path_and_query = match unchanged {
        Some(unchanged) => unchanged.clone(),
        None => {
            let query = uri.query();
            let mut text = String::with_capacity(base.len() + path.len() + query.map_or(0, |q| q.len() + 1));
            text.push_str(base);
            text.push_str(path);
            if let Some(query) = query {
                text.push('?');
                text.push_str(query);
            }
            PathAndQuery::from_maybe_shared(Bytes::from(text)).map_err(|_| no_path())?
        }
    };
    Ok(Uri::from(path_and_query))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::tests::support::{route_to, tcp};

    fn rewritten(uri: &str, canonical: &str, path: &str, strip: bool, base: &str) -> Option<String> {
        let mut route = route_to(tcp(80));
        route.path = path.parse().unwrap();
        route.strip = strip;
        std::sync::Arc::get_mut(&mut route.upstream).unwrap().base_path = base.into();
        target(&uri.parse().unwrap(), canonical, &route).ok().map(|uri| uri.to_string())
    }

    #[test]
    fn threat_037_the_upstream_gets_the_canonical_path() {
        assert_eq!(rewritten("/%61dmin?q=%61", "/admin", "/", false, "").unwrap(), "/admin?q=%61");
        assert_eq!(rewritten("http://h/a?x", "/a", "/", false, "").unwrap(), "/a?x");
        assert_eq!(rewritten("/app/x?y=/z", "/app/x", "/app", true, "").unwrap(), "/x?y=/z");
        assert_eq!(rewritten("/app", "/app", "/app", true, "/base").unwrap(), "/base/");
        assert_eq!(rewritten("/app/x", "/app/x", "/app", false, "/base").unwrap(), "/base/app/x");
        assert_eq!(rewritten("/x?", "/x", "/", false, "").unwrap(), "/x?");
    }

    #[test]
    fn what_is_not_below_the_route_is_not_forwarded() {
        assert_eq!(rewritten("/other", "/other", "/app", true, ""), None);
        assert_eq!(rewritten("*", "*", "/", false, ""), None);
        assert_eq!(rewritten("/a b".replace(' ', "").as_str(), "/a b", "/", false, ""), None);
    }

    #[test]
    fn threat_079_a_length_that_does_not_fit_is_refused() {
        let framed = |lines: &[(HeaderName, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                headers.append(name, HeaderValue::from_static(value));
            }
            frame(&mut headers, &Method::POST, &RequestBody::Empty).map(|()| headers.len())
        };
        assert!(framed(&[(CONTENT_LENGTH, "5")]).is_err());
        assert!(framed(&[(CONTENT_LENGTH, "0"), (CONTENT_LENGTH, "0")]).is_err());
        assert_eq!(framed(&[(CONTENT_LENGTH, "0")]).unwrap(), 1);
        assert_eq!(framed(&[(CONTENT_LENGTH, "5"), (TRANSFER_ENCODING, "chunked")]).unwrap(), 1);
    }
}
