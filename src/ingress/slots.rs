//! The open connections of one worker: all, and how many of each peer that has
//! not shown who it is (threat rules 70 and 71).

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::Notify;

use super::control::{ConnControl, Shared};
use crate::domain::PeerAddr;

/// The connections of one worker.
#[derive(Default)]
pub(super) struct Counts {
    open: Mutex<HashMap<u64, Weak<Shared>>>,
    emptied: Notify,
    unproven: Mutex<HashMap<IpAddr, usize>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing here can panic half-way through a change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Counts {
    /// A place for one more connection, unless there are `max` of them.
    pub(super) fn connection(self: &Arc<Self>, id: u64, shared: &Arc<Shared>, max: usize) -> Option<Slot> {
        let mut open = lock(&self.open);
        if open.len() >= max {
            return None;
        }
        open.insert(id, Arc::downgrade(shared));
        Some(Slot { counts: Arc::clone(self), id })
    }

    /// A place for one more unproven connection of this peer. Loopback needs
    /// none: it is everybody behind Tailscale Serve.
    pub(super) fn unproven(self: &Arc<Self>, peer: PeerAddr, max: usize) -> Result<Option<PeerSlot>, Full> {
        if peer.ip().is_loopback() {
            return Ok(None);
        }
        let key = subject_of(peer.ip());
        let mut unproven = lock(&self.unproven);
        let count = unproven.entry(key).or_default();
        if *count >= max {
            return Err(Full);
        }
        *count += 1;
        Ok(Some(PeerSlot { counts: Arc::clone(self), key }))
    }

    /// How many connections are open, upgraded ones included.
    pub(super) fn open(&self) -> usize {
        lock(&self.open).len()
    }

    /// A hand on each open connection.
    pub(super) fn controls(&self) -> Vec<ConnControl> {
        lock(&self.open).values().filter_map(Weak::upgrade).map(ConnControl).collect()
    }

    /// Waits until no connection is open.
    pub(super) async fn empty(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.open() == 0 {
                return;
            }
            emptied.await;
        }
    }
}

/// The peer has too many unproven connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

/// The address that stands for a peer: one IPv6 customer has a whole /64, but
/// all of a tailnet's nodes share one.
pub fn subject_of(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V6(v6) if v6.segments()[..3] != [0xfd7a, 0x115c, 0xa1e0] => {
            IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64))
        }
        IpAddr::V4(_) | IpAddr::V6(_) => ip,
    }
}

/// One open connection; free again when dropped.
pub(super) struct Slot {
    counts: Arc<Counts>,
    id: u64,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut open = lock(&self.counts.open);
        open.remove(&self.id);
        if open.is_empty() {
            self.counts.emptied.notify_waiters();
        }
    }
}

/// One unproven connection of a peer; free again when dropped.
pub(super) struct PeerSlot {
    counts: Arc<Counts>,
    key: IpAddr,
}

impl Drop for PeerSlot {
    fn drop(&mut self) {
        let mut unproven = lock(&self.counts.unproven);
        if let Some(count) = unproven.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                unproven.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(addr: &str) -> PeerAddr {
        PeerAddr::new(addr.parse().unwrap())
    }

    #[test]
    fn threat_071_unproven_connections_are_capped_per_peer() {
        let counts = Arc::new(Counts::default());
        let one = counts.unproven(peer("[2001:db8::1]:1"), 2).unwrap();
        let two = counts.unproven(peer("[2001:db8::2]:1"), 2).unwrap();
        assert!(counts.unproven(peer("[2001:db8::3]:1"), 2).is_err(), "one /64 is one peer");
        assert!(counts.unproven(peer("[2001:db8:0:1::1]:1"), 2).is_ok());
        drop(one);
        assert!(counts.unproven(peer("[2001:db8::3]:1"), 2).is_ok());
        drop(two);
        assert!(counts.unproven.lock().unwrap().is_empty(), "a count of nothing takes no memory");
    }

    #[test]
    fn nodes_of_a_tailnet_are_peers_of_their_own() {
        let counts = Arc::new(Counts::default());
        let _one = counts.unproven(peer("[fd7a:115c:a1e0::1]:1"), 1).unwrap();
        assert!(counts.unproven(peer("[fd7a:115c:a1e0::2]:1"), 1).is_ok());
        assert!(counts.unproven(peer("[fd7a:115c:a1e0::1]:2"), 1).is_err());
        assert!(matches!(counts.unproven(peer("127.0.0.1:1"), 0), Ok(None)));
    }

    #[test]
    fn threat_070_all_connections_are_capped() {
        let counts = Arc::new(Counts::default());
        let shared = Arc::new(Shared::new(None));
        let slot = counts.connection(1, &shared, 1).unwrap();
        assert!(counts.connection(2, &shared, 1).is_none());
        drop(slot);
        assert!(counts.connection(3, &shared, 1).is_some());
        assert_eq!(counts.open(), 0);
    }
}
