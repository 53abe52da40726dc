//! One look at what is found, held against what is wanted and what is ours.

use std::collections::BTreeSet;

use openclaw_tailscale::{Origin, ServeConfig, WebHandler};

use super::named::{describe, port_of, trimmed};
use super::{Conflict, Held, NodeFacts, Plan, Route, Standing, Step};
use crate::serve::journal::{Entry, Phase};

pub(super) struct Look<'a> {
    pub(super) found: &'a ServeConfig,
    pub(super) node: &'a NodeFacts,
    pub(super) held: &'a [Held],
    /// The entries of this node, with the sessions of now.
    pub(super) ours: Vec<Entry>,
}

impl Look<'_> {
    /// What becomes of an entry by itself. `written` is how the journal has it.
    pub(super) fn settle(
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

    pub(super) fn standing(&self, route: &Route, leaving: &BTreeSet<u16>, plan: &mut Plan) -> Standing {
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
