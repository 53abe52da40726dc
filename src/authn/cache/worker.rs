//! The cache of one worker: the warm path takes no lock.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use lru::LruCache;

use super::{Answer, IdentityCache, RENEW_AFTER, Verdict};
use crate::authn::Identities;
use crate::domain::TailnetState;

const CAPACITY: usize = 256;

/// Remembers answers of the shared cache until they are due for renewal.
pub struct WorkerCache {
    shared: IdentityCache,
    state: Arc<ArcSwap<TailnetState>>,
    entries: RefCell<LruCache<IpAddr, Answer>>,
    revision: Cell<u64>,
}

impl WorkerCache {
    /// A cache in front of the shared one.
    pub fn new(shared: IdentityCache, state: Arc<ArcSwap<TailnetState>>) -> Self {
        let capacity = NonZeroUsize::new(CAPACITY).unwrap_or(NonZeroUsize::MIN);
        let revision = Cell::new(shared.revision());
        Self { shared, state, entries: RefCell::new(LruCache::new(capacity)), revision }
    }

    /// An answer that is younger than the renewal age and of this epoch. Older
    /// ones go to the shared cache, which still answers at once and renews them.
    fn remembered(&self, ip: IpAddr) -> Option<Verdict> {
        let epoch = self.state.load().epoch;
        let mut entries = self.entries.borrow_mut();
        let revision = self.shared.revision();
        if self.revision.replace(revision) != revision {
            entries.clear();
            return None;
        }
        let answer = entries.get(&ip)?;
        let young = Instant::now().saturating_duration_since(answer.at) < RENEW_AFTER;
        (answer.epoch == epoch && young).then(|| answer.verdict.clone())
    }
}

impl Identities for WorkerCache {
    async fn of_peer(&self, ip: IpAddr) -> Verdict {
        if let Some(verdict) = self.remembered(ip) {
            return verdict;
        }
        let answer = self.shared.identify(ip).await;
        if answer.verdict.is_ok() {
            self.entries.borrow_mut().put(ip, answer.clone());
        }
        answer.verdict
    }

    async fn of_socket(&self, socket: SocketAddr) -> Verdict {
        self.shared.identify_socket(socket).await
    }
}
