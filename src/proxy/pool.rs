//! Connections kept open, per upstream and worker.
//!
//! Nothing here is shared between threads, so the warm path takes no lock. A
//! connection is bare where the exchanges on it are small (see `direct`) and one of
//! hyper's where they are not. It is not a task of its own either: whoever uses it
//! drives it (see `exchange` and `streamed`), which saves two trips through the
//! scheduler per request. While it is idle nobody drives it; it is looked at when
//! it is taken out, and a sweeper throws away what is old or closed.

use std::cell::{Cell, OnceCell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use hyper::client::conn::http1::{self, Connection, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::io::{AsyncRead as _, ReadBuf};
use tokio::task::coop::unconstrained;
use tokio::time::Instant;

use super::deadline::Deadline;
use super::io::UpstreamIo;
use super::request_body::RequestBody;
use super::{ProxyError, authority, connect, tls};
use crate::domain::Upstream;

/// Idle connections kept per upstream and worker.
const MAX_IDLE: usize = 64;
/// How long one may be idle: less than the 60 s many servers allow.
const MAX_IDLE_AGE: Duration = Duration::from_secs(55);
const SWEEP_EVERY: Duration = Duration::from_secs(5);
/// The most a response head, or one read of a body, may take.
const MAX_BUFFER: usize = 128 * 1024;

/// The upstream connections of one worker thread. Clones share them.
#[derive(Clone, Default)]
pub struct UpstreamPools(Rc<Pools>);

#[derive(Default)]
struct Pools {
    entries: RefCell<Vec<Rc<Entry>>>,
    sweeping: Cell<bool>,
}

/// What is known about one upstream.
pub(super) struct Entry {
    pub(super) upstream: Arc<Upstream>,
    /// `Host` where it is the upstream's own.
    pub(super) host: HeaderValue,
    tls: OnceCell<Arc<ClientConfig>>,
    idle: RefCell<Vec<Idle>>,
    pools: Weak<Pools>,
}

struct Idle {
    since: Instant,
    kept: Kept,
}

/// A connection between two exchanges. Boxed, since it moves with every request.
pub(super) enum Kept {
    Bare(Box<Bare>),
    Live(Box<Live>),
}

/// A connection without anything around it.
pub(super) struct Bare {
    pub(super) io: UpstreamIo,
    pub(super) deadline: Deadline,
}

/// A connection that hyper reads and writes.
pub(super) struct Live {
    pub(super) sender: SendRequest<RequestBody>,
    pub(super) connection: Connection<TokioIo<UpstreamIo>, RequestBody>,
    pub(super) deadline: Deadline,
    /// Whether a byte has arrived since this was cleared.
    pub(super) heard: Rc<Cell<bool>>,
    /// Whether its first exchange was begun without it.
    pub(super) replays: bool,
    /// Whether a request body went over it. It then stays hyper's: a second guard
    /// against taking it back before all of the body has left.
    pub(super) uploaded: bool,
}

impl UpstreamPools {
    /// Empty pools.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many idle connections are kept, to all upstreams.
    pub fn idle(&self) -> usize {
        self.0.entries.borrow().iter().map(|entry| entry.idle.borrow().len()).sum()
    }

    /// Waits until every idle connection was found to be closed.
    #[cfg(test)]
    pub(super) async fn until_swept_empty(&self) {
        while self.0.sweep(Instant::now()) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    pub(super) fn entry(&self, upstream: &Arc<Upstream>) -> Rc<Entry> {
        // A handful of upstreams: comparing pointers beats hashing.
        let mut entries = self.0.entries.borrow_mut();
        if let Some(entry) = entries.iter().find(|entry| Arc::ptr_eq(&entry.upstream, upstream)) {
            return entry.clone();
        }
        let entry = Rc::new(Entry {
            upstream: upstream.clone(),
            host: authority::of_upstream(upstream),
            tls: OnceCell::new(),
            idle: RefCell::default(),
            pools: Rc::downgrade(&self.0),
        });
        entries.push(entry.clone());
        entry
    }
}

impl Entry {
    pub(super) fn tls(&self) -> io::Result<Arc<ClientConfig>> {
        if let Some(config) = self.tls.get() {
            return Ok(config.clone());
        }
        let config = tls::client_config(&self.upstream)?;
        Ok(self.tls.get_or_init(|| config).clone())
    }

    /// A connection of its own.
    pub(super) async fn connect(&self, limit: Duration) -> Result<Box<Bare>, ProxyError> {
        let io = connect::connect(self, limit).await?;
        Ok(Box::new(Bare { io, deadline: Deadline::at(Instant::now()) }))
    }

    /// The connection used last, if one is still good; one of hyper's, if there is one.
    /// Those that were closed, or where something arrived that nobody asked for, are
    /// thrown away.
    pub(super) fn take(&self, now: Instant) -> Option<Kept> {
        let hypers = |kept: &Kept| matches!(kept, Kept::Live(_));
        self.take_one(now, hypers).or_else(|| self.take_one(now, |_| true))
    }

    /// The same for one that is not hyper's, or has no need to be.
    pub(super) fn take_bare(&self, now: Instant) -> Option<Box<Bare>> {
        let suits = |kept: &Kept| match kept {
            Kept::Bare(_) => true,
            Kept::Live(live) => !live.uploaded,
        };
        loop {
            match self.take_one(now, suits)? {
                Kept::Bare(bare) => return Some(bare),
                Kept::Live(live) => {
                    if let Some(bare) = live.into_bare() {
                        return Some(bare);
                    }
                }
            }
        }
    }

    /// The one used last of those that suit; the next where that is not good.
    fn take_one(&self, now: Instant, suits: impl Fn(&Kept) -> bool) -> Option<Kept> {
        let mut idle = self.idle.borrow_mut();
        while let Some(last) = idle.last() {
            if now.duration_since(last.since) > MAX_IDLE_AGE {
                // Those below it are older.
                idle.clear();
                return None;
            }
            let at = idle.iter().rposition(|idle| suits(&idle.kept))?;
            let Idle { since, mut kept } = idle.remove(at);
            if now.duration_since(since) <= MAX_IDLE_AGE && kept.is_ready() {
                return Some(kept);
            }
        }
        None
    }

    /// Takes a connection back after a complete exchange; drops it, which closes it,
    /// where there are enough, or where hyper is not ready for another. A bare one is
    /// looked at when it is taken, and before that by the sweeper.
    pub(super) fn give_back(self: &Rc<Self>, mut kept: Kept) {
        let mut idle = self.idle.borrow_mut();
        let good = match &mut kept {
            Kept::Bare(_) => true,
            Kept::Live(live) => live.is_ready(),
        };
        if idle.len() < MAX_IDLE && good {
            idle.push(Idle { since: Instant::now(), kept });
            drop(idle);
            if let Some(pools) = self.pools.upgrade() {
                pools.start_sweeping();
            }
        }
    }

    fn sweep(&self, now: Instant) {
        self.idle
            .borrow_mut()
            .retain_mut(|idle| now.duration_since(idle.since) <= MAX_IDLE_AGE && idle.kept.is_ready());
    }
}

impl Kept {
    fn is_ready(&mut self) -> bool {
        match self {
            Self::Bare(bare) => bare.is_ready(),
            Self::Live(live) => live.is_ready(),
        }
    }
}

impl Bare {
    /// Whether it is open and has nothing to say.
    fn is_ready(&mut self) -> bool {
        let mut byte = [0];
        now(|cx| Pin::new(&mut self.io).poll_read(cx, &mut ReadBuf::new(&mut byte))).is_pending()
    }

    /// Gives it to hyper, with what has arrived of an answer to a request that was
    /// sent without it.
    pub(super) async fn into_live(self, begun: Option<Bytes>) -> Result<Box<Live>, ProxyError> {
        let Self { mut io, deadline } = self;
        let heard = io.heard();
        let replays = begun.is_some();
        if let Some(answer) = begun {
            io.replay(answer);
        }
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(MAX_BUFFER)
            .handshake(TokioIo::new(io))
            .await
            .map_err(ProxyError::Response)?;
        Ok(Box::new(Live { sender, connection, deadline, heard, replays, uploaded: false }))
    }
}

impl Live {
    /// Takes it from hyper after a complete exchange, if it is between two.
    pub(super) fn into_bare(mut self) -> Option<Box<Bare>> {
        if self.uploaded || !self.is_ready() {
            return None;
        }
        let parts = self.connection.into_parts();
        let bare = Bare { io: parts.io.into_inner(), deadline: self.deadline };
        parts.read_buf.is_empty().then(|| Box::new(bare))
    }

    /// Whether it is open and between two exchanges.
    fn is_ready(&mut self) -> bool {
        now(|cx| Pin::new(&mut self.connection).poll(cx)).is_pending() && self.sender.is_ready()
    }

    /// Drives the connection. Ready when it has ended; not to be polled again
    /// then.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        Pin::new(&mut self.connection).poll(cx)
    }
}

/// Asks a connection that nobody is waiting for, so nobody needs waking. Without a
/// budget: to a task that has used its own up, every socket would seem to have nothing
/// to say.
fn now<T>(mut ask: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
    pin!(unconstrained(poll_fn(|cx| ask(cx)))).poll(&mut Context::from_waker(Waker::noop()))
}

impl Pools {
    fn start_sweeping(self: &Rc<Self>) {
        if self.sweeping.replace(true) {
            return;
        }
        let pools = Rc::downgrade(self);
        tokio::task::spawn_local(async move {
            loop {
                tokio::time::sleep(SWEEP_EVERY).await;
                let Some(pools) = pools.upgrade() else { return };
                if !pools.sweep(Instant::now()) {
                    pools.sweeping.set(false);
                    return;
                }
            }
        });
    }

    /// Whether anything idle is left.
    fn sweep(&self, now: Instant) -> bool {
        let mut entries = self.entries.borrow_mut();
        entries.iter().for_each(|entry| entry.sweep(now));
        // An upstream that no configuration names any more is only held here.
        entries.retain(|entry| Arc::strong_count(&entry.upstream) > 1 || Rc::strong_count(entry) > 1);
        entries.iter().any(|entry| !entry.idle.borrow().is_empty())
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::{TcpListener, TcpStream};
    use tokio::task::coop::{consume_budget, has_budget_remaining};

    use super::super::close_signal::CloseSignal;
    use super::super::exchange::{Bounds, attempt};
    use super::super::io::Transport;
    use super::super::tests::support::run;
    use super::*;

    /// Uses up what this task may do before it has to wait for its turn.
    fn use_up_the_budget() {
        while has_budget_remaining() {
            let _ = pin!(consume_budget()).poll(&mut Context::from_waker(Waker::noop()));
        }
    }

    async fn pair() -> (Box<Bare>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (far, _) = listener.accept().await.unwrap();
        let io = UpstreamIo::new(Transport::Tcp(near));
        (Box::new(Bare { io, deadline: Deadline::at(Instant::now()) }), far)
    }

    #[test]
    fn threat_079_stray_bytes_are_seen_by_a_task_without_budget() {
        run(async {
            for live in [false, true] {
                for stray in [false, true] {
                    let (bare, mut far) = pair().await;
                    if stray {
                        far.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison").await.unwrap();
                        bare.io.readable().await;
                    }
                    let mut kept = match live {
                        true => Kept::Live(bare.into_live(None).await.unwrap()),
                        false => Kept::Bare(bare),
                    };
                    use_up_the_budget();
                    assert_eq!(kept.is_ready(), !stray, "live: {live}");
                }
            }
        });
    }

    #[test]
    fn an_answer_that_has_begun_is_taken_over_by_a_task_without_budget() {
        run(async {
            let (bare, _far) = pair().await;
            let answer = Bytes::from_static(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok");
            let live = bare.into_live(Some(answer)).await.unwrap();
            let close = CloseSignal::never();
            let bounds = Bounds { timeouts: Default::default(), close: &close };
            use_up_the_budget();
            let mut answer = pin!(attempt(live, http::Request::new(RequestBody::Empty), bounds));
            let mut cx = Context::from_waker(Waker::noop());
            assert!(answer.as_mut().poll(&mut cx).is_pending());
            // It is woken at once, and not again before the wait is a long one.
            tokio::task::yield_now().await;
            let Poll::Ready(Ok(answer)) = answer.poll(&mut cx) else { panic!("it waits") };
            assert_eq!(answer.response.status(), 200);
        });
    }
}
