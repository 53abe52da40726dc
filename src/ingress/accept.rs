//! Takes connections off the listeners, and decides which are served.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::time::{Duration, Instant, sleep};

use super::control::Shared;
use super::handler::{Admit, Handler};
use super::serve::Accepted;
use super::tls::Tls;
use super::worker::Worker;
use super::{ConnFacts, Endpoint, ListenerKind, UnixPeer};
use crate::domain::{LocalAddr, PeerAddr};

/// Accepts for as long as the listener is wanted. An error never ends it: out of
/// file descriptors, it waits until some are back.
pub(super) async fn accept_tcp<H: Handler>(
    worker: Rc<Worker<H>>,
    listener: TcpListener,
    kind: ListenerKind,
    tls: Option<Tls>,
) {
    let mut backoff = Backoff::default();
    // Of a listener on all addresses, each connection is asked for its own.
    let one = listener.local_addr().ok().filter(|addr| !addr.ip().is_unspecified());
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                backoff.reset();
                let Some(local) = one.or_else(|| stream.local_addr().ok()) else { continue };
                let endpoint = Endpoint::Tcp { peer: PeerAddr::new(peer), local: LocalAddr::new(local) };
                worker.take_tcp(stream, endpoint, kind, tls.clone());
            }
            Err(error) => backoff.after(&error).await,
        }
    }
}

/// Waits between failing accepts.
#[derive(Default)]
pub(super) struct Backoff(u32);

impl Backoff {
    pub(super) fn reset(&mut self) {
        self.0 = 0;
    }

    pub(super) async fn after(&mut self, error: &io::Error) {
        // The client went away before it was accepted: its affair.
        if matches!(
            error.kind(),
            io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
        ) {
            return;
        }
        if self.0 == 0 {
            tracing::warn!(%error, "cannot accept connections");
        }
        self.0 = (self.0 + 1).min(7);
        sleep(Duration::from_millis(10 << self.0).min(Duration::from_secs(1))).await;
    }
}

impl<H: Handler> Worker<H> {
    fn take_tcp(
        self: &Rc<Self>,
        stream: TcpStream,
        endpoint: Endpoint,
        kind: ListenerKind,
        tls: Option<Tls>,
    ) {
        if let Some(accepted) = self.admit(endpoint, kind) {
            tokio::task::spawn_local(accepted.tcp(stream, tls));
        }
    }

    pub(super) fn take_unix(self: &Rc<Self>, stream: std::os::unix::net::UnixStream, peer: UnixPeer) {
        let stream = match UnixStream::from_std(stream) {
            Ok(stream) => stream,
            Err(error) => return tracing::warn!(%error, "cannot serve a connection of the unix ingress"),
        };
        if let Some(accepted) = self.admit(Endpoint::Unix(peer), ListenerKind::ServeUnix) {
            tokio::task::spawn_local(accepted.unix(stream));
        }
    }

    /// Counts the connection and asks the handler. Dropping the socket is all
    /// that a refused one gets.
    fn admit(self: &Rc<Self>, endpoint: Endpoint, listener: ListenerKind) -> Option<Accepted<H>> {
        let refused = |reason| {
            self.log_refused(&endpoint, reason);
            None
        };
        if self.is_draining() {
            return refused("draining");
        }
        if let Admit::Drop(reason) = self.handler.admit(&endpoint, listener) {
            return refused(reason);
        }
        let unproven = match endpoint {
            Endpoint::Tcp { peer, .. } if listener == ListenerKind::Ordinary => {
                self.counts.unproven(peer, self.limits.max_unproven_per_peer)
            }
            // Everybody comes from tailscaled there.
            Endpoint::Tcp { .. } | Endpoint::Unix(_) => Ok(None),
        };
        let Ok(unproven) = unproven else { return refused("too_many_connections_of_peer") };
        let id = self.next_id();
        let shared = Arc::new(Shared::new(unproven));
        let Some(slot) = self.counts.connection(id, &shared, self.limits.max_connections) else {
            return refused("too_many_connections");
        };
        Some(Accepted {
            handler: Rc::clone(&self.handler),
            limits: self.limits,
            facts: ConnFacts {
                id,
                listener,
                endpoint,
                tls: None,
                accepted: std::time::Instant::now(),
                at_accept: self.handler.at_accept(),
            },
            shared,
            slot,
        })
    }

    /// At most one line a second: connections cost a stranger nothing.
    fn log_refused(&self, endpoint: &Endpoint, reason: &'static str) {
        let Some(unlogged) = self.refusals.one_more() else { return };
        match endpoint {
            Endpoint::Tcp { peer, local } => {
                tracing::info!(%peer, %local, reason, unlogged, "connection refused at accept");
            }
            Endpoint::Unix(peer) => {
                tracing::info!(
                    uid = peer.uid,
                    pid = peer.pid,
                    reason,
                    unlogged,
                    "connection refused at accept"
                );
            }
        }
    }
}

/// Thins out the lines about refused connections.
#[derive(Default)]
pub(super) struct Refusals {
    last: Cell<Option<Instant>>,
    unlogged: Cell<u64>,
}

impl Refusals {
    /// Counts one, and says how many went unlogged before it if this one is to
    /// be logged.
    fn one_more(&self) -> Option<u64> {
        let now = Instant::now();
        if self.last.get().is_some_and(|last| now - last < Duration::from_secs(1)) {
            self.unlogged.set(self.unlogged.get() + 1);
            return None;
        }
        self.last.set(Some(now));
        Some(self.unlogged.take())
    }
}
