//! What a look comes to, for `/readyz`, for the log and for people.

use super::DesiredMount;
use super::apply::Settled;
use super::choose::Choice;
use super::plan::{NodeFacts, Standing};
use super::status::{MountStatus, ServeStatus, Trouble};
use super::wanted::route;

/// A route that is on its way.
pub const PENDING: &str = "serve_pending";

fn pending() -> Trouble {
    Trouble::new(PENDING, "the Serve route is not published yet")
}

/// How it stands after a look.
pub(super) fn status_of(
    wanted: &[DesiredMount],
    choice: &Choice,
    settled: &Settled,
    node: &NodeFacts,
) -> ServeStatus {
    let mut status = ServeStatus { looked: true, ..ServeStatus::default() };
    if !wanted.is_empty() {
        status.trouble.extend(choice.trouble.clone());
    }
    status.trouble.extend(
        settled.trouble.iter().filter(|(route, _)| route.is_none()).map(|(_, trouble)| trouble.clone()),
    );
    for (index, mount) in wanted.iter().enumerate() {
        let mut shown = waiting_for(mount, Some(node));
        if let Some((route, standing)) = settled.plan.standing.get(index) {
            shown.served = matches!(standing, Standing::Ours | Standing::ByHand);
            shown.by_hand = *standing == Standing::ByHand;
            shown.trouble.clear();
            if let Standing::Blocked(conflict) = standing {
                shown.trouble.push(conflict.into());
            }
            let of_route = settled.trouble.iter().filter(|(of, _)| of.as_ref() == Some(route));
            shown.trouble.extend(of_route.map(|(_, trouble)| trouble.clone()));
            if settled.plan.made_public.contains(route) {
                shown.trouble.push(made_public(&shown.host_port));
            }
            if !shown.served && shown.trouble.is_empty() {
                shown.trouble.push(pending());
            }
        }
        status.mounts.push(shown);
    }
    status
}

/// Another gateway keeps the routes of this state directory.
pub(super) fn another_gateway(wanted: &[DesiredMount]) -> ServeStatus {
    let mut status = waiting(wanted);
    if !wanted.is_empty() {
        let detail = "another gateway uses this state directory (or its lock cannot be taken), and the Serve route is its business";
        let trouble = Trouble::new("serve_other_gateway", detail);
        status
            .trouble
            .push(trouble.fix("stop the other one, or give this one an OPENCLAW_STATE_DIR of its own"));
    }
    status
}

/// Before anything is known.
pub(super) fn waiting(wanted: &[DesiredMount]) -> ServeStatus {
    let mounts = wanted.iter().map(|mount| waiting_for(mount, None)).collect();
    ServeStatus { mounts, ..ServeStatus::default() }
}

fn waiting_for(mount: &DesiredMount, node: Option<&NodeFacts>) -> MountStatus {
    let route = route(mount, String::new(), false);
    MountStatus {
        url: node.map(|node| route.url(&node.name)).unwrap_or_default(),
        host_port: node.map(|node| node.host_port(mount.port)).unwrap_or_default(),
        path: mount.path.as_str().to_owned(),
        funnel: mount.funnel,
        served: false,
        by_hand: false,
        trouble: vec![pending()],
    }
}

fn made_public(host_port: &str) -> Trouble {
    Trouble::new(
        "serve_made_public",
        format!(
            "{host_port} is open to the internet by somebody's Funnel; requests from there are answered 403 not_public"
        ),
    )
    .fix("tailscale funnel status shows it; close it where it was opened")
}

pub(super) fn fought() -> Trouble {
    Trouble::new(
        "serve_taken_away",
        "the Serve route was taken away again and again, so it is published again more and more rarely",
    )
    .fix("openclaw config set gateway.tailscale.mode off, or find who takes it away: tailscale serve status")
}

/// Tells the log what is another now than it was.
pub(super) fn tell(before: &ServeStatus, status: &ServeStatus) {
    for mount in &status.mounts {
        let was = before.mounts.iter().find(|was| was.host_port == mount.host_port && was.path == mount.path);
        match (was.is_some_and(|was| was.served), mount.served) {
            (false, true) if mount.by_hand => {
                tracing::info!(url = mount.url, "serve enabled: {} (a route that was there)", mount.url);
            }
            (false, true) => tracing::info!(url = mount.url, "serve enabled: {}", mount.url),
            (true, false) => tracing::warn!(url = mount.url, "serve is gone: {}", mount.url),
            _ => {}
        }
    }
    for gone in before.mounts.iter().filter(|was| {
        was.served
            && !status.mounts.iter().any(|mount| mount.host_port == was.host_port && mount.path == was.path)
    }) {
        tracing::info!(url = gone.url, "serve disabled: {}", gone.url);
    }
    let known: Vec<&Trouble> = before.troubles().collect();
    for trouble in status.troubles().filter(|trouble| !known.contains(trouble) && trouble.code != PENDING) {
        let fix = trouble.fix.as_deref().map(|fix| format!(" -- to mend it: {fix}")).unwrap_or_default();
        tracing::warn!(code = trouble.code, "serve: {}{fix}", trouble.detail);
    }
}
