//! Whether they may. A [`Permit`] is the only key to the proxy and to our own
//! API, and only this room makes one.

pub mod permit;

pub use permit::Permit;
