//! From what is wanted, what is found and what is ours to the next steps. Pure.
//!
//! What is found belongs to somebody else unless the [journal](super::journal) has it and
//! it equals the entry exactly. Nothing of somebody else's is ever in a step, and no step
//! changes it as a side effect:
//!
//! - `serve` switches a port's Funnel off, so a port that somebody made public is left
//!   alone;
//! - a port has one kind of listener and a mount one target, so what is taken is taken;
//! - Funnel is per port, so ours is not opened where somebody else has a mount, and not
//!   closed where somebody has one by then;
//! - the command line takes a port's listener away with the last mount of the node's own
//!   name, also where a site of another name needs it, and knows no other name: such
//!   steps say so ([`Step::Remove`]), and are taken at the LocalAPI or not at all.
//!
//! A Service has addresses of its own, so what it listens on is in nobody's way.

use std::collections::BTreeSet;

use openclaw_tailscale::{ServeConfig, Status};

use super::journal::Entry;

mod conflict;
mod look;
mod named;

use look::Look;

pub use conflict::Conflict;
pub(crate) use named::place;
pub(super) use named::port_of;

/// This node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFacts {
    /// Its stable id.
    pub id: String,
    /// Its tailnet's name.
    pub tailnet: String,
    /// Its full name, without a final dot.
    pub name: String,
}

impl NodeFacts {
    /// Of what Tailscale says; `None` while it does not run, or the node has no name.
    #[must_use]
    pub fn of(status: &Status) -> Option<Self> {
        let node = status.is_running().then_some(&status.self_node)?;
        Some(Self {
            id: node.id.as_ref()?.as_str().to_owned(),
            tailnet: status.current_tailnet.as_ref().map(|tailnet| tailnet.name.clone()).unwrap_or_default(),
            name: node.dns_name.as_ref()?.as_str().trim_end_matches('.').to_owned(),
        })
    }

    /// What the journal calls it. Tailscale's own ids are unique, those of a control server
    /// of one's own are `1`, `2`, …: a profile of another such server must not be taken for
    /// this one, whose routes are not there while that is in use.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}/{}", self.tailnet, self.id)
    }

    /// `name:port`.
    #[must_use]
    pub fn host_port(&self, port: u16) -> String {
        format!("{}:{port}", self.name)
    }
}

/// A mount with its target.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Route {
    /// With the node's certificate, or plain HTTP.
    pub https: bool,
    /// The port that Serve listens on.
    pub port: u16,
    /// The path.
    pub path: String,
    /// Where it leads, as the configuration has it.
    pub target: String,
    /// Whether it is to live only as long as this process.
    pub session: bool,
    /// Whether its site is to be open to the internet.
    pub funnel: bool,
}

impl Route {
    /// The address that people type.
    #[must_use]
    pub fn url(&self, name: &str) -> String {
        let (scheme, usual) = if self.https { ("https", 443) } else { ("http", 80) };
        let port = if self.port == usual { String::new() } else { format!(":{}", self.port) };
        let path = self.path.trim_end_matches('/');
        format!("{scheme}://{name}{port}{path}/")
    }

    fn is(&self, entry: &Entry, node: &NodeFacts) -> bool {
        entry.same_place(&Entry::intended(self, node)) && entry.https == self.https
    }
}

/// A route that a living session of the gateway's holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The route.
    pub route: Route,
    /// The session's id, as the Serve configuration has it.
    pub session_id: String,
}

impl Held {
    /// Those that a running gateway holds, by what it wrote down, for whoever looks from
    /// another process.
    #[must_use]
    pub fn by_journal(wanted: &[Route], journal: &[Entry], node: &NodeFacts) -> Vec<Self> {
        let held = |route: &Route| {
            let entry = journal.iter().find(|entry| route.session && route.is(entry, node))?;
            Some(Self { route: route.clone(), session_id: entry.session_id.clone()? })
        };
        wanted.iter().filter_map(held).collect()
    }
}

/// One step. Only those that change what is published are taken by the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Strike the entry: what it speaks of is not there.
    Forget(Entry),
    /// Write that it was seen.
    Confirm(Entry),
    /// Take it away.
    Remove {
        /// What.
        entry: Entry,
        /// Whether the command line does this and no more.
        by_command: bool,
    },
    /// Publish it.
    Publish(Route),
}

impl Step {
    /// Whether it does the same to the same mount.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Publish(a), Self::Publish(b)) => a == b,
            (Self::Forget(a), Self::Forget(b))
            | (Self::Confirm(a), Self::Confirm(b))
            | (Self::Remove { entry: a, .. }, Self::Remove { entry: b, .. }) => a.same_place(b),
            _ => false,
        }
    }

    /// Whether it changes what is published.
    #[must_use]
    pub fn is_edit(&self) -> bool {
        matches!(self, Self::Remove { .. } | Self::Publish(_))
    }
}

/// Where a wanted route stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Published by us.
    Ours,
    /// Published by somebody who meant us: it is used, and never taken away.
    ByHand,
    /// A step is on its way.
    Pending,
    /// Something of somebody else's is in the way.
    Blocked(Conflict),
}

/// What is to be done, and where each wanted route stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In their order.
    pub steps: Vec<Step>,
    /// One for each wanted route, in their order.
    pub standing: Vec<(Route, Standing)>,
    /// Wanted routes that are published and whose site somebody made public.
    pub made_public: Vec<Route>,
}

/// Plans the next steps. `held` is what sessions of this process hold.
#[must_use]
pub fn plan(
    wanted: &[Route],
    found: &ServeConfig,
    journal: &[Entry],
    held: &[Held],
    node: &NodeFacts,
) -> Plan {
    let key = node.key();
    let written: Vec<&Entry> = journal.iter().filter(|entry| entry.node == key).collect();
    let known = |entry: &&Entry| {
        let now = held.iter().find(|held| held.route.is(entry, node)).map(|held| held.session_id.clone());
        Entry { session_id: now.or_else(|| entry.session_id.clone()), ..(*entry).clone() }
    };
    let look = Look { found, node, held, ours: written.iter().map(known).collect() };
    let mut plan = Plan::default();
    let mut leaving = BTreeSet::new();
    for (entry, written) in look.ours.iter().zip(written) {
        look.settle(entry, written, wanted, &mut plan.steps, &mut leaving);
    }
    for route in wanted {
        let standing = look.standing(route, &leaving, &mut plan);
        plan.standing.push((route.clone(), standing));
    }
    plan
}

#[cfg(test)]
mod tests;
