//! HTTPS on the tailnet addresses with the node's own certificate
//! (`gateway.tls.source: "tailscale"`, rulings 6).

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use tokio::sync::watch;

use super::listen;
use crate::certs::NodeCertificate;
use crate::config::Bind;
use crate::domain::{HttpsSite, TailnetState};
use crate::ingress::{BindError, Binder, ListenerKey, Tls, Workers};
use crate::readiness::{Fault, Readiness};

/// Where one may listen without being permitted to have the port asked for.
const UNPRIVILEGED: u16 = 8443;
const TAKEN: &str = "https_port_taken";

/// What listens for HTTPS on the tailnet, and what should.
pub(super) struct HttpsListeners {
    /// The port that was asked for, and the one there is.
    wanted: u16,
    port: u16,
    binder: Binder,
    certificate: watch::Receiver<Option<NodeCertificate>>,
    /// What the plain port sends browsers to, while it works.
    site: Arc<ArcSwapOption<HttpsSite>>,
    /// What the metrics speak of.
    in_use: Arc<ArcSwapOption<(&'static str, Tls)>>,
    bound: BTreeSet<SocketAddr>,
    missing: bool,
}

impl HttpsListeners {
    pub(super) fn new(
        port: u16,
        binder: Binder,
        certificate: watch::Receiver<Option<NodeCertificate>>,
        site: Arc<ArcSwapOption<HttpsSite>>,
        in_use: Arc<ArcSwapOption<(&'static str, Tls)>>,
    ) -> Self {
        Self { wanted: port, port, binder, certificate, site, in_use, bound: BTreeSet::new(), missing: false }
    }

    /// Whether an address that should be bound is not yet.
    pub(super) fn wants_retry(&self) -> bool {
        self.missing
    }

    /// Ends when there is another certificate than before.
    pub(super) async fn certificate_changed(&mut self) {
        if self.certificate.changed().await.is_err() {
            // Its keeper ends with the process.
            std::future::pending().await
        }
    }

    /// Binds and lets go, and says where HTTPS is. While Tailscale is down everything
    /// stays as it is.
    pub(super) fn follow(&mut self, state: &TailnetState, workers: &Workers, readiness: &Readiness) {
        let Some(wanted) = listen::tailnet(Bind::Tailnet, self.port, state) else { return };
        let Some(certificate) = self.certificate.borrow().clone() else { return };
        self.in_use.store(Some(Arc::new(("tailscale", certificate.tls.clone()))));
        let fault = match serve_route(state, self.port) {
            Some(route) => {
                // Peers reach tailscaled there, whoever else listens.
                self.keep_only(&BTreeSet::new(), workers);
                let fix =
                    "openclaw config set gateway.tls.port 8443, or take the Serve route away".to_owned();
                Some(Fault {
                    detail: format!("port {} on the tailnet is Serve's: {route}", self.port),
                    fix: Some(fix),
                })
            }
            None => {
                self.bind(&wanted.iter().map(|wanted| wanted.addr).collect(), &certificate, workers, state)
            }
        };
        // A Serve route comes and goes without us; a port may be free at any moment.
        self.missing = fault.is_some();
        match fault {
            Some(fault) => {
                self.site.store(None);
                let detail = fault.detail.clone();
                if readiness.fail(TAKEN, fault) {
                    tracing::error!(
                        code = TAKEN,
                        "no HTTPS on the tailnet: {detail}; the plain port goes on serving"
                    );
                }
            }
            None => {
                readiness.clear(TAKEN);
                let ours = state
                    .running()
                    .is_some_and(|running| running.dns_name.as_ref() == Some(&certificate.name));
                let site = HttpsSite::new(&certificate.name, self.port);
                let site = (ours && !self.bound.is_empty()).then(|| Arc::new(site));
                self.site.store(site);
            }
        }
    }

    fn bind(
        &mut self,
        wanted: &BTreeSet<SocketAddr>,
        certificate: &NodeCertificate,
        workers: &Workers,
        state: &TailnetState,
    ) -> Option<Fault> {
        self.keep_only(wanted, workers);
        let mut faults = Vec::new();
        for addr in wanted.difference(&self.bound.clone()) {
            match self.binder.bind(*addr) {
                Ok(bound) => {
                    workers.add_tcp(bound, Some(&certificate.tls));
                    tracing::info!(listen = %addr, name = certificate.name.as_str(), "listening for HTTPS on the tailnet");
                    self.bound.insert(*addr);
                }
                Err(BindError::Denied { .. }) if self.port < 1024 && self.port == self.wanted => {
                    self.port = UNPRIVILEGED;
                    tracing::warn!(
                        "not permitted to listen on port {}, so HTTPS is on port {UNPRIVILEGED}; to permit it: {}",
                        self.wanted,
                        permit_command()
                    );
                    let wanted = wanted.iter().map(|addr| SocketAddr::new(addr.ip(), UNPRIVILEGED)).collect();
                    if let Some(route) = serve_route(state, UNPRIVILEGED) {
                        let detail = format!("port {UNPRIVILEGED} on the tailnet is Serve's: {route}");
                        return Some(Fault { detail, fix: Some(permit_command()) });
                    }
                    return self.bind(&wanted, certificate, workers, state);
                }
                Err(error) => faults.push(error.to_string()),
            }
        }
        if faults.is_empty() {
            return None;
        }
        let fix = "stop the other program, or set gateway.tls.port".to_owned();
        Some(Fault { detail: faults.join("; "), fix: Some(fix) })
    }

    fn keep_only(&mut self, wanted: &BTreeSet<SocketAddr>, workers: &Workers) {
        for gone in self.bound.difference(wanted) {
            tracing::info!(listen = %gone, "not listening there for HTTPS any more");
            workers.remove(&ListenerKey::Tcp(*gone));
        }
        self.bound.retain(|addr| wanted.contains(addr));
    }
}

/// The command that lets this program have a port below 1024.
fn permit_command() -> String {
    let program =
        std::env::current_exe().map_or_else(|_| "openclaw".into(), |path| path.display().to_string());
    format!("sudo setcap cap_net_bind_service=+ep {program}, then start the gateway again")
}

/// What Serve listens for on a port of the node's addresses, in words.
fn serve_route(state: &TailnetState, port: u16) -> Option<String> {
    use openclaw_tailscale::Origin;
    let config = &state.serve_facts()?.config;
    // A Service has addresses of its own.
    let listener = config
        .listeners()
        .find(|listener| listener.port == port && !matches!(listener.origin, Origin::Service(_)))?;
    let end = format!(":{port}");
    let web = config.web_handlers().filter(|handler| handler.host_port.ends_with(&end));
    let mut routes: Vec<String> = web
        .map(|handler| {
            let target = [&handler.proxy, &handler.path, &handler.redirect].into_iter().flatten().next();
            let target = target.map_or("a text", String::as_str);
            format!("{}{} -> {}", handler.host_port, handler.mount, target)
        })
        .collect();
    let tcp = config.tcp_forwards().filter(|forward| forward.port == port);
    routes.extend(tcp.map(|forward| format!("TCP -> {}", forward.target)));
    if routes.is_empty() {
        routes.push(if listener.https { "HTTPS" } else { "a listener" }.to_owned());
    }
    // Somebody else's words, for the log.
    Some(routes.join(", ").escape_debug().to_string())
}
