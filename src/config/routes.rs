//! `gateway.routes` and `gateway.upstream` (rulings 3 and 5).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::build::{Build, millis};
use super::error::Problem;
use super::provenance::Provenance;
use super::{access, raw, upstream};
use crate::domain::route::{GuardOptions, Timeouts};
use crate::domain::{Public, Role, Route, RouteName, RoutePrefix, Upstream, UpstreamAddr, UpstreamKind};

const UPSTREAM: &str = "gateway.upstream";

/// The routes, most specific first.
#[derive(Default)]
pub(crate) struct Routes {
    /// Those of the ordinary port.
    pub(crate) ordinary: Vec<Arc<Route>>,
    /// Those of ports of their own.
    pub(crate) by_port: BTreeMap<u16, Vec<Arc<Route>>>,
    names: Vec<String>,
}

impl Routes {
    /// Every name in the file, also of routes that were refused.
    pub(crate) fn names(&self) -> Vec<String> {
        self.names.clone()
    }

    /// Every route.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.ordinary.iter().chain(self.by_port.values().flatten())
    }
}

struct Read {
    key: String,
    listen: Option<u16>,
    route: Route,
}

/// Settles the routes.
pub(crate) fn routes(build: &mut Build<'_>, raw: &raw::Gateway, port: u16) -> Routes {
    let timeouts = timeouts(raw.timeouts, Timeouts::default());
    let flag = build.flags.upstream.clone().map(raw::Upstream::Text);
    if flag.is_some() {
        build.provenance.record(UPSTREAM, Provenance::Flag("--upstream"));
    }
    let single = flag.as_ref().or(raw.upstream.as_ref());
    let mut names: Vec<String> = raw.routes.keys().cloned().collect();
    if single.is_some() && !raw.routes.is_empty() {
        let from = build.from(UPSTREAM);
        let what = format!("is set{from} next to gateway.routes: one app or several, not both");
        build.refuse(Problem::new(UPSTREAM, what).fix("openclaw config unset gateway.upstream"));
    }
    let mut read = Vec::new();
    if let Some(single) = single.filter(|_| raw.routes.is_empty()) {
        let route = raw::Route::default();
        read.extend(self::route(build, UPSTREAM, "default", &route, Some(single), timeouts));
        names.push("default".to_owned());
    }
    for (name, route) in &raw.routes {
        let key = super::keypath::KeyPath::root().key("gateway").key("routes").key(name).to_string();
        read.extend(self::route(build, &key, name, route, route.upstream.as_ref(), timeouts));
    }
    for one in &read {
        refuse_ourselves(build, one, port);
    }
    between(build, &read, port);
    let mut routes = Routes { names, ..Routes::default() };
    read.sort_by_key(|one| (one.route.host.is_none(), std::cmp::Reverse(one.route.path.specificity())));
    for Read { listen, route, .. } in read {
        match listen {
            Some(port) => routes.by_port.entry(port).or_default().push(Arc::new(route)),
            None => routes.ordinary.push(Arc::new(route)),
        }
    }
    routes
}

fn route(
    build: &mut Build<'_>,
    key: &str,
    name: &str,
    raw: &raw::Route,
    at: Option<&raw::Upstream>,
    defaults: Timeouts,
) -> Option<Read> {
    let parsed = build.parse::<RouteName>(key, name);
    let path = match &raw.path {
        Some(text) => build.parse::<RoutePrefix>(&format!("{key}.path"), text),
        None => Some(RoutePrefix::root()),
    };
    let host = match &raw.host {
        Some(text) => Some(access::host(build, &format!("{key}.host"), text)?),
        None => None,
    };
    let allow = raw.allow.as_ref().map(|list| access::entries(build, &format!("{key}.allow"), list, None));
    let upstream_key = if key == UPSTREAM { key.to_owned() } else { format!("{key}.upstream") };
    let Some(at) = at else {
        let what = "is missing: where the app listens, such as 3000";
        build.refuse(
            Problem::new(&*upstream_key, what)
                .fix(format!("openclaw config set {upstream_key} 3000"))
                .at_start(),
        );
        return None;
    };
    let upstream = upstream::upstream(build, &upstream_key, at)?;
    let public = match raw.public.as_str() {
        Some("open") => Public::Open,
        Some("secret") => Public::Secret,
        _ => Public::No,
    };
    let role = access::role(raw.role.as_deref()).unwrap_or_else(|| default_role(&upstream));
    refuse_public(build, key, &upstream, role, public);
    let path = path?;
    if raw.strip && path == RoutePrefix::root() {
        build.warn(format!("{key}.strip has no effect: the path is /"));
    }
    let route = Route {
        name: parsed?,
        host,
        path,
        strip: raw.strip,
        upstream: Arc::new(upstream),
        allow,
        role,
        public,
        guard: GuardOptions { non_browser_upgrade: raw.guard.non_browser_upgrade },
        timeouts: timeouts(raw.timeouts, defaults),
    };
    Some(Read { key: key.to_owned(), listen: raw.listen, route })
}

/// A route to a real OpenClaw gateway lends that gateway's full rights, so it is
/// for admins unless it says otherwise (upstream spec).
fn default_role(upstream: &Upstream) -> Role {
    match upstream.kind {
        UpstreamKind::OpenClaw { .. } => Role::Admin,
        UpstreamKind::Plain => Role::User,
    }
}

fn refuse_public(build: &mut Build<'_>, key: &str, upstream: &Upstream, role: Role, public: Public) {
    if public == Public::No {
        return;
    }
    let public_key = format!("{key}.public");
    let fix = format!("openclaw config unset {public_key}");
    if matches!(upstream.kind, UpstreamKind::OpenClaw { .. }) && public == Public::Open {
        let what = "\"open\" would hand the OpenClaw gateway behind, with all its rights, to everybody";
        build.refuse(Problem::new(public_key, what).fix(fix));
    } else if role == Role::Admin {
        let what = "is set on a route for admins, and nobody is admin through Funnel: nobody could use it";
        build.refuse(Problem::new(public_key, what).fix(fix));
    }
}

/// A route to our own port would ask us for what it should answer (threat rule
/// 68). Loops through others are found as they happen.
fn refuse_ourselves(build: &mut Build<'_>, one: &Read, port: u16) {
    let addr = &one.route.upstream.addr;
    let UpstreamAddr::Tcp { port: theirs, .. } = addr else { return };
    if upstream::is_on_this_machine(addr) && (*theirs == port || Some(*theirs) == one.listen) {
        let key = if one.key == UPSTREAM { one.key.clone() } else { format!("{}.upstream", one.key) };
        let what = format!("{addr} is the gateway itself: give the app, or gateway.port, another port");
        build.refuse(Problem::new(key, what).fix("openclaw config set gateway.port 18800"));
    }
}

/// What routes must not be to each other.
fn between(build: &mut Build<'_>, read: &[Read], port: u16) {
    let place = |one: &Read| (one.listen, one.route.host.clone(), one.route.path.clone());
    for (i, one) in read.iter().enumerate() {
        if one.listen.is_some() && one.listen == Some(port) {
            let what = format!("{port} is gateway.port: leave it out, or give a port of its own");
            build.refuse(Problem::new(format!("{}.listen", one.key), what));
        }
        if let Some(twin) = read[..i].iter().find(|other| place(other) == place(one)) {
            let what =
                format!("covers exactly what {} covers: give it another host, path or listen", twin.key);
            build.refuse(Problem::new(one.key.clone(), what));
        }
        let openclaw = matches!(one.route.upstream.kind, UpstreamKind::OpenClaw { .. });
        if read.len() > 1 && (openclaw || one.route.role == Role::Admin) && !has_own_origin(one, read) {
            let why = if openclaw { "kind is openclaw" } else { "role is admin" };
            let what = format!(
                "{why}, and there are other routes: pages of another app on the same origin could act with its rights. Give it a host or a listen port of its own, and no path"
            );
            build.refuse(Problem::new(one.key.clone(), what).fix(format!(
                "openclaw config set {}.listen {}",
                one.key,
                port.saturating_add(2)
            )));
        }
    }
    let mut origins: BTreeMap<_, Vec<String>> = BTreeMap::new();
    for one in read {
        let label = format!("{} ({})", one.route.name.as_str(), one.route.path.as_str());
        origins.entry((one.listen, one.route.host.clone())).or_default().push(label);
    }
    for labels in origins.into_values().filter(|labels| labels.len() > 1) {
        build.warn(format!(
            "gateway.routes: {} share one origin: a page of one can act on the others as whoever views it",
            labels.join(", ")
        ));
    }
}

/// Whether nothing else is served on a route's origin.
fn has_own_origin(one: &Read, all: &[Read]) -> bool {
    let others = || all.iter().filter(|other| !std::ptr::eq(*other, one) && other.listen == one.listen);
    match (&one.route.host, one.listen) {
        // On its own host it must cover every path, or a route for any host
        // answers the rest there.
        (Some(host), _) => {
            others().all(|other| other.route.host.as_ref() != Some(host))
                && (one.route.path == RoutePrefix::root() || others().all(|other| other.route.host.is_some()))
        }
        (None, Some(_)) => others().next().is_none(),
        (None, None) => false,
    }
}

fn timeouts(raw: raw::Timeouts, defaults: Timeouts) -> Timeouts {
    Timeouts {
        connect: millis(raw.connect_ms, defaults.connect),
        first_byte: millis(raw.first_byte_ms, defaults.first_byte),
        idle: millis(raw.idle_ms, defaults.idle),
    }
}
