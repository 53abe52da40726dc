//! From answers of Tailscale to the facts the gateway decides on.

use std::net::IpAddr;
use std::sync::Arc;

use openclaw_tailscale::{DaemonProcess, Status, Tailscale};

use super::Interest;
use crate::domain::{NodeAttributes, Owner, Running, ServeFacts, ServeView};
use crate::ingress::{OutboundProxy, outbound_proxy};

/// The facts of a running node.
pub(super) fn running(status: &Status) -> Running {
    let tailnet = status.current_tailnet.as_ref();
    Running {
        ips: status.tailscale_ips.clone(),
        self_id: status.self_node.id.clone(),
        owner: status.owner().map(|profile| Owner { login: profile.login.clone(), user_id: profile.id }),
        dns_name: status.self_node.dns_name.clone(),
        suffix: tailnet
            .and_then(|tailnet| tailnet.magic_dns_suffix.clone())
            .or_else(|| status.magic_dns_suffix.clone()),
        tailnet: tailnet.map(|tailnet| tailnet.name.clone()).unwrap_or_default(),
        version: status.version.clone(),
        tun: status.tun,
        cert_domains: status.cert_domains.clone(),
        attributes: NodeAttributes {
            https: status.self_node.has_capability("https"),
            funnel: status.self_node.has_capability("funnel"),
            funnel_ports: status.self_node.funnel_ports(),
        },
    }
}

/// What decides whether a connection of the daemon's can be Serve's. Unknown
/// where the Serve configuration cannot be read.
pub(super) async fn serve(
    tailscale: &Tailscale,
    daemon: Option<DaemonProcess>,
    interest: &Interest,
    own: &[IpAddr],
) -> ServeView {
    let (config, prefs) = tokio::join!(tailscale.serve_status(), tailscale.prefs());
    let config = match config {
        Ok(config) => config,
        Err(error) => {
            tracing::warn!(error = %error, "the Serve configuration could not be read");
            return ServeView::Unknown;
        }
    };
    let to_port = config.targets_port_at(interest.port, own);
    let to_unix = interest.unix.as_deref().map(|path| config.targets_unix(path));
    let to_ingress = interest.ingress.map(|port| config.targets_port_at(port, own)).unwrap_or_default();
    let prefs = prefs.ok();
    ServeView::Known(Arc::new(ServeFacts {
        web_to_port: to_port.web,
        tcp_to_port: to_port.tcp,
        tcp_to_unix: to_unix.map_or(0, |targets| targets.tcp),
        web_to_ingress: to_ingress.web,
        tcp_to_ingress: to_ingress.tcp,
        has_operator: prefs.as_ref().map(|prefs| prefs.operator_user.is_some()),
        run_ssh: prefs.and_then(|prefs| prefs.run_ssh),
        dials_for_others: daemon.and_then(|daemon| daemon.pid).and_then(|pid| match outbound_proxy(pid) {
            OutboundProxy::Present => Some(true),
            OutboundProxy::Absent => Some(false),
            OutboundProxy::Unknown => None,
        }),
        daemon,
        config: Arc::new(config),
    }))
}
