//! What the keeper tells others.

use openclaw_tailscale::{EditError, Error};

use super::plan::Conflict;

/// Something of somebody else's is in the way.
pub const CONFLICT: &str = "serve_conflict";

/// What is wrong, and what mends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// A stable name, for `/readyz`, logs and JSON.
    pub code: &'static str,
    /// What happened.
    pub detail: String,
    /// The command or page that mends it.
    pub fix: Option<String>,
}

impl Trouble {
    /// One without a known mend.
    pub fn new(code: &'static str, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), fix: None }
    }

    /// With what mends it.
    #[must_use]
    pub fn fix(self, fix: impl Into<String>) -> Self {
        Self { fix: Some(fix.into()), ..self }
    }

    pub(super) fn journal(error: &str) -> Self {
        Self::new(
            "serve_journal_not_writable",
            format!("the state database cannot be used ({error}), so nothing is published: nobody could say later that it is ours"),
        )
        .fix("make the state directory writable, or its disk less full")
    }
}

impl From<&Conflict> for Trouble {
    fn from(conflict: &Conflict) -> Self {
        Self::new(CONFLICT, format!("{conflict}; it is not ours, so it is left alone")).fix(conflict.fix())
    }
}

impl From<&EditError> for Trouble {
    fn from(error: &EditError) -> Self {
        Self { code: error.code(), detail: error.to_string(), fix: error.fix() }
    }
}

impl From<&Error> for Trouble {
    fn from(error: &Error) -> Self {
        Self { code: error.code(), detail: error.to_string(), fix: error.fix().map(|fix| fix.to_string()) }
    }
}

/// One wanted mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountStatus {
    /// The address that people type; empty where the node has no name yet.
    pub url: String,
    /// Its site, `name:port`.
    pub host_port: String,
    /// Its path.
    pub path: String,
    /// Whether it is to be public.
    pub funnel: bool,
    /// Whether it is published and leads to us.
    pub served: bool,
    /// Whether somebody else published it.
    pub by_hand: bool,
    /// What is wrong with it.
    pub trouble: Vec<Trouble>,
}

/// Everything about Serve.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServeStatus {
    /// The wanted mounts.
    pub mounts: Vec<MountStatus>,
    /// What concerns no single mount.
    pub trouble: Vec<Trouble>,
    /// Whether there was a look since the last change.
    pub looked: bool,
}

impl ServeStatus {
    /// Everything that is wrong.
    pub fn troubles(&self) -> impl Iterator<Item = &Trouble> {
        self.trouble.iter().chain(self.mounts.iter().flat_map(|mount| &mount.trouble))
    }
}
