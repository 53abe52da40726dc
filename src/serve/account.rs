//! Routes that somebody takes away again and again.
//!
//! Whoever does may have a reason: from the third time on the route is published more and
//! more rarely, and never given up. One that stayed for a while is begun with anew.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::apply::Settled;
use super::plan::{Route, Standing};

/// How long a mount must stay before what went before is forgotten.
const STEADY: Duration = Duration::from_secs(600);
/// So often it may vanish before it is published more rarely.
const PATIENCE: u32 = 2;
/// The longest wait then.
const RARELY: Duration = Duration::from_secs(300);

/// What has become of each route so far.
#[derive(Debug, Default)]
pub(super) struct Account {
    fights: HashMap<Route, Fight>,
}

/// One route's history.
#[derive(Clone, Copy, Debug, Default)]
struct Fight {
    /// When it was seen first since it was last missing.
    since: Option<Instant>,
    was_there: bool,
    vanished: u32,
    not_before: Option<Instant>,
}

impl Account {
    /// Whether a route has to wait before it is published again.
    pub(super) fn is_held_back(&self, route: &Route, now: Instant) -> bool {
        self.fights.get(route).and_then(|fight| fight.not_before).is_some_and(|until| until > now)
    }

    /// Keeps account of routes that vanish: one that was there and had to be published
    /// anew was taken away by somebody.
    pub(super) fn note(&mut self, routes: &[Route], settled: &Settled, now: Instant) {
        self.fights.retain(|route, _| routes.contains(route));
        for (route, standing) in &settled.plan.standing {
            let served = matches!(standing, Standing::Ours | Standing::ByHand);
            let fight = self.fights.entry(route.clone()).or_default();
            // Published anew, or just published and gone before it could be seen.
            let again = settled.published.contains(route);
            if fight.was_there && (again || (!served && fight.since.is_some())) {
                if fight.since.is_some_and(|since| now.duration_since(since) >= STEADY) {
                    fight.vanished = 0;
                }
                fight.vanished += 1;
                fight.since = None;
                if let Some(times) = fight.vanished.checked_sub(PATIENCE).filter(|times| *times > 0) {
                    let wait = Duration::from_secs(5 << times.min(6)).min(RARELY);
                    fight.not_before = Some(now + wait);
                }
            }
            fight.was_there |= served;
            if served && fight.since.is_none() {
                fight.since = Some(now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::model::route;
    use crate::serve::plan::Plan;

    /// What a look comes to: whether the route is there, and whether it was published anew.
    fn look(standing: Standing, published: bool) -> Settled {
        let plan = Plan { standing: vec![(route(), standing)], ..Plan::default() };
        let published = if published { vec![route()] } else { Vec::new() };
        Settled { plan, published, ..Settled::default() }
    }

    /// Taken away and published again so many times: how long it is held back then.
    fn held_back_after(times: u32, between: Duration) -> Duration {
        let (mut account, mut now) = (Account::default(), Instant::now());
        account.note(&[route()], &look(Standing::Ours, true), now);
        for _ in 0..times {
            now += between;
            account.note(&[route()], &look(Standing::Ours, true), now);
        }
        let seconds = (0..1000).find(|s| !account.is_held_back(&route(), now + Duration::from_secs(*s)));
        Duration::from_secs(seconds.unwrap())
    }

    #[test]
    fn a_route_that_is_taken_away_is_published_more_and_more_rarely() {
        let soon = Duration::from_secs(5);
        let waits: Vec<u64> = (0..9).map(|times| held_back_after(times, soon).as_secs()).collect();
        assert_eq!(waits, [0, 0, 0, 10, 20, 40, 80, 160, 300]);
        // What stayed for a while and is missing then is no fight.
        assert_eq!(held_back_after(9, STEADY).as_secs(), 0);
    }

    #[test]
    fn a_first_publication_and_one_that_is_not_wanted_any_more_are_no_fight() {
        let (mut account, now) = (Account::default(), Instant::now());
        for _ in 0..9 {
            account.note(&[route()], &look(Standing::Pending, false), now);
        }
        assert!(!account.is_held_back(&route(), now), "it never was there");
        for _ in 0..9 {
            account.note(&[route()], &look(Standing::Ours, true), now);
        }
        assert!(account.is_held_back(&route(), now));
        account.note(&[], &Settled::default(), now);
        account.note(&[route()], &look(Standing::Ours, true), now);
        assert!(!account.is_held_back(&route(), now));
    }
}
