//! How many new addresses may be asked about in a minute.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// New addresses a minute (rulings 6).
const PER_WINDOW: usize = 64;
const WINDOW: Duration = Duration::from_secs(60);

/// The rate of new addresses. A flood of them waits a little, then is told to
/// come back; addresses that are already known do not pass here.
pub(super) struct Admission {
    admitted: Mutex<VecDeque<Instant>>,
}

impl Admission {
    pub(super) fn new() -> Self {
        Self { admitted: Mutex::default() }
    }

    /// Waits for a place, at most `limit`. False: there is none.
    pub(super) async fn admit(&self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        loop {
            let free_at = {
                let now = Instant::now();
                let mut admitted = self.admitted.lock().unwrap_or_else(PoisonError::into_inner);
                while admitted.front().is_some_and(|at| now.duration_since(*at) >= WINDOW) {
                    admitted.pop_front();
                }
                match admitted.front() {
                    Some(oldest) if admitted.len() >= PER_WINDOW => *oldest + WINDOW,
                    _ => {
                        admitted.push_back(now);
                        return true;
                    }
                }
            };
            if free_at > deadline {
                tokio::time::sleep_until(deadline).await;
                return false;
            }
            tokio::time::sleep_until(free_at).await;
        }
    }
}
