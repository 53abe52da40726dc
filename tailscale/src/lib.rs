//! Placeholder for the types the gateway's words are made of.
use std::hash::{Hash, Hasher};

/// A login name; equal by ASCII case.
#[derive(Clone, Debug)]
pub struct Login(String);
impl Login {
    /// Takes a login.
    pub fn new(text: &str) -> Result<Self, String> {
        if text.is_empty() { Err("empty".into()) } else { Ok(Self(text.to_owned())) }
    }
    /// As printed.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
impl PartialEq for Login {
    fn eq(&self, o: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&o.0)
    }
}
impl Eq for Login {}
impl Hash for Login {
    fn hash<H: Hasher>(&self, h: &mut H) {
        self.0.to_ascii_lowercase().hash(h)
    }
}
/// A device's stable id.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StableNodeId(String);
impl StableNodeId {
    /// Takes an id.
    pub fn new(text: &str) -> Option<Self> {
        (!text.is_empty()).then(|| Self(text.to_owned()))
    }
    /// As printed.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
