//! What becomes of one opening. Pure.

use std::time::{Duration, Instant};

use super::check::{check, still_configured};
use crate::domain::{
    BootMoment, FunnelGrant, FunnelPhase, FunnelRefusal, FunnelRow, FunnelSite, Now, Phase, TailnetState,
    Term,
};
use crate::edge::Settings;

/// How long an answer waits for the command that asked, in seconds.
const PATIENCE: i64 = 600;
/// How long a question waits for Tailscale's first answer, in seconds.
const STARTING: i64 = 10;
/// How long Tailscale may take to publish, or to take back, in seconds.
const PUBLISHING: i64 = 60;
/// After how many seconds trouble is not taken for passing any more.
const PASSING: i64 = 15;

/// How Tailscale is getting on with a port of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Publication {
    /// It is closed, and nothing of ours is under way.
    Closed,
    /// Something is under way, or it cannot be said; with what stands in its way now.
    Pending(Option<FunnelRefusal>),
    /// It is open, and leads to us.
    Published,
    /// It cannot be opened.
    Failed(FunnelRefusal),
}

/// What an opening is looked at with.
pub struct World<'a> {
    /// The configuration in force.
    pub settings: &'a Settings,
    /// The tailnet.
    pub state: &'a TailnetState,
    /// How a port is getting on.
    pub published: &'a dyn Fn(u16) -> Publication,
    /// Now.
    pub now: Now,
}

/// What to do about an opening.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Keep,
    /// Answer that it would be here.
    Ready(FunnelSite),
    /// Let requests through: it is published.
    Open,
    /// Say why not, or why no more.
    Refuse(FunnelRefusal),
    /// Strike it: it has ended, or nobody waits for it any more.
    Forget,
}

/// The moment after which it has ended, on a clock that nobody sets back. Asked once for
/// each row, when it is first seen: what is left then is what is left.
pub fn bound(row: &FunnelRow, now: Now, boot: Option<&BootMoment>) -> Option<Instant> {
    let by_day = row.until? - now.unix;
    let by_boot = match (&row.boot_until, boot) {
        (Some(until), Some(now)) if until.boot == now.boot => Some(until.seconds - now.seconds),
        _ => None,
    };
    let left = by_boot.map_or(by_day, |by_boot| by_boot.min(by_day));
    Some(now.instant + Duration::from_secs(u64::try_from(left).unwrap_or(0)))
}

impl FunnelRow {
    /// From when until when it holds; `None` until it is confirmed.
    pub fn term(&self, bound: Option<Instant>) -> Option<Term> {
        Some(Term { opened_at: self.opened_at?, until: self.until, bound })
    }

    /// What it lets through, once it is open.
    pub fn grant(&self, bound: Option<Instant>) -> Option<FunnelGrant> {
        if self.phase != FunnelPhase::Open {
            return None;
        }
        Some(FunnelGrant {
            path: self.ask.path.clone(),
            route: self.site.as_ref()?.route.clone(),
            open: self.ask.open,
            term: self.term(bound)?,
        })
    }

    /// Whether its port is to be open to the internet now.
    pub fn wants_port(&self, bound: Option<Instant>, now: Now) -> bool {
        matches!(self.phase, FunnelPhase::Confirmed | FunnelPhase::Open)
            && self.term(bound).is_some_and(|term| term.holds(now))
    }
}

/// Takes an opening one step further.
pub fn advance(row: &FunnelRow, bound: Option<Instant>, world: &World<'_>) -> Verdict {
    let age = world.now.unix - row.since;
    match row.phase {
        FunnelPhase::Asked if matches!(world.state.phase, Phase::Unknown) && age < STARTING => Verdict::Keep,
        FunnelPhase::Asked => match check(&row.ask, world.settings, world.state) {
            Ok(site) => Verdict::Ready(site),
            Err(refusal) => Verdict::Refuse(refusal),
        },
        FunnelPhase::Ready | FunnelPhase::Refused if age > PATIENCE => Verdict::Forget,
        FunnelPhase::Ready | FunnelPhase::Refused => Verdict::Keep,
        FunnelPhase::Confirmed | FunnelPhase::Open => live(row, bound, age, world),
        // It lets nothing through any more; the row only says that Tailscale may still
        // have the port open.
        FunnelPhase::Closing => match (world.published)(row.ask.port) {
            Publication::Closed => Verdict::Forget,
            _ if age > PUBLISHING => Verdict::Forget,
            _ => Verdict::Keep,
        },
    }
}

fn live(row: &FunnelRow, bound: Option<Instant>, age: i64, world: &World<'_>) -> Verdict {
    let (Some(site), Some(term)) = (&row.site, row.term(bound)) else { return Verdict::Forget };
    let open = row.phase == FunnelPhase::Open;
    if term.is_over(world.now) {
        return if open { Verdict::Forget } else { refuse("its time was over before it was published") };
    }
    match still_configured(&row.ask, &site.host, world.settings) {
        Ok(route) if route == site.route => {}
        Ok(route) => {
            return refuse(format!("{} leads to route {} now", row.ask.path.as_str(), route.as_str()));
        }
        Err(refusal) => return Verdict::Refuse(refusal),
    }
    // Another name was not announced: after a rename, or on another tailnet.
    let name = world.state.running().and_then(|running| running.dns_name.as_ref());
    if let Some(name) = name.map(|name| name.as_str().trim_end_matches('.'))
        && !name.eq_ignore_ascii_case(&site.host)
    {
        return refuse(format!("this node is now {name}, and {} was announced", site.host));
    }
    if open {
        return Verdict::Keep;
    }
    match (world.published)(row.ask.port) {
        Publication::Published => Verdict::Open,
        Publication::Failed(refusal) => Verdict::Refuse(refusal),
        Publication::Pending(Some(trouble)) if age > PASSING => Verdict::Refuse(trouble),
        Publication::Closed | Publication::Pending(_) if age > PUBLISHING => {
            refuse(format!("Tailscale did not publish it within {PUBLISHING} seconds"))
        }
        Publication::Closed | Publication::Pending(_) => Verdict::Keep,
    }
}

fn refuse(reason: impl Into<String>) -> Verdict {
    Verdict::Refuse(FunnelRefusal { reason: reason.into(), fix: None })
}

#[cfg(test)]
mod tests;
