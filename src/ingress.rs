//! Connections and the facts about them.
//! This room binds, accepts, bounds and frames; it says who is at the other end
//! of a socket and what came in with the request. It believes nothing a client
//! wrote, except a forwarded chain from a configured proxy.

pub mod conn;
pub mod facts;

mod authority;
mod bind;
mod control;
mod framing;
mod limits;
mod lock;
mod slots;


pub use authority::{authority_of, canonical_authority};
pub use bind::{BindError, Binder, Bound, BoundSet};
pub use conn::{ConnFacts, Endpoint, ListenerKind, TlsFacts, UnixPeer};
pub use control::ConnControl;
pub use facts::{IngressFacts, Via};
pub use framing::{FramingFault, framing_fault};
pub use limits::Limits;
