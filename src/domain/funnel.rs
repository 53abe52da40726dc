//! What is open to the internet, and until when.
//!
//! A Funnel grant opens one path of one route to Funnel. It ends by itself, at a moment
//! that every request is compared with, and is kept in the state database on the way:
//! [`FunnelRow`]. Funnel is per port, so the path is kept here and not by Tailscale.

use std::time::Instant;

use super::{Public, Route, RouteName, RoutePrefix};

/// A clock that stands before the moment of the opening by more than this many seconds
/// says nothing about its end.
const CLOCK_SLACK: i64 = 60;

/// Now, by both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Unix seconds. Anybody with rights to it can set it.
    pub unix: i64,
    /// A clock that only goes forward.
    pub instant: Instant,
}

/// From when until when a grant holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Term {
    /// When it was confirmed, in Unix seconds.
    pub opened_at: i64,
    /// Its first second without effect, in Unix seconds; `None` is never, which had to
    /// be asked for.
    pub until: Option<i64>,
    /// The same moment on the clock that nobody sets back.
    pub bound: Option<Instant>,
}

impl Term {
    /// Whether its end has come, by either clock.
    pub fn is_over(&self, now: Now) -> bool {
        self.until.is_some_and(|until| until <= now.unix)
            || self.bound.is_some_and(|bound| bound <= now.instant)
    }

    /// Whether it holds. Not when the clock stands before its beginning: then it cannot
    /// be said how much of it is left.
    pub fn holds(&self, now: Now) -> bool {
        !self.is_over(now) && (self.until.is_none() || now.unix >= self.opened_at - CLOCK_SLACK)
    }
}

/// Leave to reach one path of one route through Funnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunnelGrant {
    /// The path, as the gateway sees it.
    pub path: RoutePrefix,
    /// The route that it leads to.
    pub route: RouteName,
    /// Whether everybody may be let in there (`--open`).
    pub open: bool,
    /// From when until when.
    pub term: Term,
}

impl FunnelGrant {
    /// Whether it opens a route at a canonical path.
    pub fn admits(&self, route: &Route, path: &str, now: Now) -> bool {
        let as_public = match route.public {
            Public::No => false,
            Public::Secret => true,
            // The route may have been changed since; nobody said --open to this.
            Public::Open => self.open,
        };
        as_public && self.route == route.name && self.path.covers(path) && self.term.holds(now)
    }
}

/// The grants of now. Swapped whole; looked at for Funnel requests only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FunnelGrants(pub Vec<FunnelGrant>);

impl FunnelGrants {
    /// Whether a route may be reached through Funnel at a canonical path.
    pub fn admit(&self, route: &Route, path: &str, now: Now) -> bool {
        self.0.iter().any(|grant| grant.admits(route, path, now))
    }
}

/// How far an opening has come. The command and the gateway take turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FunnelPhase {
    /// The command asks whether it would be possible.
    Asked,
    /// The gateway says under which address. Nothing is public yet.
    Ready,
    /// The command has announced the address, and says: do it.
    Confirmed,
    /// It is published, and requests are let through.
    Open,
    /// It is not possible, or was ended; the row says why.
    Refused,
    /// The command asks for its end.
    Closing,
}

impl FunnelPhase {
    const WORDS: [(Self, &'static str); 6] = [
        (Self::Asked, "asked"),
        (Self::Ready, "ready"),
        (Self::Confirmed, "confirmed"),
        (Self::Open, "open"),
        (Self::Refused, "refused"),
        (Self::Closing, "closing"),
    ];

    /// The word in the database.
    pub fn as_str(self) -> &'static str {
        Self::WORDS.iter().find(|(phase, _)| *phase == self).map_or("", |(_, word)| word)
    }

    /// From the word.
    pub fn parse(text: &str) -> Option<Self> {
        Self::WORDS.iter().find(|(_, word)| *word == text).map(|(phase, _)| *phase)
    }
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunnelAsk {
    /// The path, as the gateway sees it.
    pub path: RoutePrefix,
    /// The public port.
    pub port: u16,
    /// Whether everybody may be let in (`--open`).
    pub open: bool,
}

/// What the gateway answers: where it would be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunnelSite {
    /// The public name. Under another one nothing is published: it was not announced.
    pub host: String,
    /// The whole address.
    pub url: String,
    /// The route that the path leads to.
    pub route: RouteName,
}

/// Why it is not possible, or no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunnelRefusal {
    /// A sentence.
    pub reason: String,
    /// The command that mends it, if there is one.
    pub fix: Option<String>,
}

/// A moment on the clock that counts from the machine's start, sleep included, and in
/// which start: it survives a restart of the gateway, and nobody sets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootMoment {
    /// Which start of the machine.
    pub boot: String,
    /// Seconds since then.
    pub seconds: i64,
}

/// One opening, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunnelRow {
    /// Its number.
    pub id: i64,
    /// What was asked for.
    pub ask: FunnelAsk,
    /// How far it has come.
    pub phase: FunnelPhase,
    /// Where it is, once the gateway said so.
    pub site: Option<FunnelSite>,
    /// Why not.
    pub refusal: Option<FunnelRefusal>,
    /// Who asked.
    pub by: String,
    /// When the row last changed hands, in Unix seconds.
    pub since: i64,
    /// When it was confirmed, in Unix seconds.
    pub opened_at: Option<i64>,
    /// Its end, in Unix seconds; `None` is never.
    pub until: Option<i64>,
    /// Its end by the machine's own clock.
    pub boot_until: Option<BootMoment>,
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::domain::{Role, Upstream, UpstreamAddr, UpstreamKind, route};

    fn public(name: &str, public: Public) -> Route {
        let addr = UpstreamAddr::Tcp { tls: false, host: "127.0.0.1".into(), port: 3000 };
        Route {
            name: name.parse().unwrap(),
            host: None,
            path: RoutePrefix::root(),
            strip: false,
            upstream: Arc::new(Upstream {
                addr,
                base_path: String::new(),
                kind: UpstreamKind::Plain,
                host: route::HostMode::Preserve,
                identity_headers: route::IdentityHeaderNames::default(),
                owner_uid: None,
                ca_file: None,
                insecure_skip_verify: false,
            }),
            allow: None,
            role: Role::User,
            public,
            guard: route::GuardOptions::default(),
            timeouts: route::Timeouts::default(),
        }
    }

    fn now(unix: i64) -> Now {
        Now { unix, instant: Instant::now() }
    }

    fn grant(until: Option<i64>) -> FunnelGrant {
        FunnelGrant {
            path: "/hook".parse().unwrap(),
            route: "hooks".parse().unwrap(),
            open: false,
            term: Term { opened_at: 1000, until, bound: None },
        }
    }

    #[test]
    fn threat_060_a_grant_opens_its_route_at_its_path_and_no_more() {
        let grants = FunnelGrants(vec![grant(Some(2000))]);
        let hooks = public("hooks", Public::Secret);
        for path in ["/", "/hooks", "/hoo", "/Hook", "/x/hook", ""] {
            assert!(!grants.admit(&hooks, path, now(1500)), "{path}");
        }
        for (name, level) in [
            ("hooks", Public::No),
            ("hooks", Public::Open),
            ("other", Public::Secret),
            ("other", Public::Open),
        ] {
            assert!(!grants.admit(&public(name, level), "/hook", now(1500)), "{name} {level:?}");
        }
        assert!(!FunnelGrants::default().admit(&hooks, "/hook", now(1500)));
        assert!(grants.admit(&hooks, "/hook", now(1500)));
        assert!(grants.admit(&hooks, "/hook/x", now(1500)));
        let open = FunnelGrants(vec![FunnelGrant { open: true, ..grant(None) }]);
        assert!(open.admit(&public("hooks", Public::Open), "/hook", now(1500)));
    }

    #[test]
    fn threat_060_it_ends_by_whichever_clock_says_so() {
        let hooks = public("hooks", Public::Secret);
        let at = |grant: &FunnelGrant, now| grant.admits(&hooks, "/hook", now);
        let timed = grant(Some(2000));
        assert!(!at(&timed, now(2000)), "its end is its first second without effect");
        assert!(!at(&timed, now(i64::MAX)));
        assert!(at(&timed, now(1999)));
        // The clock was set back: the other one has gone on.
        let instant = Instant::now();
        let bound = Some(instant + Duration::from_secs(10));
        let bounded = FunnelGrant { term: Term { bound, ..timed.term }, ..timed.clone() };
        assert!(at(&bounded, Now { unix: 1500, instant }));
        assert!(!at(&bounded, Now { unix: 1500, instant: instant + Duration::from_secs(10) }));
        // Set back beyond its beginning nothing can be said; that is no end, either.
        assert!(!at(&timed, now(0)));
        assert!(!timed.term.is_over(now(0)));
        assert!(at(&timed, now(999)), "clocks are adjusted by a little all the time");
        assert!(at(&grant(None), now(0)), "for ever is for ever");
    }

    #[test]
    fn every_phase_has_a_word_of_its_own() {
        for (phase, word) in FunnelPhase::WORDS {
            assert_eq!((phase.as_str(), FunnelPhase::parse(word)), (word, Some(phase)));
        }
        assert_eq!(FunnelPhase::parse("OPEN"), None);
    }
}
