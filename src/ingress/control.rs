//! What the parts of one connection tell each other, and what the rest of the
//! gateway may ask of it.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;
use tokio::time::{Duration, Instant};

use super::slots::PeerSlot;

const OPEN: u8 = 0;
const FINISHING: u8 = 1;
const ABORTED: u8 = 2;

const NO_ANSWER: u8 = 0;
const SWITCHED: u8 = 1;
const NOT_SWITCHED: u8 = 2;

/// How a request to switch protocols was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Switch {
    /// Not yet.
    Pending,
    /// With 101.
    Accepted,
    /// With anything else.
    Refused,
}

/// The state that the socket, the HTTP layer and the handler of one connection
/// share. They run on one thread, but hyper wants an upgradable socket to be
/// `Send`, and whoever takes a right away sits on another thread.
pub(super) struct Shared {
    started: Instant,
    phase: AtomicU8,
    changed: Notify,
    in_flight: AtomicU32,
    /// Requests so far.
    requests: AtomicU64,
    /// When the last request ended, in milliseconds after `started`.
    idle_since_ms: AtomicU64,
    switch: AtomicU8,
    /// Bytes written so far, for the HTTP/2 watch.
    written: AtomicU64,
    /// HTTP/2 response bodies that wait for the client to take more.
    waiting: AtomicU32,
    waiting_since_ms: AtomicU64,
    proven: AtomicBool,
    unproven_slot: Mutex<Option<PeerSlot>>,
}

impl Shared {
    pub(super) fn new(unproven_slot: Option<PeerSlot>) -> Self {
        Self {
            started: Instant::now(),
            phase: AtomicU8::new(OPEN),
            changed: Notify::new(),
            in_flight: AtomicU32::new(0),
            requests: AtomicU64::new(0),
            idle_since_ms: AtomicU64::new(0),
            switch: AtomicU8::new(NO_ANSWER),
            written: AtomicU64::new(0),
            waiting: AtomicU32::new(0),
            waiting_since_ms: AtomicU64::new(0),
            proven: AtomicBool::new(false),
            unproven_slot: Mutex::new(unproven_slot),
        }
    }

    /// When it was accepted.
    pub(super) fn started(&self) -> Instant {
        self.started
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Since when no request is under way; `None` while one is.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        (self.in_flight.load(Ordering::Relaxed) == 0)
            .then(|| self.started + Duration::from_millis(self.idle_since_ms.load(Ordering::Relaxed)))
    }

    pub(super) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    pub(super) fn switch(&self) -> Switch {
        match self.switch.load(Ordering::Relaxed) {
            SWITCHED => Switch::Accepted,
            NOT_SWITCHED => Switch::Refused,
            _ => Switch::Pending,
        }
    }

    pub(super) fn answer_switch(&self, accepted: bool) {
        self.switch.store(if accepted { SWITCHED } else { NOT_SWITCHED }, Ordering::Relaxed);
    }

    pub(super) fn wrote(&self, bytes: usize) {
        self.written.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    pub(super) fn start_waiting(&self) {
        self.waiting_since_ms.store(self.now_ms(), Ordering::Relaxed);
        self.waiting.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn stop_waiting(&self) {
        self.waiting_since_ms.store(self.now_ms(), Ordering::Relaxed);
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }

    /// Since when no waiting response body moved; `None` when none is waiting.
    pub(super) fn waiting_since(&self) -> Option<Instant> {
        (self.waiting.load(Ordering::Relaxed) > 0)
            .then(|| self.started + Duration::from_millis(self.waiting_since_ms.load(Ordering::Relaxed)))
    }

    fn to_phase(&self, phase: u8) {
        if self.phase.fetch_max(phase, Ordering::Release) < phase {
            self.changed.notify_waiters();
        }
    }

    pub(super) fn is_aborted(&self) -> bool {
        self.phase.load(Ordering::Relaxed) == ABORTED
    }

    async fn phase_at_least(&self, phase: u8) {
        loop {
            // Registered before the look, so that no change falls in between.
            let changed = self.changed.notified();
            if self.phase.load(Ordering::Acquire) >= phase {
                return;
            }
            changed.await;
        }
    }
}

/// A request under way; ends when dropped.
pub(super) struct InFlight(pub(super) Arc<Shared>);

impl InFlight {
    pub(super) fn start(shared: Arc<Shared>) -> Self {
        shared.in_flight.fetch_add(1, Ordering::Relaxed);
        shared.requests.fetch_add(1, Ordering::Relaxed);
        Self(shared)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.idle_since_ms.store(self.0.now_ms(), Ordering::Relaxed);
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A hand on one connection, good on any thread and after its end.
#[derive(Clone)]
pub struct ConnControl(pub(super) Arc<Shared>);

impl ConnControl {
    /// Says that whoever is at the other end has shown who they are: the
    /// connection no longer counts against its peer's unproven ones. Cheap to
    /// repeat.
    pub fn proven(&self) {
        if !self.0.proven.swap(true, Ordering::Relaxed) {
            let slot = self.0.unproven_slot.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
            drop(slot);
        }
    }

    /// Lets the requests under way finish, takes no further ones, then closes.
    pub fn finish(&self) {
        self.0.to_phase(FINISHING);
    }

    /// Closes at once, whatever is under way: its right was taken away. On an
    /// upgraded connection, reading fails from then on; whoever upgraded it can
    /// wait for [`ConnControl::aborted`] to say a last word.
    pub fn abort(&self) {
        self.0.to_phase(ABORTED);
    }

    /// Whether it is to end.
    pub fn is_finishing(&self) -> bool {
        self.0.phase.load(Ordering::Acquire) >= FINISHING
    }

    /// Waits until it is to end: the gateway drains, or [`ConnControl::finish`]
    /// or [`ConnControl::abort`] was called. For long answers and upgraded
    /// connections, which end themselves politely.
    pub async fn finishing(&self) {
        self.0.phase_at_least(FINISHING).await;
    }

    /// Waits until it is to end at once.
    pub async fn aborted(&self) {
        self.0.phase_at_least(ABORTED).await;
    }
}

impl std::fmt::Debug for ConnControl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConnControl").field("finishing", &self.is_finishing()).finish_non_exhaustive()
    }
}
