//! The order of a request (rulings 2), on one page.
//!
//! Each step hands the next what it found; the first that refuses ends the
//! request. Reading [`Edge::decide`] from top to bottom is reading the policy.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::header::{self, HeaderName};
use http::{HeaderValue, Method, Request, Response};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tower::ServiceExt;

use super::guard::{self, Hosts};
use super::live::{Grant, Live};
use super::path::{self, CanonicalPath};
use super::request_log::{Line, LoggedBody};
use super::respond::{self, Asked};
use super::router::Target;
use super::shared::{Settings, Shared};
use crate::api::{self, Caller, health};
use crate::authn::{self, Authentication, Context, Refusal, WorkerCache};
use crate::authz::{self, Question};
use crate::body::Body;
use crate::domain::{Principal, Public, Reason, Role, Route, TailnetState};
use crate::ingress::attest;
use crate::ingress::classify::{Classified, Policy, classify, is_off_tailnet};
use crate::ingress::{
    Admit, ConnControl, ConnFacts, Endpoint, Evidence, FramingFault, Handler, IngressFacts, Limits,
    ListenerKind, Via, authority_of, framing_fault, peer_uid,
};
use crate::proxy::{self, CloseReason, Closer, Credentials, Forward, UpstreamPools};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// One worker's way through the rooms.
pub struct Edge {
    shared: Arc<Shared>,
    limits: Limits,
    identities: WorkerCache,
    pools: UpstreamPools,
    view: RefCell<Rc<View>>,
    api: RefCell<axum::Router>,
    live: Rc<Live>,
}

/// The one snapshot a request sees.
struct View {
    settings: Arc<Settings>,
    state: Arc<TailnetState>,
}

/// What is remembered of a connection.
pub struct Conn {
    facts: ConnFacts,
    control: ConnControl,
    /// Ends what is open on this connection when the right to it is taken away.
    closer: RefCell<Closer>,
    /// On what the latest of it was opened. A connection of Serve's carries many
    /// people's requests, but one at a time.
    grant: RefCell<Option<Grant>>,
    watched: Cell<bool>,
    /// The uid at the other end of a loopback connection, asked for once. A
    /// socket's owner does not change while it lives.
    socket_uid: Cell<Option<Option<u32>>>,
    warned: Cell<bool>,
}

impl Conn {
    /// A new connection.
    fn new(facts: ConnFacts, control: ConnControl) -> Self {
        Self {
            facts,
            control,
            closer: RefCell::default(),
            grant: RefCell::new(None),
            watched: Cell::new(false),
            socket_uid: Cell::new(None),
            warned: Cell::new(false),
        }
    }

    /// Its number in the log.
    pub(super) fn id(&self) -> u64 {
        self.facts.id
    }

    /// Whether something is open on it: a request under way, a stream, a tunnel.
    pub(super) fn has_open(&self) -> bool {
        self.closer.borrow().held() > 0
    }

    /// On what it was opened.
    pub(super) fn grant(&self) -> Option<Grant> {
        self.grant.borrow().clone()
    }

    /// Ends what is open. Later requests are decided anew.
    pub(super) fn close(&self, reason: CloseReason) {
        self.closer.take().close(reason);
    }

    fn socket_uid(&self) -> Option<u32> {
        if let Some(known) = self.socket_uid.get() {
            return known;
        }
        let uid = match self.facts.endpoint {
            Endpoint::Tcp { peer, local } => {
                peer_uid(peer.socket(), local.socket()).ok().map(|owner| owner.uid)
            }
            Endpoint::Unix(_) => None,
        };
        // A socket that is gone by now says nothing; it is not asked again.
        self.socket_uid.set(Some(uid));
        uid
    }

    fn local_ip(&self) -> Option<IpAddr> {
        match self.facts.endpoint {
            Endpoint::Tcp { local, .. } => Some(local.ip()),
            Endpoint::Unix(_) => None,
        }
    }
}

/// A request that was let through, and where to.
enum Allowed {
    App {
        permit: authz::Permit,
        facts: Rc<IngressFacts>,
        path: String,
        strip_authorization: bool,
    },
    Own {
        permit: authz::ApiPermit,
        via: Via,
    },
    /// A probe, and whether its details may be shown.
    Probe(health::Probe, bool),
}

/// What is known of a request so far; what the log line and the answer need.
#[derive(Default)]
struct Trail {
    facts: Option<Rc<IngressFacts>>,
    principal: Option<Principal>,
    scheme: Option<&'static str>,
    route: Option<Arc<Route>>,
    allowed: bool,
}

impl Edge {
    /// One for a worker. Called on the worker's runtime, where it also starts to
    /// look after what is open.
    pub fn new(shared: Arc<Shared>, limits: Limits) -> Self {
        let identities = WorkerCache::new(shared.identities.clone(), shared.state.clone());
        let view = View { settings: shared.settings.load_full(), state: shared.state.load_full() };
        let (view, api) = (RefCell::new(Rc::new(view)), RefCell::new(api::router()));
        let live = Rc::new(Live::default());
        tokio::task::spawn_local(live.clone().run(shared.clone()));
        Self { shared, limits, identities, pools: UpstreamPools::new(), view, api, live }
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

    async fn answer(&self, conn: &Rc<Conn>, mut request: Request<Incoming>) -> Response<Body> {
        let started = Instant::now();
        let request_id = next_request_id();
        let view = self.view();
        let mut trail = Trail::default();
        let method = request.method().clone();
        let upgrade = request.headers().contains_key(header::UPGRADE);
        let close = upgrade || !request.body().is_end_stream();
        let bytes_in = request.body().size_hint().exact().unwrap_or(0);
        let raw_path = request.uri().path().to_owned();

        let page = respond::wants_page(&method, request.headers());
        let (response, reason) = match self.decide(&view, conn, &request, &mut trail).await {
            Ok(Allowed::Probe(probe, detail)) => {
                let draining = self.shared.is_draining();
                let (status, body) = health::answer(probe, &self.shared.readiness, draining, detail);
                (Ok(respond::json(status, &body)), None)
            }
            Ok(Allowed::Own { permit, via }) => (Ok(self.own(permit, via, request).await), None),
            Ok(Allowed::App { permit, facts, path, strip_authorization }) => {
                request.headers_mut().remove(REQUEST_ID);
                self.remember(conn, &view, &facts, &permit, upgrade);
                let signal = conn.closer.borrow().signal();
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
                };
                match proxy::forward(permit, request, context).await {
                    Ok(response) => (Ok(response), None),
                    Err(error) => {
                        let reason = error.reason();
                        let chain = crate::telemetry::chain(&error);
                        tracing::warn!(
                            req = request_id.to_str().unwrap_or_default(),
                            code = reason.code(),
                            error = chain,
                            "the app did not answer"
                        );
                        (Err(reason.into()), Some(reason))
                    }
                }
            }
            Err(refusal) => (Err(refusal), Some(refusal.reason)),
        };
        let mut response = response.unwrap_or_else(|refusal: Refusal| {
            let principal = trail.principal.as_ref();
            let request_id = request_id.to_str().unwrap_or_default();
            respond::refuse(refusal, &Asked { page, request_id, principal, close })
        });
        let headers = response.headers_mut();
        headers.insert(REQUEST_ID, request_id.clone());
        // Funnel's requests share a connection with everybody's (rulings 1.6).
        let funnel = trail.facts.as_ref().is_some_and(|facts| facts.via == Via::Funnel);
        if funnel || self.shared.is_draining() {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        let line = self.line(conn, trail, request_id, method, raw_path, reason, started, bytes_in);
        let status = response.status();
        response.map(|body| Body::Local(Box::pin(LoggedBody::new(body, status, Box::new(line)))))
    }

    /// The order of rulings 2.
    async fn decide(
        &self,
        view: &View,
        conn: &Conn,
        request: &Request<Incoming>,
        trail: &mut Trail,
    ) -> Result<Allowed, Refusal> {
        // Framing and limits.
        if let Some(fault) = framing_fault(request, &self.limits) {
            return Err(Reason::from(fault).into());
        }
        if matches!(*request.method(), Method::CONNECT | Method::TRACE) {
            return Err(Reason::MethodNotAllowed.into());
        }

        // Facts, and with them ambiguous headers.
        let classified = self.facts(view, conn, request)?;
        self.note(conn, &classified);
        let facts = Rc::clone(trail.facts.insert(Rc::new(classified.facts)));

        // Probes: a path and a method, never a header.
        if let Some(probe) = health::probe(request.uri().path()) {
            if !health::allows(request.method()) {
                return Err(Reason::MethodNotAllowed.into());
            }
            trail.allowed = true;
            return Ok(Allowed::Probe(probe, facts.local_direct));
        }

        // One path for policy and upstream.
        let CanonicalPath { path, policy } = path::canonical(request.uri().path())?;

        // Route.
        let target = view.settings.router.find(&facts.host, &policy);
        let (route, least) = match target {
            Target::Route(route) => (Some(route), Role::User),
            Target::Own => (None, api::least_role(&policy).ok_or(Reason::NoRoute)?),
            Target::None => return Err(Reason::NoRoute.into()),
        };
        trail.route = route.cloned();
        if facts.via == Via::Funnel && route.is_none_or(|route| route.public == Public::No) {
            // Before any secret is looked at: Funnel must not be a place to guess.
            return Err(Reason::NotPublic.into());
        }

        // Secret, session, identity.
        let authentication = self.authenticate(view, &facts, request, route).await?;
        let Authentication { principal, scheme, strip_authorization } = authentication;
        trail.principal = Some(principal.clone());
        trail.scheme = Some(scheme.as_str());
        conn.control.proven();

        // Host and browser guard.
        self.guard(view, conn, &facts, request, &principal, route)?;

        // Authorization.
        let running = view.state.running();
        let tailnet = running.map_or("", |running| running.tailnet.as_str());
        let pinned = match &principal {
            Principal::User(user) => self.shared.pins.of(tailnet, user.login.as_str()),
            _ => None,
        };
        let question = Question {
            principal: principal.clone(),
            via: facts.via,
            access: &view.settings.config.gateway.access,
            owner: running.and_then(|running| running.owner.as_ref()),
            pinned,
            now: unix_now(),
        };
        let via = facts.via;
        let allowed = match route {
            Some(route) => {
                let permit = authz::decide(route, question)?;
                Allowed::App { permit, facts, path: path.into_owned(), strip_authorization }
            }
            None => Allowed::Own { permit: authz::decide_own(least, question)?, via },
        };
        if let (Principal::User(user), None) = (&principal, pinned) {
            self.shared.pins.pin(tailnet, user.login.as_str(), user.user_id);
        }
        trail.allowed = true;
        Ok(allowed)
    }

    fn facts(&self, view: &View, conn: &Conn, request: &Request<Incoming>) -> Result<Classified, Reason> {
        let host = authority_of(request, conn.facts.tls.is_some())?;
        if let (Some(tls), Endpoint::Tcp { .. }) = (&conn.facts.tls, conn.facts.endpoint)
            && let Some(name) = &tls.server_name
            && name.trim_end_matches('.') != host.split(':').next().unwrap_or_default()
        {
            // One certificate, two names: domain fronting (threat rule 42).
            return Err(Reason::HostNotAllowed);
        }
        let gateway = &view.settings.config.gateway;
        let policy = Policy {
            trusted_proxies: &gateway.trusted_proxies,
            allow_real_ip_fallback: gateway.allow_real_ip_fallback,
            user_header: view.settings.user_header(),
            our_uid: self.shared.our_uid,
            trust_local_users: gateway.tailscale.trust_local_users,
        };
        classify(&conn.facts, request.headers(), host, &view.state, &policy, &|| conn.socket_uid())
    }

    /// Says once per connection what was dropped, and why.
    fn note(&self, conn: &Conn, classified: &Classified) {
        if conn.warned.get() {
            return;
        }
        if let Some(condition) = classified.unattested {
            conn.warned.set(true);
            tracing::warn!(
                conn = conn.facts.id,
                condition = condition.as_str(),
                event = "serve_peer_unattested",
                "Serve headers from a connection that is not known to be Serve's were dropped"
            );
        } else if classified.unexpected_identity_header {
            conn.warned.set(true);
            tracing::warn!(
                conn = conn.facts.id,
                via = classified.facts.via.as_str(),
                event = "identity_header_unexpected",
                "an identity header was dropped"
            );
        }
    }

    async fn authenticate(
        &self,
        view: &View,
        facts: &IngressFacts,
        request: &Request<Incoming>,
        route: Option<&Arc<Route>>,
    ) -> Result<Authentication, Refusal> {
        let own_addresses = self.shared.own_addresses.load();
        let gateway = &view.settings.config.gateway;
        let context = Context {
            auth: &gateway.auth,
            secrets: &view.settings.secrets,
            state: &view.state,
            limiter: &self.shared.limiter,
            subject: view.settings.subject(facts, &view.state),
            own_addresses: &own_addresses,
            own_route: route.is_none(),
            open_route: route.is_some_and(|route| route.public == Public::Open),
        };
        authn::authenticate(facts, request.headers(), &context, &self.identities).await
    }

    fn guard(
        &self,
        view: &View,
        conn: &Conn,
        facts: &IngressFacts,
        request: &Request<Incoming>,
        principal: &Principal,
        route: Option<&Arc<Route>>,
    ) -> Result<(), Reason> {
        let gateway = &view.settings.config.gateway;
        let hosts = Hosts {
            configured: &gateway.allowed_hosts,
            running: view.state.running().map(|running| &**running),
            local: conn.local_ip(),
        };
        let upgrade = request.headers().contains_key(header::UPGRADE);
        let options = route.map(|route| route.guard).unwrap_or_default();
        guard::check(principal, facts, request.method(), request.headers(), upgrade, &hosts, options)?;
        if gateway.require_https && !facts.https && principal.is_ambient() && facts.via != Via::Local {
            return Err(Reason::HttpsRequired);
        }
        Ok(())
    }

    /// Remembers on what this request is let through, in case it stays open.
    fn remember(
        &self,
        conn: &Rc<Conn>,
        view: &View,
        facts: &IngressFacts,
        permit: &authz::Permit,
        upgrade: bool,
    ) {
        let asked = match facts.evidence {
            Evidence::Direct { peer, .. } => Some(peer),
            Evidence::Serve { source, .. } => Some(source),
            _ => None,
        };
        *conn.grant.borrow_mut() = Some(Grant {
            principal: permit.principal().clone(),
            via: facts.via,
            asked,
            route: permit.route().clone(),
            upgrade,
            settings: view.settings.clone(),
        });
        if !conn.watched.replace(true) {
            self.live.watch(conn);
        }
    }

    async fn own(&self, permit: authz::ApiPermit, via: Via, request: Request<Incoming>) -> Response<Body> {
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

impl Handler for Edge {
    type Conn = Conn;

    fn admit(&self, endpoint: &Endpoint, listener: ListenerKind) -> Admit {
        let state = self.shared.state.load();
        match *endpoint {
            Endpoint::Tcp { peer, local } => {
                if is_off_tailnet(peer, local, &state, &self.shared.own_addresses.load()) {
                    return Admit::Drop("off_tailnet_peer");
                }
                Admit::Keep
            }
            Endpoint::Unix(peer) => {
                debug_assert_eq!(listener, ListenerKind::ServeUnix);
                let daemon = state.serve_facts().and_then(|facts| facts.daemon);
                match daemon.map(|daemon| attest::unix_peer(&daemon, peer, self.shared.our_uid)) {
                    Some(Ok(())) => Admit::Keep,
                    Some(Err(condition)) => Admit::Drop(condition.as_str()),
                    None => Admit::Drop("daemon_unknown"),
                }
            }
        }
    }

    fn open(&self, facts: ConnFacts, control: ConnControl) -> Conn {
        Conn::new(facts, control)
    }

    fn call(
        self: Rc<Self>,
        conn: Rc<Conn>,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<Body>> + 'static {
        async move { self.answer(&conn, request).await }
    }
}

impl From<FramingFault> for Reason {
    fn from(fault: FramingFault) -> Self {
        match fault {
            FramingFault::BadRequest => Self::BadRequest,
            FramingFault::UriTooLong => Self::UriTooLong,
            FramingFault::HeadersTooLarge => Self::HeadersTooLarge,
        }
    }
}

/// A number for a request: unique in this process, not guessable from outside,
/// and cheap.
fn next_request_id() -> HeaderValue {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    static PREFIX: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
    let prefix = PREFIX.get_or_init(|| getrandom::u32().unwrap_or_else(|_| std::process::id()));
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let id = format!("{prefix:08x}-{number:06x}");
    HeaderValue::try_from(id).unwrap_or_else(|_| HeaderValue::from_static("-"))
}

/// Now, in Unix seconds.
pub(super) fn unix_now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
