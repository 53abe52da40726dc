//! Connections and the facts about them.
//!
//! This room binds, accepts, bounds and frames; it says who is at the other end
//! of a socket and what came in with the request. It believes nothing a client
//! wrote, except a forwarded chain from a configured proxy.
//!
//! A connection comes off a listener ([`Binder`], [`Workers`]), is admitted or
//! dropped ([`Handler::admit`]), speaks TLS where it must, and is then read
//! through the strict guard ([`framing_fault`]), within [`Limits`]: by `h1` where that
//! suffices, else by hyper.

pub mod attest;
pub mod classify;
pub mod conn;
pub mod facts;
pub mod forwarded;
pub mod scan;

mod accept;
mod authority;
mod bind;
mod control;
mod detect;
mod framing;
mod gather;
mod h1;
mod h2;
mod handler;
mod limits;
mod local_addrs;
mod lock;
mod owner;
mod private_dir;
mod process;
mod serve;
mod slots;
mod stall;
mod tls;
mod tracked;
mod unix;
mod worker;

#[cfg(test)]
mod tests;

pub use authority::{authority_of, canonical_authority};
pub use bind::{BindError, Binder, Bound, BoundSet};
pub use conn::{ConnFacts, Endpoint, ListenerKind, TlsFacts, UnixPeer};
pub use control::ConnControl;
pub use facts::{Evidence, IngressFacts, Via};
pub use framing::{FramingFault, framing_fault};
pub(crate) use gather::poll_write_gathered;
pub(crate) use h1::plain_length;
pub use handler::{Admit, Handler};
pub use limits::Limits;
pub use local_addrs::local_addrs;
pub use owner::{OwnerError, SocketOwner, peer_uid};
pub use private_dir::DirError;
pub use process::{OutboundProxy, is_tailscaled_running, outbound_proxy, start_time};
pub use slots::subject_of;
pub use tls::{CertFacts, Tls, TlsError, TlsFiles};
pub use unix::{UnixError, UnixIngress, is_served_at, serve_dir, serve_socket};
pub use worker::{ListenerKey, Workers, default_workers};
