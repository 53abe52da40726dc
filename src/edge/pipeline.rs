//! One worker's way through the rooms: decide, then forward or answer, then log.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use http::header::{self, HeaderName};
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use tower::ServiceExt;

use super::conn::Conn;
use super::decide::{Allowed, Trail, View};
use super::grant::Grant;
use super::guard;
use super::live::Live;
use super::recheck::recheck;
use super::request_id::next_request_id;
use super::request_log::{Line, LoggedBody};
use super::respond::{self, Asked};
use super::shared::Shared;
use crate::api::{self, Caller, health};
use crate::authn::{Refusal, WorkerCache};
use crate::authz::{self};
use crate::body::{Body, Upload};
use crate::domain::{LocalAddr, PeerAddr, Principal, Reason, TailnetState};
use crate::ingress::attest::{self, Condition};
use crate::ingress::classify::is_off_tailnet;
use crate::ingress::{
    Admit, ConnControl, ConnFacts, Endpoint, Evidence, Handler, IngressFacts, Limits, ListenerKind,
    OwnerError, Via, peer_uid,
};
use crate::metrics::WorkerCounts;
use crate::proxy::{self, CloseSignal, Credentials, Forward, UpstreamPools};
use crate::telemetry::Style;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// One worker's way through the rooms.
pub struct Edge {
    pub(super) shared: Arc<Shared>,
    pub(super) limits: Limits,
    pub(super) identities: WorkerCache,
    pools: UpstreamPools,
    view: RefCell<Rc<View>>,
    api: RefCell<axum::Router>,
    pub(super) live: Rc<Live>,
    counts: Arc<WorkerCounts>,
}

impl Edge {
    /// One for a worker. Called on the worker's runtime, where it also starts to
    /// look after what is open.
    pub fn new(shared: Arc<Shared>, limits: Limits) -> Self {
        let identities = WorkerCache::new(shared.identities.clone(), shared.state.clone());
        let view = View { settings: shared.settings.load_full(), state: shared.state.load_full() };
        let (view, api) = (RefCell::new(Rc::new(view)), RefCell::new(api::router()));
        let live = Rc::new(Live::new(limits.max_connections));
        tokio::task::spawn_local(live.clone().run(shared.clone()));
        let counts = shared.counts.worker();
        Self { shared, limits, identities, pools: UpstreamPools::new(), view, api, live, counts }
    }

    /// The snapshot of now: two pointer comparisons when nothing changed.
    fn view(&self) -> Rc<View> {
        let settings = self.shared.settings.load();
        let state = self.shared.state.load();
        let mut view = self.view.borrow_mut();
        if !Arc::ptr_eq(&view.settings, &settings) || !Arc::ptr_eq(&view.state, &state) {
            *view = Rc::new(View { settings: Arc::clone(&settings), state: Arc::clone(&state) });
        }
        view.clone()
    }

    async fn answer(self: Rc<Self>, conn: Rc<Conn>, request: Request<Upload>) -> Response<Body> {
        let conn = &conn;
        let started = Instant::now();
        conn.requests.set(conn.requests.get() + 1);
        let request_id = next_request_id();
        let view = self.view();
        let mut trail = Trail::default();
        let method = request.method().clone();
        let upgrade = respond::asks_to_switch(&request);
        let close = upgrade || !request.body().is_end_stream();
        let bytes_in = request.body().size_hint().exact().unwrap_or(0);
        let logs = self.shared.log_style != Style::Off;
        // Only the line needs a copy of it.
        let raw_path = if logs { request.uri().path().to_owned() } else { String::new() };

        let page = !upgrade && respond::wants_page(&method, request.headers());
        let (response, reason) = match self.decide(&view, conn, &request, &mut trail).await {
            Ok(Allowed::Probe(probe, detail)) => {
                let draining = self.shared.is_draining();
                let (status, body) = health::answer(probe, &self.shared.readiness, draining, detail);
                (Ok(respond::json(status, &body)), None)
            }
            Ok(Allowed::Metrics) => (Ok(respond::metrics(self.shared.metrics_text())), None),
            Ok(Allowed::Elsewhere(location)) => {
                (Ok(respond::elsewhere(&location, close)), Some(Reason::HttpsRequired))
            }
            Ok(Allowed::Own { permit, via, path }) => (Ok(self.own(permit, via, &path, request).await), None),
            Ok(Allowed::App { permit, facts, path, opened_at, strip_authorization }) => {
                let http2 = request.version() == Version::HTTP_2;
                let withhold =
                    permit.principal().is_ambient() && guard::is_foreign_page(request.headers(), &facts);
                let answer = match self.remember(conn, &view, &facts, &permit, opened_at, upgrade, http2) {
                    Err(reason) => Err(reason),
                    Ok(signal) => {
                        let context = Forward {
                            facts: &facts,
                            request_id: &request_id,
                            canonical_path: &path,
                            credentials: Credentials {
                                authorization_is_ours: strip_authorization,
                                user_header: view.settings.user_header(),
                            },
                            pools: &self.pools,
                            close: &signal,
                            // Such a request came over a connection that takes lines.
                            as_lines: !withhold && matches!(request.body(), Upload::Whole(_)),
                        };
                        proxy::forward(permit, request, context).await.map_err(|error| {
                            let reason = error.reason();
                            tracing::warn!(
                                req = request_id.to_str().unwrap_or_default(),
                                code = reason.code(),
                                error = crate::telemetry::chain(&error),
                                "the app did not answer"
                            );
                            reason
                        })
                    }
                };
                match answer {
                    Ok(mut response) => {
                        if withhold {
                            guard::withhold_from_other_origins(response.headers_mut());
                        }
                        (Ok(response), None)
                    }
                    Err(reason) => (Err(reason.into()), Some(reason)),
                }
            }
            Err(refusal) => (Err(refusal), Some(refusal.reason)),
        };
        let mut response = response.unwrap_or_else(|refusal: Refusal| {
            let principal = trail.principal.as_ref();
            let request_id = request_id.to_str().unwrap_or_default();
            respond::refuse(refusal, &Asked { page, request_id, principal, close })
        });
        self.counts.count(reason);
        let status = response.status();
        let has_lines = matches!(response.body(), Body::Lines(_));
        let headers = response.headers_mut();
        if !has_lines {
            headers.insert(REQUEST_ID, request_id.clone());
        }
        // Funnel's requests share a connection with everybody's (rulings 1.6).
        let funnel = trail.facts.as_ref().is_some_and(|facts| facts.via == Via::Funnel);
        // A tunnel's answer says `upgrade` there, and ends the connection anyway.
        if (funnel || self.shared.is_draining()) && status != StatusCode::SWITCHING_PROTOCOLS {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if !logs {
            return response;
        }
        let line = self.line(conn, trail, request_id, method, raw_path, reason, started, bytes_in);
        response.map(|body| Body::Local(Box::new(LoggedBody::new(body, status, line))))
    }

    /// Remembers on what this request is let through, in case it stays open.
    #[expect(clippy::too_many_arguments, reason = "each is one fact of the request, once, in one place")]
    fn remember(
        &self,
        conn: &Rc<Conn>,
        view: &View,
        facts: &IngressFacts,
        permit: &authz::Permit,
        opened_at: Option<Arc<str>>,
        upgrade: bool,
        http2: bool,
    ) -> Result<CloseSignal, Reason> {
        let asked = match facts.evidence {
            Evidence::Direct { peer, .. } => Some(peer),
            Evidence::Serve { source, .. } => Some(source),
            Evidence::Userspace { .. } => permit.principal().addr(),
            _ => None,
        };
        let grant = Grant {
            conn: conn.facts.id,
            principal: permit.principal().clone(),
            via: facts.via,
            peer: facts.peer.map(|peer| peer.ip()),
            // A secret or nobody's request has no device to ask about.
            asked: asked.filter(|_| matches!(permit.principal(), Principal::User(_) | Principal::Node(_))),
            route: permit.route().clone(),
            opened_at,
            upgrade,
            settings: view.settings.clone(),
        };
        // The decision may have waited, for Tailscale; what changed meanwhile was
        // looked at without this request.
        let (settings, state) = (self.shared.settings.load(), self.shared.state.load());
        if !Arc::ptr_eq(&settings, &view.settings) {
            recheck(&grant, None, &self.shared, &settings, &state)?;
        }
        let client = facts.client.map(|client| client.ip());
        self.live.note(facts.via);
        if http2 {
            return self.live.enter(conn, grant, client);
        }
        if upgrade {
            return self.live.tunnel(conn, grant, client);
        }
        self.live.reuse(conn, grant, client)
    }

    async fn own(
        &self,
        permit: authz::ApiPermit,
        via: Via,
        path: &str,
        mut request: Request<Upload>,
    ) -> Response<Body> {
        // The router sees the path that was decided on, and nothing else.
        *request.uri_mut() = path.parse().unwrap_or_default();
        let caller = Caller { permit: Arc::new(permit), via };
        let mut request = request.map(axum::body::Body::new);
        request.extensions_mut().insert(caller);
        let router = self.api.borrow().clone();
        let response = match router.oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        let mut response = response.map(|body| Body::Boxed(Box::pin(body.map_err(Into::into))));
        let html = response
            .headers()
            .get(header::CONTENT_TYPE)
            .is_some_and(|value| value.as_bytes().starts_with(b"text/html"));
        let headers = response.headers_mut();
        respond::own_headers(headers);
        if html {
            headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(crate::page::POLICY));
            headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
        }
        response
    }

    #[expect(clippy::too_many_arguments, reason = "every field of the line, once, in one place")]
    fn line(
        &self,
        conn: &Conn,
        trail: Trail,
        request_id: HeaderValue,
        method: Method,
        path: String,
        reason: Option<Reason>,
        started: Instant,
        bytes_in: u64,
    ) -> Line {
        let facts = trail.facts.as_ref();
        let peer = match (facts.and_then(|facts| facts.client), conn.facts.endpoint) {
            (Some(client), _) => client.to_string(),
            (None, Endpoint::Tcp { peer, .. }) => peer.ip().to_string(),
            (None, Endpoint::Unix(_)) => "unix".into(),
        };
        Line {
            style: self.shared.log_style,
            request_id,
            conn: conn.facts.id,
            via: facts.map_or("-", |facts| facts.via.as_str()),
            peer,
            who: trail.principal,
            scheme: trail.scheme.unwrap_or("-"),
            method,
            route: trail.route,
            path,
            allowed: trail.allowed,
            reason: reason.map(Reason::code),
            started,
            bytes_in,
        }
    }
}

impl Edge {
    /// The loopback ingress keeps tailscaled's connections only. What else can make
    /// tailscaled connect is looked at with each request.
    fn admit_serve(&self, peer: PeerAddr, local: LocalAddr, state: &TailnetState) -> Admit {
        let known = state.serve_facts().and_then(|facts| facts.daemon);
        match (peer_uid(peer.socket(), local.socket()), known.or_else(|| self.shared.daemon.now())) {
            (Ok(owner), Some(daemon)) if owner.uid == daemon.uid => Admit::Keep,
            (Err(OwnerError::Unsupported), _)
                if self.shared.settings.load().config.gateway.tailscale.trust_local_users =>
            {
                Admit::Keep
            }
            (_, None) => Admit::Drop(Condition::DaemonUnknown.as_str()),
            _ => Admit::Drop(Condition::SocketIsNotDaemons.as_str()),
        }
    }
}

impl Handler for Edge {
    type Conn = Conn;

    fn admit(&self, endpoint: &Endpoint, listener: ListenerKind) -> Admit {
        let state = self.shared.state.load();
        match *endpoint {
            Endpoint::Tcp { peer, local } => {
                if listener == ListenerKind::ServeLoopback {
                    return self.admit_serve(peer, local, &state);
                }
                let own = self.shared.own_addresses.load();
                if is_off_tailnet(peer, local, &state, own.as_ref().map_or(&[], |own| own.as_slice())) {
                    return Admit::Drop("off_tailnet_peer");
                }
                Admit::Keep
            }
            Endpoint::Unix(peer) => {
                debug_assert_eq!(listener, ListenerKind::ServeUnix);
                let known = state.serve_facts().and_then(|facts| facts.daemon);
                let now = || self.shared.daemon.now();
                match attest::admit_unix(known, now, peer, self.shared.our_uid) {
                    Ok(()) => Admit::Keep,
                    Err(condition) => Admit::Drop(condition.as_str()),
                }
            }
        }
    }

    fn at_accept(&self) -> attest::AtAccept {
        attest::AtAccept::now(self.shared.state.load().serve_facts())
    }

    fn open(&self, facts: ConnFacts, control: ConnControl) -> Conn {
        Conn::new(facts, control)
    }

    fn call(
        self: Rc<Self>,
        conn: Rc<Conn>,
        request: Request<Upload>,
    ) -> impl Future<Output = Response<Body>> + 'static {
        self.answer(conn, request)
    }
}
