//! What edits the daemon's Serve configuration: one mount at a time.
//!
//! At the LocalAPI where it answers: the edit is made on the very configuration that was
//! planned on, and refused if anybody wrote since. Through the command line otherwise, and
//! where HTTPS is off for the tailnet: the command names the link to click. It is told
//! nothing of what was planned on, so that is read again and compared just before, and what
//! others published is compared afterwards ([`lost`]).

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use openclaw_tailscale::{
    BackendState, ETag, EditError, Error, ForegroundEntry, Mount, Origin, ServeConfig, ServeDocument,
    ServeSession, Tailscale, Tie,
};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::document;
use super::journal::Entry;
use super::lost::lost;
use super::mounts::{mount_of, mount_of_entry, stopped};
use super::plan::{Held, NodeFacts, Route};
use super::status::Trouble;

/// How long a session may take until what it serves is seen.
const APPEARS: Duration = Duration::from_secs(20);
/// How long a mount may take to vanish after its session ended.
const VANISHES: Duration = Duration::from_secs(5);
const GLANCE: Duration = Duration::from_millis(60);

/// Reads and edits.
pub trait Hands: Send {
    /// What is published, on this node, now.
    fn read(&mut self, node: &NodeFacts) -> impl Future<Output = Result<ServeConfig, Trouble>> + Send;

    /// Publishes a route. Success is not believed: the configuration is read again.
    fn publish(
        &mut self,
        route: &Route,
        node: &NodeFacts,
    ) -> impl Future<Output = Result<(), EditError>> + Send;

    /// Takes an entry of ours away. `by_command`: the command line does this and no more.
    fn remove(
        &mut self,
        entry: &Entry,
        by_command: bool,
    ) -> impl Future<Output = Result<(), EditError>> + Send;

    /// What living sessions of ours hold.
    fn held(&self) -> Vec<Held>;
}

/// The real ones.
pub struct TailscaleHands {
    tailscale: Tailscale,
    tie: Tie,
    /// What was read last, where it can be sent back with its version.
    read: Option<(ServeDocument, ETag)>,
    /// What was read last.
    planned_on: ServeConfig,
    /// What there was before the command line edited, and what it was to edit.
    edited: Option<(ServeConfig, Entry)>,
    /// Whether HTTPS is on for the tailnet.
    https: bool,
    sessions: Vec<Session>,
    /// Told when a session ends.
    ended: Arc<Notify>,
}

struct Session {
    route: Route,
    /// Its id in the Serve configuration.
    id: String,
    outcome: watch::Receiver<Option<Result<(), EditError>>>,
    task: JoinHandle<()>,
}

impl Session {
    fn lives(&self) -> bool {
        self.outcome.borrow().is_none()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // What it holds is killed with it.
        self.task.abort();
    }
}

impl TailscaleHands {
    /// Hands that use this Tailscale; `ended` is told when a session ends by itself.
    pub fn new(tailscale: Tailscale, tie: Tie, ended: Arc<Notify>) -> Self {
        let (read, planned_on, edited) = (None, ServeConfig::default(), None);
        Self { tailscale, tie, read, planned_on, edited, https: false, sessions: Vec::new(), ended }
    }

    /// The Tailscale of now, where another was found.
    pub fn use_tailscale(&mut self, tailscale: Tailscale) {
        self.tailscale = tailscale;
    }

    /// Ends the sessions whose route is not wanted any more.
    pub fn keep_sessions(&mut self, wanted: &[Route]) {
        self.sessions.retain(|session| wanted.contains(&session.route));
    }

    /// Ends what is held, and waits for a while until nothing leads there any more: as
    /// long as it does, whoever takes the port next would get what people send.
    pub async fn let_go(&mut self, limit: Duration) {
        let targets: Vec<String> =
            self.sessions.drain(..).map(|session| session.route.target.clone()).collect();
        if targets.is_empty() {
            return;
        }
        let tailscale = &self.tailscale;
        let leads_there = |config: &ServeConfig| {
            config.web_handlers().any(|handler| handler.proxy.as_ref().is_some_and(|to| targets.contains(to)))
        };
        let gone = async {
            while tailscale.serve_status().await.is_ok_and(|config| leads_there(&config)) {
                tokio::time::sleep(GLANCE).await;
            }
        };
        if tokio::time::timeout(limit, gone).await.is_err() {
            tracing::warn!("tailscaled still leads people to the port of this gateway");
        }
    }

    async fn read_config(&mut self) -> Result<ServeConfig, Error> {
        let config = self.read_anew().await?;
        if let Some((before, ours)) = self.edited.take() {
            for what in lost(&before, &config, &ours) {
                tracing::warn!(
                    code = "serve_others_changed",
                    "{what} was published before our edit and is not any more: somebody took it away in the same moment, or the edit did"
                );
            }
        }
        self.planned_on = config.clone();
        Ok(config)
    }

    /// Before an edit by the command line: whether all is as it was planned on.
    async fn expect_unchanged(&mut self, ours: &Entry) -> Result<(), EditError> {
        let now = self.tailscale.serve_status().await?;
        if now != self.planned_on {
            return Err(EditError::Raced);
        }
        self.edited = Some((now, ours.clone()));
        Ok(())
    }

    async fn read_anew(&mut self) -> Result<ServeConfig, Error> {
        // Whether the socket answers shows when it is asked.
        self.read = None;
        let config = self.tailscale.serve_status().await?;
        if !self.tailscale.local_api_answers() {
            return Ok(config);
        }
        let (document, tag) = self.tailscale.serve_document().await?;
        let config = document.config()?;
        self.read = Some((document, tag));
        Ok(config)
    }

    async fn hold(&mut self, route: &Route, mount: &Mount, node: &NodeFacts) -> Result<(), EditError> {
        self.sessions.retain(|session| session.route != *route);
        if self.at_the_socket(route) {
            return self.claim(route, mount, node).await;
        }
        let before = sessions_in(&self.planned_on);
        let mut child: ServeSession = self.tailscale.serve_session(mount, &self.tie).await?;
        let (tell, outcome) = watch::channel(None);
        let ended = self.ended.clone();
        let task = tokio::spawn(async move {
            let how = child.ended().await;
            tell.send_replace(Some(how));
            ended.notify_one();
        });
        let mut session = Session { route: route.clone(), id: String::new(), outcome, task };
        let entry = Entry::intended(route, node);
        let deadline = Instant::now() + APPEARS;
        // The command does not say which session it is: the one that was not there before.
        // The port had none, and takes no second one.
        let appeared = |config: &ServeConfig| {
            config.web_handlers().filter(|handler| entry.is_like(handler)).find_map(|handler| match &handler
                .origin
            {
                Origin::Foreground(id) if !before.contains(id) => Some(id.clone()),
                _ => None,
            })
        };
        loop {
            if let Some(how) = session.outcome.borrow_and_update().clone() {
                // It ended before anything was served.
                return Err(how.err().unwrap_or_else(|| stopped("it ended at once")));
            }
            let config = self.tailscale.serve_status().await?;
            if let Some(id) = appeared(&config) {
                session.id = id;
                break;
            }
            if Instant::now() >= deadline {
                return Err(Error::TimedOut { command: "serve", after: APPEARS }.into());
            }
            let _ = tokio::time::timeout(GLANCE, session.outcome.changed()).await;
        }
        self.sessions.push(session);
        Ok(())
    }

    /// Whether this edit is made at the LocalAPI.
    fn at_the_socket(&self, route: &Route) -> bool {
        self.read.is_some() && (self.https || !route.https || self.tailscale.path().is_none())
    }

    async fn claim(&mut self, route: &Route, mount: &Mount, node: &NodeFacts) -> Result<(), EditError> {
        let host = node.name.parse().map_err(|_| stopped("the node's name cannot be served"))?;
        let entry = ForegroundEntry { mount: mount.clone(), hosts: vec![host] };
        let claim = self.tailscale.claim(&entry).await?;
        let id = claim.session_id().to_owned();
        let (tell, outcome) = watch::channel(None);
        let ended = self.ended.clone();
        let task = tokio::spawn(async move {
            let why = claim.lost().await;
            tell.send_replace(Some(Err(why.into())));
            ended.notify_one();
        });
        self.sessions.push(Session { route: route.clone(), id, outcome, task });
        Ok(())
    }

    /// Sends the configuration that was read, edited.
    async fn send(
        &mut self,
        edit: impl FnOnce(&mut ServeDocument) -> Result<bool, Error> + Send,
    ) -> Result<(), EditError> {
        let Some((mut document, tag)) = self.read.take() else { return Err(EditError::Raced) };
        if !edit(&mut document)? {
            return Err(EditError::NoSuchMount);
        }
        self.tailscale.set_serve_document(&document, &tag).await
    }

    /// Waits until an ended session's mount has gone.
    async fn await_gone(&mut self, entry: &Entry) -> Result<(), EditError> {
        let deadline = Instant::now() + VANISHES;
        loop {
            let config = self.tailscale.serve_status().await?;
            if !config.web_handlers().any(|handler| entry.is(handler)) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                if self.tailscale.local_api_answers() {
                    self.read_config().await?;
                    return self.send(|document| document::remove(document, entry)).await;
                }
                return Err(stopped("the session of an earlier gateway still holds its mount"));
            }
            tokio::time::sleep(GLANCE).await;
        }
    }
}

impl Hands for TailscaleHands {
    async fn read(&mut self, node: &NodeFacts) -> Result<ServeConfig, Trouble> {
        let config = self.read_config().await.map_err(|error| Trouble::from(&error))?;
        // A node that is logged out says that nothing is published. So the state is asked
        // for afterwards: what was read counts only if it was this node's.
        let status = self.tailscale.status().await.map_err(|error| Trouble::from(&error))?;
        if status.backend_state != BackendState::Running {
            let error = status.backend_state.as_error();
            return Err(error.as_ref().map_or_else(
                || Trouble::new("tailscale_not_ready", "Tailscale is not running"),
                Trouble::from,
            ));
        }
        self.https = status.self_node.has_capability("https");
        if NodeFacts::of(&status).is_none_or(|now| now.key() != node.key()) {
            return Err(Trouble::new("tailscale_not_ready", "the node is being changed"));
        }
        Ok(config)
    }

    async fn publish(&mut self, route: &Route, node: &NodeFacts) -> Result<(), EditError> {
        let mount = mount_of(route)?;
        if route.session {
            self.hold(route, &mount, node).await
        } else if self.at_the_socket(route) {
            self.send(|document| document::publish(document, route, node).map(|()| true)).await
        } else {
            self.expect_unchanged(&Entry::intended(route, node)).await?;
            self.tailscale.serve_publish(&mount, &self.tie).await
        }
    }

    async fn remove(&mut self, entry: &Entry, by_command: bool) -> Result<(), EditError> {
        if entry.session {
            let session =
                self.sessions.iter().position(|session| Some(&session.id) == entry.session_id.as_ref());
            if let Some(at) = session {
                self.sessions.remove(at);
            }
            return self.await_gone(entry).await;
        }
        if self.read.is_some() {
            return self.send(|document| document::remove(document, entry)).await;
        }
        if !by_command {
            return Err(stopped(
                "the command line cannot take this mount away without changing a site of another name on its port",
            ));
        }
        let mount = mount_of_entry(entry)?;
        self.expect_unchanged(entry).await?;
        self.tailscale.serve_off(&mount, &self.tie).await
    }

    fn held(&self) -> Vec<Held> {
        let held = |session: &Session| Held { route: session.route.clone(), session_id: session.id.clone() };
        self.sessions.iter().filter(|session| session.lives()).map(held).collect()
    }
}

/// The foreground sessions of a configuration.
fn sessions_in(config: &ServeConfig) -> Vec<String> {
    let sessions = config.listeners().filter_map(|listener| match &listener.origin {
        Origin::Foreground(id) => Some(id.clone()),
        _ => None,
    });
    sessions.collect()
}
