//! Waiting for a state. The time is only what makes a test fail at last.

use std::time::{Duration, Instant};

/// After this a state that was waited for is not going to come.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// Waits until `come` is true.
#[track_caller]
pub(crate) fn until(what: &str, come: impl FnMut() -> bool) {
    until_within(LIMIT, what, come);
}

/// The same for what comes by a time limit of the gateway's own that is nearly as long.
#[track_caller]
pub(crate) fn until_within(limit: Duration, what: &str, mut come: impl FnMut() -> bool) {
    let began = Instant::now();
    while !come() {
        assert!(began.elapsed() < limit, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
