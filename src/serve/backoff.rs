//! Waiting between attempts.

use std::time::Duration;

/// The longest wait.
const MOST: Duration = Duration::from_secs(60);

/// Doubles from one second, with a quarter of chance so that two who fail together do
/// not try together.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    pub(super) fn after_failure(&mut self) -> Duration {
        let wait = Duration::from_secs(1 << self.failures.min(6)).min(MOST);
        self.failures = self.failures.saturating_add(1);
        jittered(wait)
    }
}

/// Between three quarters of it and all of it.
pub(super) fn jittered(wait: Duration) -> Duration {
    let mut byte = [0];
    // Without chance the wait is merely the same as somebody else's.
    let _ = getrandom::fill(&mut byte);
    wait - wait.mul_f64(f64::from(byte[0]) / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_minute_and_start_again() {
        let mut backoff = Backoff::default();
        let mut longest = Duration::ZERO;
        for doubled in [1, 2, 4, 8, 16, 32, 60, 60, 60] {
            let (wait, most) = (backoff.after_failure(), Duration::from_secs(doubled));
            assert!(wait <= most && wait >= most.mul_f64(0.75), "{wait:?} of {most:?}");
            longest = longest.max(wait);
        }
        backoff.reset();
        assert!(backoff.after_failure() <= Duration::from_secs(1));
    }
}
