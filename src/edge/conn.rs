//! What is remembered of a connection between its requests.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use super::budget::Share;
use super::grant::{Grant, IDENTITY_AGE};
use crate::authn::{Identities, Verdict, WorkerCache};
use crate::domain::Reason;
use crate::ingress::attest::{AtAccept, Condition};
use crate::ingress::{ConnControl, ConnFacts, Endpoint, SocketOwner, peer_uid};
use crate::proxy::{CloseReason, Closer};

/// A `Host`, and its canonical form.
pub(super) struct Named {
    pub(super) sent: Box<[u8]>,
    pub(super) host: Arc<str>,
}

/// What is remembered of a connection.
pub struct Conn {
    pub(super) facts: ConnFacts,
    pub(super) control: ConnControl,
    /// Whether nothing but Serve can have opened it: what was known when it was
    /// accepted, and what was read right after.
    pub(super) at_accept: Cell<AtAccept>,
    /// Requests so far. Serve's first one already carries its headers.
    pub(super) requests: Cell<u64>,
    /// Which peer of a userspace-networking daemon is behind it, and since when
    /// that is known.
    userspace: RefCell<Option<(Instant, u64, Verdict)>>,
    /// Ends what is open on this connection when the right to it is taken away.
    pub(super) closer: RefCell<Closer>,
    /// On what the latest of it was opened. A connection of Serve's carries many
    /// people's requests, but one at a time.
    pub(super) grant: RefCell<Option<Grant>>,
    /// Its place in the budget of whoever used it last.
    pub(super) share: RefCell<Option<Share>>,
    pub(super) watched: Cell<bool>,
    /// The last one that was sent: mostly the same with every request.
    pub(super) host: RefCell<Option<Named>>,
    /// The socket at the other end of a loopback connection, asked for once: its
    /// owner does not change while it lives.
    socket_owner: RefCell<Option<Option<SocketOwner>>>,
    /// What the log last said about it.
    pub(super) noted: Cell<(Option<Condition>, bool)>,
    /// Whether Serve's set-up was read since it was accepted.
    pub(super) serve_is_fresh: Cell<bool>,
}

impl Conn {
    /// A new connection.
    pub(super) fn new(facts: ConnFacts, control: ConnControl) -> Self {
        let at_accept = Cell::new(facts.at_accept);
        Self {
            facts,
            control,
            at_accept,
            userspace: RefCell::new(None),
            closer: RefCell::default(),
            grant: RefCell::new(None),
            share: RefCell::new(None),
            watched: Cell::new(false),
            host: RefCell::new(None),
            socket_owner: RefCell::new(None),
            requests: Cell::new(0),
            noted: Cell::default(),
            serve_is_fresh: Cell::new(false),
        }
    }

    /// Whether something is open on it: a request under way, a stream, a tunnel.
    pub(super) fn has_open(&self) -> bool {
        self.closer.borrow().held() > 0
    }

    /// On what it was opened.
    pub(super) fn grant(&self) -> Option<Grant> {
        self.grant.borrow().clone()
    }

    /// Ends what is open. Later requests are decided anew.
    pub(super) fn close(&self, reason: CloseReason) {
        self.closer.take().close(reason);
    }

    pub(super) fn socket_uid(&self) -> Option<u32> {
        if let Some(known) = &*self.socket_owner.borrow() {
            return known.as_ref().map(|owner| owner.uid);
        }
        let owner = self.ask_owner();
        let uid = owner.as_ref().map(|owner| owner.uid);
        // A socket that is gone by now says nothing; it is not asked again.
        *self.socket_owner.borrow_mut() = Some(owner);
        uid
    }

    fn ask_owner(&self) -> Option<SocketOwner> {
        match self.facts.endpoint {
            Endpoint::Tcp { peer, local } => peer_uid(peer.socket(), local.socket()).ok(),
            Endpoint::Unix(_) => None,
        }
    }

    /// Whether the socket at the other end is still the one that was asked about.
    fn has_same_peer_socket(&self) -> bool {
        let now = self.ask_owner();
        match (&now, &*self.socket_owner.borrow()) {
            (Some(now), Some(Some(before))) => now.uid == before.uid && now.inode == before.inode,
            _ => false,
        }
    }

    pub(super) fn local_ip(&self) -> Option<IpAddr> {
        match self.facts.endpoint {
            Endpoint::Tcp { local, .. } => Some(local.ip()),
            Endpoint::Unix(_) => None,
        }
    }
}

/// Identities as one connection sees them. Who is behind a socket of userspace
/// networking is learned once per connection and a few seconds, since a miss costs
/// the daemon 180 ms; never by address, which the next connection may have.
pub(super) struct OfConn<'a> {
    pub(super) identities: &'a WorkerCache,
    pub(super) conn: &'a Conn,
    /// The world the answers belong to.
    pub(super) epoch: u64,
}

impl Identities for OfConn<'_> {
    async fn of_peer(&self, ip: IpAddr) -> Verdict {
        self.identities.of_peer(ip).await
    }

    async fn of_socket(&self, socket: SocketAddr) -> Verdict {
        if let Some((at, epoch, verdict)) = &*self.conn.userspace.borrow()
            && *epoch == self.epoch
            && at.elapsed() < IDENTITY_AGE
        {
            return verdict.clone();
        }
        let verdict = self.identities.of_socket(socket).await;
        // While we asked, the socket may have gone and its port been given to
        // somebody else's.
        if verdict.is_ok() && !self.conn.has_same_peer_socket() {
            return Err(Reason::PeerUnknown);
        }
        if matches!(verdict, Ok(_) | Err(Reason::PeerUnknown)) {
            *self.conn.userspace.borrow_mut() = Some((Instant::now(), self.epoch, verdict.clone()));
        }
        verdict
    }
}
