//! The order of the decision (rulings 2), on one page.
//!
//! Each step hands the next what it found; the first that refuses ends the
//! request. Reading [`Edge::decide`] from top to bottom is reading the policy.

use std::rc::Rc;
use std::sync::Arc;

use http::header::{self, HeaderName};
use http::{Method, Request};

use super::conn::{Conn, Named, OfConn};
use super::grant::unix_now;
use super::guard::{self, Hosts};
use super::path::{self, CanonicalPath};
use super::pipeline::Edge;

use super::respond;
use super::router::Target;
use super::shared::Settings;
use crate::api::{self, health};
use crate::authn::{self, Authentication, Context, Refusal};
use crate::authz::{self, Question};
use crate::body::Upload;
use crate::domain::addr::is_loopback;
use crate::domain::{ClientAddr, Exposure, HttpsSite, Principal, Public, Reason, Role, Route, TailnetState};
use crate::ingress::attest::{AtAccept, Condition};
use crate::ingress::classify::{Classified, Policy, classify};
use crate::ingress::{Endpoint, FramingFault, IngressFacts, Via, authority_of, framing_fault};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const TAILSCALE_USER_LOGIN: HeaderName = HeaderName::from_static("tailscale-user-login");

/// The one snapshot a request sees.
pub(super) struct View {
    pub(super) settings: Arc<Settings>,
    pub(super) state: Arc<TailnetState>,
}

/// A request that was let through, and where to.
pub(super) enum Allowed {
    App {
        permit: authz::Permit,
        facts: Rc<IngressFacts>,
        path: String,
        /// The path that is open to the internet; for a Funnel request.
        opened_at: Option<Arc<str>>,
        strip_authorization: bool,
    },
    Own {
        permit: authz::ApiPermit,
        via: Via,
        path: String,
    },
    /// A probe, and whether its details may be shown.
    Probe(health::Probe, bool),
    /// The metrics.
    Metrics,
    /// A browser at the plain port, and where the same page is over HTTPS.
    Elsewhere(String),
}

/// Leave for one or the other.
enum Decision {
    App(authz::Permit),
    Own(authz::ApiPermit),
}

impl Decision {
    fn principal(&self) -> &Principal {
        match self {
            Self::App(permit) => permit.principal(),
            Self::Own(permit) => permit.principal(),
        }
    }

    fn is_public(&self) -> bool {
        matches!(self, Self::App(permit) if matches!(permit.principal(), Principal::Public))
    }
}

/// What is known of a request so far; what the log line and the answer need.
#[derive(Default)]
pub(super) struct Trail {
    pub(super) facts: Option<Rc<IngressFacts>>,
    pub(super) principal: Option<Principal>,
    pub(super) scheme: Option<&'static str>,
    pub(super) route: Option<Arc<Route>>,
    pub(super) allowed: bool,
}

impl Edge {
    /// The order of rulings 2.
    pub(super) async fn decide(
        &self,
        view: &View,
        conn: &Conn,
        request: &Request<Upload>,
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
        let fresh = self.with_fresh_serve(conn, request, view).await?;
        let view = fresh.as_ref().unwrap_or(view);
        let classified = self.facts(view, conn, request)?;
        self.note(conn, &classified);
        let mut facts = Rc::clone(trail.facts.insert(Rc::new(classified.facts)));

        // Probes: a path and a method, never a header.
        if let Some(probe) = health::probe(request.uri().path()) {
            if !health::allows(request.method()) {
                return Err(Reason::MethodNotAllowed.into());
            }
            trail.allowed = true;
            // A page that rebound its name to us is local, too; its Host is not.
            let detail = self.is_this_machine(view, conn, &facts);
            return Ok(Allowed::Probe(probe, detail));
        }

        // The metrics, for this machine itself, like the probes' details.
        if request.uri().path() == api::METRICS
            && health::allows(request.method())
            && self.is_this_machine(view, conn, &facts)
        {
            trail.allowed = true;
            return Ok(Allowed::Metrics);
        }

        // HTTPS, where the tailnet has it.
        if let Some(site) = self.https_site(view, conn) {
            let page =
                !respond::asks_to_switch(request) && respond::wants_page(request.method(), request.headers());
            return if page {
                path::canonical(request.uri().path())?;
                Ok(Allowed::Elsewhere(site.location(request.uri().path(), request.uri().query())))
            } else {
                Err(Reason::HttpsRequired.into())
            };
        }

        // One path for policy and upstream.
        let CanonicalPath { path, policy } = path::canonical(request.uri().path())?;

        // Route.
        let target = view.settings.router.find(&facts.host, &policy);
        if let Target::Route(route) = target {
            trail.route = Some(route.clone());
        }
        if facts.via == Via::Funnel
            && !matches!(target, Target::Route(route) if self.shared.is_open(route, &policy))
        {
            // Before any secret is looked at: Funnel must not be a place to guess.
            return Err(Reason::NotPublic.into());
        }
        let (route, least) = match target {
            Target::Route(route) => (Some(route), Role::User),
            Target::Own => (None, api::least_role(&policy).ok_or(Reason::NoRoute)?),
            Target::None => return Err(Reason::NoRoute.into()),
        };

        // Secret, session, identity.
        let authentication = self.authenticate(view, conn, &facts, request, route).await?;
        let Authentication { principal, scheme, strip_authorization, foreign_bearer } = authentication;
        // Over userspace networking the address comes with the identity.
        if let (None, Some(addr)) = (facts.client, principal.addr()) {
            let mut attributed = IngressFacts::clone(&facts);
            attributed.client = Some(ClientAddr::new(addr));
            facts = Rc::clone(trail.facts.insert(Rc::new(attributed)));
        }
        trail.principal = Some(principal.clone());
        trail.scheme = Some(scheme.as_str());

        // Host and browser guard, then authorization. A bearer that is not ours was
        // the app's own only if the request is permitted without it; else it was a
        // guess, and is answered as one (rulings 2).
        let permitted = self
            .guard(view, conn, &facts, request, &principal, route)
            .and_then(|()| self.authorize(view, &facts, principal, route, least));
        let decision = match (permitted, foreign_bearer) {
            // As the public they are permitted without any identity: then nothing
            // says that the bearer is the app's, and it counts.
            (Ok(decision), Some(bearer)) if !decision.is_public() => {
                bearer.forgive();
                decision
            }
            (Ok(decision), _) => decision,
            (Err(_), Some(bearer)) => return Err(bearer.refuse()),
            (Err(reason), None) => return Err(reason.into()),
        };
        if !decision.is_public() {
            // From one bound to another: what no longer counts as unproven counts as theirs.
            self.live.charge(conn, decision.principal(), facts.client.map(|client| client.ip()))?;
            conn.control.proven();
        }
        trail.allowed = true;
        let via = facts.via;
        Ok(match decision {
            Decision::App(permit) => {
                trail.principal = Some(permit.principal().clone());
                let opened_at = (via == Via::Funnel).then(|| policy.as_ref().into());
                Allowed::App { permit, facts, path: path.into_owned(), opened_at, strip_authorization }
            }
            Decision::Own(_) if policy == api::METRICS => {
                if !health::allows(request.method()) {
                    return Err(Reason::MethodNotAllowed.into());
                }
                Allowed::Metrics
            }
            Decision::Own(permit) => Allowed::Own { permit, via, path: policy.into_owned() },
        })
    }

    /// Whether a process of this machine asks, for itself. A raw TCP forward, of
    /// Serve's or Funnel's, looks like one to all but the kernel, which says that the
    /// socket is tailscaled's. Where that cannot be told, nothing may forward here.
    fn is_this_machine(&self, view: &View, conn: &Conn, facts: &IngressFacts) -> bool {
        let by_another = || {
            let known = view.state.serve_facts().and_then(|facts| facts.daemon);
            let daemon = known.or_else(|| self.shared.daemon.now());
            daemon.is_some_and(|daemon| conn.socket_uid().is_some_and(|uid| uid != daemon.uid))
        };
        facts.local_direct
            && guard::host_is_ours(facts, &self.hosts(view, conn, None))
            && (view.state.loopback_exposure() == Exposure::No || by_another())
    }

    /// Where whoever came over plain HTTP to a tailnet address is to go instead
    /// (rulings 6). Loopback stays plain.
    fn https_site(&self, view: &View, conn: &Conn) -> Option<Arc<HttpsSite>> {
        if conn.facts.tls.is_some() {
            return None;
        }
        let site = self.shared.https.load();
        let site = site.as_ref()?;
        let Endpoint::Tcp { local, .. } = conn.facts.endpoint else { return None };
        view.state.is_own(local.ip()).then(|| Arc::clone(site))
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

    fn facts(&self, view: &View, conn: &Conn, request: &Request<Upload>) -> Result<Classified, Reason> {
        let host = host(conn, request)?;
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
            at_accept: conn.at_accept.get(),
        };
        classify(&conn.facts, request.headers(), host, &view.state, &policy, &|| conn.socket_uid())
    }

    /// Says once per connection what was dropped, and why.
    fn note(&self, conn: &Conn, classified: &Classified) {
        if classified.unattested == Some(Condition::OlderThanFacts) {
            // Serve keeps its connections; the next one is judged anew.
            conn.control.finish();
        }
        let now = (classified.unattested, classified.unexpected_identity_header);
        if conn.noted.replace(now) == now {
            return;
        }
        if let Some(condition) = classified.unattested {
            tracing::warn!(
                conn = conn.facts.id,
                condition = condition.as_str(),
                event = "serve_peer_unattested",
                "Serve headers from a connection that is not known to be Serve's were dropped"
            );
        } else if classified.unexpected_identity_header {
            tracing::warn!(
                conn = conn.facts.id,
                via = classified.facts.via.as_str(),
                event = "identity_header_unexpected",
                "an identity header was dropped"
            );
        }
    }

    /// A connection of tailscaled's that is new is judged by what Serve is set up
    /// to do now, not by what it was seconds ago: a raw forward may have been added
    /// since. Only tailscaled's own connections have it read again, a few times a
    /// second at most however many they are.
    async fn with_fresh_serve(
        &self,
        conn: &Conn,
        request: &Request<Upload>,
        view: &View,
    ) -> Result<Option<View>, Refusal> {
        if conn.serve_is_fresh.get() || view.state.running().is_none() {
            return Ok(None);
        }
        let claims_serve = match conn.facts.endpoint {
            Endpoint::Unix(_) => true,
            Endpoint::Tcp { peer, .. } if is_loopback(peer.ip()) => {
                let headers = request.headers();
                let claims =
                    headers.contains_key(X_FORWARDED_FOR) || headers.contains_key(TAILSCALE_USER_LOGIN);
                let daemon = view.state.serve_facts().and_then(|facts| facts.daemon);
                claims && daemon.is_some_and(|daemon| conn.socket_uid() == Some(daemon.uid))
            }
            Endpoint::Tcp { .. } => false,
        };
        if !claims_serve {
            return Ok(None);
        }
        if conn.requests.get() > 1 {
            // It did not come from Serve at first, so it does not now.
            conn.at_accept.set(AtAccept::NONE);
            return Ok(None);
        }
        if !self.shared.fresh.since(conn.facts.accepted).await {
            return Err(Reason::ServeStateUnknown.into());
        }
        conn.serve_is_fresh.set(true);
        let state = self.shared.state.load_full();
        conn.at_accept.set(conn.at_accept.get().and(AtAccept::of(&state, conn.facts.accepted)));
        Ok(Some(View { settings: view.settings.clone(), state }))
    }

    async fn authenticate(
        &self,
        view: &View,
        conn: &Conn,
        facts: &IngressFacts,
        request: &Request<Upload>,
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
        let identities = OfConn { identities: &self.identities, conn, epoch: view.state.epoch };
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
        request: &Request<Upload>,
        principal: &Principal,
        route: Option<&Arc<Route>>,
    ) -> Result<(), Reason> {
        let gateway = &view.settings.config.gateway;
        let hosts = self.hosts(view, conn, route);
        let upgrade = respond::asks_to_switch(request);
        let options = route.map(|route| route.guard).unwrap_or_default();
        guard::check(principal, facts, request.method(), request.headers(), upgrade, &hosts, options)?;
        if gateway.require_https && !facts.https && principal.is_ambient() && facts.via != Via::Local {
            return Err(Reason::HttpsRequired);
        }
        Ok(())
    }
}

/// The canonical authority of a request.
fn host(conn: &Conn, request: &Request<Upload>) -> Result<Arc<str>, Reason> {
    let https = conn.facts.tls.is_some();
    let mut lines = request.headers().get_all(header::HOST).iter();
    let (Some(only), None, None) = (lines.next(), lines.next(), request.uri().authority()) else {
        return Ok(authority_of(request, https)?.into());
    };
    let mut known = conn.host.borrow_mut();
    if let Some(known) = &*known
        && *known.sent == *only.as_bytes()
    {
        return Ok(Arc::clone(&known.host));
    }
    let host: Arc<str> = authority_of(request, https)?.into();
    *known = Some(Named { sent: only.as_bytes().into(), host: Arc::clone(&host) });
    Ok(host)
}

impl From<FramingFault> for Reason {
    fn from(fault: FramingFault) -> Self {
        match fault {
            FramingFault::BadRequest => Self::BadRequest,
            FramingFault::UriTooLong => Self::UriTooLong,
            FramingFault::HeadersTooLarge => Self::HeadersTooLarge,
            FramingFault::MethodNotAllowed => Self::MethodNotAllowed,
        }
    }
}
