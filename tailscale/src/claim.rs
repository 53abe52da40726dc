//! Publishing a mount for as long as this process lives, at tailscaled's socket.
//!
//! A session is an open stream of events. An entry below its id in the Serve
//! configuration goes when the stream is closed, and the kernel closes it however the
//! process ends. Nothing has to be cleaned up, and nobody can take over a route that
//! outlived its owner.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::localapi::{Line, Stream};
use crate::{EditError, Error, Mount, NodeName, Origin, ServeConfig, Tailscale, json};

const COMMAND: &str = "watch-ipn-bus";

/// The state and the session's id (2), and as little else as possible: no private keys
/// (16, without which releases about 1.90 refuse who is not root), no network map
/// (8192).
const TARGET: &str = "/localapi/v0/watch-ipn-bus?mask=8210";

/// Far above what the first message has with this mask.
const MAX_FIRST: usize = 1 << 20;

/// How often an edit that somebody came before is made anew.
const ATTEMPTS: u32 = 6;

/// A mount, and the names of this node that it is published under: those of the URL,
/// which are the keys that Serve looks sites up by. Mostly one, the node's DNS name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForegroundEntry {
    /// What is published.
    pub mount: Mount,
    /// Under which names.
    pub hosts: Vec<NodeName>,
}

impl ForegroundEntry {
    /// Refuses what would not do what it says, or harm others, over `config`: the port
    /// is somebody else's, or a Funnel that was left on would make this site public.
    ///
    /// The daemon refuses a port of the node's own or of another session as well; a
    /// Service has an address of its own, so its ports are free here.
    ///
    /// # Errors
    /// [`EditError::PortTaken`], [`EditError::Public`], and [`Error::BadArgument`] for
    /// an entry that cannot be.
    pub fn check(&self, config: &ServeConfig) -> Result<(), EditError> {
        self.mount.publish_args(false)?;
        if self.hosts.is_empty() {
            let detail = "a mount is published under at least one name".to_owned();
            return Err(Error::BadArgument { command: "serve", detail }.into());
        }
        let port = self.mount.port;
        let taken = config
            .listeners()
            .find(|listener| listener.port == port && !matches!(listener.origin, Origin::Service(_)));
        if let Some(listener) = taken {
            let by = match &listener.origin {
                Origin::Foreground(session) => format!("the foreground session {session}"),
                Origin::Node | Origin::Service(_) => "`tailscale serve --bg`".to_owned(),
            };
            return Err(EditError::PortTaken { detail: format!("port {port} belongs to {by}") });
        }
        let public = |site: &String| config.is_funnel(site);
        match self.sites().find(public).filter(|_| !self.mount.funnel) {
            Some(site) => Err(EditError::Public { site }),
            None => Ok(()),
        }
    }

    fn sites(&self) -> impl Iterator<Item = String> {
        self.hosts.iter().map(|host| format!("{host}:{}", self.mount.port))
    }

    /// What stands below the session's id.
    fn document(&self) -> Result<Value, EditError> {
        let Mount { https, port, path, target, funnel } = &self.mount;
        let proxy = target.as_proxy().ok_or_else(|| Error::BadArgument {
            command: "serve",
            detail: "the target's path is not absolute text".to_owned(),
        })?;
        let scheme = if *https { "HTTPS" } else { "HTTP" };
        let handlers = json!({"Handlers": {path: {"Proxy": proxy}}});
        let sites = |value: &Value| self.sites().map(|site| (site, value.clone())).collect::<Value>();
        let mut document = json!({"TCP": {port.to_string(): {scheme: true}}, "Web": sites(&handlers)});
        if let Some(members) = document.as_object_mut().filter(|_| *funnel) {
            members.insert("AllowFunnel".to_owned(), sites(&Value::Bool(true)));
        }
        Ok(document)
    }
}

/// A mount that is published, until this is dropped.
#[derive(Debug)]
pub struct Claim {
    session_id: String,
    ended: watch::Receiver<Option<Error>>,
    held: JoinHandle<()>,
}

impl Claim {
    /// The session's id: the key below `Foreground`, and [`Origin::Foreground`].
    #[must_use]
    pub fn session_id(&self) -> &str {
        &self.session_id
    }

    /// Waits until the session has ended, which means that nothing is published any
    /// more: the daemon went, or somebody reset the configuration. Says why. May be
    /// asked again and again.
    pub async fn lost(&self) -> Error {
        let mut ended = self.ended.clone();
        let why = ended.wait_for(Option::is_some).await.ok().and_then(|why| why.clone());
        why.unwrap_or(Error::StreamEnded { command: COMMAND })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.held.abort();
    }
}

impl Tailscale {
    /// Publishes a mount for as long as the returned [`Claim`] lives, and no longer than
    /// this process, however it ends. At tailscaled's socket only. Needs write access:
    /// root, or the operator.
    ///
    /// Held by a task of the tokio runtime it is called in.
    ///
    /// # Errors
    /// As [`ForegroundEntry::check`] and [`Self::set_serve_document`] say. An edit that
    /// somebody comes before ([`EditError::Raced`]) is checked and made anew a few times.
    pub async fn claim(&self, entry: &ForegroundEntry) -> Result<Claim, EditError> {
        entry.check(&ServeConfig::default())?;
        let mut stream = self.open(COMMAND, TARGET).await?;
        let session_id = self.session(&mut stream).await?;
        let mut attempt = 1;
        while let Err(error) = self.publish(entry, &session_id).await {
            if attempt == ATTEMPTS || !matches!(error, EditError::Raced) {
                return Err(error);
            }
            sleep(jitter(attempt)).await;
            attempt += 1;
        }
        let (tell, ended) = watch::channel(None);
        let held = tokio::spawn(async move {
            let why = stream.drain().await;
            tracing::debug!(error = %why, "a foreground session has ended");
            tell.send_replace(Some(why));
        });
        Ok(Claim { session_id, ended, held })
    }

    async fn session(&self, stream: &mut Stream) -> Result<String, Error> {
        #[derive(serde::Deserialize)]
        struct First {
            #[serde(rename = "SessionID")]
            session_id: String,
        }
        let limit = self.time_limit();
        let line = timeout(limit, stream.line(MAX_FIRST)).await;
        let line = match line.map_err(|_| Error::TimedOut { command: COMMAND, after: limit })?? {
            Some(Line::Text(line)) => line,
            Some(Line::TooLong) => return Err(Error::TooLarge { command: COMMAND, limit: MAX_FIRST }),
            None => return Err(Error::StreamEnded { command: COMMAND }),
        };
        let First { session_id } = json::decode(COMMAND, &line)?;
        // A key that could be another member's is none of ours.
        let known =
            (1..=128).contains(&session_id.len()) && session_id.bytes().all(|b| b.is_ascii_alphanumeric());
        if !known {
            return Err(Error::wrong_shape(COMMAND, "SessionID", "it is no plain word"));
        }
        Ok(session_id)
    }

    /// One attempt. Success of the daemon is success once the entry is to be seen.
    async fn publish(&self, entry: &ForegroundEntry, session_id: &str) -> Result<(), EditError> {
        let (mut document, tag) = self.serve_document().await?;
        entry.check(&document.config()?)?;
        let path = ["Foreground", session_id];
        document.set(&path, &entry.document()?)?;
        self.set_serve_document(&document, &tag).await?;
        let (now, _) = self.serve_document().await?;
        if now.get(&path)?.is_none() {
            return Err(Error::StreamEnded { command: COMMAND }.into());
        }
        Ok(())
    }
}

/// Longer and longer, and never the same for two that met.
fn jitter(attempt: u32) -> Duration {
    let random = RandomState::new().hash_one(attempt);
    let most = 25u64 << attempt;
    Duration::from_millis(most / 2 + random % most)
}

#[cfg(test)]
mod tests;
