//! The guard against a table of attacks, against itself however the bytes are
//! cut, and against hyper.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use bytes::BytesMut;
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};

use super::{FramingFault, Guard, framing_fault};
use crate::body::Upload;
use crate::ingress::Limits;
use crate::ingress::control::Shared;
use crate::ingress::h1::request::{Found, take};

/// A socket that yields these pieces, one a read, and swallows what is written.
struct Pieces(VecDeque<Vec<u8>>);

impl AsyncRead for Pieces {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let pieces = &mut self.get_mut().0;
        if let Some(mut piece) = pieces.pop_front() {
            let rest = piece.split_off(piece.len().min(buf.remaining()));
            buf.put_slice(&piece);
            if !rest.is_empty() {
                pieces.push_front(rest);
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// How a guarded stream ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Eof,
    /// Nothing more comes, for ever.
    Refused,
    BrokenBody,
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// What the guard passes on of these pieces.
fn pass(pieces: impl IntoIterator<Item = Vec<u8>>) -> (Vec<u8>, End) {
    // The guard makes timers, which need a runtime to be around.
    let runtime = runtime();
    let _entered = runtime.enter();
    let pieces = Pieces(pieces.into_iter().filter(|piece| !piece.is_empty()).collect());
    let mut guard = Guard::new(pieces, BytesMut::new(), Arc::new(Shared::new(None)), Limits::default());
    let mut out = Vec::new();
    let mut cx = Context::from_waker(Waker::noop());
    loop {
        let mut scratch = [0; 1 << 17];
        let mut buf = ReadBuf::new(&mut scratch);
        match Pin::new(&mut guard).poll_read(&mut cx, &mut buf) {
            Poll::Ready(Ok(())) if buf.filled().is_empty() => return (out, End::Eof),
            Poll::Ready(Ok(())) => out.extend_from_slice(buf.filled()),
            Poll::Ready(Err(_)) => return (out, End::BrokenBody),
            Poll::Pending => return (out, End::Refused),
        }
    }
}

/// What the guard makes of one stream: the fault, if it is refused at its very
/// beginning.
fn fault_of(stream: &[u8]) -> Option<FramingFault> {
    let (out, end) = pass([stream.to_vec()]);
    if end != End::Refused {
        assert_eq!(out, stream, "passed, but changed");
        return None;
    }
    let fault = [
        FramingFault::BadRequest,
        FramingFault::UriTooLong,
        FramingFault::HeadersTooLarge,
        FramingFault::MethodNotAllowed,
    ];
    Some(fault.into_iter().find(|fault| out == fault.stand_in()).expect("a stand-in and nothing else"))
}

#[test]
fn ordinary_heads_pass_unchanged() {
    for head in [
        "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        "\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /a%20b?c=d&e=[1]|\\^`{} HTTP/1.1\r\nhost:x:18789\r\nAccept: */*\r\n\r\n",
        "GET /a{\"}|\\^ HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET http://X.example/a HTTP/1.1\r\nHost: x.example:80\r\n\r\n",
        "GET https://x.example:443?q HTTP/1.1\r\nHost: x.example.\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: [fd7a:115c:a1e0::1]:18789\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        "PROPFIND / HTTP/1.1\r\nHost: x\r\nX-Empty:\r\nX-Tab: a\tb\r\nX-Latin: \u{fc}\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length:3\r\n\r\nab\n",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: Chunked\r\n\r\n1\r\n\n\r\n0\r\n\r\n",
        "POST / HTTP/1.0\r\nContent-Length: 1\r\n\r\nx",
    ] {
        assert_eq!(fault_of(head.as_bytes()), None, "{head:?}");
    }
}

#[test]
fn threat_079_ambiguous_framing_is_refused() {
    for headers in [
        // Both, in either order and any spelling.
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 0\r\n",
        // Twice, equal or not.
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n",
        // Lengths that are read in several ways.
        "Content-Length: +5\r\n",
        "Content-Length: -5\r\n",
        "Content-Length: 05\r\n",
        "Content-Length: 00\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: 5,6\r\n",
        "Content-Length: 5 5\r\n",
        "Content-Length: 5 \r\n",
        "Content-Length:  5\r\n",
        "Content-Length:\t5\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length: 5.0\r\n",
        "Content-Length: 5e0\r\n",
        "Content-Length: \r\n",
        "Content-Length:\r\n",
        "Content-Length: \u{665}\r\n",
        "Content-Length: 18446744073709551616\r\n",
        "Content-Length: 18446744073709551615\r\n",
        "Content-Length: 9999999999999999999\r\n",
        // Encodings that are read in several ways.
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: identity, chunked\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunkedx\r\n",
        "Transfer-Encoding: \"chunked\"\r\n",
        "Transfer-Encoding: chunked;q=1\r\n",
        "Transfer-Encoding: chunked,\r\n",
        "Transfer-Encoding: ,chunked\r\n",
        "Transfer-Encoding:  chunked\r\n",
        "Transfer-Encoding: chunked \r\n",
        "Transfer-Encoding:\tchunked\r\n",
        "Transfer-Encoding: chunked\x0b\r\n",
        "Transfer-Encoding:\r\n chunked\r\n",
        "Transfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n",
        // Names that are read in several ways.
        "Content-Length : 5\r\n",
        "Transfer-Encoding : chunked\r\n",
        " Transfer-Encoding: chunked\r\n",
        "\tTransfer-Encoding: chunked\r\n",
        "X: y\r\n Transfer-Encoding: chunked\r\n",
        "X: y\r\n\tfolded\r\n",
        "Transfer\x00-Encoding: chunked\r\n",
        "Transfer-Encoding\x0b: chunked\r\n",
        "X Y: z\r\n",
        "X\u{e9}: z\r\n",
        "X(Y): z\r\n",
        ": z\r\n",
        "no colon\r\n",
        // Line ends that are read in several ways.
        "X: a\nTransfer-Encoding: chunked\r\n",
        "X: a\rTransfer-Encoding: chunked\r\n",
        "X: a\r\rY: b\r\n",
        "X: a\n",
        "X: a\r\n\n",
        "X: a\n\r\n",
        "X: a\x00b\r\n",
        "X: a\x7fb\r\n",
        "X: a\x1bb\r\n",
    ] {
        let head = format!("POST / HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
        assert_eq!(fault_of(head.as_bytes()), Some(FramingFault::BadRequest), "{headers:?}");
    }
    let old = "POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    assert_eq!(fault_of(old.as_bytes()), Some(FramingFault::BadRequest));
}

#[test]
fn threat_079_a_request_line_is_three_words() {
    for line in [
        "GET /",
        "GET",
        "GET / HTTP/1.1 ",
        "GET /  HTTP/1.1",
        "GET  / HTTP/1.1",
        " GET / HTTP/1.1",
        "GET\t/ HTTP/1.1",
        "GET / HTTP/1.1\tx",
        "GET / http/1.1",
        "GET / HTTP/1.2",
        "GET / HTTP/2.0",
        "GET / HTTP/0.9",
        "GET / HTTP/01.1",
        "GET / HTTP/1.1x",
        "GET / HTTP/1.10",
        "GET / FTP/1.1",
        "G(T / HTTP/1.1",
        "G\u{e9}T / HTTP/1.1",
        "\x16\x03\x01 / HTTP/1.1",
        "GET /a b HTTP/1.1",
        "GET /a\tb HTTP/1.1",
        "GET /a\x00b HTTP/1.1",
        "GET /a\x7f HTTP/1.1",
        "GET /\u{e9} HTTP/1.1",
        "GET /a#b HTTP/1.1",
        "GET #a HTTP/1.1",
        "GET /a?b#c HTTP/1.1",
        "GET /<> HTTP/1.1",
        "GET a HTTP/1.1",
        "GET ?a HTTP/1.1",
        "GET * HTTP/1.1",
        "OPTIONS *a HTTP/1.1",
        "GET ftp://x/ HTTP/1.1",
        "GET javascript:x HTTP/1.1",
        "GET http:/x HTTP/1.1",
        "GET http:// HTTP/1.1",
        "GET //user@x HTTP/1.1x",
        "PRI * HTTP/2.0",
        // Nobody speaks for the guard.
        "OPENCLAW-FRAMING-FAULT /431 HTTP/1.1",
    ] {
        let head = format!("{line}\r\nHost: x\r\n\r\n");
        assert_eq!(fault_of(head.as_bytes()), Some(FramingFault::BadRequest), "{line:?}");
    }
    for start in ["\r\n\r\n", "\n", "\n\r\n", "\r", "\r\r\n", "\r\n\n", " "] {
        let head = format!("{start}GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(fault_of(head.as_bytes()), Some(FramingFault::BadRequest), "{start:?}");
    }
}

#[test]
fn threat_032_a_request_names_one_host() {
    for (target, hosts) in [
        ("/", ""),
        ("/", "Host:\r\n"),
        ("/", "Host: \r\n"),
        ("/", "Host: a\r\nHost: a\r\n"),
        ("/", "Host: a\r\nhost: b\r\n"),
        ("/", "Host: a, b\r\n"),
        ("/", "Host: a b\r\n"),
        ("/", "Host: user@a\r\n"),
        ("/", "Host: a/b\r\n"),
        ("/", "Host: a?b\r\n"),
        ("/", "Host: a#b\r\n"),
        ("/", "Host: a:b\r\n"),
        ("/", "Host: a:99999\r\n"),
        ("/", "Host: http://a\r\n"),
        ("/", "Host: \u{e4}\r\n"),
        ("/", "Host : a\r\n"),
        ("http://a/", ""),
        ("http://a/", "Host: b\r\n"),
        ("http://a:81/", "Host: a\r\n"),
        ("http://a:443/", "Host: a\r\n"),
        ("https://a:80/", "Host: a\r\n"),
        ("http://u@a/", "Host: a\r\n"),
        ("http://a\\@b/", "Host: a\r\n"),
    ] {
        let head = format!("GET {target} HTTP/1.1\r\n{hosts}\r\n");
        assert_eq!(fault_of(head.as_bytes()), Some(FramingFault::BadRequest), "{target} {hosts:?}");
    }
}

#[test]
fn threat_074_size_decides_last() {
    let long = "x".repeat(20_000);
    let huge = "x".repeat(100_000);
    for (head, fault) in [
        (format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n"), FramingFault::UriTooLong),
        (format!("GET /{huge} HTTP/1.1\r\nHost: x\r\n\r\n"), FramingFault::UriTooLong),
        (format!("GET /{huge}"), FramingFault::UriTooLong),
        (format!("GET /{long} HTTP/1.1\r\nHost: x\r\nX: a\nb\r\n\r\n"), FramingFault::BadRequest),
        (format!("GET / HTTP/1.1\r\nHost: x\r\nCookie: {huge}\r\n\r\n"), FramingFault::HeadersTooLarge),
        (format!("GET / HTTP/1.1\r\nHost: x\r\nX: a\nCookie: {huge}\r\n\r\n"), FramingFault::BadRequest),
        (huge.clone(), FramingFault::HeadersTooLarge),
        (
            format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "X: y\r\n".repeat(100)),
            FramingFault::HeadersTooLarge,
        ),
    ] {
        let whole = fault_of(head.as_bytes());
        assert_eq!(whole, Some(fault), "{}", &head[..60]);
        let (out, end) = pass(head.as_bytes().chunks(777).map(<[u8]>::to_vec));
        assert_eq!((out.as_slice(), end), (fault.stand_in(), End::Refused), "cut: {}", &head[..60]);
    }
}

#[test]
fn a_fault_that_shows_early_is_answered_early() {
    // None of these heads is complete.
    for start in ["GET / HTTP/1.1\nHost: x", "\x16\x03\x01\x02\x00", "\r\n\r\n", "\n"] {
        assert_eq!(fault_of(start.as_bytes()), Some(FramingFault::BadRequest), "{start:?}");
    }
}

#[test]
fn a_stand_in_says_what_is_wrong() {
    for fault in [FramingFault::BadRequest, FramingFault::UriTooLong, FramingFault::HeadersTooLarge] {
        let line = std::str::from_utf8(fault.stand_in()).unwrap();
        let mut words = line.split(' ');
        let req =
            Request::builder().method(words.next().unwrap()).uri(words.next().unwrap()).body(()).unwrap();
        assert_eq!(framing_fault(&req, &Limits::default()), Some(fault));
        assert_eq!(req.uri().path(), format!("/{}", fault.status().as_u16()));
    }
    let req = Request::builder().uri("/400").body(()).unwrap();
    assert_eq!(framing_fault(&req, &Limits::default()), None);
}

#[test]
fn threat_082_http2_requests_are_held_to_the_same_meaning() {
    let fault = |uri: &str, headers: &[(&str, &str)]| {
        let mut req = Request::builder().version(http::Version::HTTP_2).uri(uri);
        for (name, value) in headers {
            req = req.header(*name, *value);
        }
        framing_fault(&req.body(()).unwrap(), &Limits::default())
    };
    const BAD: Option<FramingFault> = Some(FramingFault::BadRequest);
    assert_eq!(fault("http://a/", &[]), None);
    assert_eq!(fault("http://a/", &[("host", "A:80")]), None);
    assert_eq!(fault("/", &[("host", "a")]), None);
    assert_eq!(fault("http://a/", &[("host", "b")]), BAD);
    assert_eq!(fault("http://a/", &[("host", "a"), ("host", "a")]), BAD);
    assert_eq!(fault("http://u@a/", &[]), BAD);
    assert_eq!(fault("/", &[]), BAD);
    assert_eq!(fault("http://a/", &[("content-length", "1"), ("content-length", "1")]), BAD);
    assert_eq!(fault(&format!("http://a/{}", "x".repeat(20_000)), &[]), Some(FramingFault::UriTooLong));
    assert_eq!(fault("http://a/", &[("x", "y"); 101]), Some(FramingFault::HeadersTooLarge));
}

/// One request that is beyond doubt.
fn request() -> impl Strategy<Value = Vec<u8>> {
    let body = prop_oneof![
        Just(Vec::new()),
        prop::collection::vec(any::<u8>(), 0..60).prop_map(|body| {
            [format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes(), &body].concat()
        }),
        (prop::collection::vec(prop::collection::vec(any::<u8>(), 1..20), 0..4), any::<bool>()).prop_map(
            |(chunks, extra)| {
                let mut out = b"Transfer-Encoding: chunked\r\n\r\n".to_vec();
                for chunk in chunks {
                    let extension = if extra { ";a=\"b\"" } else { "" };
                    out.extend_from_slice(format!("{:x}{extension}\r\n", chunk.len()).as_bytes());
                    out.extend_from_slice(&chunk);
                    out.extend_from_slice(b"\r\n");
                }
                out.extend_from_slice(if extra { b"0\r\nX-T: v\r\n\r\n" } else { b"0\r\n\r\n" });
                out
            }
        ),
    ];
    let headers =
        prop::collection::vec("[!#$%&'*+.^_`|~0-9a-zA-Z-]{1,12}: [ -~\u{80}-\u{ff}]{0,20}\r\n", 0..4)
            .prop_map(|lines| {
                // The names with a meaning of their own are the body's affair.
                lines
                    .into_iter()
                    .filter(|line| !line.to_ascii_lowercase().starts_with("te:"))
                    .collect::<String>()
            });
    ("(GET|POST|X-Y)", "/[!-\"$-;=?-_a-z{-~]{0,20}", headers, body).prop_map(
        |(method, target, headers, body)| {
            let path_end = target.find('?').unwrap_or(target.len());
            // A quotation mark is good in a path only.
            let query = target[path_end..].replace('"', "");
            let target = format!("{}{query}", &target[..path_end]);
            let mut out = format!("{method} {target} HTTP/1.1\r\nHost: x.example\r\n{headers}").into_bytes();
            out.extend_from_slice(if body.is_empty() { b"\r\n" } else { &body });
            out
        },
    )
}

fn requests() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(request(), 1..5).prop_map(|requests| requests.concat())
}

/// A stream that was good before some of its bytes were changed.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        prop::sample::select(b"\r\n\t :;,+-0159afx/#@\0\x7f\x80HTCt".as_slice()).prop_map(|b| b),
        any::<u8>()
    ];
    (requests(), prop::collection::vec((any::<prop::sample::Index>(), byte, 0..3_u8), 0..4)).prop_map(
        |(mut stream, changes)| {
            for (at, byte, how) in changes {
                let at = at.index(stream.len());
                match how {
                    0 => stream[at] = byte,
                    1 => stream.insert(at, byte),
                    _ if stream.len() > 1 => drop(stream.remove(at)),
                    _ => {}
                }
            }
            stream
        },
    )
}

/// Where a stream is cut.
fn cuts() -> impl Strategy<Value = Vec<prop::sample::Index>> {
    prop::collection::vec(any::<prop::sample::Index>(), 0..12)
}

fn cut(stream: &[u8], cuts: &[prop::sample::Index]) -> Vec<Vec<u8>> {
    let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
    at.extend([0, stream.len()]);
    at.sort_unstable();
    at.windows(2).map(|pair| stream[pair[0]..pair[1]].to_vec()).collect()
}

/// Method, target and headers.
fn line_of<B>(req: &Request<B>) -> String {
    format!("{} {} {:?}", req.method(), req.uri(), req.headers())
}

/// What is taken of a stream without hyper.
fn h1_reads(mut stream: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut seen = Vec::new();
    while let Found::Request(taken) = take(stream) {
        let line = line_of(&taken.request);
        let Upload::Whole(body) = taken.request.into_body() else { panic!("a body that streams") };
        seen.push((line, body.to_vec()));
        stream = &stream[taken.raw.len()..];
    }
    seen
}

/// What hyper makes of a stream: each request's line and body, and whether it
/// refused something by itself.
fn hyper_reads(stream: &[u8]) -> (Vec<(String, Vec<u8>)>, bool) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let for_service = Arc::clone(&seen);
    let answers = runtime().block_on(async {
        let (mut client, server) = tokio::io::duplex(1 << 20);
        client.write_all(stream).await.unwrap();
        client.shutdown().await.unwrap();
        let service = service_fn(move |req: Request<Incoming>| {
            let seen = Arc::clone(&for_service);
            async move {
                let line = line_of(&req);
                if let Ok(body) = req.into_body().collect().await {
                    seen.lock().unwrap().push((line, body.to_bytes().to_vec()));
                }
                Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
            }
        });
        let serving = http1::Builder::new().half_close(true).serve_connection(TokioIo::new(server), service);
        let mut answers = String::new();
        let (_, read) = tokio::join!(serving, client.read_to_string(&mut answers));
        read.unwrap();
        answers
    });
    let refused = answers.contains("HTTP/1.1 4");
    (Arc::try_unwrap(seen).unwrap().into_inner().unwrap(), refused)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn threat_079_good_streams_pass_unchanged_however_they_are_cut(
        stream in requests(), cuts in cuts()
    ) {
        let (out, end) = pass(cut(&stream, &cuts));
        prop_assert_eq!(String::from_utf8_lossy(&out), String::from_utf8_lossy(&stream));
        prop_assert_eq!(end, End::Eof);
    }

    #[test]
    fn threat_079_the_cuts_of_a_stream_do_not_change_the_decision(
        stream in damaged(), cuts in cuts()
    ) {
        prop_assert_eq!(pass(cut(&stream, &cuts)), pass([stream]));
    }

    #[test]
    fn threat_079_garbage_is_decided_alike_however_it_is_cut(
        stream in prop::collection::vec(
            prop::sample::select(b"\r\n\r\n G/:H0;a\0\xff".as_slice()), 1..60), cuts in cuts()
    ) {
        prop_assert_eq!(pass(cut(&stream, &cuts)), pass([stream]));
    }

    #[test]
    fn threat_079_what_passes_is_read_alike_by_hyper(stream in damaged()) {
        let (out, end) = pass([stream.clone()]);
        if end == End::Eof {
            let (through_guard, refused) = hyper_reads(&out);
            prop_assert!(!refused, "hyper refuses what the guard let pass");
            // An unfinished head at the end is held back, and means nothing.
            prop_assert_eq!(through_guard, hyper_reads(&stream).0);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn threat_079_what_is_taken_without_hyper_is_what_hyper_reads(stream in damaged()) {
        let (out, end) = pass([stream]);
        if end == End::Eof {
            let taken = h1_reads(&out);
            let mut read = hyper_reads(&out).0;
            read.truncate(taken.len());
            prop_assert_eq!(taken, read);
        }
    }
}

#[test]
fn much_is_taken_without_hyper() {
    let stream = b"GET /a?b HTTP/1.1\r\nHost: x\r\nAccept: */*\r\n\r\n\
                   POST /b HTTP/1.1\r\nhost:x \r\nContent-Length: 2\r\n\r\nhi";
    assert_eq!(h1_reads(stream).len(), 2);
    assert_eq!(h1_reads(stream), hyper_reads(stream).0);
}

#[test]
fn threat_039_connect_is_405() {
    for line in ["CONNECT x:443 HTTP/1.1", "CONNECT / HTTP/1.1"] {
        let head = format!("{line}\r\nHost: x\r\n\r\n");
        assert_eq!(fault_of(head.as_bytes()), Some(FramingFault::MethodNotAllowed), "{line:?}");
    }
}
