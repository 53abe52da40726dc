//! Ending what is still open for somebody: tunnels, streams, long waits.
//!
//! The edge keeps one [`Closer`] for whatever it must be able to end together
//! (an identity, the whole gateway) and hands its [`CloseSignal`] to every
//! request it forwards (threat rules 49 and 50).

use std::future;

use tokio::sync::watch;

/// Why something open was ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The caller's right was taken away: WebSockets end with 1008 `revoked`.
    Revoked,
    /// The gateway is stopping: WebSockets end with 1012 `restarting`.
    Draining,
}

/// The end that closes. Dropping it closes nothing.
#[derive(Debug)]
pub struct Closer(watch::Sender<Option<CloseReason>>);

impl Default for Closer {
    fn default() -> Self {
        Self(watch::Sender::new(None))
    }
}

impl Closer {
    /// The end that is handed to requests.
    pub fn signal(&self) -> CloseSignal {
        CloseSignal(self.0.subscribe())
    }

    /// Ends everything that holds a signal of this. The first reason stays.
    pub fn close(&self, reason: CloseReason) {
        self.0.send_if_modified(|now| {
            let first = now.is_none();
            now.get_or_insert(reason);
            first
        });
    }

    /// How many signals are held: what is open, plus those the edge keeps.
    pub fn held(&self) -> usize {
        self.0.receiver_count()
    }

    /// Waits until no signal is held any more.
    pub async fn released(&self) {
        self.0.closed().await;
    }
}

/// The end that is told. Cheap to clone; a clone is made only for what stays
/// open.
#[derive(Clone, Debug)]
pub struct CloseSignal(watch::Receiver<Option<CloseReason>>);

impl CloseSignal {
    /// A signal that never comes.
    pub fn never() -> Self {
        Closer::default().signal()
    }

    /// Whether it has come.
    pub fn reason(&self) -> Option<CloseReason> {
        *self.0.borrow()
    }

    /// Waits for it, for ever when the other end is gone.
    pub(super) async fn closed(mut self) -> CloseReason {
        match self.0.wait_for(Option::is_some).await.map(|reason| *reason) {
            Ok(Some(reason)) => reason,
            _ => future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_reason_stays_and_holders_are_counted() {
        let closer = Closer::default();
        let signal = closer.signal();
        assert_eq!((closer.held(), signal.reason()), (1, None));
        closer.close(CloseReason::Revoked);
        closer.close(CloseReason::Draining);
        assert_eq!(closer.signal().reason(), Some(CloseReason::Revoked));
        assert_eq!(signal.closed().await, CloseReason::Revoked);
        closer.released().await;
    }
}
