//! What an upstream gets to see of a request.
//!
//! Its head is made anew, line by line: first what came in, without what the client
//! said about its connection, without every name that only we may say and without our
//! own credentials; only after that what is ours.

use bytes::Bytes;
use http::header::{
    AUTHORIZATION, CONTENT_LENGTH, COOKIE, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue,
    TRANSFER_ENCODING,
};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Method, Request, Uri, Version};

use super::head_lines::HeadLines;
use super::hop_headers::{self, Named};
use super::pool::Entry;
use super::protected_headers::{Extra, is_protected};
use super::request_body::RequestBody;
use super::{Forward, ProxyError, authority, cookies, identity_headers, loop_id, openclaw_kind};
use crate::authz::Permit;
use crate::domain::{HostMode, Route, UpstreamKind};
use crate::ingress::plain_length;

/// As many headers as are added at most.
const OURS: usize = 12;
pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Room for the head of most.
const HEAD: usize = 1024;

/// The outgoing request as bytes, for one whose body is all here.
pub(super) fn write(
    permit: &Permit,
    parts: &Parts,
    body: &Bytes,
    ctx: &Forward<'_>,
    entry: &Entry,
) -> Result<Vec<u8>, ProxyError> {
    let target = target(&parts.uri, ctx.canonical_path, permit.route())?;
    let mut out = Vec::with_capacity(HEAD + body.len());
    out.extend_from_slice(parts.method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(target.as_str().as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    put_headers(&mut out, permit, parts, Size::Here(body.len()), &target, ctx, entry)?;
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(body);
    Ok(out)
}

/// The outgoing request for hyper to send.
pub(super) fn prepare(
    permit: &Permit,
    parts: Parts,
    body: RequestBody,
    ctx: &Forward<'_>,
    entry: &Entry,
) -> Result<Request<RequestBody>, ProxyError> {
    let size = if matches!(body, RequestBody::Empty) { Size::Here(0) } else { Size::ToCome };
    let target = target(&parts.uri, ctx.canonical_path, permit.route())?;
    let mut headers = HeaderMap::with_capacity(parts.headers.len() + OURS);
    put_headers(&mut headers, permit, &parts, size, &target, ctx, entry)?;
    let mut request = Request::new(body);
    *request.method_mut() = parts.method;
    *request.uri_mut() = Uri::from(target);
    *request.headers_mut() = headers;
    Ok(request)
}

/// What is known of a request body.
#[derive(Clone, Copy)]
enum Size {
    /// It is here, with so many bytes.
    Here(usize),
    /// It is still coming.
    ToCome,
}

fn put_headers(
    out: &mut impl HeadLines,
    permit: &Permit,
    parts: &Parts,
    size: Size,
    target: &PathAndQuery,
    ctx: &Forward<'_>,
    entry: &Entry,
) -> Result<(), ProxyError> {
    let upstream = &permit.route().upstream;
    let bearer = match &upstream.kind {
        UpstreamKind::Plain => None,
        UpstreamKind::OpenClaw { secret } => openclaw_kind::authorization(target.path(), secret)?,
    };
    let headers = &parts.headers;
    let named = Named::by(headers);
    let framing = Framing::of(headers, &parts.method, size, &named)?;
    let client_host = authority::of_client(headers, &ctx.facts.host)?;

    // What came in, and may pass.
    let extra = Extra {
        user_header: ctx.credentials.user_header,
        openclaw: matches!(upstream.kind, UpstreamKind::OpenClaw { .. }),
    };
    let ours = |name: &HeaderName| match name.as_str().as_bytes()[0] {
        b'a' => name == AUTHORIZATION && (ctx.credentials.authorization_is_ours || bearer.is_some()),
        b'c' => name == CONTENT_LENGTH || name == COOKIE,
        // We answer it ourselves, when the upstream's connection asks for the body.
        b'e' => name == EXPECT,
        b'h' => name == HOST,
        b'x' => name == X_REQUEST_ID || name == loop_id::HOP,
        _ => false,
    };
    let (mut cookie, mut hop) = (false, false);
    for (name, value) in headers {
        cookie |= name == COOKIE;
        hop |= name == loop_id::HOP;
        let stays =
            ours(name) || hop_headers::is_hop_by_hop(name) || named.has(name) || is_protected(name, extra);
        if !stays {
            out.put(name, value);
        }
    }
    if cookie && !named.has(&COOKIE) {
        cookies::put_others(out, headers, parts.version >= Version::HTTP_2);
    }

    // What only we say.
    match framing {
        Framing::None => {}
        Framing::Length(length) => out.put(&CONTENT_LENGTH, length),
        Framing::Chunked => out.put_text(&TRANSFER_ENCODING, b"chunked"),
    }
    loop_id::put(out, hop.then_some(headers))?;
    out.put(&X_REQUEST_ID, ctx.request_id);
    if let UpstreamKind::OpenClaw { .. } = upstream.kind {
        out.put(&HOST, &entry.host);
        if let Some(bearer) = &bearer {
            out.put(&AUTHORIZATION, bearer);
        }
        return Ok(());
    }
    match upstream.host {
        HostMode::Preserve => out.put(&HOST, &client_host),
        HostMode::Upstream => out.put(&HOST, &entry.host),
    }
    identity_headers::put_forwarding(out, ctx.facts, &client_host);
    identity_headers::put_identity(out, permit.principal(), upstream.identity_headers);
    Ok(())
}

/// Where the upstream is told that the request ends: where we found it to.
enum Framing<'a> {
    /// Behind its head.
    None,
    /// By the client's own length.
    Length(&'a HeaderValue),
    Chunked,
}

impl<'a> Framing<'a> {
    fn of(headers: &'a HeaderMap, method: &Method, size: Size, named: &Named) -> Result<Self, ProxyError> {
        if *method == Method::CONNECT {
            return Err(ProxyError::BadRequest("CONNECT is not forwarded"));
        }
        let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
        // The body was read by its chunks; a length beside them is a lie.
        let length = lengths.next().filter(|_| !headers.contains_key(TRANSFER_ENCODING));
        if length.is_some() && lengths.next().is_some() {
            return Err(ProxyError::BadRequest("it has two lengths"));
        }
        let fits = |size: usize| match length {
            Some(length) => plain_length(length.as_bytes()) == Some(size),
            None => size == 0,
        };
        match size {
            Size::Here(size) if !fits(size) => {
                Err(ProxyError::BadRequest("its length does not fit its body"))
            }
            Size::Here(size) => {
                let said = length.filter(|_| size > 0 || !named.has(&CONTENT_LENGTH));
                Ok(said.map_or(Self::None, Self::Length))
            }
            Size::ToCome => {
                let said = length.filter(|_| !named.has(&CONTENT_LENGTH));
                Ok(said.map_or(Self::Chunked, Self::Length))
            }
        }
    }
}

/// The request target: the route's prefix cut off where it says so, the
/// upstream's base path in front, the query as it came.
fn target(uri: &Uri, canonical_path: &str, route: &Route) -> Result<PathAndQuery, ProxyError> {
    let no_path = || ProxyError::BadRequest("its path is not below the route's");
    let path =
        if route.strip { route.path.strip(canonical_path).ok_or_else(no_path)? } else { canonical_path };
    if !path.starts_with('/') {
        return Err(no_path());
    }
    let base = route.upstream.base_path.as_str();
    let unchanged = uri.path_and_query().filter(|_| base.is_empty() && path == uri.path());
    match unchanged {
        Some(unchanged) => Ok(unchanged.clone()),
        None => {
            let query = uri.query();
            let mut text = String::with_capacity(base.len() + path.len() + query.map_or(0, |q| q.len() + 1));
            text.push_str(base);
            text.push_str(path);
            if let Some(query) = query {
                text.push('?');
                text.push_str(query);
            }
            PathAndQuery::from_maybe_shared(Bytes::from(text)).map_err(|_| no_path())
        }
    }
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
        let framed = |size: Size, lines: &[(HeaderName, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                headers.append(name, HeaderValue::from_static(value));
            }
            let named = Named::by(&headers);
            Framing::of(&headers, &Method::POST, size, &named).map(|framing| match framing {
                Framing::None => "none".to_owned(),
                Framing::Length(length) => length.to_str().unwrap().to_owned(),
                Framing::Chunked => "chunked".to_owned(),
            })
        };
        let length = |text| (CONTENT_LENGTH, text);
        let here = Size::Here;
        for (size, lines) in [
            (here(0), &[length("5")][..]),
            (here(5), &[length("4")]),
            (here(5), &[length("")]),
            (here(5), &[]),
            (here(5), &[length("5"), (TRANSFER_ENCODING, "chunked")]),
            (here(0), &[length("0"), length("0")]),
            (here(5), &[length("5"), length("5")]),
            (Size::ToCome, &[length("5"), length("6")]),
        ] {
            assert!(framed(size, lines).is_err(), "{lines:?}");
        }
        let no_length = (http::header::CONNECTION, "content-length");
        assert_eq!(framed(here(0), &[]).unwrap(), "none");
        assert_eq!(framed(here(0), &[length("0")]).unwrap(), "0");
        assert_eq!(framed(here(0), &[length("0"), no_length.clone()]).unwrap(), "none");
        assert_eq!(framed(here(5), &[length("5")]).unwrap(), "5");
        assert_eq!(framed(here(5), &[length("5"), no_length.clone()]).unwrap(), "5");
        assert_eq!(framed(Size::ToCome, &[length("5")]).unwrap(), "5");
        assert_eq!(framed(Size::ToCome, &[length("5"), no_length]).unwrap(), "chunked");
        assert_eq!(framed(Size::ToCome, &[length("5"), (TRANSFER_ENCODING, "chunked")]).unwrap(), "chunked");
        assert_eq!(framed(Size::ToCome, &[]).unwrap(), "chunked");
    }
}
