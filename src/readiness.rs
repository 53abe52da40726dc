//! What works and what does not, and the command that mends it.
//!
//! `/healthz` says that the process lives; `/readyz` that every configured way in
//! works. Each fault has a code and a fix, shown to local callers and admins only.
//! A warning is what works today and will not go on working: it is shown with
//! them and makes nothing unready.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::PoisonError;

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What happened.
    pub detail: String,
    /// The command that mends it, if there is one.
    pub fix: Option<String>,
}

/// What is open to the internet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenFunnel {
    /// The address.
    pub url: String,
    /// Its end, as people read it; `None` is never.
    pub until: Option<String>,
    /// Whether everybody is let in, without a secret.
    pub open: bool,
}

/// The faults of now, by code.
#[derive(Default)]
pub struct Readiness {
    faults: Faults,
    warnings: Faults,
    funnels: Mutex<Vec<OpenFunnel>>,
}

impl Readiness {
    /// Without faults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes what is open to the internet: no fault, and to be known all the same.
    pub fn note_funnels(&self, funnels: Vec<OpenFunnel>) {
        *self.funnels.lock().unwrap_or_else(PoisonError::into_inner) = funnels;
    }

    /// What is open to the internet.
    pub fn funnels(&self) -> Vec<OpenFunnel> {
        self.funnels.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes a fault. True when it is new or changed: the log says it once.
    pub fn fail(&self, code: &'static str, fault: Fault) -> bool {
        note(&self.faults, code, fault)
    }

    /// Notes that a fault is over. True when there was one.
    pub fn clear(&self, code: &'static str) -> bool {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).remove(code).is_some()
    }

    /// Notes something that works today. True when it is new or changed.
    pub fn warn(&self, code: &'static str, fault: Fault) -> bool {
        note(&self.warnings, code, fault)
    }

    /// Notes that there is nothing to warn of any more. True when there was.
    pub fn settle(&self, code: &'static str) -> bool {
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner).remove(code).is_some()
    }

    /// What works today and will not go on working.
    pub fn warnings(&self) -> Vec<(&'static str, Fault)> {
        list(&self.warnings)
    }

    /// The faults of now.
    pub fn faults(&self) -> Vec<(&'static str, Fault)> {
        list(&self.faults)
    }

    /// Whether there is none.
    pub fn is_ready(&self) -> bool {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}

type Faults = Mutex<BTreeMap<&'static str, Fault>>;

fn note(faults: &Faults, code: &'static str, fault: Fault) -> bool {
    let mut faults = faults.lock().unwrap_or_else(PoisonError::into_inner);
    let changed = faults.get(code) != Some(&fault);
    faults.insert(code, fault);
    changed
}

fn list(faults: &Faults) -> Vec<(&'static str, Fault)> {
    let faults = faults.lock().unwrap_or_else(PoisonError::into_inner);
    faults.iter().map(|(code, fault)| (*code, fault.clone())).collect()
}
