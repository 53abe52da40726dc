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

use openclaw_tailscale::{Origin, ServeConfig, Status, WebHandler};

use super::journal::{Entry, Phase};

mod conflict;

pub use conflict::Conflict;

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

struct Look<'a> {
    found: &'a ServeConfig,
    node: &'a NodeFacts,
    held: &'a [Held],
    /// The entries of this node, with the sessions of now.
    ours: Vec<Entry>,
}

impl Look<'_> {
    /// What becomes of an entry by itself. `written` is how the journal has it.
    fn settle(
        &self,
        entry: &Entry,
        written: &Entry,
        wanted: &[Route],
        steps: &mut Vec<Step>,
        leaving: &mut BTreeSet<u16>,
    ) {
        let is_wanted = wanted.iter().any(|route| route.is(entry, self.node));
        let is_held = self.held.iter().any(|held| held.route.is(entry, self.node));
        if !self.has_handler(entry) {
            // A step that publishes it writes it anew.
            if !is_held {
                steps.push(Step::Forget(entry.clone()));
            }
            return;
        }
        // A session of a process that is gone: nobody listens where it leads.
        let lingers = entry.session && !is_held;
        if is_wanted && !lingers {
            // Without its listener it is published anew.
            let seen = entry.in_phase(Phase::Placed);
            if *written != seen && self.is_there(entry) {
                steps.push(Step::Confirm(seen));
            }
            return;
        }
        // Published with another target it is replaced, without a moment of neither.
        let replaced = wanted.iter().any(|route| {
            !route.session
                && !entry.session
                && !route.funnel
                && route.https == entry.https
                && self.node.host_port(route.port).eq_ignore_ascii_case(&entry.host_port)
                && route.path == entry.mount
        });
        if replaced && !self.is_foreign_funnel(&entry.host_port) {
            return;
        }
        leaving.extend(entry.port());
        let by_command = !entry.session && self.is_of_name(entry) && self.has_listener_alone(entry);
        steps.push(Step::Remove { entry: entry.clone(), by_command });
    }

    fn standing(&self, route: &Route, leaving: &BTreeSet<u16>, plan: &mut Plan) -> Standing {
        let host_port = self.node.host_port(route.port);
        let held = self.held.iter().find(|held| held.route == *route);
        let session_id = held.map(|held| held.session_id.clone());
        let intended = Entry { session_id, ..Entry::intended(route, self.node) };
        let entry = self.ours.iter().find(|entry| route.is(entry, self.node));
        let there = self.is_there(&intended);
        let is_held = !route.session || held.is_some();
        if let Some(entry) = entry.filter(|_| there && is_held) {
            return self.published(route, entry, plan);
        }
        if there && !route.session {
            if !route.funnel && self.is_public(&host_port) {
                plan.made_public.push(route.clone());
            }
            return Standing::ByHand;
        }
        // What is ours on this port goes first.
        if leaving.contains(&route.port) {
            return Standing::Pending;
        }
        match self.conflict(route, &host_port) {
            Some(conflict) => Standing::Blocked(conflict),
            None => {
                plan.steps.push(Step::Publish(route.clone()));
                Standing::Pending
            }
        }
    }

    /// One that is there and ours: whether its site is as public as is wanted.
    fn published(&self, route: &Route, entry: &Entry, plan: &mut Plan) -> Standing {
        // A session is held exactly as wanted, or not at all.
        let opened = !route.session && self.is_opened(&entry.host_port);
        let (wanted, ours) = (!route.session && route.funnel, entry.funnel);
        let standing = match (opened, wanted, ours) {
            (true, true, false) => Standing::Blocked(Conflict::Public { host_port: entry.host_port.clone() }),
            (true, false, true) if self.foreign_on(&entry.host_port).next().is_none() => {
                plan.steps.push(Step::Publish(route.clone()));
                return Standing::Pending;
            }
            (false, true, _) => match self.conflict(route, &entry.host_port) {
                Some(conflict) => Standing::Blocked(conflict),
                None => {
                    plan.steps.push(Step::Publish(route.clone()));
                    Standing::Pending
                }
            },
            // Closed by somebody, or somebody put a mount of theirs beside ours: then it
            // is their Funnel, too, and not ours to close.
            (_, false, true) if !route.session => {
                plan.steps.push(Step::Confirm(Entry {
                    funnel: false,
                    phase: Phase::Placed,
                    ..entry.clone()
                }));
                Standing::Ours
            }
            (true, true, true) | (_, false, _) => Standing::Ours,
        };
        if !route.funnel && self.is_public(&entry.host_port) {
            plan.made_public.push(route.clone());
        }
        standing
    }

    /// What of somebody else's is in the way.
    fn conflict(&self, route: &Route, host_port: &str) -> Option<Conflict> {
        let port = route.port;
        for listener in self.found.listeners().filter(|listener| listener.port == port) {
            match &listener.origin {
                Origin::Service(_) => {}
                Origin::Foreground(session) => {
                    let what = self.first_on(port, |origin| origin == &Origin::Foreground(session.clone()));
                    return Some(Conflict::Session { port, what });
                }
                Origin::Node if !listener.http && !listener.https => {
                    let forward = self
                        .found
                        .tcp_forwards()
                        .find(|forward| forward.port == port && forward.origin == Origin::Node);
                    let target = forward.map_or_else(|| "?".to_owned(), |forward| forward.target.clone());
                    return Some(Conflict::RawTcp { port, target });
                }
                Origin::Node if listener.https != route.https => {
                    return Some(Conflict::OtherScheme { port, https: listener.https });
                }
                Origin::Node if route.session => {
                    let what = self.first_on(port, |origin| origin == &Origin::Node);
                    return Some(Conflict::PortHeld { port, what });
                }
                Origin::Node => {}
            }
        }
        // Somebody's mount that nothing listens for would be published with ours.
        let listens =
            self.found.listeners().any(|listener| listener.origin == Origin::Node && listener.port == port);
        let dormant = |handler: &&WebHandler| {
            handler.origin == Origin::Node
                && port_of(&handler.host_port) == Some(port)
                && !self.is_ours(handler)
        };
        if let Some(handler) = self.found.web_handlers().find(dormant).filter(|_| !listens) {
            return Some(Conflict::Dormant {
                host_port: handler.host_port.clone(),
                mount: handler.mount.clone(),
                target: describe(handler),
            });
        }
        if self.is_foreign_funnel(host_port) {
            return Some(Conflict::Public { host_port: host_port.to_owned() });
        }
        let mut foreign = self.foreign_on(host_port);
        let same_mount = |handler: &&WebHandler| trimmed(&handler.mount) == trimmed(&route.path);
        if let Some(handler) = self.foreign_on(host_port).find(same_mount) {
            return Some(Conflict::Mount {
                host_port: host_port.to_owned(),
                mount: handler.mount.clone(),
                target: describe(handler),
            });
        }
        foreign.next().filter(|_| route.funnel).map(|handler| Conflict::WouldPublish {
            host_port: host_port.to_owned(),
            mount: handler.mount.clone(),
            target: describe(handler),
        })
    }

    fn has_handler(&self, entry: &Entry) -> bool {
        self.found.web_handlers().any(|handler| entry.is(handler))
    }

    fn is_there(&self, entry: &Entry) -> bool {
        self.has_handler(entry) && self.listens(entry)
    }

    /// Whether the port has the listener that the mount needs.
    fn listens(&self, entry: &Entry) -> bool {
        self.found.listeners().any(|listener| {
            entry.is_of(&listener.origin)
                && Some(listener.port) == entry.port()
                && listener.https == entry.https
        })
    }

    fn is_ours(&self, handler: &WebHandler) -> bool {
        self.ours.iter().any(|entry| entry.is(handler))
    }

    /// The mounts of others on a site of the node's own configuration.
    fn foreign_on<'s>(&'s self, host_port: &'s str) -> impl Iterator<Item = &'s WebHandler> {
        self.found.web_handlers().filter(move |handler| {
            handler.origin == Origin::Node
                && handler.host_port.eq_ignore_ascii_case(host_port)
                && !self.is_ours(handler)
        })
    }

    /// Whether the site is open to the internet, whoever opened it. A Service has names
    /// of its own.
    fn is_public(&self, host_port: &str) -> bool {
        let of_node = |origin: &Origin| !matches!(origin, Origin::Service(_));
        let mut hosts = self.found.funnel_hosts().filter(|host| of_node(&host.origin));
        hosts.any(|host| host.host_port.eq_ignore_ascii_case(host_port))
    }

    /// Whether it is open by the node's own configuration, which a background edit
    /// changes.
    fn is_opened(&self, host_port: &str) -> bool {
        let mut hosts = self.found.funnel_hosts().filter(|host| host.origin == Origin::Node);
        hosts.any(|host| host.host_port.eq_ignore_ascii_case(host_port))
    }

    /// Whether the site is public without our doing.
    fn is_foreign_funnel(&self, host_port: &str) -> bool {
        let opened = |entry: &&Entry| {
            entry.funnel && entry.host_port.eq_ignore_ascii_case(host_port) && self.is_there(entry)
        };
        self.is_public(host_port) && !self.ours.iter().any(|entry| opened(&entry))
    }

    fn is_of_name(&self, entry: &Entry) -> bool {
        entry.port().is_some_and(|port| self.node.host_port(port).eq_ignore_ascii_case(&entry.host_port))
    }

    /// Whether the port's listener is of its kind, or gone, and no site of another name
    /// needs it.
    fn has_listener_alone(&self, entry: &Entry) -> bool {
        let of_node = |origin: &Origin| *origin == Origin::Node;
        let other_kind = self.found.listeners().any(|listener| {
            of_node(&listener.origin)
                && Some(listener.port) == entry.port()
                && (listener.https != entry.https || listener.http == entry.https)
        });
        let other_name = self.found.web_handlers().any(|handler| {
            of_node(&handler.origin)
                && !handler.host_port.eq_ignore_ascii_case(&entry.host_port)
                && port_of(&handler.host_port) == entry.port()
        });
        !other_kind && !other_name
    }

    /// What is mounted on a port, for the sentence that names it.
    fn first_on(&self, port: u16, origin: impl Fn(&Origin) -> bool) -> String {
        let web = self
            .found
            .web_handlers()
            .find(|handler| origin(&handler.origin) && port_of(&handler.host_port) == Some(port));
        let raw = self.found.tcp_forwards().find(|forward| origin(&forward.origin) && forward.port == port);
        match (web, raw) {
            (Some(handler), _) => format!("{}{} to {}", handler.host_port, handler.mount, describe(handler)),
            (None, Some(forward)) => format!("a TCP forward to {}", forward.target),
            (None, None) => "a listener without a mount".to_owned(),
        }
    }
}

fn port_of(host_port: &str) -> Option<u16> {
    host_port.rsplit_once(':')?.1.parse().ok()
}

/// `/a` and `/a/` are one mount.
fn trimmed(mount: &str) -> &str {
    mount.trim_end_matches('/')
}

fn describe(handler: &WebHandler) -> String {
    let some = |text: &Option<String>, what: &str| text.as_ref().map(|text| format!("{what}{}", place(text)));
    some(&handler.proxy, "")
        .or_else(|| some(&handler.path, "the files of "))
        .or_else(|| handler.text.as_ref().map(|_| "a fixed text".to_owned()))
        .or_else(|| some(&handler.redirect, "a redirect to "))
        .unwrap_or_else(|| "something unknown".to_owned())
}

/// Where somebody else's route leads, for the log and for admins: the place alone. Its
/// user, its path and its query may be their secret.
pub(crate) fn place(target: &str) -> String {
    const SHOWN: usize = 120;
    let shown = match target.split_once("://") {
        Some((scheme, rest)) => {
            let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
            let host = authority.rsplit('@').next().unwrap_or_default();
            format!("{scheme}://{host}")
        }
        None => target.to_owned(),
    };
    shown.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).take(SHOWN).collect()
}

#[cfg(test)]
mod tests;
