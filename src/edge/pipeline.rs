//! The order of a request (rulings 2), on one page.
//!
//! Each step hands the next what it found; the first that refuses ends the
//! request. Reading [`Edge::decide`] from top to bottom is reading the policy.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::header::{self, HeaderName};
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tower::ServiceExt;

use super::guard::{self, Hosts};
use super::live::{Grant, IDENTITY_AGE, Live};
use super::path::{self, CanonicalPath};
use super::request_log::{Line, LoggedBody};
use super::respond::{self, Asked};
use super::router::Target;
use super::shared::{Settings, Shared};
use crate::api::{self, Caller, health};
use crate::authn::{self, Authentication, Context, Identities, Refusal, Verdict, WorkerCache};
use crate::authz::{self, Question};
use crate::body::Body;
use crate::domain::{Principal, Public, Reason, Role, Route, TailnetState};
use crate::ingress::attest;
use crate::ingress::classify::{Classified, Policy, classify, is_off_tailnet};
use crate::ingress::{
    Admit, ConnControl, ConnFacts, Endpoint, Evidence, FramingFault, Handler, IngressFacts, Limits,
    ListenerKind, SocketOwner, Via, authority_of, framing_fault, peer_uid,
};
use crate::proxy::{self, CloseReason, CloseSignal, Closer, Credentials, Forward, UpstreamPools};

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
    /// The Serve facts' generation under which it was accepted.
    accepted_in: u64,
    /// Which peer of a userspace-networking daemon is behind it, and since when
    /// that is known.
    userspace: RefCell<Option<(Instant, Verdict)>>,
    /// Ends what is open on this connection when the right to it is taken away.
    closer: RefCell<Closer>,
    /// On what the latest of it was opened. A connection of Serve's carries many
    /// people's requests, but one at a time.
    grant: RefCell<Option<Grant>>,
    watched: Cell<bool>,
    /// The socket at the other end of a loopback connection, asked for once: its
    /// owner does not change while it lives.
    socket_owner: RefCell<Option<Option<SocketOwner>>>,
    warned: Cell<bool>,
}

impl Conn {
    /// A new connection.
    fn new(facts: ConnFacts, control: ConnControl, accepted_in: u64) -> Self {
        Self {
            facts,
            control,
            accepted_in,
            userspace: RefCell::new(None),
            closer: RefCell::default(),
            grant: RefCell::new(None),
            watched: Cell::new(false),
            socket_owner: RefCell::new(None),
            warned: Cell::new(false),
        }
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
        if let Some(known) = &*self.socket_owner.borrow() {
            return known.as_ref().map(|owner| owner.uid);
        }
        let owner = self.ask_owner();
        let uid = owner.as_ref().map(|owner| owner.uid);
        // A socket that is gone by now says nothing; it is not asked again.
        *self.socket_owner.borrow_mut() = Some(owner);
        uid
    }

    fn ask_owner(&self) -> Option<SocketOwner> {
        match self.facts.endpoint {
            Endpoint::Tcp { peer, local } => peer_uid(peer.socket(), local.socket()).ok(),
            Endpoint::Unix(_) => None,
        }
    }

    /// Whether the socket at the other end is still the one that was asked about.
    fn has_same_peer_socket(&self) -> bool {
        let now = self.ask_owner();
        match (&now, &*self.socket_owner.borrow()) {
            (Some(now), Some(Some(before))) => now.uid == before.uid && now.inode == before.inode,
            _ => false,
        }
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
        path: String,
    },
    /// A probe, and whether its details may be shown.
    Probe(health::Probe, bool),
}

/// Leave for one or the other.
enum Decision {
    App(authz::Permit),
    Own(authz::ApiPermit),
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
            Ok(Allowed::Own { permit, via, path }) => (Ok(self.own(permit, via, &path, request).await), None),
            Ok(Allowed::App { permit, facts, path, strip_authorization }) => {
                request.headers_mut().remove(REQUEST_ID);
                let http2 = request.version() == Version::HTTP_2;
                let signal = self.remember(conn, &view, &facts, &permit, upgrade, http2);
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
        let status = response.status();
        let headers = response.headers_mut();
        headers.insert(REQUEST_ID, request_id.clone());
        // Funnel's requests share a connection with everybody's (rulings 1.6).
        let funnel = trail.facts.as_ref().is_some_and(|facts| facts.via == Via::Funnel);
        // A tunnel's answer says `upgrade` there, and ends the connection anyway.
        if (funnel || self.shared.is_draining()) && status != StatusCode::SWITCHING_PROTOCOLS {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        let line = self.line(conn, trail, request_id, method, raw_path, reason, started, bytes_in);
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
            // A page that rebound its name to us is local, too; its Host is not.
            let detail = facts.local_direct && guard::host_is_ours(&facts, &self.hosts(view, conn, None));
            return Ok(Allowed::Probe(probe, detail));
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
        let authentication = self.authenticate(view, conn, &facts, request, route).await?;
        let Authentication { principal, scheme, strip_authorization, foreign_bearer } = authentication;
        trail.principal = Some(principal.clone());
        trail.scheme = Some(scheme.as_str());

        // Host and browser guard, then authorization. A bearer that is not ours was
        // the app's own only if the request is permitted without it; else it was a
        // guess, and is answered as one (rulings 2).
        let permitted = self
            .guard(view, conn, &facts, request, &principal, route)
            .and_then(|()| self.authorize(view, &facts, principal, route, least));
        let decision = match (permitted, foreign_bearer) {
            (Ok(decision), bearer) => {
                if let Some(bearer) = bearer {
                    bearer.forgive();
                }
                decision
            }
            (Err(_), Some(bearer)) => return Err(bearer.refuse()),
            (Err(reason), None) => return Err(reason.into()),
        };
        conn.control.proven();
        trail.allowed = true;
        let via = facts.via;
        Ok(match decision {
            Decision::App(permit) => {
                trail.principal = Some(permit.principal().clone());
                Allowed::App { permit, facts, path: path.into_owned(), strip_authorization }
            }
            Decision::Own(permit) => Allowed::Own { permit, via, path: policy.into_owned() },
        })
    }

    fn authorize(
        &self,
        view: &View,
        facts: &IngressFacts,
        principal: Principal,
        route: Option<&Arc<Route>>,
        least: Role,
    ) -> Result<Decision, Reason> {
        let running = view.state.running();
        let tailnet = running.map_or("", |running| running.tailnet.as_str());
        let user = match &principal {
            Principal::User(user) => Some(user.clone()),
            _ => None,
        };
        let pinned = user.as_ref().and_then(|user| self.shared.pins.of(tailnet, user.login.as_str()));
        let question = Question {
            principal,
            via: facts.via,
            access: &view.settings.config.gateway.access,
            owner: running.and_then(|running| running.owner.as_ref()),
            pinned,
            now: unix_now(),
        };
        let decision = match route {
            Some(route) => Decision::App(authz::decide(route, question)?),
            None => Decision::Own(authz::decide_own(least, question)?),
        };
        if let (Some(user), None) = (user, pinned) {
            self.shared.pins.pin(tailnet, user.login.as_str(), user.user_id);
        }
        Ok(decision)
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
            accepted_in: conn.accepted_in,
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
        conn: &Conn,
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
            own_addresses: own_addresses.as_ref().map(|own| own.as_slice()),
            own_route: route.is_none(),
            open_route: route.is_some_and(|route| route.public == Public::Open),
        };
        let identities = OfConn { identities: &self.identities, conn };
        authn::authenticate(facts, request.headers(), &context, &identities).await
    }

    fn hosts<'a>(&self, view: &'a View, conn: &Conn, route: Option<&'a Arc<Route>>) -> Hosts<'a> {
        Hosts {
            configured: &view.settings.config.gateway.allowed_hosts,
            route: route.and_then(|route| route.host.as_deref()),
            running: view.state.running().map(|running| &**running),
            local: conn.local_ip(),
        }
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
        let hosts = self.hosts(view, conn, route);
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
        http2: bool,
    ) -> CloseSignal {
        let asked = match facts.evidence {
            Evidence::Direct { peer, .. } => Some(peer),
            Evidence::Serve { source, .. } => Some(source),
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
            upgrade,
            settings: view.settings.clone(),
        };
        if upgrade || http2 {
            return self.live.enter(grant);
        }
        *conn.grant.borrow_mut() = Some(grant);
        if !conn.watched.replace(true) {
            self.live.watch(conn);
        }
        conn.closer.borrow().signal()
    }

    async fn own(
        &self,
        permit: authz::ApiPermit,
        via: Via,
        path: &str,
        mut request: Request<Incoming>,
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

/// Identities as one connection sees them. Who is behind a socket of userspace
/// networking is learned once per connection and a few seconds, since a miss costs
/// the daemon 180 ms; never by address, which the next connection may have.
struct OfConn<'a> {
    identities: &'a WorkerCache,
    conn: &'a Conn,
}

impl Identities for OfConn<'_> {
    async fn of_peer(&self, ip: IpAddr) -> Verdict {
        self.identities.of_peer(ip).await
    }

    async fn of_socket(&self, socket: SocketAddr) -> Verdict {
        if let Some((at, verdict)) = &*self.conn.userspace.borrow()
            && at.elapsed() < IDENTITY_AGE
        {
            return verdict.clone();
        }
        let verdict = self.identities.of_socket(socket).await;
        // While we asked, the socket may have gone and its port been given to
        // somebody else's.
        if verdict.is_ok() && !self.conn.has_same_peer_socket() {
            return Err(Reason::PeerUnknown);
        }
        if matches!(verdict, Ok(_) | Err(Reason::PeerUnknown)) {
            *self.conn.userspace.borrow_mut() = Some((Instant::now(), verdict.clone()));
        }
        verdict
    }
}

impl Handler for Edge {
    type Conn = Conn;

    fn admit(&self, endpoint: &Endpoint, listener: ListenerKind) -> Admit {
        let state = self.shared.state.load();
        match *endpoint {
            Endpoint::Tcp { peer, local } => {
                let own = self.shared.own_addresses.load();
                if is_off_tailnet(peer, local, &state, own.as_ref().map_or(&[], |own| own.as_slice())) {
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
        Conn::new(facts, control, self.shared.state.load().serve_generation)
    }

    async fn call(self: Rc<Self>, conn: Rc<Conn>, request: Request<Incoming>) -> Response<Body> {
        self.answer(&conn, request).await
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
