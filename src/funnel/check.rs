//! Whether a path may be opened to the internet. Pure; what is not known is refused.

use crate::config::{AuthMode, FUNNEL_PORTS, Gateway, TailscaleMode};
use crate::domain::{FunnelAsk, FunnelRefusal, FunnelSite, Phase, Public, RouteName, Running, TailnetState};
use crate::edge::{OWN_PREFIX, Router, Settings, Target};

/// Where the policy of a tailnet is edited.
const POLICY_PAGE: &str = "https://login.tailscale.com/admin/acls/file";
/// Where HTTPS certificates are turned on for a tailnet.
const DNS_PAGE: &str = "https://login.tailscale.com/admin/dns";

/// Whether a path is one of the gateway's own, which Funnel never reaches.
pub fn is_own(path: &str) -> bool {
    path.strip_prefix(OWN_PREFIX).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Under which address it would be.
///
/// # Errors
///
/// Why not, and what mends it.
pub fn check(
    ask: &FunnelAsk,
    settings: &Settings,
    state: &TailnetState,
) -> Result<FunnelSite, FunnelRefusal> {
    let gateway = &settings.config.gateway;
    configured(ask, gateway)?;
    let running = running(state)?;
    let host = permitted(ask, running)?;
    let route = route(ask, &host, &settings.router)?;
    Ok(FunnelSite { url: url(ask, &host, gateway), host, route })
}

/// The part that the configuration decides, for one that is open under this name.
pub(super) fn still_configured(
    ask: &FunnelAsk,
    host: &str,
    settings: &Settings,
) -> Result<RouteName, FunnelRefusal> {
    configured(ask, &settings.config.gateway)?;
    route(ask, host, &settings.router)
}

fn refuse<T>(reason: impl Into<String>, fix: impl Into<Option<String>>) -> Result<T, FunnelRefusal> {
    Err(FunnelRefusal { reason: reason.into(), fix: fix.into() })
}

fn configured(ask: &FunnelAsk, gateway: &Gateway) -> Result<(), FunnelRefusal> {
    if is_own(ask.path.as_str()) {
        return refuse(
            format!("{OWN_PREFIX} is the gateway's own: sign-in, dashboard and API never go through Funnel"),
            None,
        );
    }
    if gateway.tailscale.mode == TailscaleMode::Off {
        return refuse(
            "gateway.tailscale.mode is off: Funnel leads to the Serve ingress, and there is none",
            "openclaw config set gateway.tailscale.mode serve".to_owned(),
        );
    }
    if !matches!(gateway.auth.mode, AuthMode::Token | AuthMode::Password) {
        return refuse(
            format!(
                "gateway.auth.mode is {}: what is open to the internet needs a token or password",
                gateway.auth.mode.as_str()
            ),
            "openclaw config set gateway.auth.mode token".to_owned(),
        );
    }
    if !FUNNEL_PORTS.contains(&ask.port) {
        return refuse(format!("{} is no port that Funnel has: 443, 8443 or 10000", ask.port), None);
    }
    Ok(())
}

fn running(state: &TailnetState) -> Result<&Running, FunnelRefusal> {
    match &state.phase {
        Phase::Running(running) => Ok(running),
        Phase::Unknown => refuse("Tailscale has not answered yet", None),
        Phase::Down { detail, fix, .. } => refuse(detail.clone(), fix.clone()),
        Phase::NotRunning { state } => {
            refuse(format!("Tailscale is {}", state.as_str()), "tailscale up".to_owned())
        }
    }
}

/// The public name, where the tailnet permits one. Tailscale's own command line accepts
/// ports that Funnel does not have (rulings 6), so it is not left to it.
fn permitted(ask: &FunnelAsk, running: &Running) -> Result<String, FunnelRefusal> {
    let attributes = &running.attributes;
    if !attributes.https {
        return refuse(
            "HTTPS certificates are not enabled for this tailnet, and Funnel speaks https only",
            format!("enable HTTPS at {DNS_PAGE}"),
        );
    }
    if !attributes.funnel {
        return refuse(
            "the tailnet's policy does not give this node the attribute \"funnel\"",
            format!("add it under nodeAttrs at {POLICY_PAGE}"),
        );
    }
    if !attributes.funnel_ports.iter().any(|range| range.contains(&ask.port)) {
        let ports: Vec<String> = attributes
            .funnel_ports
            .iter()
            .map(|range| match (range.start(), range.end()) {
                (first, last) if first == last => first.to_string(),
                (first, last) => format!("{first}-{last}"),
            })
            .collect();
        let ports = if ports.is_empty() { "none".to_owned() } else { ports.join(", ") };
        return refuse(
            format!("this node may not use port {} for Funnel; it may use: {ports}", ask.port),
            None,
        );
    }
    match &running.dns_name {
        Some(name) => Ok(name.as_str().trim_end_matches('.').to_ascii_lowercase()),
        None => refuse("this node has no DNS name, so it has no public address", None),
    }
}

/// The route that the path leads to, under the public name.
fn route(ask: &FunnelAsk, host: &str, router: &Router) -> Result<RouteName, FunnelRefusal> {
    let path = ask.path.as_str();
    let route = match router.find(host, path) {
        Target::Route(route) => route,
        Target::Own => {
            return refuse(format!("{path} is the gateway's own page: it never goes through Funnel"), None);
        }
        Target::None => return refuse(format!("no route leads from https://{host} at {path}"), None),
    };
    let name = route.name.as_str();
    match (route.public, ask.open) {
        (Public::No, _) => refuse(
            format!("route {name}, which {path} leads to, is not public"),
            format!(
                "give it a path of its own under gateway.routes, and: openclaw config set gateway.routes.{name}.public secret"
            ),
        ),
        (Public::Open, false) => refuse(
            format!("route {name} is public: \"open\": everybody would be let in, without token or password"),
            "say --open if that is what you mean".to_owned(),
        ),
        (Public::Secret, true) => refuse(
            format!(
                "route {name} is public: \"secret\": --open would change nothing, everybody needs the secret there"
            ),
            "leave --open out".to_owned(),
        ),
        (Public::Secret, false) | (Public::Open, true) => Ok(route.name.clone()),
    }
}

/// Serve cuts its own mount off before we see the path.
fn url(ask: &FunnelAsk, host: &str, gateway: &Gateway) -> String {
    let port = if ask.port == 443 { String::new() } else { format!(":{}", ask.port) };
    let mount = gateway.tailscale.serve.path.as_str().trim_end_matches('/');
    format!("https://{host}{port}{mount}{}", ask.path.as_str())
}

#[cfg(test)]
pub(super) mod tests;
