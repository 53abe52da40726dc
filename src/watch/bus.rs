//! Hears what tailscaled tells, and has identities asked for again.
//!
//! An event does not say who may do what now: a changed grant shows as some event or
//! other. So it is not read for an answer but for a reason to ask: the epoch rises,
//! every cached identity is asked for again when it is needed next, and everything
//! open is looked at by who its device is now. How soon, [`Peers`] decides; how often
//! at most, [`Pace`]: somebody's laptop coming and going must cost tailscaled little.
//!
//! Without the bus the watcher's polling and the five-second round over everything
//! open go on as they do beside it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use openclaw_tailscale::{Bus, BusEvent, Error, Told};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::{Finder, Fresh};
use crate::domain::TailnetState;

/// Before the bus is tried again, at first and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(4));
/// Between two rises of the epoch, after a quiet time and in a storm of events.
const SPACING: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(2));
/// What is a quiet time.
const QUIET: Duration = Duration::from_secs(5);
/// Peers that are compared with what they were. With more, every event counts.
const MAX_PEERS: usize = 100_000;

/// Listens, for ever.
pub(super) struct Listener {
    pub(super) finder: Arc<Finder>,
    pub(super) state: Arc<ArcSwap<TailnetState>>,
    pub(super) changed: watch::Sender<u64>,
    pub(super) fresh: Arc<Fresh>,
}

impl Listener {
    pub(super) async fn run(self) {
        let mut pause = RETRY.0;
        let mut lost = false;
        loop {
            let opened = match self.finder.tailscale() {
                Some(tailscale) => tailscale.watch().await,
                None => Err(Error::DaemonDown),
            };
            match opened {
                Ok(bus) => {
                    if std::mem::take(&mut lost) {
                        tracing::info!("tailscaled is heard again");
                    }
                    let opened = Instant::now();
                    let error = self.listen(bus).await;
                    tracing::warn!(error = %error, "tailscaled is not heard any more, it is asked meanwhile");
                    lost = true;
                    // It may be gone, or another one by now.
                    self.fresh.asked.notify_one();
                    if opened.elapsed() > RETRY.1 {
                        pause = RETRY.0;
                    }
                }
                // By configuration, so it stays so.
                Err(Error::LocalApiOnly { .. }) => return,
                Err(error) => tracing::debug!(error = %error, "tailscaled cannot be heard"),
            }
            sleep(pause).await;
            pause = (pause * 2).min(RETRY.1);
        }
    }

    /// Until the bus is lost. Says why.
    async fn listen(&self, mut bus: Bus) -> Error {
        // What happened before is not told. The first events, which say what is so now,
        // count as one.
        let (mut peers, mut pace) = (Peers::default(), Pace::since(Instant::now()));
        pace.want(Weight::Heavy, Instant::now());
        loop {
            tokio::select! {
                event = bus.next() => match event {
                    Ok(event) => pace.want(peers.weigh(&event), Instant::now()),
                    Err(error) => return error,
                },
                () = pace.due() => {
                    pace.raised(Instant::now());
                    self.raise();
                }
            }
        }
    }

    fn raise(&self) {
        super::raise_epoch(&self.state);
        self.changed.send_modify(|count| *count += 1);
        // The state, our addresses and the tailnet may be others as well.
        self.fresh.asked.notify_one();
    }
}

/// What an event means for what is known of peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Weight {
    /// It is about something else.
    None,
    /// Somebody came, went or roamed. Something weighty may hide behind it.
    Light,
    /// Somebody is somebody else, or gone; or that cannot be ruled out.
    Heavy,
}

/// Who the peers were when they were last told of.
#[derive(Debug, Default)]
struct Peers {
    known: HashMap<i64, u64>,
}

impl Peers {
    fn weigh(&mut self, event: &BusEvent) -> Weight {
        let BusEvent::Told(told) = event else { return self.unsure() };
        let Told { state, self_changed, peers_changed, peers_removed, profiles_changed, whole_map } = told;
        let mut weight = Weight::None;
        for peer in peers_changed {
            let before = self.known.insert(peer.id, peer.identity);
            // A new peer may have the address of one that is gone.
            let same = before == Some(peer.identity);
            weight = weight.max(if same { Weight::Light } else { Weight::Heavy });
        }
        for id in peers_removed {
            self.known.remove(id);
        }
        if *whole_map || self.known.len() > MAX_PEERS {
            return self.unsure();
        }
        let heavy = state.is_some() || *self_changed || *profiles_changed || !peers_removed.is_empty();
        if heavy { Weight::Heavy } else { weight }
    }

    fn unsure(&mut self) -> Weight {
        self.known.clear();
        Weight::Heavy
    }
}

/// When the epoch rises: at once after a quiet time, then ever more seldom as long as
/// events go on. The last event of a storm is never lost.
#[derive(Debug, Default)]
struct Pace {
    last: Option<Instant>,
    spacing: Option<Duration>,
    due: Option<Instant>,
}

impl Pace {
    /// As if the epoch had just risen.
    fn since(now: Instant) -> Self {
        Self { last: Some(now), ..Self::default() }
    }

    fn want(&mut self, weight: Weight, now: Instant) {
        let spacing = match weight {
            Weight::None => return,
            Weight::Light => SPACING.1,
            Weight::Heavy => self.spacing.unwrap_or(SPACING.0),
        };
        let earliest = self.last.map_or(now, |last| (last + spacing).max(now));
        self.due = Some(self.due.map_or(earliest, |due| due.min(earliest)));
    }

    /// Resolves when it is time; never while there is no reason.
    async fn due(&self) {
        match self.due {
            Some(due) => sleep_until(due).await,
            None => std::future::pending().await,
        }
    }

    fn raised(&mut self, now: Instant) {
        let quiet = self.last.is_none_or(|last| now.duration_since(last) >= QUIET);
        let before = self.spacing.filter(|_| !quiet);
        self.spacing = Some(before.map_or(SPACING.0, |spacing| (spacing * 2).min(SPACING.1)));
        self.last = Some(now);
        self.due = None;
    }
}

#[cfg(test)]
mod tests {
    use openclaw_tailscale::{BackendState, BusPeer};

    use super::*;

    fn peers(list: &[(i64, u64)]) -> BusEvent {
        let peers_changed =
            list.iter().map(|(id, identity)| BusPeer { id: *id, identity: *identity }).collect();
        BusEvent::Told(Told { peers_changed, ..Told::default() })
    }

    fn knowing(list: &[(i64, u64)]) -> Peers {
        let mut known = Peers::default();
        assert_eq!(known.weigh(&peers(list)), Weight::Heavy);
        known
    }

    #[test]
    fn threat_051_whatever_may_concern_an_identity_is_heavy() {
        let told = |change: fn(&mut Told)| {
            let mut told = Told::default();
            change(&mut told);
            knowing(&[(3, 1)]).weigh(&BusEvent::Told(told))
        };
        assert_eq!(told(|told| told.self_changed = true), Weight::Heavy);
        assert_eq!(told(|told| told.profiles_changed = true), Weight::Heavy);
        assert_eq!(told(|told| told.whole_map = true), Weight::Heavy);
        assert_eq!(told(|told| told.peers_removed = vec![3]), Weight::Heavy);
        assert_eq!(told(|told| told.state = Some(BackendState::Stopped)), Weight::Heavy);
        let mut known = knowing(&[(3, 1), (4, 1)]);
        assert_eq!(known.weigh(&BusEvent::Unreadable), Weight::Heavy);
        // What was known before is not trusted after it.
        assert_eq!(known.weigh(&peers(&[(3, 1)])), Weight::Heavy);
        // Somebody else, somebody new, somebody that is back under another's number.
        assert_eq!(knowing(&[(3, 1)]).weigh(&peers(&[(3, 2)])), Weight::Heavy);
        assert_eq!(knowing(&[(3, 1)]).weigh(&peers(&[(4, 1)])), Weight::Heavy);
        let mut known = knowing(&[(3, 1)]);
        known.weigh(&BusEvent::Told(Told { peers_removed: vec![3], ..Told::default() }));
        assert_eq!(known.weigh(&peers(&[(3, 1)])), Weight::Heavy);
    }

    #[test]
    fn coming_and_going_is_light_and_the_rest_is_nothing() {
        let mut known = knowing(&[(3, 1), (4, 1)]);
        assert_eq!(known.weigh(&peers(&[(3, 1)])), Weight::Light);
        assert_eq!(known.weigh(&peers(&[(4, 1), (3, 1)])), Weight::Light);
        assert_eq!(known.weigh(&BusEvent::Told(Told::default())), Weight::None);
    }

    /// When the epoch rises, in milliseconds, for events that come every `every`.
    async fn rises(weight: Weight, every: u64, events: u64) -> Vec<u128> {
        let (start, mut pace, mut at) = (Instant::now(), Pace::default(), Vec::new());
        let (mut sent, mut next) = (0, start);
        while sent < events || pace.due.is_some() {
            tokio::select! {
                biased;
                () = pace.due() => {
                    pace.raised(Instant::now());
                    at.push(start.elapsed().as_millis());
                }
                () = sleep_until(next), if sent < events => {
                    pace.want(weight, Instant::now());
                    sent += 1;
                    next += Duration::from_millis(every);
                }
            }
        }
        at
    }

    #[tokio::test(start_paused = true)]
    async fn threat_051_one_event_counts_at_once_and_the_last_of_many_is_not_lost() {
        assert_eq!(rises(Weight::Heavy, 0, 1).await, [0]);
        assert_eq!(rises(Weight::Light, 0, 1).await, [0]);
        assert_eq!(rises(Weight::None, 10, 100).await, Vec::<u128>::new());
        let two = rises(Weight::Heavy, 10, 2).await;
        assert_eq!(two.len(), 2, "{two:?}");
        assert!(two[1] >= 250 && two[1] < 300, "{two:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_storm_of_events_is_a_few_rises_and_none_is_late() {
        // A thousand events a second, for a minute.
        for (weight, most) in [(Weight::Heavy, 35), (Weight::Light, 32)] {
            let at = rises(weight, 1, 60_000).await;
            assert!(at.len() <= most && at.len() >= 30, "{weight:?}: {at:?}");
            assert!(at.windows(2).all(|two| two[1] - two[0] <= 2_010), "{at:?}");
            assert!(*at.last().unwrap() >= 59_999, "the last was lost: {at:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_quiet_time_an_event_counts_at_once_again() {
        let at = rises(Weight::Heavy, 6_000, 4).await;
        assert_eq!(at, [0, 6_000, 12_000, 18_000]);
    }
}
