//! What the listener side asks of the rest of the gateway.

use std::future::Future;
use std::rc::Rc;

use hyper::{Request, Response};

use super::attest::AtAccept;
use super::{ConnControl, ConnFacts, Endpoint, ListenerKind};
use crate::body::{Body, Upload};

/// What becomes of a connection at accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admit {
    /// It is served.
    Keep,
    /// It is closed without a byte; the word is for the log.
    Drop(&'static str),
}

/// Answers requests. One instance lives on each worker thread and never leaves
/// it, so it may keep its state in cells.
pub trait Handler: 'static {
    /// What is kept for each connection.
    type Conn: 'static;

    /// Decides at accept whether a connection is kept at all. Runs on the accept
    /// path: cheap, and without waiting.
    fn admit(&self, endpoint: &Endpoint, listener: ListenerKind) -> Admit;

    /// What is known at this moment of who can open connections to us. Asked right
    /// after accept: a connection is judged by it for as long as it lives.
    fn at_accept(&self) -> AtAccept {
        AtAccept::NONE
    }

    /// Makes the state of a connection, after its TLS handshake. `control` may
    /// be kept, also elsewhere, to close the connection later. The state is
    /// dropped when the connection and all of its requests have ended.
    fn open(&self, facts: ConnFacts, control: ConnControl) -> Self::Conn;

    /// Answers one request. Dropped half-way when the client goes away.
    ///
    /// The first thing to ask of a request is
    /// [`framing_fault`](super::framing_fault): a refused head arrives here too,
    /// as a stand-in, to be answered in the gateway's own words.
    ///
    /// An answer 101 to an HTTP/1.1 request with `Upgrade` opens the tunnel; any
    /// other answer to one closes the connection, and what the client sent
    /// behind its request is thrown away (threat rule 80).
    fn call(
        self: Rc<Self>,
        conn: Rc<Self::Conn>,
        req: Request<Upload>,
    ) -> impl Future<Output = Response<Body>> + 'static;
}
