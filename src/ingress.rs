//! Connections and the facts about them.
//!
//! This room binds, accepts, bounds and frames; it says who is at the other end
//! of a socket and what came in with the request. It believes nothing a client
//! wrote, except a forwarded chain from a configured proxy.

pub mod attest;
pub mod authority;
pub mod classify;
pub mod conn;
pub mod facts;
pub mod forwarded;
pub mod scan;

pub use conn::{ConnFacts, Endpoint, ListenerKind, TlsFacts, UnixPeer};
pub use facts::{Evidence, IngressFacts, Via};
