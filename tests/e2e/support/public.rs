//! A gateway in mode serve with something to open to the internet, the stand-in in front.

use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::Value;
use tokio_tungstenite::tungstenite::{self, WebSocket};

use super::gateway::Printed;
use super::{Answer, Client, Gateway, HOST, Setup, StandIn, TOKEN, Tailnet, TlsWire, Upstream};

/// The gateway and all around it.
pub(crate) struct Public {
    pub(crate) tailnet: Tailnet,
    pub(crate) app: Upstream,
    pub(crate) gateway: Gateway,
    daemon: StandIn,
}

/// A way in on the internet, or on the tailnet.
pub(crate) struct Door<'a> {
    public: &'a Public,
    who: &'static str,
    port: u16,
    headers: Vec<(String, String)>,
}

impl Public {
    /// With the routes `app` (private, `/`), `hooks` (`/hooks`, with the secret) and
    /// `github` (`/github`, for everybody).
    #[track_caller]
    pub(crate) fn start() -> Self {
        Self::start_with(Tailnet::new(), "mode: \"serve\"")
    }

    /// The same on a tailnet that was changed, and with another `gateway.tailscale`.
    #[track_caller]
    pub(crate) fn start_with(tailnet: Tailnet, tailscale: &str) -> Self {
        let this = Self::not_served(tailnet, tailscale);
        let phone = this.tailnet_door("phone");
        super::until("Serve leads to the gateway", || {
            phone.try_get("/").is_some_and(|answer| answer.status == 200)
        });
        this
    }

    /// The same, not waiting for Serve.
    #[track_caller]
    pub(crate) fn not_served(tailnet: Tailnet, tailscale: &str) -> Self {
        let app = Upstream::echo();
        let daemon = StandIn::of(&tailnet, &["phone", "funnel"]);
        let config = Self::config(&app, &daemon.socket(), tailscale, "secret");
        let gateway = Setup::new().tailscale(&tailnet).token(TOKEN).config(config).start();
        Self { tailnet, app, gateway, daemon }
    }

    /// The configuration, with what `/hooks` is for the public.
    pub(crate) fn config(app: &Upstream, socket: &str, tailscale: &str, hooks: &str) -> String {
        let app = app.flag();
        format!(
            r#"{{gateway: {{
                tailscale: {{socket: {socket}, {tailscale}}},
                routes: {{
                    app: {{path: "/", upstream: "{app}"}},
                    hooks: {{path: "/hooks", upstream: "{app}", public: "{hooks}"}},
                    github: {{path: "/github", upstream: "{app}", public: "open"}},
                }},
            }}}}"#
        )
    }

    /// Replaces what `/hooks` is for the public.
    pub(crate) fn change_hooks(&self, tailscale: &str, hooks: &str) {
        let config = Self::config(&self.app, &self.daemon.socket(), tailscale, hooks);
        self.gateway.write_config(&config);
    }

    /// Runs `openclaw` with the gateway's home.
    pub(crate) fn openclaw(&self, args: &[&str]) -> Printed {
        self.gateway.openclaw(args)
    }

    /// The unix ingress.
    pub(crate) fn ingress(&self) -> PathBuf {
        let line = self.gateway.wait_for_log("the Serve ingress is ready");
        let line: Value = serde_json::from_str(&line).unwrap();
        PathBuf::from(line["path"].as_str().unwrap())
    }

    /// Opens, which must succeed: what it printed as JSON.
    #[track_caller]
    pub(crate) fn open(&self, args: &[&str]) -> Value {
        let done = self.openclaw(&[&["funnel", "--json"], args].concat());
        assert_eq!(done.code, Some(0), "{done:?}");
        serde_json::from_str(&done.stdout).unwrap()
    }

    /// Opens, which must fail without anything being published: what it said.
    #[track_caller]
    pub(crate) fn refused(&self, args: &[&str]) -> String {
        let done = self.openclaw(&[&["funnel"], args].concat());
        assert_eq!(done.code, Some(1), "{done:?}");
        assert_eq!(done.stdout, "");
        assert!(!self.is_published(443), "{args:?} was refused and published");
        done.stderr
    }

    /// Whether Tailscale opens this port of ours to the internet.
    pub(crate) fn is_published(&self, port: u16) -> bool {
        fn holds(config: &Value, site: &str) -> bool {
            let nested = config["Foreground"].as_object().into_iter().flatten();
            config["AllowFunnel"][site] == true || nested.into_iter().any(|(_, config)| holds(config, site))
        }
        holds(&self.serve(), &format!("{HOST}:{port}"))
    }

    /// What Serve publishes, whoever did.
    pub(crate) fn serve(&self) -> Value {
        let done = Command::new(self.tailnet.bin())
            .args(["serve", "status", "--json"])
            .env_clear()
            .stdin(Stdio::null())
            .output()
            .unwrap();
        serde_json::from_slice(&done.stdout).unwrap()
    }

    /// The internet's way in.
    pub(crate) fn internet(&self) -> Door<'_> {
        self.internet_at(443)
    }

    /// The internet's way in at a port.
    pub(crate) fn internet_at(&self, port: u16) -> Door<'_> {
        Door { public: self, who: "funnel", port, headers: Vec::new() }
    }

    /// A peer's way in.
    pub(crate) fn tailnet_door(&self, who: &'static str) -> Door<'_> {
        Door { public: self, who, port: 443, headers: Vec::new() }
    }

    fn trusting(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        let authority = std::fs::read(self.tailnet.dir().join("ca.pem")).unwrap();
        roots.add(CertificateDer::from_pem_slice(&authority).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        Arc::new(config.with_root_certificates(roots).with_no_client_auth())
    }
}

impl Door<'_> {
    /// With one more header line.
    pub(crate) fn with(&self, name: &str, value: &str) -> Self {
        let mut headers = self.headers.clone();
        headers.push((name.to_owned(), value.to_owned()));
        Self { headers, ..*self }
    }

    /// With the token.
    pub(crate) fn token(&self, token: &str) -> Self {
        self.with("X-OpenClaw-Gateway-Token", token)
    }

    fn client(&self) -> Client {
        // Only for the bytes of a request.
        let port = if self.port == 443 { String::new() } else { format!(":{}", self.port) };
        let nowhere = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        let client = Client::to(nowhere).host(&format!("{HOST}{port}"));
        self.headers.iter().fold(client, |client, (name, value)| client.with(name, value))
    }

    /// A connection; none where the port is not served, or not to them.
    pub(crate) fn connect(&self) -> Option<TlsWire> {
        let addr = self.public.daemon.try_listener(self.port, self.who)?;
        TlsWire::open(addr, HOST, &self.public.trusting()).ok()
    }

    /// The answer; none where nobody answers.
    pub(crate) fn try_get(&self, target: &str) -> Option<Answer> {
        let mut wire = self.connect()?;
        wire.try_request(&self.client().bytes("GET", target, b""))
    }

    #[track_caller]
    pub(crate) fn get(&self, target: &str) -> Answer {
        self.try_get(target).expect("nobody answers there")
    }

    /// A WebSocket; or the refusal's status.
    pub(crate) fn websocket(&self, target: &str) -> Result<PublicSocket, u16> {
        let key = tungstenite::handshake::client::generate_key();
        let mut request = http::Request::builder()
            .uri(format!("wss://{HOST}{target}"))
            .header("Host", HOST)
            .header("Connection", "Upgrade")
            .header("Upgrade", "websocket")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", key);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let stream = self.connect().expect("nobody answers there").into_stream();
        match tungstenite::client(request.body(()).unwrap(), stream) {
            Ok((socket, _)) => Ok(socket),
            Err(tungstenite::HandshakeError::Failure(tungstenite::Error::Http(response))) => {
                Err(response.status().as_u16())
            }
            Err(other) => panic!("the handshake failed otherwise: {other}"),
        }
    }
}

/// A WebSocket over TLS.
pub(crate) type PublicSocket = WebSocket<StreamOwned<ClientConnection, TcpStream>>;
