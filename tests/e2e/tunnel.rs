//! A tunnel client in front of the ordinary port, as cloudflared is one: it resolves
//! `localhost` to ::1 and then 127.0.0.1, dials in that order, keeps the public Host,
//! and says in `CF-Connecting-IP` and at the right of `X-Forwarded-For` who asked.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use super::support::*;

const PUBLIC_HOST: &str = "gateway.example.com";
const BOTH_FAMILIES: &str = r#"trustedProxies: ["127.0.0.1", "::1"]"#;

/// The program on this machine that carries the public's requests to the port.
struct Tunnel {
    origin: Vec<SocketAddr>,
}

impl Tunnel {
    fn to(gateway: &Gateway) -> Self {
        let port = gateway.port();
        Self {
            origin: vec![
                SocketAddr::from((Ipv6Addr::LOCALHOST, port)),
                SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            ],
        }
    }

    /// Where it gets through to: the first that takes a connection.
    #[track_caller]
    fn dials(&self) -> SocketAddr {
        let answers = |addr: &&SocketAddr| Client::to(**addr).try_open().is_ok();
        *self.origin.iter().find(answers).expect("neither family of localhost answers")
    }

    /// A request of somebody on the internet. `claims` is what they wrote into
    /// `X-Forwarded-For` themselves; the tunnel's edge adds their address to it.
    fn carries(&self, public: &str, claims: Option<&str>) -> Client {
        self.carries_over(self.dials(), public, claims)
    }

    fn carries_over(&self, origin: SocketAddr, public: &str, claims: Option<&str>) -> Client {
        let chain = claims.map_or_else(|| public.to_owned(), |claims| format!("{claims},{public}"));
        Client::to(origin)
            .host(PUBLIC_HOST)
            .with("CF-Connecting-IP", public)
            .with("CF-Ray", "8f1c0a77b3d94e6f-FRA")
            .with("CF-Visitor", r#"{"scheme":"https"}"#)
            .with("CDN-Loop", "cloudflare; loops=1")
            .with("X-Forwarded-For", &chain)
            .with("X-Forwarded-Proto", "https")
    }
}

/// A machine without IPv6 has only the second address.
fn has_ipv6() -> bool {
    let has = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
    if !has {
        eprintln!("this machine has no ::1: only 127.0.0.1 is tried");
    }
    has
}

fn gateway(config: &str) -> (Tailnet, Upstream, Gateway) {
    let (tailnet, app) = (Tailnet::new(), Upstream::echo());
    let config = format!("{{gateway: {{{config}}}}}");
    let gateway = Setup::new().tailscale(&tailnet).upstream(&app).token(TOKEN).config(config).start();
    let named = gateway.local().with("Tailscale-User-Login", "x@example.com");
    until("Tailscale is known", || named.get("/").status == 401);
    (tailnet, app, gateway)
}

fn guess(client: &Client, number: usize) -> Answer {
    client.with("X-OpenClaw-Gateway-Token", &format!("guess-{number}")).get("/")
}

#[test]
fn a_tunnel_gets_through_by_either_family_of_localhost() {
    let (_tailnet, app, gateway) = gateway(BOTH_FAMILIES);
    let tunnel = Tunnel::to(&gateway);
    assert_eq!(tunnel.dials().is_ipv6(), has_ipv6(), "::1 is the first that it tries");
    for origin in tunnel.origin.iter().filter(|origin| origin.is_ipv4() || has_ipv6()) {
        let client = tunnel.carries_over(*origin, "198.51.100.7", None);
        client.get("/").assert_refused(401, "token_missing");
        guess(&client, 0).assert_refused(401, "token_mismatch");
        let seen = client.bearer(TOKEN).get("/").seen();
        assert_eq!(seen.header("host").as_deref(), Some(PUBLIC_HOST));
        assert_eq!(seen.header("x-forwarded-for").as_deref(), Some("198.51.100.7"));
        assert_eq!(seen.header("x-forwarded-proto").as_deref(), Some("https"));
        for gone in ["authorization", "cf-connecting-ip", "tailscale-user-login"] {
            assert_eq!(seen.header(gone), None, "{gone}");
        }
        let mut socket = client.bearer(TOKEN).websocket("/ws").unwrap();
        assert!(socket.read().unwrap().to_text().unwrap().contains(PUBLIC_HOST));
        client.websocket("/ws").unwrap_err().assert_refused(401, "token_missing");
    }
    assert!(app.connections() > 0);
}

#[test]
fn threat_048_who_is_locked_out_is_the_public_client_by_either_family() {
    let (_tailnet, _app, gateway) = gateway(BOTH_FAMILIES);
    let tunnel = Tunnel::to(&gateway);
    let families: Vec<_> = tunnel.origin.iter().filter(|origin| origin.is_ipv4() || has_ipv6()).collect();
    let over = |number: usize| **families.get(number % families.len()).unwrap();
    for number in 0..10 {
        // What the client claims buys it nothing, nor does the family that the
        // tunnel happens to take.
        let claims = format!("203.0.113.{number}");
        let client = tunnel.carries_over(over(number), "198.51.100.7", Some(&claims));
        guess(&client, number).assert_refused(401, "token_mismatch");
    }
    for number in 0..2 {
        let locked = tunnel.carries_over(over(number), "198.51.100.7", Some("127.0.0.1"));
        locked.bearer(TOKEN).get("/").assert_refused(429, "rate_limited");
        // The header that Cloudflare's own clients cannot set, but others could.
        locked
            .instead("CF-Connecting-IP", "198.51.100.9")
            .bearer(TOKEN)
            .get("/")
            .assert_refused(429, "rate_limited");
    }
    tunnel.carries("198.51.100.8", None).bearer(TOKEN).get("/").seen();
    // The tunnel's own address was charged nothing.
    gateway.local().bearer(TOKEN).get("/").seen();
}

#[test]
fn threat_048_an_unlisted_tunnel_is_one_client_and_no_local_process() {
    let (_tailnet, _app, gateway) = gateway("");
    let tunnel = Tunnel::to(&gateway);
    let origin = tunnel.dials();
    for number in 0..10 {
        let client = tunnel.carries_over(origin, &format!("198.51.100.{number}"), None);
        guess(&client, number).assert_refused(401, "token_mismatch");
    }
    let next = tunnel.carries_over(origin, "198.51.100.200", None);
    next.bearer(TOKEN).get("/").assert_refused(429, "rate_limited");
    // A process of this machine, by no proxy, may still mistype.
    gateway.local().bearer(TOKEN).get("/").seen();
}

#[test]
fn threat_002_what_a_tunnel_brings_is_never_this_machines_own() {
    // Whoever is local in mode none is an admin without any secret.
    for proxies in ["", BOTH_FAMILIES] {
        let (tailnet, app) = (Tailnet::new(), Upstream::echo());
        let config = format!("{{gateway: {{auth: {{mode: \"none\"}}, {proxies}}}}}");
        let gateway = Setup::new().tailscale(&tailnet).upstream(&app).config(config).start();
        // Listed as a proxy, this machine is one, and has no other way in.
        let local = if proxies.is_empty() { 200 } else { 401 };
        until("Tailscale is known", || gateway.local().get("/").status == local);
        let reached = app.requests().len();
        let tunnel = Tunnel::to(&gateway);
        for claims in [None, Some("127.0.0.1"), Some("::1")] {
            for public in ["198.51.100.7", "127.0.0.1", "::1"] {
                let client = tunnel.carries(public, claims);
                let answer = client.get("/");
                assert_eq!(answer.status, 401, "{proxies} {public} {claims:?}: {}", answer.text());
                assert_eq!(client.websocket("/ws").unwrap_err().status, 401);
            }
        }
        // Nor is somebody of the tailnet, whom a client could name.
        let named = tunnel.carries(ALICE, None).with("Tailscale-User-Login", "alice@example.com");
        let code = if proxies.is_empty() { "serve_peer_unattested" } else { "secret_not_configured" };
        named.get("/").assert_refused(401, code);
        assert_eq!(app.requests().len(), reached, "something reached the app");
    }
}
