//! A gateway behind Serve, with this test process as tailscaled: the test can send
//! what Serve sends, and what it never would.

use std::path::PathBuf;

use super::{ALICE, Client, Gateway, NOBODY, Setup, TOKEN, Tailnet, Tailscaled, Upstream};

/// The gateway's own name in the scenarios.
pub(crate) const HOST: &str = "gw.tailnet-example.test";

/// `serve=…` for [`Tailnet::set`]: one route on port 80 to this target.
pub(crate) fn route_to(target: &str) -> String {
    format!(
        r#"serve={{"TCP":{{"80":{{"HTTP":true}}}},"Web":{{"{HOST}:80":{{"Handlers":{{"/":{{"Proxy":"{target}"}}}}}}}}}}"#
    )
}

/// The gateway and all around it.
pub(crate) struct BehindServe {
    pub(crate) tailnet: Tailnet,
    pub(crate) app: Upstream,
    pub(crate) gateway: Gateway,
    socket: Option<PathBuf>,
    _daemon: Tailscaled,
}

impl BehindServe {
    /// On the unix ingress: tailscaled is this very process.
    #[track_caller]
    pub(crate) fn on_unix() -> Self {
        Self::on_unix_with(Tailnet::new(), "")
    }

    /// The same with another tailnet and more of `gateway` in the configuration.
    #[track_caller]
    pub(crate) fn on_unix_with(tailnet: Tailnet, config: &str) -> Self {
        let (app, daemon) = (Upstream::echo(), Tailscaled::beside(&tailnet));
        let gateway = Self::setup(&tailnet, &app, &daemon, config).flag("--tailscale", "serve").start();
        let line = gateway.wait_for_log("the Serve ingress is ready");
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        let socket = PathBuf::from(line["path"].as_str().unwrap());
        tailnet.set(&[&route_to(&format!("unix:{}", socket.display()))]);
        let this = Self { tailnet, app, gateway, socket: Some(socket), _daemon: daemon };
        this.await_serve();
        this
    }

    /// On loopback TCP: the gateway runs as another user than this process. Takes
    /// root.
    #[track_caller]
    pub(crate) fn on_tcp() -> Self {
        Self::on_tcp_with("")
    }

    /// The same with more of `gateway` in the configuration.
    #[track_caller]
    pub(crate) fn on_tcp_with(config: &str) -> Self {
        let tailnet = Tailnet::new();
        let (app, daemon) = (Upstream::echo(), Tailscaled::beside(&tailnet));
        tailnet.give_to(NOBODY);
        let gateway = Self::setup(&tailnet, &app, &daemon, config).uid(NOBODY).start();
        tailnet.set(&[&route_to(&format!("http://127.0.0.1:{}", gateway.port()))]);
        let this = Self { tailnet, app, gateway, socket: None, _daemon: daemon };
        this.await_serve();
        this
    }

    fn setup(tailnet: &Tailnet, app: &Upstream, daemon: &Tailscaled, config: &str) -> Setup {
        let socket = format!("{:?}", daemon.socket().display().to_string());
        let config = format!(
            "{{gateway: {{tailscale: {{socket: {socket}, client: 'cli'}}, auth: {{allowTailscale: true}}, {config}}}}}"
        );
        Setup::new().tailscale(tailnet).upstream(app).token(TOKEN).config(config)
    }

    /// An address that nobody has is unknown only to those who believe the rest.
    #[track_caller]
    fn await_serve(&self) {
        let stranger = self.person(super::tailnet::NOBODYS, "nobody@example.com");
        super::until("Serve is attested", || {
            stranger.try_get("/attested").is_some_and(|answer| answer.text().contains("peer_unknown"))
        });
    }

    /// The unix ingress.
    pub(crate) fn socket(&self) -> &PathBuf {
        self.socket.as_ref().unwrap()
    }

    /// A connection of tailscaled's, without any header of Serve's.
    pub(crate) fn bare(&self) -> Client {
        match &self.socket {
            Some(socket) => Client::unix(socket),
            None => self.gateway.local().host(HOST),
        }
    }

    /// What Serve sends for a person.
    pub(crate) fn person(&self, from: &str, login: &str) -> Client {
        self.bare()
            .with("X-Forwarded-For", from)
            .with("X-Forwarded-Host", HOST)
            .with("X-Forwarded-Proto", "https")
            .with("Tailscale-User-Login", login)
            .with("Tailscale-User-Name", "Somebody")
            .with("Tailscale-Headers-Info", "https://tailscale.com/s/serve-headers")
    }

    /// What it sends for the owner.
    pub(crate) fn alice(&self) -> Client {
        self.person(ALICE, "alice@example.com")
    }
}
