//! A running listener with a handler for tests.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

use crate::body::{Body, BodyError, Upload};
use crate::ingress::{
    Admit, Binder, ConnControl, ConnFacts, Endpoint, Handler, Limits, ListenerKind, Tls, Workers,
    framing_fault,
};

/// What the handler saw, and what tests tell it.
#[derive(Default)]
pub(in crate::ingress) struct Seen {
    /// `METHOD target body` of each request that was served.
    pub(super) requests: Mutex<Vec<String>>,
    pub(in crate::ingress) conns: Mutex<Vec<(ConnFacts, ConnControl)>>,
    /// Lets `/wait` answer.
    pub(in crate::ingress) go: Notify,
    /// A `/wait` request is being served.
    pub(super) waiting: Notify,
    /// A `/wait` request was dropped without an answer.
    pub(super) dropped: Notify,
    pub(super) refuse: std::sync::atomic::AtomicBool,
}

pub(super) struct TestHandler {
    seen: Arc<Seen>,
    limits: Limits,
}

impl Handler for TestHandler {
    type Conn = ConnFacts;

    fn admit(&self, _: &Endpoint, _: ListenerKind) -> Admit {
        if self.seen.refuse.load(std::sync::atomic::Ordering::Relaxed) {
            Admit::Drop("test")
        } else {
            Admit::Keep
        }
    }

    fn open(&self, facts: ConnFacts, control: ConnControl) -> ConnFacts {
        self.seen.conns.lock().unwrap().push((facts.clone(), control));
        facts
    }

    async fn call(self: Rc<Self>, _: Rc<ConnFacts>, req: Request<Upload>) -> Response<Body> {
        self.answer(req).await
    }
}

impl TestHandler {
    async fn answer(&self, mut req: Request<Upload>) -> Response<Body> {
        if let Some(fault) = framing_fault(&req, &self.limits) {
            return respond(fault.status(), "fault");
        }
        let path = req.uri().path().to_owned();
        match path.as_str() {
            "/unauthorized" => return respond(StatusCode::UNAUTHORIZED, "no"),
            "/wait" => {
                self.seen.waiting.notify_one();
                let dropped = NotifyWhenDropped(&self.seen.dropped);
                self.seen.go.notified().await;
                std::mem::forget(dropped);
            }
            "/large" => return Response::new(Body::full(vec![b'x'; 64 * 1024 * 1024])),
            "/endless" => return Response::new(Body::Boxed(Box::pin(Endless))),
            "/ws" => {
                let upgrade = hyper::upgrade::on(&mut req);
                tokio::task::spawn_local(async move {
                    let mut io = TokioIo::new(upgrade.await.unwrap());
                    let mut buf = [0; 64];
                    while let Ok(n) = io.read(&mut buf).await {
                        if n == 0 || io.write_all(&buf[..n]).await.is_err() {
                            break;
                        }
                    }
                });
                let mut response = respond(StatusCode::SWITCHING_PROTOCOLS, "");
                response.headers_mut().insert("upgrade", "echo".parse().unwrap());
                response.headers_mut().insert("connection", "upgrade".parse().unwrap());
                return response;
            }
            _ => {}
        }
        let line = format!("{} {}", req.method(), req.uri());
        match req.into_body().collect().await {
            Ok(body) => {
                let line = format!("{line} {}", String::from_utf8_lossy(&body.to_bytes()));
                self.seen.requests.lock().unwrap().push(line.clone());
                respond(StatusCode::OK, &line)
            }
            Err(_) => respond(StatusCode::BAD_REQUEST, "body"),
        }
    }
}

struct NotifyWhenDropped<'a>(&'a tokio::sync::Notify);

impl Drop for NotifyWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

pub(super) fn block_on<F: std::future::Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// A body that never ends and is always ready.
struct Endless;

impl http_body::Body for Endless {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, BodyError>>> {
        Poll::Ready(Some(Ok(http_body::Frame::data(Bytes::from_static(&[b'x'; 16 * 1024])))))
    }
}

fn respond(status: StatusCode, body: &str) -> Response<Body> {
    let mut response = Response::new(Body::full(body.to_owned()));
    *response.status_mut() = status;
    response
}

pub(in crate::ingress) struct Server {
    pub(super) addr: SocketAddr,
    pub(in crate::ingress) seen: Arc<Seen>,
    pub(super) workers: Workers,
    _dir: tempfile::TempDir,
}

pub(in crate::ingress) fn serve(limits: Limits) -> Server {
    serve_tls(limits, None)
}

pub(super) fn serve_tls(limits: Limits, tls: Option<&Tls>) -> Server {
    let dir = tempfile::tempdir().unwrap();
    let seen: Arc<Seen> = Arc::default();
    let for_workers = Arc::clone(&seen);
    let workers =
        Workers::start(1, limits, move |_| TestHandler { seen: Arc::clone(&for_workers), limits }).unwrap();
    let bound = Binder::new(1, dir.path()).bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = bound.addr();
    workers.add_tcp(bound, tls);
    Server { addr, seen, workers, _dir: dir }
}

impl Server {
    pub(in crate::ingress) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.addr).unwrap();
        // Only so that a broken test ends.
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    /// Sends these bytes and returns all that comes back until the close.
    pub(in crate::ingress) fn exchange(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect();
        stream.write_all(bytes).unwrap();
        read_all(&mut stream)
    }

    /// Waits until a request for `/wait` is in the handler's hands.
    pub(in crate::ingress) fn wait_until_waiting(&self) {
        block_on(self.seen.waiting.notified());
    }

    /// Waits until such a request was dropped unanswered.
    pub(in crate::ingress) fn wait_until_dropped(&self) {
        block_on(self.seen.dropped.notified());
    }

    pub(in crate::ingress) fn requests(&self) -> Vec<String> {
        self.seen.requests.lock().unwrap().clone()
    }
}

pub(in crate::ingress) fn read_all(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    String::from_utf8_lossy(&all).into_owned()
}

/// Reads until this text has come.
pub(in crate::ingress) fn read_until(stream: &mut TcpStream, text: &str) -> String {
    let mut all = String::new();
    let mut buf = [0; 4096];
    while !all.contains(text) {
        let n = stream.read(&mut buf).unwrap();
        assert_ne!(n, 0, "closed before {text:?}: {all:?}");
        all.push_str(&String::from_utf8_lossy(&buf[..n]));
    }
    all
}

/// The status codes in a run of answers.
pub(in crate::ingress) fn statuses(answers: &str) -> Vec<u16> {
    answers.match_indices("HTTP/1.1 ").map(|(at, _)| answers[at + 9..at + 12].parse().unwrap()).collect()
}

/// Notes which workers saw a connection, and refuses them all.
pub(super) struct Counting {
    pub(super) index: usize,
    pub(in crate::ingress) seen: Arc<Mutex<std::collections::HashSet<usize>>>,
}

impl Handler for Counting {
    type Conn = ();

    fn admit(&self, _: &Endpoint, _: ListenerKind) -> Admit {
        self.seen.lock().unwrap().insert(self.index);
        Admit::Drop("test")
    }

    fn open(&self, _: ConnFacts, _: ConnControl) {}

    async fn call(self: Rc<Self>, _: Rc<()>, _: Request<Upload>) -> Response<Body> {
        Response::new(Body::empty())
    }
}
