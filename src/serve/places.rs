//! What the keeper is told of its surroundings.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arc_swap::ArcSwap;
use openclaw_tailscale::{Tailscale, Tie};

/// Finds Tailscale; `None` while it is not there.
pub(super) type FindTailscale = Box<dyn Fn() -> Option<Tailscale> + Send + Sync>;

/// Where Serve can be pointed at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Doors {
    /// The unix ingress, if it is bound.
    pub unix: Option<PathBuf>,
    /// The port of the loopback ingress, if it is bound.
    pub loopback: Option<u16>,
}

impl Doors {
    /// Whether there is any.
    #[must_use]
    pub fn any(&self) -> bool {
        self.unix.is_some() || self.loopback.is_some()
    }
}

/// What the keeper is told once.
pub struct Places {
    /// Where Serve can be pointed at: looked at anew each time, a reload may open them.
    pub doors: Arc<ArcSwap<Doors>>,
    /// Our uid.
    pub our_uid: u32,
    /// `gateway.tailscale.trustLocalUsers`.
    pub trust_local_users: bool,
    /// The state directory, for the lock.
    pub state_dir: PathBuf,
    /// The helper that ties children to our life.
    pub tie: Tie,
    /// Whether this gateway, and no other, attends to the state directory. The journal
    /// speaks for that one alone.
    pub attended: Arc<AtomicBool>,
}
