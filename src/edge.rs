//! A request's way through the rooms.
//!
//! `decide` is the one place that knows the order (rulings 2): framing and
//! limits, facts, ambiguous headers, health, path, route, secret, identity, host
//! and browser guard, authorization, then proxy or our own API.

mod budget;
mod conn;
mod decide;
mod grant;
pub mod guard;
mod live;
pub mod path;
pub mod pipeline;
mod recheck;
mod request_id;
pub mod request_log;
pub mod respond;
pub mod router;
pub mod shared;

pub use conn::Conn;
pub use grant::unix_now;
pub use pipeline::Edge;
pub use router::{OWN_PREFIX, Router, Target};
pub use shared::{Settings, Shared};
