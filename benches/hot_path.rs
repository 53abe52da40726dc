//! What every warm request goes through, piece by piece: `cargo bench`.
//!
//! For looking into one piece; whether a request became dearer is told by
//! `scripts/instructions`, which noise cannot change.

#![allow(missing_docs, reason = "criterion's macros write functions without them")]

use std::cell::RefCell;
use std::hint::black_box;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use arc_swap::ArcSwap;
use criterion::{Criterion, criterion_group, criterion_main};
use http::request::Parts;
use http::{HeaderValue, Request};
use openclaw::authn::cache::IdentityCache;
use openclaw::authn::{Identities as _, WorkerCache};
use openclaw::authz::{self, Permit, Question};
use openclaw::domain::route::{Route, RoutePrefix, Upstream, UpstreamAddr, UpstreamKind};
use openclaw::domain::tailnet::{NodeAttributes, Owner};
use openclaw::domain::{
    Access, HostMode, LocalAddr, PeerAddr, Phase, Principal, Public, Role, Running, TailnetState,
};
use openclaw::edge::guard::{self, Hosts};
use openclaw::edge::path;
use openclaw::edge::router::{Router, Target};
use openclaw::ingress::attest::AtAccept;
use openclaw::ingress::classify::{Policy, classify};
use openclaw::ingress::{ConnFacts, Endpoint, IngressFacts, ListenerKind, authority_of};
use openclaw::proxy::{self, CloseSignal, Credentials, Forward, UpstreamPools};
use openclaw_tailscale::{WhoisFuture, WhoisSource, parse_whois};

const PHONE: &str = "100.64.0.2";
const GATEWAY: &str = "100.64.0.1";

/// Everybody is Alice.
struct Alice;

impl WhoisSource for Alice {
    fn whois(&self, ip: IpAddr) -> WhoisFuture<'_> {
        let answer = serde_json::json!({
            "Node": {"ID": 2, "StableID": "nPhone", "Name": "phone.tailnet-example.ts.net.", "User": 1,
                     "Addresses": [format!("{ip}/32")], "AllowedIPs": [format!("{ip}/32")]},
            "UserProfile": {"ID": 1, "LoginName": "alice@example.com", "DisplayName": "Alice"},
            "CapMap": null
        });
        Box::pin(async move { parse_whois(answer.to_string().as_bytes()) })
    }

    fn whois_tcp(&self, addr: SocketAddr) -> WhoisFuture<'_> {
        self.whois(addr.ip())
    }

    fn whois_at(&self, ip: IpAddr, _to: IpAddr) -> WhoisFuture<'_> {
        self.whois(ip)
    }
}

fn tailnet() -> TailnetState {
    let running = Running {
        ips: vec![GATEWAY.parse().unwrap()],
        self_id: "nGw".parse().ok(),
        owner: Some(Owner { login: "alice@example.com".parse().unwrap(), user_id: 1 }),
        dns_name: "gw.tailnet-example.ts.net".parse().ok(),
        suffix: Some("tailnet-example.ts.net".into()),
        tailnet: "example.com".into(),
        version: "1.102.3".parse().unwrap(),
        tun: Some(true),
        cert_domains: Vec::new(),
        attributes: NodeAttributes::default(),
    };
    TailnetState {
        last_ips: running.ips.clone(),
        phase: Phase::Running(Arc::new(running)),
        epoch: 1,
        tun: Some(true),
        ..TailnetState::unknown()
    }
}

fn route() -> Arc<Route> {
    let addr = UpstreamAddr::Tcp { tls: false, host: "127.0.0.1".into(), port: 3000 };
    let upstream = Upstream {
        addr,
        base_path: String::new(),
        kind: UpstreamKind::Plain,
        host: HostMode::Preserve,
        identity_headers: Default::default(),
        owner_uid: None,
        ca_file: None,
        insecure_skip_verify: false,
    };
    Arc::new(Route {
        name: "app".parse().unwrap(),
        host: None,
        path: RoutePrefix::root(),
        strip: false,
        upstream: Arc::new(upstream),
        allow: None,
        role: Role::User,
        public: Public::No,
        guard: Default::default(),
        timeouts: Default::default(),
    })
}

/// What a browser sends.
fn request() -> Parts {
    Request::get("/api/items?page=2")
        .header("host", "gw.tailnet-example.ts.net:18789")
        .header("connection", "keep-alive")
        .header("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0")
        .header("accept", "application/json")
        .header("accept-language", "en-US,en;q=0.5")
        .header("accept-encoding", "gzip, deflate")
        .header("referer", "http://gw.tailnet-example.ts.net:18789/")
        .header("cookie", "theme=dark; sid=0123456789abcdef")
        .header("sec-fetch-site", "same-origin")
        .body(())
        .unwrap()
        .into_parts()
        .0
}

fn connection() -> ConnFacts {
    let peer: SocketAddr = format!("{PHONE}:50000").parse().unwrap();
    let local: SocketAddr = format!("{GATEWAY}:18789").parse().unwrap();
    ConnFacts {
        id: 1,
        listener: ListenerKind::Ordinary,
        endpoint: Endpoint::Tcp { peer: PeerAddr::new(peer), local: LocalAddr::new(local) },
        tls: None,
        accepted: std::time::Instant::now(),
        at_accept: AtAccept::now(None),
    }
}

fn facts(conn: &ConnFacts, parts: &Parts, state: &TailnetState) -> IngressFacts {
    let policy = Policy {
        trusted_proxies: &[],
        allow_real_ip_fallback: false,
        user_header: None,
        our_uid: 1000,
        trust_local_users: false,
        at_accept: conn.at_accept,
    };
    let request = Request::from_parts(parts.clone(), ());
    let host = authority_of(&request, false).unwrap();
    classify(conn, &parts.headers, host.into(), state, &policy, &|| None).unwrap().facts
}

/// Everything `Edge::decide` does for a device of the tailnet, after who it is.
fn permit(
    principal: Principal,
    facts: &IngressFacts,
    parts: &Parts,
    state: &TailnetState,
    router: &Router,
) -> Permit {
    let canonical = path::canonical(parts.uri.path()).unwrap();
    let Target::Route(route) = router.find(&facts.host, &canonical.policy) else { panic!("no route") };
    let running = state.running().unwrap();
    let hosts = Hosts { configured: &[], route: None, running: Some(running), local: GATEWAY.parse().ok() };
    guard::check(&principal, facts, &parts.method, &parts.headers, false, &hosts, route.guard).unwrap();
    let question = Question {
        principal,
        via: facts.via,
        access: &Access::default(),
        owner: running.owner.as_ref(),
        pinned: Some(1),
        now: 0,
    };
    authz::decide(route, question).unwrap()
}

fn benches(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let state = tailnet();
    let shared_state = Arc::new(ArcSwap::from_pointee(state.clone()));
    let cache = IdentityCache::new(Arc::new(Alice), shared_state.clone(), runtime.handle().clone());
    let cache = WorkerCache::new(cache, shared_state);
    let phone: IpAddr = PHONE.parse().unwrap();
    let alice = runtime.block_on(cache.of_peer(phone)).unwrap();
    let (conn, parts) = (connection(), request());
    let router = Router::new(vec![route()]);
    let settled = facts(&conn, &parts, &state);

    c.bench_function("cache hit", |b| b.iter(|| runtime.block_on(cache.of_peer(black_box(phone)))));
    c.bench_function("facts", |b| b.iter(|| facts(black_box(&conn), black_box(&parts), &state)));
    c.bench_function("decision", |b| {
        b.iter(|| permit(alice.clone(), black_box(&settled), black_box(&parts), &state, &router));
    });

    let permit = Rc::new(RefCell::new(permit(alice, &settled, &parts, &state, &router)));
    let (pools, close) = (UpstreamPools::new(), CloseSignal::never());
    let id = HeaderValue::from_static("00000000-000001");
    c.bench_function("header rewriting", |b| {
        let forward = Forward {
            facts: &settled,
            request_id: &id,
            canonical_path: "/api/items",
            credentials: Credentials::default(),
            pools: &pools,
            close: &close,
            as_lines: true,
        };
        b.iter(|| proxy::rewritten(&permit.borrow(), &parts, &forward).unwrap());
    });
}

criterion_group!(hot_path, benches);
criterion_main!(hot_path);
