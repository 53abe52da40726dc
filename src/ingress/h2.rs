//! What HTTP/2 needs besides the socket: bounds on its frames, and a watch over
//! clients that keep a connection without using it.

use std::future::Future;
use std::sync::Arc;

use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper_util::rt::TokioTimer;
use tokio::time::{Duration, Instant, sleep_until};

use super::Limits;
use super::control::Shared;

/// How long a connection that was told to end may go on, if it moves.
const LAST: Duration = Duration::from_secs(600);

/// Runs the streams of a connection on its own thread.
#[derive(Clone, Copy)]
pub(super) struct LocalExecutor;

impl<F: Future + 'static> Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            future.await;
        });
    }
}

/// The server side of HTTP/2, bounded (threat rule 75). Floods of frames without
/// effect, CONTINUATION among them, are counted by the h2 crate itself.
pub(super) fn h2_builder(limits: &Limits) -> http2::Builder<LocalExecutor> {
    let mut builder = http2::Builder::new(LocalExecutor);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.h2_max_streams)
        .max_header_list_size(u32::try_from(limits.max_head_bytes).unwrap_or(u32::MAX))
        .header_table_size(4096)
        // Room for uploads over long ways, and no more than this per connection.
        .initial_stream_window_size(256 * 1024)
        .initial_connection_window_size(1024 * 1024)
        .max_frame_size(16 * 1024)
        .max_send_buf_size(limits.h2_send_buffer)
        // Rapid reset, and its sibling that makes us reset.
        .max_pending_accept_reset_streams(20)
        .max_local_error_reset_streams(256)
        .keep_alive_interval(limits.h2_ping)
        .keep_alive_timeout(Duration::from_secs(20));
    builder
}

/// What the watch found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing to complain of.
    Fine,
    /// Unused for so long that it should be told to end.
    End,
    /// It does not move although it could: cut it off.
    Stalled,
}

/// The watch over one connection (threat rules 70 and 75).
pub(super) struct Watch {
    shared: Arc<Shared>,
    limits: Limits,
    /// How much was written when that was last looked at, and since when it is
    /// that much.
    written: u64,
    still_since: Instant,
    ending_since: Option<Instant>,
}

impl Watch {
    pub(super) fn new(shared: Arc<Shared>, limits: Limits) -> Self {
        Self { shared, limits, written: 0, still_since: Instant::now(), ending_since: None }
    }

    /// Waits until there is something to look at, and looks.
    pub(super) async fn next(&mut self, ending: bool) -> Verdict {
        let now = Instant::now();
        if ending && self.ending_since.is_none() {
            self.ending_since = Some(now);
        }
        sleep_until(self.due(now)).await;
        self.look(Instant::now())
    }

    /// When the next look could find something.
    fn due(&self, now: Instant) -> Instant {
        let first = (self.shared.requests() == 0).then(|| self.shared.started() + self.limits.head);
        let idle = self.shared.idle_since().map(|since| since + self.limits.idle);
        let stalled = self.shared.waiting_since().map(|since| since + self.limits.write_stall);
        let latest = now + self.limits.idle.min(self.limits.write_stall) / 2;
        let earliest = now + Duration::from_millis(1);
        [first, idle, stalled].into_iter().flatten().fold(latest, Instant::min).max(earliest)
    }

    fn look(&mut self, now: Instant) -> Verdict {
        let written = self.shared.written();
        if written != self.written {
            self.written = written;
            self.still_since = now;
        }
        let passed = |since: Instant, limit| now.saturating_duration_since(since) >= limit;
        if self.shared.requests() == 0 && passed(self.shared.started(), self.limits.head) {
            return Verdict::Stalled;
        }
        if self.shared.waiting_since().is_some_and(|since| passed(since, self.limits.write_stall)) {
            return Verdict::Stalled;
        }
        let still = passed(self.still_since, self.limits.write_stall);
        if let Some(since) = self.ending_since {
            let unused = self.shared.idle_since().is_some();
            return if unused && (still || passed(since, LAST)) { Verdict::Stalled } else { Verdict::Fine };
        }
        // The end of an answer may still be on its way when its body is done: a
        // connection that is told to end goes on for as long as it moves.
        let idle = self.shared.idle_since().is_some_and(|since| passed(since, self.limits.idle));
        if idle { Verdict::End } else { Verdict::Fine }
    }
}
