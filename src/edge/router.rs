//! Which route a request is for.

use std::sync::Arc;

use crate::domain::Route;

/// Where our own pages live on every origin.
pub const OWN_PREFIX: &str = "/_openclaw";

/// The routes, most specific first.
pub struct Router {
    routes: Vec<Arc<Route>>,
}

/// Where a request goes.
pub enum Target<'a> {
    /// To an app.
    Route(&'a Arc<Route>),
    /// To one of our own pages.
    Own,
    /// Nowhere.
    None,
}

impl Router {
    /// Sorts routes: one for a host before one for any, a longer prefix before a
    /// shorter.
    pub fn new(mut routes: Vec<Arc<Route>>) -> Self {
        routes.sort_by_key(|route| (route.host.is_none(), std::cmp::Reverse(route.path.specificity())));
        Self { routes }
    }

    /// The route of a name.
    pub fn named(&self, name: &str) -> Option<&Arc<Route>> {
        self.routes.iter().find(|route| route.name.as_str() == name)
    }

    /// Finds the target of a canonical policy path. With no route at all, `/` is
    /// our own.
    pub fn find(&self, host: &str, path: &str) -> Target<'_> {
        if path.strip_prefix(OWN_PREFIX).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) {
            return Target::Own;
        }
        if self.routes.is_empty() {
            return if path == "/" { Target::Own } else { Target::None };
        }
        let name = without_port(host);
        self.routes
            .iter()
            .find(|route| {
                route.host.as_deref().is_none_or(|wanted| wanted == name) && route.path.covers(path)
            })
            .map_or(Target::None, Target::Route)
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_no_part_of_a_name() {
        assert_eq!(without_port("gw:80"), "gw");
        assert_eq!(without_port("gw"), "gw");
        assert_eq!(without_port("[::1]:80"), "[::1]");
        assert_eq!(without_port("[::1]"), "[::1]");
    }
}
