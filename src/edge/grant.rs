//! On what something was opened.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::shared::Settings;
use crate::domain::{Principal, Route};
use crate::ingress::Via;

/// How old an identity may be while its device is connected.
pub(super) const IDENTITY_AGE: Duration = Duration::from_secs(5);

/// On what something was opened.
#[derive(Clone)]
pub(super) struct Grant {
    /// The connection's number in the log.
    pub(super) conn: u64,
    /// Whose it is.
    pub(super) principal: Principal,
    /// By which way.
    pub(super) via: Via,
    /// Who opened the socket.
    pub(super) peer: Option<IpAddr>,
    /// The address that `whois` was asked about.
    pub(super) asked: Option<IpAddr>,
    /// The route; looked up again by its name, since a reload makes new ones.
    pub(super) route: Arc<Route>,
    /// The canonical path, of a Funnel request: it was let in as long as that is open.
    pub(super) opened_at: Option<Arc<str>>,
    /// Whether it asked for an upgrade: a WebSocket does not end by itself.
    pub(super) upgrade: bool,
    /// The configuration that was in force.
    pub(super) settings: Arc<Settings>,
}

/// Now, in Unix seconds.
pub fn unix_now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
