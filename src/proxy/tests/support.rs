//! A scripted upstream, a gateway around [`crate::proxy::forward`], and a
//! client, all speaking bytes. Everything waits for a state; the one time limit
//! is that of a test that hangs.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::CONNECTION;
use http::{HeaderName, HeaderValue, Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::net::{TcpListener, TcpStream};

use crate::authz::Permit;
use crate::body::{Body, Upload};
use crate::domain::identity::IdentityHeaders;
use crate::domain::{
    ClientAddr, HostMode, Principal, Public, Role, Route, RoutePrefix, TailnetUser, Upstream, UpstreamAddr,
    UpstreamKind,
};
use crate::ingress::{IngressFacts, Via};
use crate::proxy::{self, Closer, Credentials, Forward, UpstreamPools};

pub(crate) fn alice() -> Principal {
    Principal::User(Arc::new(TailnetUser {
        login: "alice@example.com".parse().unwrap(),
        user_id: 1,
        display_name: "Alïce".into(),
        node_id: "n1".parse().unwrap(),
        node_name: "laptop".into(),
        addr: None,
        member: true,
        router: false,
        grants: Default::default(),
        headers: IdentityHeaders::new("alice@example.com", "Alïce", None).unwrap(),
    }))
}

pub(crate) fn tcp(port: u16) -> UpstreamAddr {
    UpstreamAddr::Tcp { tls: false, host: "127.0.0.1".into(), port }
}

pub(crate) fn upstream(addr: UpstreamAddr) -> Upstream {
    Upstream {
        addr,
        base_path: String::new(),
        kind: UpstreamKind::Plain,
        host: HostMode::Preserve,
        identity_headers: Default::default(),
        owner_uid: None,
        ca_file: None,
        insecure_skip_verify: false,
    }
}

pub(crate) fn route_to(addr: UpstreamAddr) -> Route {
    Route {
        name: "default".parse().unwrap(),
        host: None,
        path: RoutePrefix::root(),
        strip: false,
        upstream: Arc::new(upstream(addr)),
        allow: None,
        role: Role::User,
        public: Public::No,
        guard: Default::default(),
        timeouts: Default::default(),
    }
}

/// Runs a test on one thread, as a worker does.
pub(crate) fn run<F: Future>(test: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = tokio::task::LocalSet::new();
    runtime.block_on(local.run_until(async {
        tokio::time::timeout(Duration::from_secs(20), test).await.expect("the test hangs")
    }))
}

/// One end of a byte stream, read up to what is waited for.
pub(crate) struct Wire<S> {
    io: S,
    seen: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub(crate) fn new(io: S) -> Self {
        Self { io, seen: Vec::new() }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.io.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Sends what may no longer be taken.
    pub(crate) async fn try_send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.io.write_all(bytes.as_ref()).await;
    }

    async fn more(&mut self) -> bool {
        matches!(self.io.read_buf(&mut self.seen).await, Ok(read) if read > 0)
    }

    /// Everything up to and with `end`.
    pub(crate) async fn until(&mut self, end: &str) -> String {
        loop {
            if let Some(at) = memchr::memmem::find(&self.seen, end.as_bytes()) {
                let rest = self.seen.split_off(at + end.len());
                return String::from_utf8(std::mem::replace(&mut self.seen, rest)).unwrap();
            }
            assert!(self.more().await, "ended before {end:?}: {:?}", String::from_utf8_lossy(&self.seen));
        }
    }

    pub(crate) async fn head(&mut self) -> String {
        self.until("\r\n\r\n").await.to_ascii_lowercase()
    }

    pub(crate) async fn exactly(&mut self, count: usize) -> Vec<u8> {
        while self.seen.len() < count {
            assert!(self.more().await, "ended early: {:?}", String::from_utf8_lossy(&self.seen));
        }
        let rest = self.seen.split_off(count);
        std::mem::replace(&mut self.seen, rest)
    }

    /// The length of what is here or comes next, unless the other side has closed.
    pub(crate) async fn piece(&mut self) -> Option<usize> {
        self.seen.reserve(64 * 1024);
        let here = !self.seen.is_empty() || self.more().await;
        here.then(|| std::mem::take(&mut self.seen).len())
    }

    /// Whatever comes until the other side closes.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        while self.more().await {}
        std::mem::take(&mut self.seen)
    }

    pub(crate) async fn shutdown(&mut self) {
        self.io.shutdown().await.unwrap();
    }
}

/// An upstream that does nothing by itself.
pub(crate) struct App(TcpListener);

impl App {
    pub(crate) async fn bind() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    pub(crate) fn port(&self) -> u16 {
        self.0.local_addr().unwrap().port()
    }

    pub(crate) fn route(&self) -> Route {
        route_to(tcp(self.port()))
    }

    pub(crate) async fn accept(&self) -> Wire<TcpStream> {
        Wire::new(self.0.accept().await.unwrap().0)
    }
}

/// A gateway with one route and one principal.
#[derive(Clone)]
pub(crate) struct Gateway {
    route: Arc<Route>,
    principal: Principal,
    pub(crate) pools: UpstreamPools,
    pub(crate) closer: Rc<Closer>,
    pub(crate) authorization_is_ours: Rc<Cell<bool>>,
    pub(crate) errors: Rc<RefCell<Vec<String>>>,
}

impl Gateway {
    pub(crate) fn new(route: Route) -> Self {
        Self {
            route: Arc::new(route),
            principal: alice(),
            pools: UpstreamPools::new(),
            closer: Rc::default(),
            authorization_is_ours: Rc::default(),
            errors: Rc::default(),
        }
    }

    /// A client over HTTP/1.
    pub(crate) fn client(&self) -> Wire<DuplexStream> {
        let (near, far) = tokio::io::duplex(256 * 1024);
        let gateway = self.clone();
        tokio::task::spawn_local(async move {
            let service = service_fn(move |request| {
                let gateway = gateway.clone();
                async move { gateway.serve(request).await }
            });
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(far), service)
                .with_upgrades()
                .await;
        });
        Wire::new(near)
    }

    /// What the edge does, without the deciding.
    pub(crate) async fn serve(&self, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        let request = request.map(Upload::Streaming);
        let facts = IngressFacts {
            local_direct: false,
            evidence: crate::ingress::Evidence::None(None),
            via: Via::Tailnet,
            peer: None,
            client: Some(ClientAddr::new("100.64.0.2".parse().unwrap())),
            https: true,
            host: "gw.example".into(),
        };
        let path = request.uri().path().to_owned();
        let close = proxy::must_close_after(&request);
        let user_header = HeaderName::from_static("x-pomerium-user");
        let permit = Permit::for_tests(self.route.clone(), self.principal.clone());
        let signal = self.closer.signal();
        let ctx = Forward {
            facts: &facts,
            request_id: &HeaderValue::from_static("r1"),
            canonical_path: &path,
            credentials: Credentials {
                authorization_is_ours: self.authorization_is_ours.get(),
                user_header: Some(&user_header),
            },
            pools: &self.pools,
            close: &signal,
            as_lines: false,
        };
        Ok(proxy::forward(permit, request, ctx).await.unwrap_or_else(|error| {
            self.errors.borrow_mut().push(format!("{error:?}"));
            let mut response = Response::new(Body::full(error.reason().code()));
            *response.status_mut() = error.reason().status();
            if close {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            response
        }))
    }
}

pub(crate) const GET: &str = "GET / HTTP/1.1\r\nHost: gw.example\r\n\r\n";
pub(crate) const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
