//! Routes and journal entries as the Tailscale client takes them.

use openclaw_tailscale::{EditError, Error, Mount, ProxyTarget};

use super::journal::Entry;
use super::plan::Route;

pub(super) fn mount_of(route: &Route) -> Result<Mount, EditError> {
    Ok(Mount {
        https: route.https,
        port: route.port,
        path: route.path.clone(),
        target: target(&route.target)?,
        funnel: route.funnel,
    })
}

pub(super) fn mount_of_entry(entry: &Entry) -> Result<Mount, EditError> {
    Ok(Mount {
        https: entry.https,
        port: entry.port().ok_or_else(|| stopped("the journal's entry names no port"))?,
        path: entry.mount.clone(),
        target: target(&entry.target)?,
        funnel: false,
    })
}

fn target(text: &str) -> Result<ProxyTarget, EditError> {
    let port = text.strip_prefix("http://127.0.0.1:").and_then(|port| port.parse().ok());
    let path = text.strip_prefix("unix:");
    let target = port.map(ProxyTarget::Loopback).or_else(|| path.map(|path| ProxyTarget::Unix(path.into())));
    target.ok_or_else(|| stopped("the journal's entry has a target that is not ours"))
}

/// An edit that was not made, for a reason of our own.
pub(super) fn stopped(detail: &str) -> EditError {
    Error::Failed { command: "serve", code: 0, stderr: detail.to_owned() }.into()
}
