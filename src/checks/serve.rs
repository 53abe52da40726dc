//! What Serve publishes, held against what is wanted and what the gateway's own journal
//! says is its: seen without the gateway, so also of one that does not run.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use openclaw_tailscale::{Origin, ServeConfig, TcpForward, WebHandler};

use super::gateway::Gateway;
use super::{Finding, Level, Seen};
use crate::config::TailscaleMode;
use crate::serve::plan::place;
use crate::serve::{Entry, Held, NodeFacts, Phase, Plan, Route, Standing, Step, plan};

/// What was seen of Serve.
pub enum Serve {
    /// Nothing: Tailscale does not run, which another finding says, or there is no usable
    /// configuration to hold it against.
    NotAsked,
    /// Tailscale runs, and does not say what it publishes.
    Unreadable {
        /// Why.
        detail: String,
    },
    /// Tailscale said it.
    Read(Box<Published>),
}

/// What is published, and what should be.
pub struct Published {
    /// Everything that Serve publishes.
    pub found: ServeConfig,
    /// This node.
    pub node: NodeFacts,
    /// The node's own addresses.
    pub own: Vec<IpAddr>,
    /// What the journal has of this node; or why it cannot be read.
    pub journal: Result<Vec<Entry>, String>,
    /// The routes that the configuration asks for, as the gateway would publish them.
    pub wanted: Vec<Route>,
    /// Where the unix ingress of a gateway would be.
    pub socket: PathBuf,
}

pub(super) fn findings(seen: &Seen) -> Vec<Finding> {
    let (published, config) = match (&seen.serve, &seen.config) {
        (Serve::Unreadable { detail }, _) => {
            let detail = format!("what Serve publishes cannot be read: {detail}");
            return vec![Finding::new(Level::Warning, "serve_state_unknown", detail)];
        }
        (Serve::Read(published), Some(config)) => (published, config),
        (Serve::NotAsked | Serve::Read(_), _) => return Vec::new(),
    };
    let look = Look {
        published,
        port: config.gateway.port,
        entries: published.journal.as_deref().unwrap_or_default(),
        runs: matches!(seen.gateway, Gateway::Answers { .. }),
        is_on: config.gateway.tailscale.mode != TailscaleMode::Off,
    };
    look.findings()
}

struct Look<'a> {
    published: &'a Published,
    /// The gateway's ordinary port.
    port: u16,
    entries: &'a [Entry],
    runs: bool,
    is_on: bool,
}

impl Look<'_> {
    fn findings(&self) -> Vec<Finding> {
        let Published { found, node, wanted, journal, .. } = self.published;
        // What lives only as long as the gateway does is held while it runs.
        let held = if self.runs { Held::by_journal(wanted, self.entries, node) } else { Vec::new() };
        let plan = plan(wanted, found, self.entries, &held, node);
        let mut findings: Vec<Finding> =
            plan.standing.iter().map(|(route, standing)| self.standing(route, standing, &plan)).collect();
        findings.extend(plan.made_public.iter().map(|route| made_public(&node.host_port(route.port))));
        findings.extend(self.left_behind(&plan));
        findings.extend(self.by_hand());
        findings.extend(self.raw_forwards());
        // Without the journal it cannot be said whose a route is.
        if let (Err(error), false) = (journal, findings.is_empty() && !self.is_on) {
            let detail = format!("which routes of Serve are the gateway's cannot be said: {error}");
            findings.push(Finding::new(Level::Warning, "serve_journal_unreadable", detail));
        }
        findings
    }

    fn standing(&self, route: &Route, standing: &Standing, plan: &Plan) -> Finding {
        let url = route.url(&self.published.node.name);
        match standing {
            Standing::Ours => {
                let detail = format!("{url} leads to the gateway, which published it");
                Finding::new(Level::Ok, "serve", detail)
            }
            Standing::ByHand => {
                let detail = format!("{url} leads to the gateway; somebody else published it");
                Finding::new(Level::Ok, "serve", detail)
            }
            Standing::Blocked(conflict) => {
                let detail =
                    format!("{url} is not the gateway's: {conflict}; it is not ours, so it is left alone");
                Finding::new(Level::Error, "serve_conflict", detail).fix(conflict.fix())
            }
            Standing::Pending if self.vanished(route, plan) => {
                let detail = format!("the gateway published {url}, and it is not there any more");
                let finding = Finding::new(Level::Warning, "serve_drift", detail);
                finding.fix("tailscale serve status shows what is; a running gateway publishes it again")
            }
            Standing::Pending if self.runs => {
                Finding::new(Level::Warning, "serve_pending", format!("{url} is not published yet"))
                    .fix("look at the gateway's log")
            }
            Standing::Pending => {
                let detail = format!("{url} is not published: the gateway publishes it when it runs");
                Finding::new(Level::Info, "serve_not_published", detail).fix("openclaw gateway")
            }
        }
    }

    /// Whether the journal saw it there, in the background, where it stays by itself.
    fn vanished(&self, route: &Route, plan: &Plan) -> bool {
        plan.steps.iter().any(|step| match step {
            Step::Forget(entry) => {
                let is_this = entry.port() == Some(route.port) && entry.mount == route.path;
                is_this && entry.phase == Phase::Placed && !entry.session
            }
            _ => false,
        })
    }

    /// What is ours, is there, and is not wanted any more.
    fn left_behind(&self, plan: &Plan) -> Vec<Finding> {
        let leave = plan.steps.iter().filter_map(|step| match step {
            // A session ends by itself.
            Step::Remove { entry, .. } if !entry.session => Some(entry),
            _ => None,
        });
        let say = |entry: &Entry| {
            let detail = format!(
                "{}{} is published by an earlier run of the gateway and not wanted any more",
                entry.host_port, entry.mount
            );
            Finding::new(Level::Warning, "serve_left_behind", detail).fix("openclaw tailscale serve undo")
        };
        leave.map(say).collect()
    }

    /// Routes of others to the ordinary port, which is never what the gateway publishes.
    fn by_hand(&self) -> Vec<Finding> {
        let Published { found, own, .. } = self.published;
        let to_port = |handler: &&WebHandler| {
            handler.may_lead_to_port(self.port, own) && !matches!(handler.origin, Origin::Service(_))
        };
        let mut findings = Vec::new();
        for handler in found.web_handlers().filter(to_port) {
            let place = format!("{}{}", handler.host_port, handler.mount);
            let detail =
                format!("{place} of Serve leads to port {} of the gateway, set up by hand", self.port);
            findings.push(Finding::new(Level::Info, "serve_by_hand", detail));
            if found.is_funnel(&handler.host_port) {
                findings.push(made_public(&handler.host_port));
            }
        }
        findings
    }

    /// Raw forwards to any door of ours: what comes by them is whatever the client sends.
    fn raw_forwards(&self) -> Vec<Finding> {
        let Published { found, own, socket, .. } = self.published;
        let ingress_ports: Vec<u16> = self
            .entries
            .iter()
            .filter_map(|entry| entry.target.strip_prefix("http://127.0.0.1:")?.parse().ok())
            .collect();
        let sockets = self.entries.iter().filter_map(|entry| entry.target.strip_prefix("unix:"));
        let sockets: Vec<&Path> = sockets.map(Path::new).chain([socket.as_path()]).collect();
        let to_us = |forward: &&TcpForward| {
            let mut ports = ingress_ports.iter().chain([&self.port]);
            ports.any(|port| forward.may_lead_to_port(*port, own))
                || sockets.iter().any(|socket| forward.leads_to_unix(socket))
        };
        let level = if self.is_on { Level::Error } else { Level::Warning };
        let say = |forward: &TcpForward| {
            let detail = format!(
                "port {} of Serve is a raw TCP forward to {}, a door of the gateway's: headers that come by it are of the client's choosing, so nobody gets an identity by Serve there",
                forward.port,
                place(&forward.target)
            );
            let finding = Finding::new(level, "serve_raw_forward", detail);
            finding.fix("take that TCP forward away: tailscale serve status")
        };
        found.tcp_forwards().filter(to_us).map(say).collect()
    }
}

fn made_public(host_port: &str) -> Finding {
    let detail = format!(
        "{host_port} is open to the internet by somebody's Funnel; requests from there are answered 403 not_public"
    );
    Finding::new(Level::Warning, "serve_made_public", detail)
        .fix("tailscale funnel status shows it; close it where it was opened")
}

#[cfg(test)]
mod tests;
