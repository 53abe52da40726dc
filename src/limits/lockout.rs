//! The lockout table of wrong secrets.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::subject::{Bucket, Subject};
use crate::config::RateLimit;

/// Which kind of credential is guessed. Each has budgets of its own, so that a
/// bogus field of one kind cannot lift the limit of another (threat rule 46).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CredentialClass {
    /// The gateway's token or password, however it is carried.
    SharedSecret,
}

/// What became of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// The secret was right.
    Right,
    /// The secret was wrong, and it was counted.
    Wrong,
    /// The secret was not looked at.
    Locked {
        /// How long until another attempt is looked at.
        retry_after: Duration,
    },
}

/// Entries kept; an attack cannot grow memory past this (threat rule 48).
const CAPACITY: usize = 10_000;
/// Wrong secrets from everybody together, per minute, before attempts are
/// refused unseen.
const GLOBAL_ATTEMPTS: usize = 100;
const GLOBAL_WINDOW: Duration = Duration::from_secs(60);

type Key = (Bucket, CredentialClass);

/// What became of a guess that may also be an app's own credential.
pub enum Guess {
    /// It was right.
    Right,
    /// It was wrong, or is somebody else's: settled later.
    Pending(PendingGuess),
    /// It was not looked at: locked out, or as many guesses are pending as may be
    /// wrong.
    Unseen {
        /// How long until another is looked at.
        retry_after: Duration,
    },
}

/// A credential that was compared and is not ours. It counts as a wrong secret
/// unless it is forgiven, whatever becomes of the request: dropped half-way,
/// refused, or forgotten about.
pub struct PendingGuess {
    limiter: Arc<Limiter>,
    subject: Subject,
    class: CredentialClass,
    armed: bool,
}

impl PendingGuess {
    /// It was the app's own: the request is permitted without it.
    pub fn forgive(mut self) {
        self.armed = false;
    }
}

impl Drop for PendingGuess {
    fn drop(&mut self) {
        self.limiter.settle(self.subject, self.class, self.armed, Instant::now());
    }
}

#[derive(Default)]
struct Entry {
    /// Times of wrong attempts within the window, oldest first.
    failures: VecDeque<Instant>,
    /// Guesses that are compared and not settled yet.
    pending: usize,
    locked_until: Option<Instant>,
}

#[derive(Default)]
struct Table {
    entries: HashMap<Key, Entry>,
    global: VecDeque<Instant>,
}

/// Counts wrong secrets and locks out who sends them.
pub struct Limiter {
    settings: Mutex<RateLimit>,
    table: Mutex<Table>,
    capacity: usize,
}

impl Limiter {
    /// A limiter without history.
    pub fn new(settings: RateLimit) -> Self {
        Self::with_capacity(settings, CAPACITY)
    }

    fn with_capacity(settings: RateLimit, capacity: usize) -> Self {
        Self { settings: Mutex::new(settings), table: Mutex::default(), capacity }
    }

    /// Puts new settings in force. Counts and locks survive.
    pub fn configure(&self, settings: RateLimit) {
        *guard(&self.settings) = settings;
    }

    /// Checks the lock and compares, as one step: a hundred guesses in parallel
    /// are counted one after another. `verify` runs at most once, and only when
    /// nobody is locked.
    pub fn attempt(
        &self,
        subject: Subject,
        class: CredentialClass,
        now: Instant,
        verify: impl FnOnce() -> bool,
    ) -> Attempt {
        let buckets = subject.buckets();
        if buckets.is_empty() {
            return if verify() { Attempt::Right } else { Attempt::Wrong };
        }
        let settings = *guard(&self.settings);
        let mut table = guard(&self.table);
        if let Some(retry_after) = table.locked(&buckets, class, now, settings, self.capacity) {
            return Attempt::Locked { retry_after };
        }
        if verify() {
            // Only the narrowest budget is forgiven: one right secret in a /48
            // must not wash its neighbours clean.
            if let Some((bucket, _)) = buckets.first() {
                table.entries.remove(&(*bucket, class));
            }
            return Attempt::Right;
        }
        table.count(&buckets, class, now, settings, self.capacity);
        Attempt::Wrong
    }

    /// Compares a credential that may be the app's own. A guess that is pending
    /// takes a place of the budget: guesses sent all at once are no way around it.
    pub fn guess(
        self: &Arc<Self>,
        subject: Subject,
        class: CredentialClass,
        now: Instant,
        verify: impl FnOnce() -> bool,
    ) -> Guess {
        let pending = || PendingGuess { limiter: self.clone(), subject, class, armed: true };
        let buckets = subject.buckets();
        if buckets.is_empty() {
            return if verify() { Guess::Right } else { Guess::Pending(pending()) };
        }
        let settings = *guard(&self.settings);
        let mut table = guard(&self.table);
        if let Some(retry_after) = table.locked(&buckets, class, now, settings, self.capacity) {
            return Guess::Unseen { retry_after };
        }
        let full = buckets.iter().any(|(bucket, multiple)| {
            let allowed = settings.max_attempts.saturating_mul(*multiple) as usize;
            table
                .entries
                .get(&(*bucket, class))
                .is_some_and(|entry| entry.failures.len() + entry.pending >= allowed.max(1))
        });
        if full {
            return Guess::Unseen { retry_after: Duration::from_secs(1) };
        }
        if verify() {
            if let Some((bucket, _)) = buckets.first()
                && let Some(entry) = table.entries.get_mut(&(*bucket, class))
            {
                entry.failures.clear();
            }
            return Guess::Right;
        }
        for (bucket, _) in &buckets {
            table.entries.entry((*bucket, class)).or_default().pending += 1;
        }
        drop(table);
        Guess::Pending(pending())
    }

    fn settle(&self, subject: Subject, class: CredentialClass, wrong: bool, now: Instant) {
        let buckets = subject.buckets();
        let settings = *guard(&self.settings);
        let mut table = guard(&self.table);
        for (bucket, _) in &buckets {
            if let Some(entry) = table.entries.get_mut(&(*bucket, class)) {
                entry.pending = entry.pending.saturating_sub(1);
                if !wrong && entry.pending == 0 && entry.failures.is_empty() && entry.locked_until.is_none() {
                    table.entries.remove(&(*bucket, class));
                }
            }
        }
        if wrong && !buckets.is_empty() {
            table.count(&buckets, class, now, settings, self.capacity);
        }
    }

    /// How long a subject is still locked out, without an attempt.
    pub fn locked(&self, subject: Subject, class: CredentialClass, now: Instant) -> Option<Duration> {
        let settings = *guard(&self.settings);
        guard(&self.table).locked(&subject.buckets(), class, now, settings, self.capacity)
    }
}

impl Table {
    fn locked(
        &mut self,
        buckets: &[(Bucket, u32)],
        class: CredentialClass,
        now: Instant,
        settings: RateLimit,
        capacity: usize,
    ) -> Option<Duration> {
        let mut longest: Option<Duration> = None;
        let mut known = false;
        for (bucket, _) in buckets {
            let Some(entry) = self.entries.get_mut(&(*bucket, class)) else { continue };
            known = true;
            match entry.locked_until {
                Some(until) if until > now => longest = longest.max(Some(until - now)),
                // The lock is over, and so is its history.
                Some(_) => *entry = Entry { pending: entry.pending, ..Entry::default() },
                None => {}
            }
        }
        if longest.is_some() || buckets.is_empty() {
            return longest;
        }
        while self.global.front().is_some_and(|at| now.duration_since(*at) >= GLOBAL_WINDOW) {
            self.global.pop_front();
        }
        if self.global.len() >= GLOBAL_ATTEMPTS {
            return self.global.front().map(|at| GLOBAL_WINDOW - now.duration_since(*at));
        }
        if !known && self.entries.len() >= capacity && !self.make_room(now, settings, capacity) {
            return Some(settings.lockout);
        }
        None
    }

    fn count(
        &mut self,
        buckets: &[(Bucket, u32)],
        class: CredentialClass,
        now: Instant,
        settings: RateLimit,
        capacity: usize,
    ) {
        self.global.push_back(now);
        for (bucket, multiple) in buckets {
            let key = (*bucket, class);
            if !self.entries.contains_key(&key)
                && self.entries.len() >= capacity
                && !self.make_room(now, settings, capacity)
            {
                continue;
            }
            let entry = self.entries.entry(key).or_default();
            entry.forget_before(now, settings.window);
            entry.failures.push_back(now);
            let allowed = settings.max_attempts.saturating_mul(*multiple) as usize;
            if entry.failures.len() >= allowed.max(1) {
                entry.locked_until = Some(now + settings.lockout);
                entry.failures.clear();
            }
        }
    }

    /// Drops what no longer counts, then the entry with the oldest last failure
    /// that is not locked. A locked entry is never dropped. False: all are.
    fn make_room(&mut self, now: Instant, settings: RateLimit, capacity: usize) -> bool {
        self.entries.retain(|_, entry| match entry.locked_until {
            Some(until) => until > now,
            None => {
                entry.forget_before(now, settings.window);
                !entry.failures.is_empty() || entry.pending > 0
            }
        });
        while self.entries.len() >= capacity {
            let oldest = self
                .entries
                .iter()
                .filter(|(_, entry)| entry.locked_until.is_none() && entry.pending == 0)
                .min_by_key(|(_, entry)| entry.failures.back().copied())
                .map(|(key, _)| *key);
            match oldest {
                Some(key) => self.entries.remove(&key),
                None => return false,
            };
        }
        true
    }
}

impl Entry {
    fn forget_before(&mut self, now: Instant, window: Duration) {
        while self.failures.front().is_some_and(|at| now.duration_since(*at) >= window) {
            self.failures.pop_front();
        }
    }
}

/// A panic elsewhere must not unlock anybody: the table is used as it stands.
fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ClientAddr;

    const CLASS: CredentialClass = CredentialClass::SharedSecret;

    fn client(ip: &str) -> Subject {
        Subject::Client(ClientAddr::new(ip.parse().unwrap()))
    }

    fn wrong(limiter: &Limiter, subject: Subject, now: Instant) -> Attempt {
        limiter.attempt(subject, CLASS, now, || false)
    }

    #[test]
    fn threat_043_the_eleventh_wrong_secret_is_locked_out_for_300_seconds() {
        let limiter = Limiter::new(RateLimit::default());
        let now = Instant::now();
        for _ in 0..10 {
            assert_eq!(wrong(&limiter, client("192.0.2.1"), now), Attempt::Wrong);
        }
        let locked = Attempt::Locked { retry_after: Duration::from_secs(300) };
        assert_eq!(wrong(&limiter, client("192.0.2.1"), now), locked);
        // The right secret is not looked at either.
        let looked =
            limiter.attempt(client("192.0.2.1"), CLASS, now, || unreachable!("compared while locked"));
        assert_eq!(looked, locked);
        assert_eq!(wrong(&limiter, client("192.0.2.2"), now), Attempt::Wrong);
        let later = now + Duration::from_secs(300);
        assert_eq!(wrong(&limiter, client("192.0.2.1"), later), Attempt::Wrong);
    }

    #[test]
    fn failures_outside_the_window_do_not_count() {
        let limiter = Limiter::new(RateLimit::default());
        let now = Instant::now();
        for round in 0..40 {
            let at = now + Duration::from_secs(7 * round);
            assert_eq!(wrong(&limiter, client("192.0.2.1"), at), Attempt::Wrong);
        }
    }

    #[test]
    fn threat_044_mapped_and_plain_ipv4_share_a_budget() {
        let limiter = Limiter::new(RateLimit::default());
        let now = Instant::now();
        for ip in ["1.2.3.4", "::ffff:1.2.3.4", "::ffff:102:304", "1.2.3.4", "::ffff:1.2.3.4"] {
            wrong(&limiter, client(ip), now);
            wrong(&limiter, client(ip), now);
        }
        assert!(matches!(wrong(&limiter, client("1.2.3.4"), now), Attempt::Locked { .. }));
    }

    #[test]
    fn threat_045_a_thousand_addresses_of_one_64_are_one_guesser() {
        let limiter = Limiter::new(RateLimit::default());
        let now = Instant::now();
        let counted = (0..1000)
            .filter(|i| wrong(&limiter, client(&format!("2001:db8:0:1::{i:x}")), now) == Attempt::Wrong)
            .count();
        assert_eq!(counted, 10);
        assert_eq!(wrong(&limiter, client("2001:db8:0:2::1"), now), Attempt::Wrong);
    }

    #[test]
    fn threat_045_wider_networks_lock_at_30_and_100() {
        let limiter = Limiter::new(RateLimit {
            window: Duration::from_secs(3600),
            lockout: Duration::from_secs(3600),
            ..RateLimit::default()
        });
        let now = Instant::now();
        // Nine a /64, so that no /64 locks; the /56 does after 30.
        let counted = (0..10 * 9)
            .filter(|i| wrong(&limiter, client(&format!("2001:db8:0:{:x}::1", i / 9)), now) == Attempt::Wrong)
            .count();
        assert_eq!(counted, 30);
        // Further /56 of the same /48, 27 each at most; a new minute each, so
        // that the limit over everybody is not what stops it.
        let mut counted = counted;
        for net in 1..10u32 {
            let at = now + Duration::from_secs(60 * u64::from(net));
            counted += (0..27)
                .filter(|i| {
                    let ip = format!("2001:db8:0:{:x}::1", net * 256 + i / 9);
                    wrong(&limiter, client(&ip), at) == Attempt::Wrong
                })
                .count();
        }
        assert_eq!(counted, 100);
    }

    #[test]
    fn tailnet_peers_have_budgets_of_their_own_although_they_share_a_64() {
        let limiter = Limiter::new(RateLimit::default());
        let now = Instant::now();
        let peer = |ip: &str| Subject::Tailnet(ClientAddr::new(ip.parse().unwrap()));
        for _ in 0..10 {
            wrong(&limiter, peer("fd7a:115c:a1e0::2"), now);
        }
        assert!(matches!(wrong(&limiter, peer("fd7a:115c:a1e0::2"), now), Attempt::Locked { .. }));
        assert_eq!(wrong(&limiter, peer("fd7a:115c:a1e0::3"), now), Attempt::Wrong);
    }

    #[test]
    fn threat_048_a_flood_of_clients_never_evicts_a_locked_one() {
        let limiter = Limiter::with_capacity(RateLimit::default(), 8);
        let start = Instant::now();
        for _ in 0..10 {
            wrong(&limiter, client("192.0.2.1"), start);
        }
        for i in 0..250u32 {
            let at = start + Duration::from_secs(u64::from(i));
            wrong(&limiter, client(&format!("198.51.100.{i}")), at);
            assert!(guard(&limiter.table).entries.len() <= 8);
        }
        let at = start + Duration::from_secs(250);
        assert!(matches!(wrong(&limiter, client("192.0.2.1"), at), Attempt::Locked { .. }));
    }

    #[test]
    fn threat_048_when_every_entry_is_locked_the_unknown_wait_too() {
        let limiter = Limiter::with_capacity(RateLimit { max_attempts: 1, ..RateLimit::default() }, 2);
        let now = Instant::now();
        wrong(&limiter, client("192.0.2.1"), now);
        wrong(&limiter, client("192.0.2.2"), now);
        assert!(matches!(wrong(&limiter, client("192.0.2.3"), now), Attempt::Locked { .. }));
    }

    #[test]
    fn threat_048_a_hundred_failures_a_minute_from_everybody_stop_all_attempts() {
        let limiter = Limiter::new(RateLimit::default());
        let now = Instant::now();
        for i in 0..100 {
            assert_eq!(wrong(&limiter, client(&format!("192.0.2.{i}")), now), Attempt::Wrong);
        }
        assert!(matches!(wrong(&limiter, client("198.51.100.1"), now), Attempt::Locked { .. }));
        let later = now + Duration::from_secs(60);
        assert_eq!(wrong(&limiter, client("198.51.100.1"), later), Attempt::Wrong);
    }

    #[test]
    fn a_right_secret_clears_the_clients_own_history_only() {
        let limiter = Limiter::new(RateLimit::default());
        let now = Instant::now();
        for _ in 0..9 {
            wrong(&limiter, client("192.0.2.1"), now);
            wrong(&limiter, client("192.0.2.2"), now);
        }
        assert_eq!(limiter.attempt(client("192.0.2.1"), CLASS, now, || true), Attempt::Right);
        assert_eq!(wrong(&limiter, client("192.0.2.1"), now), Attempt::Wrong);
        wrong(&limiter, client("192.0.2.2"), now);
        assert!(matches!(wrong(&limiter, client("192.0.2.2"), now), Attempt::Locked { .. }));
    }

    #[test]
    fn threat_046_guesses_that_are_pending_take_their_places() {
        let limiter = Arc::new(Limiter::new(RateLimit::default()));
        let now = Instant::now();
        let guess = || limiter.guess(client("192.0.2.1"), CLASS, now, || false);
        let pending: Vec<Guess> = (0..10).map(|_| guess()).collect();
        assert!(pending.iter().all(|guess| matches!(guess, Guess::Pending(_))));
        let looked =
            limiter.guess(client("192.0.2.1"), CLASS, now, || unreachable!("compared beyond the budget"));
        assert!(matches!(looked, Guess::Unseen { .. }));
        // Dropped, as by a client that hung up: each counts.
        drop(pending);
        assert!(matches!(wrong(&limiter, client("192.0.2.1"), now), Attempt::Locked { .. }));
    }

    #[test]
    fn what_was_the_apps_own_is_forgiven() {
        let limiter = Arc::new(Limiter::new(RateLimit::default()));
        let now = Instant::now();
        for _ in 0..1000 {
            match limiter.guess(client("192.0.2.1"), CLASS, now, || false) {
                Guess::Pending(guess) => guess.forgive(),
                Guess::Right | Guess::Unseen { .. } => panic!("not pending"),
            }
        }
        assert!(guard(&limiter.table).entries.is_empty());
        assert_eq!(wrong(&limiter, client("192.0.2.1"), now), Attempt::Wrong);
    }

    #[test]
    fn exempt_loopback_is_never_locked() {
        let limiter = Limiter::new(RateLimit::default());
        let now = Instant::now();
        for _ in 0..1000 {
            assert_eq!(wrong(&limiter, Subject::Exempt, now), Attempt::Wrong);
        }
    }
}
