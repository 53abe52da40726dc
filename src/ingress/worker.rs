//! The worker threads: each has its own runtime, its own listeners and its own
//! handler, and shares nothing with the others.

use std::cell::Cell;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc as std_mpsc};
use std::thread;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::AbortHandle;

use super::accept::{Refusals, accept_tcp};
use super::bind::Bound;
use super::handler::Handler;
use super::slots::Counts;
use super::tls::Tls;
use super::unix::{UnixIngress, hand_out};
use super::{Limits, ListenerKind, UnixPeer};

/// Which listener of the running ones.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ListenerKey {
    /// The one on this address and port.
    Tcp(SocketAddr),
    /// The Serve ingress.
    ServeUnix,
}

/// What the worker threads are told.
pub(super) enum Command {
    AddTcp { key: ListenerKey, kind: ListenerKind, listener: std::net::TcpListener, tls: Option<Tls> },
    AddUnix { ingress: UnixIngress, workers: Vec<UnboundedSender<Command>> },
    Take { stream: std::os::unix::net::UnixStream, peer: UnixPeer },
    Remove { key: ListenerKey, done: std_mpsc::Sender<()> },
    Drain { until: Instant },
}

/// One worker thread, from the inside.
pub(super) struct Worker<H> {
    pub(super) handler: Rc<H>,
    pub(super) limits: Limits,
    pub(super) counts: Arc<Counts>,
    pub(super) refusals: Refusals,
    draining: Cell<bool>,
    next_id: Cell<u64>,
    workers: u64,
}

impl<H: Handler> Worker<H> {
    /// The number of the next connection, unlike any of another worker.
    pub(super) fn next_id(&self) -> u64 {
        let id = self.next_id.get();
        self.next_id.set(id + self.workers);
        id
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// Obeys until told to drain, then drains.
    async fn run(self: Rc<Self>, mut commands: UnboundedReceiver<Command>) {
        let mut listeners: HashMap<ListenerKey, AbortHandle> = HashMap::new();
        let until = loop {
            match commands.recv().await {
                Some(Command::AddTcp { key, kind, listener, tls }) => match TcpListener::from_std(listener) {
                    Ok(listener) => {
                        let task =
                            tokio::task::spawn_local(accept_tcp(Rc::clone(&self), listener, kind, tls));
                        if let Some(before) = listeners.insert(key, task.abort_handle()) {
                            before.abort();
                        }
                    }
                    Err(error) => tracing::error!(?key, %error, "cannot listen"),
                },
                Some(Command::AddUnix { ingress, workers }) => {
                    let task = tokio::task::spawn_local(hand_out(ingress, workers));
                    if let Some(before) = listeners.insert(ListenerKey::ServeUnix, task.abort_handle()) {
                        before.abort();
                    }
                }
                Some(Command::Take { stream, peer }) => self.take_unix(stream, peer),
                Some(Command::Remove { key, done }) => {
                    stop(listeners.remove(&key)).await;
                    drop(done);
                }
                Some(Command::Drain { until }) => break until,
                // Whoever started the workers is gone without a word.
                None => break Instant::now(),
            }
        };
        self.draining.set(true);
        for (_, listener) in listeners {
            stop(Some(listener)).await;
        }
        self.counts.controls().iter().for_each(super::ConnControl::finish);
        let waited = tokio::time::timeout_at(until.into(), self.counts.empty()).await;
        if waited.is_err() {
            let rest = self.counts.controls();
            tracing::warn!(connections = rest.len(), "closing connections that did not finish in time");
            rest.iter().for_each(super::ConnControl::abort);
            // One turn, so that they notice and say what they have to say.
            let _ = tokio::time::timeout(Duration::from_millis(100), self.counts.empty()).await;
        }
    }
}

/// Ends an accept loop and waits until its socket is closed.
async fn stop(listener: Option<AbortHandle>) {
    let Some(listener) = listener else { return };
    listener.abort();
    while !listener.is_finished() {
        tokio::task::yield_now().await;
    }
}

/// The running workers. Dropping it closes everything at once;
/// [`Workers::drain`] is the polite way.
pub struct Workers {
    senders: Vec<UnboundedSender<Command>>,
    threads: Vec<thread::JoinHandle<()>>,
    /// What must be kept for as long as a listener runs: its locks.
    kept: Mutex<HashMap<ListenerKey, super::lock::ListenLock>>,
    panicked: Arc<AtomicBool>,
}

impl Workers {
    /// Starts so many worker threads, each with the handler that `make` builds
    /// for it.
    ///
    /// # Errors
    ///
    /// When a thread or its runtime cannot be made.
    pub fn start<H, F>(count: usize, limits: Limits, make: F) -> io::Result<Self>
    where
        H: Handler,
        F: Fn(usize) -> H + Send + Sync + 'static,
    {
        let make = Arc::new(make);
        let mut workers = Self {
            senders: Vec::new(),
            threads: Vec::new(),
            kept: Mutex::default(),
            panicked: Arc::default(),
        };
        for index in 0..count.max(1) {
            let (sender, commands) = unbounded_channel();
            let (ready, started) = std_mpsc::channel();
            let make = Arc::clone(&make);
            let panicked = PanicFlag(Arc::clone(&workers.panicked));
            let body = move || {
                let runtime =
                    match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
                        Ok(runtime) => runtime,
                        Err(error) => {
                            let _ = ready.send(Err(error));
                            return;
                        }
                    };
                runtime.block_on(async {
                    let worker = Rc::new(Worker {
                        handler: Rc::new(make(index)),
                        limits,
                        counts: Arc::default(),
                        refusals: Refusals::default(),
                        draining: Cell::new(false),
                        next_id: Cell::new(index as u64 + 1),
                        workers: count.max(1) as u64,
                    });
                    let _ = ready.send(Ok(()));
                    worker.run(commands).await;
                });
                // Whatever still runs is dropped with the runtime.
                drop(panicked);
            };
            workers.threads.push(thread::Builder::new().name(format!("worker-{index}")).spawn(body)?);
            workers.senders.push(sender);
            started.recv().map_err(|_| io::Error::other("a worker thread ended while it started"))??;
        }
        Ok(workers)
    }

    /// Listens on what was bound, one listener per worker. One already running
    /// on the same address is replaced.
    pub fn add_tcp(&self, bound: Bound, tls: Option<&Tls>) -> ListenerKey {
        self.add(bound, ListenerKind::Ordinary, tls)
    }

    /// The same for the loopback port that only Tailscale Serve may use.
    pub fn add_serve_loopback(&self, bound: Bound) -> ListenerKey {
        self.add(bound, ListenerKind::ServeLoopback, None)
    }

    fn add(&self, bound: Bound, kind: ListenerKind, tls: Option<&Tls>) -> ListenerKey {
        let (addr, listeners, lock) = bound.into_parts();
        let key = ListenerKey::Tcp(addr);
        for (sender, listener) in self.senders.iter().zip(listeners) {
            let command = Command::AddTcp { key: key.clone(), kind, listener, tls: tls.cloned() };
            // A worker that is gone is reported by `is_healthy`.
            let _ = sender.send(command);
        }
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone(), lock);
        key
    }

    /// Serves the unix ingress: one acceptor, whose connections go to the
    /// workers in turn.
    pub fn add_unix(&self, ingress: UnixIngress) -> ListenerKey {
        if let Some(first) = self.senders.first() {
            let _ = first.send(Command::AddUnix { ingress, workers: self.senders.clone() });
        }
        ListenerKey::ServeUnix
    }

    /// Stops listening there; returns when nobody does. Connections that came
    /// that way go on.
    pub fn remove(&self, key: &ListenerKey) {
        let (done, wait) = std_mpsc::channel();
        for sender in &self.senders {
            let _ = sender.send(Command::Remove { key: key.clone(), done: done.clone() });
        }
        drop(done);
        // Ends with a disconnection once every worker has dropped its end.
        let _ = wait.recv_timeout(Duration::from_secs(5));
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    /// Whether every worker still runs. A worker only ends early by a panic
    /// outside any connection.
    pub fn is_healthy(&self) -> bool {
        !self.panicked.load(Ordering::Relaxed)
    }

    /// Stops accepting, lets what is under way finish for at most `timeout`,
    /// then closes the rest. Blocks; not to be called on a runtime's thread.
    pub fn drain(mut self, timeout: Duration) {
        let until = Instant::now() + timeout;
        for sender in self.senders.drain(..) {
            let _ = sender.send(Command::Drain { until });
        }
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a worker thread panicked");
            }
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for sender in self.senders.drain(..) {
            let _ = sender.send(Command::Drain { until: Instant::now() });
        }
    }
}

/// Raised when dropped by a panic.
struct PanicFlag(Arc<AtomicBool>);

impl Drop for PanicFlag {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

/// How many workers suit this machine.
pub fn default_workers() -> usize {
    thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
