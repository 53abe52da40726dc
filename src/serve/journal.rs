//! What we publish, written down before it is published.
//!
//! Each mount of ours is an entry before the daemon is asked for it, and stays one until
//! the daemon was seen without it. So whenever the process ends, the next one knows what
//! may be there and whose it is. Without a journal nothing is published in the
//! background: nobody could say later that it is ours.

use openclaw_tailscale::{Origin, WebHandler};

use super::plan::{NodeFacts, Route};

/// How far an entry has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// About to be published; it may be there or not.
    Intended,
    /// It was seen.
    Placed,
    /// About to be taken away; it may be there or not.
    Removing,
}

impl Phase {
    /// The word in the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Intended => "intended",
            Self::Placed => "placed",
            Self::Removing => "removing",
        }
    }

    /// From the word.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Intended, Self::Placed, Self::Removing].into_iter().find(|phase| phase.as_str() == text)
    }
}

/// One mount of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The node and its tailnet ([`NodeFacts::key`]): another profile of the same machine
    /// has another Serve configuration.
    pub node: String,
    /// `name:port`, as the configuration has it.
    pub host_port: String,
    /// The path.
    pub mount: String,
    /// Where it leads, as the configuration has it.
    pub target: String,
    /// With the node's certificate, or plain HTTP.
    pub https: bool,
    /// Whether it lives only as long as the process that published it.
    pub session: bool,
    /// The id of that session, once it is known: another session is somebody else's,
    /// wherever it leads.
    pub session_id: Option<String>,
    /// Whether we opened its site to the internet.
    pub funnel: bool,
    /// How far it has come.
    pub phase: Phase,
}

impl Entry {
    /// The entry of a route that is about to be published.
    #[must_use]
    pub fn intended(route: &Route, node: &NodeFacts) -> Self {
        Self {
            node: node.key(),
            host_port: node.host_port(route.port),
            mount: route.path.clone(),
            target: route.target.clone(),
            https: route.https,
            session: route.session,
            session_id: None,
            funnel: route.funnel,
            phase: Phase::Intended,
        }
    }

    /// The same in another phase.
    #[must_use]
    pub fn in_phase(&self, phase: Phase) -> Self {
        Self { phase, ..self.clone() }
    }

    /// Whether both are about the same mount with the same target.
    #[must_use]
    pub fn same_place(&self, other: &Self) -> bool {
        self.node == other.node
            && self.host_port.eq_ignore_ascii_case(&other.host_port)
            && self.mount == other.mount
            && self.target == other.target
            && self.session == other.session
    }

    /// Whether what was found is this, exactly.
    #[must_use]
    pub fn is(&self, found: &WebHandler) -> bool {
        self.is_of(&found.origin) && self.is_like(found)
    }

    /// Whether that is where this entry lies: in the node's own configuration, or in this
    /// very session.
    #[must_use]
    pub fn is_of(&self, origin: &Origin) -> bool {
        match origin {
            Origin::Node => !self.session,
            Origin::Foreground(id) => self.session && self.session_id.as_ref() == Some(id),
            Origin::Service(_) => false,
        }
    }

    /// Whether what was found is the same mount with the same target, whosever it is.
    #[must_use]
    pub fn is_like(&self, found: &WebHandler) -> bool {
        found.host_port.eq_ignore_ascii_case(&self.host_port)
            && found.mount == self.mount
            && found.proxy.as_deref() == Some(self.target.as_str())
            && found.path.is_none()
            && found.text.is_none()
            && found.redirect.is_none()
            && found.accept_app_caps.is_empty()
    }

    /// The port that Serve listens on.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.host_port.rsplit_once(':')?.1.parse().ok()
    }
}

/// Where entries are kept. Each call is durable when it returns.
pub trait Journal {
    /// Every entry, of every node.
    ///
    /// # Errors
    ///
    /// A sentence for the log.
    fn entries(&self) -> Result<Vec<Entry>, String>;

    /// Writes an entry, over one about the [same place](Entry::same_place).
    ///
    /// # Errors
    ///
    /// As above: then it must not be acted on.
    fn put(&self, entry: &Entry) -> Result<(), String>;

    /// Strikes the entry about the same place.
    ///
    /// # Errors
    ///
    /// As above.
    fn strike(&self, entry: &Entry) -> Result<(), String>;
}

impl<J: Journal + ?Sized> Journal for std::sync::Arc<J> {
    fn entries(&self) -> Result<Vec<Entry>, String> {
        (**self).entries()
    }

    fn put(&self, entry: &Entry) -> Result<(), String> {
        (**self).put(entry)
    }

    fn strike(&self, entry: &Entry) -> Result<(), String> {
        (**self).strike(entry)
    }
}

/// Without a place to write there is no journal, and nothing is published.
impl<J: Journal> Journal for Option<J> {
    fn entries(&self) -> Result<Vec<Entry>, String> {
        self.as_ref().map_or_else(|| Ok(Vec::new()), Journal::entries)
    }

    fn put(&self, entry: &Entry) -> Result<(), String> {
        self.as_ref().ok_or_else(|| "there is no state database".to_owned())?.put(entry)
    }

    fn strike(&self, entry: &Entry) -> Result<(), String> {
        self.as_ref().map_or(Ok(()), |journal| journal.strike(entry))
    }
}
