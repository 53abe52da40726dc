//! From the mounts that are wanted to routes that can be published.

use openclaw_tailscale::ProxyTarget;

use super::DesiredMount;
use super::choose::{Choice, Ingress};
use super::plan::{NodeFacts, Route};
use super::status::Trouble;
use crate::domain::Running;

/// What is wanted. Whoever wants a mount adds it.
pub type Wanted = Vec<DesiredMount>;

/// The node's facts, once it has a name.
pub(crate) fn node_of(running: &Running) -> Option<NodeFacts> {
    Some(NodeFacts {
        id: running.self_id.as_ref()?.as_str().to_owned(),
        tailnet: running.tailnet.clone(),
        name: running.dns_name.as_ref()?.as_str().trim_end_matches('.').to_owned(),
    })
}

pub(super) fn route(mount: &DesiredMount, target: String, session: bool) -> Route {
    Route {
        https: mount.https,
        port: mount.port,
        path: mount.path.as_str().to_owned(),
        target,
        session,
        funnel: mount.funnel,
    }
}

/// The wanted mounts with the chosen target; none where there is no ingress.
pub(crate) fn routes(wanted: &[DesiredMount], choice: &Choice) -> Vec<Route> {
    let (target, session) = match &choice.ingress {
        Some(Ingress::Unix(path)) => (ProxyTarget::Unix(path.clone()), false),
        Some(Ingress::Loopback(port)) => (ProxyTarget::Loopback(*port), true),
        None => return Vec::new(),
    };
    let Some(target) = target.as_proxy() else { return Vec::new() };
    wanted.iter().map(|mount| route(mount, target.clone(), session)).collect()
}

/// Whether a route could work. HTTPS that is off for the tailnet is left to the command,
/// which names the link to click; without the command that is all there is to say.
pub(crate) fn may_publish(route: &Route, running: &Running, has_program: bool) -> Result<(), Trouble> {
    const PAGE: &str = "turn HTTPS certificates on: https://login.tailscale.com/admin/dns";
    if !route.https || (!running.attributes.https && has_program) {
        return Ok(());
    }
    if !running.attributes.https {
        return Err(Trouble::new("serve_https_off", "HTTPS is not enabled for this tailnet").fix(PAGE));
    }
    if running.cert_domains.is_empty() {
        let detail = "there are no certificates for this node, so nobody could connect by HTTPS";
        return Err(Trouble::new("serve_https_off", detail).fix(PAGE));
    }
    Ok(())
}
