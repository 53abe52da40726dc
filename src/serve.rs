//! What Tailscale Serve publishes for us, and nothing else.
//!
//! [`plan()`] compares what is wanted with what is found and what the [`journal`] says is
//! ours, and answers with steps; [`converge`] takes them one at a time, each written down
//! first, and reads the configuration again after each; [`Keeper`] does that whenever
//! anything changes, for as long as the gateway runs.
//!
//! A mount is ours only if the journal has it and what is found equals it. Everything
//! else belongs to somebody: it is never changed, and where it is in the way that is
//! reported, with its name. What this room trusts: the daemon's word about its own
//! configuration, and the journal. What it leaves to others: who is let in by the mount.

pub mod choose;
pub mod journal;
pub mod plan;

mod account;
mod apply;
mod backoff;
mod document;
mod edit_lock;
mod hands;
mod keeper;
mod lost;
#[cfg(test)]
mod model;
mod mounts;
mod places;
mod shown;
mod status;
mod wanted;

pub use apply::{Settled, converge, undo};
pub use choose::{Choice, IDENTITY_OFF, Ingress, choose_ingress};
pub use edit_lock::{EditLock, EditLockError};
pub use hands::{Hands, TailscaleHands};
pub use journal::{Entry, Journal, Phase};
pub use keeper::{Keeper, KeeperHandle};
pub use places::{Doors, Places};
pub use plan::{Conflict, Held, NodeFacts, Plan, Route, Standing, Step, plan};
pub use shown::PENDING;
pub use status::{CONFLICT, MountStatus, ServeStatus, Trouble};
pub use wanted::Wanted;
pub(crate) use wanted::{may_publish, node_of, routes};

use crate::domain::RoutePrefix;

/// A mount that is wanted. It leads to the Serve ingress, whichever that is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DesiredMount {
    /// With the node's certificate, or plain HTTP.
    pub https: bool,
    /// The port that Serve listens on.
    pub port: u16,
    /// The path. Serve strips it before we see a request, as it does for every target.
    pub path: RoutePrefix,
    /// Whether the site is to be open to the internet. Per port: two mounts of one port
    /// that differ here are a mistake of the caller's, and the closed one wins.
    pub funnel: bool,
}
