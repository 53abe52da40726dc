//! Whether they may. A [`Permit`] is the only key to the proxy and to our own
//! API, and only this room makes one.
//!
//! [`decide`] is a pure function of who asks, what the rules say and what time it
//! is; [`pins`] remembers which user id a login belonged to.

mod api_permit;
pub mod permit;
pub mod pins;
mod policy;

pub use api_permit::ApiPermit;
pub use permit::Permit;
pub use policy::{Question, decide, decide_own};
