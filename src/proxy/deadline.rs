//! A deadline that costs nothing to move.
//!
//! Registering a timer for every request or frame would be felt. One timer is
//! kept and left alone while the deadline moves on; when it fires too early, it
//! is set again to where the deadline is by then.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::time::{Instant, Sleep, sleep_until};

/// A deadline, moved often and reached rarely.
pub(super) struct Deadline {
    at: Instant,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    pub(super) fn at(at: Instant) -> Self {
        Self { at, sleep: None }
    }

    /// Moves it. Takes effect at the next poll.
    pub(super) fn set(&mut self, at: Instant) {
        self.at = at;
    }

    /// Ready once it has passed.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let at = self.at;
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if sleep.deadline() > at {
            sleep.as_mut().reset(at);
        }
        loop {
            ready!(sleep.as_mut().poll(cx));
            if sleep.deadline() >= at {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn moving_it_either_way_works() {
        let start = Instant::now();
        let mut deadline = Deadline::at(start + Duration::from_secs(3600));
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(deadline.poll(&mut cx).is_pending());
        deadline.set(start + Duration::from_millis(5));
        assert!(deadline.poll(&mut cx).is_pending());
        let later = start + Duration::from_millis(20);
        deadline.set(later);
        poll_fn(|cx| deadline.poll(cx)).await;
        assert!(Instant::now() >= later);
    }
}
