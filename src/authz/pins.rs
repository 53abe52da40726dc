//! Which user id a login belonged to when it was first let in (rulings 1.12).
//!
//! An account that is deleted and made again, or the same name on another
//! control server, is another person. Reading takes no lock; writing goes to the
//! state database through [`PinStore`], and where that fails the pin is kept in
//! memory and the gateway says it is degraded.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

/// Where pins outlive the process.
pub trait PinStore: Send + Sync + 'static {
    /// Remembers a first use. Never overwrites: the first id stays.
    ///
    /// # Errors
    ///
    /// A sentence for the log.
    fn remember(&self, tailnet: &str, login: &str, user_id: i64) -> Result<(), String>;

    /// Every pin, if another process changed them since this was last asked:
    /// `openclaw access unpin`. `None` otherwise.
    fn changed(&self) -> Option<Vec<Pin>>;
}

/// A tailnet, a login in lower case, and the user id it is pinned to.
pub type Pin = (String, String, i64);

/// Trees: a tailnet and its people are few, and comparing costs less than hashing.
type Known = BTreeMap<Box<str>, BTreeMap<Box<str>, i64>>;

/// The pins, by tailnet and lower-cased login.
pub struct Pins {
    known: ArcSwap<Known>,
    writing: Mutex<()>,
    store: Arc<dyn PinStore>,
    /// Pins that the store does not hold: kept here until it does.
    unsaved: Arc<Mutex<Vec<Pin>>>,
}

impl Pins {
    /// The pins that were remembered before: tailnet, login, user id.
    pub fn new(store: Arc<dyn PinStore>, remembered: Vec<Pin>) -> Self {
        let known = known(remembered);
        Self { known: ArcSwap::from_pointee(known), writing: Mutex::new(()), store, unsaved: Arc::default() }
    }

    /// The user id a login is pinned to.
    pub fn of(&self, tailnet: &str, login: &str) -> Option<i64> {
        let known = self.known.load();
        let logins = known.get(tailnet)?;
        // Logins are lower case almost always: no allocation then.
        match logins.get(login) {
            Some(id) => Some(*id),
            None if login.bytes().any(|b| b.is_ascii_uppercase()) => {
                logins.get(login.to_ascii_lowercase().as_str()).copied()
            }
            None => None,
        }
    }

    /// Pins a login to the id it was first let in with.
    pub fn pin(&self, tailnet: &str, login: &str, user_id: i64) {
        let login = login.to_ascii_lowercase();
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.of(tailnet, &login).is_some() {
            return;
        }
        let mut known = Known::clone(&self.known.load());
        known.entry(tailnet.into()).or_default().insert(login.as_str().into(), user_id);
        self.known.store(Arc::new(known));
        self.save((tailnet.to_owned(), login, user_id));
    }

    /// Stores a pin, on a thread of its own: a first use is rare, and a disk must
    /// not hold up the requests of a worker.
    fn save(&self, pin: Pin) {
        let (store, unsaved) = (self.store.clone(), self.unsaved.clone());
        unsaved.lock().unwrap_or_else(PoisonError::into_inner).push(pin.clone());
        let write = move || match store.remember(&pin.0, &pin.1, pin.2) {
            Ok(()) => unsaved.lock().unwrap_or_else(PoisonError::into_inner).retain(|other| *other != pin),
            Err(error) => {
                tracing::error!(
                    login = pin.1,
                    error,
                    "the user id could not be stored; it is pinned in memory only"
                );
            }
        };
        // Without a thread it stays unsaved, which is reported.
        let _ = std::thread::Builder::new().name("pin".into()).spawn(write);
    }

    /// Takes over what another process changed.
    pub fn refresh(&self) {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pins) = self.store.changed() {
            let mut pins = pins;
            // What could not be stored is not forgotten over it.
            pins.extend(self.unsaved.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned());
            let now = known(pins);
            // Something else in the database may have changed.
            if **self.known.load() != now {
                self.known.store(Arc::new(now));
                tracing::info!("the pinned user ids were changed by another process");
            }
        }
    }

    /// Whether a pin is in memory only.
    pub fn is_degraded(&self) -> bool {
        !self.unsaved.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}

fn known(pins: Vec<Pin>) -> Known {
    let mut known = Known::new();
    for (tailnet, login, id) in pins {
        known.entry(tailnet.into()).or_default().insert(login.to_ascii_lowercase().into(), id);
    }
    known
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Broken;
    impl PinStore for Broken {
        fn remember(&self, _: &str, _: &str, _: i64) -> Result<(), String> {
            Err("disk full".into())
        }
        fn changed(&self) -> Option<Vec<Pin>> {
            None
        }
    }

    #[test]
    fn the_first_id_stays_even_when_it_cannot_be_stored() {
        let pins = Pins::new(Arc::new(Broken), vec![("t".into(), "Bob@example.com".into(), 2)]);
        pins.pin("t", "Alice@Example.com", 1);
        pins.pin("t", "alice@example.com", 7);
        assert_eq!(pins.of("t", "ALICE@example.com"), Some(1));
        assert_eq!(pins.of("t", "bob@example.com"), Some(2));
        assert_eq!(pins.of("other", "alice@example.com"), None);
        assert!(pins.is_degraded());
    }
}
