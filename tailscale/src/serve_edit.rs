//! Editing what Serve publishes, one mount at a time, through the command line.
//!
//! A [`Mount`] is one path of one web site of this node. Three things can be done with
//! it: publish it in the background (it outlives everybody), take it away, and publish
//! it for as long as a child process lives. `serve reset` is never run: it wipes what
//! others published.
//!
//! An exit code proves nothing: `serve` exits with 0 and without effect where the
//! tailnet's owner has to consent first. Whoever edits reads the configuration again.
//! Nor do these commands end by themselves where somebody has to click a link: each is
//! bounded, and ended as soon as it shows such a link ([`EditError::Consent`]).

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::Error;
use crate::failure::classify;
use crate::text::printable;

mod outcome;

pub use outcome::EditError;

/// How long one edit may take. The command line itself gives a daemon that is gone
/// up to 5 s, and a control server some more to say whether HTTPS is on.
pub(crate) const EDIT_TIMEOUT: Duration = Duration::from_secs(20);

/// Where a mount leads.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ProxyTarget {
    /// A unix socket of this machine, by its absolute path. Needs 1.94.
    Unix(PathBuf),
    /// A port of 127.0.0.1.
    Loopback(u16),
}

impl ProxyTarget {
    /// As the Serve configuration has it. `None` for a path that is no text or not
    /// absolute: the configuration is JSON, and another path would be read.
    #[must_use]
    pub fn as_proxy(&self) -> Option<String> {
        match self {
            Self::Loopback(port) => Some(format!("http://127.0.0.1:{port}")),
            Self::Unix(path) => {
                let text = path.to_str().filter(|text| text.starts_with('/'))?;
                (!text.contains(char::is_control)).then(|| format!("unix:{text}"))
            }
        }
    }
}

/// One path of one web site of this node.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Mount {
    /// With the node's certificate, or plain HTTP.
    pub https: bool,
    /// The port that Serve listens on.
    pub port: u16,
    /// The path, `/` or `/x` without a final slash.
    pub path: String,
    /// Where it leads.
    pub target: ProxyTarget,
    /// Whether the site is opened to the internet with it. Per port, not per path:
    /// every mount on the same port is public then.
    pub funnel: bool,
}

impl Mount {
    fn listener(&self) -> String {
        format!("--{}={}", if self.https { "https" } else { "http" }, self.port)
    }

    /// Always named, also `/`: without it `off` takes away every mount on the port.
    fn set_path(&self) -> String {
        format!("--set-path={}", self.path)
    }

    fn subcommand(&self) -> &'static str {
        if self.funnel { "funnel" } else { "serve" }
    }

    /// `serve --bg --yes --https=443 --set-path=/ TARGET`, or `funnel …`.
    pub(crate) fn publish_args(&self, background: bool) -> Result<Vec<OsString>, Error> {
        self.check()?;
        let target = self.target.as_proxy().ok_or_else(|| wrong("the target's path is not absolute text"))?;
        let mut args: Vec<OsString> = vec![self.subcommand().into()];
        if background {
            args.push("--bg".into());
        }
        args.extend(["--yes".into(), self.listener().into(), self.set_path().into(), target.into()]);
        Ok(args)
    }

    /// `serve --yes --https=443 --set-path=/ off`. The same for a public site: with the
    /// last mount of a port its Funnel goes, too.
    pub(crate) fn off_args(&self) -> Result<Vec<OsString>, Error> {
        self.check()?;
        Ok(vec!["serve".into(), "--yes".into(), self.listener().into(), self.set_path().into(), "off".into()])
    }

    fn check(&self) -> Result<(), Error> {
        if self.port == 0 {
            return Err(wrong("port 0 cannot be served"));
        }
        if !self.path.starts_with('/') || self.path.contains(char::is_control) {
            return Err(wrong("a mount's path starts with /"));
        }
        if self.funnel && !self.https {
            return Err(wrong("Funnel speaks https only"));
        }
        Ok(())
    }
}

fn wrong(detail: &str) -> Error {
    Error::BadArgument { command: "serve", detail: detail.to_owned() }
}

/// Reads standard output line by line, for the link that somebody has to click.
#[derive(Debug, Default)]
pub(crate) struct ConsentWatch {
    asked: bool,
}

impl ConsentWatch {
    /// The link, once it is printed. The sentences come from the control server and
    /// change; that a link of its own follows does not.
    pub(crate) fn line(&mut self, line: &[u8]) -> Option<String> {
        let text = String::from_utf8_lossy(line);
        let text = text.trim();
        let folded = text.to_ascii_lowercase();
        self.asked |= folded.contains("not enabled") || folded.contains("to enable, visit");
        let link = folded.starts_with("https://") && !text.contains(char::is_whitespace);
        let known = folded.starts_with("https://login.tailscale.com/");
        (link && (self.asked || known)).then(|| printable(text.as_bytes(), 300))
    }
}

/// What a failed edit means.
pub(crate) fn failed(command: &'static str, code: i32, stderr: &[u8]) -> EditError {
    outcome::classify_edit(stderr).unwrap_or_else(|| EditError::Call(classify(command, code, stderr)))
}

/// What a refusal of a document means that was sent to the LocalAPI.
pub(crate) fn refused(error: Error) -> EditError {
    let said = match &error {
        Error::Status { status: 412, .. } => return EditError::Raced,
        Error::Denied { detail, .. } => {
            let admin = detail.contains("must be root") || detail.contains("local admin");
            return if admin { EditError::NotAdmin } else { EditError::Denied };
        }
        Error::Status { status: 500, detail, .. } => detail,
        _ => return error.into(),
    };
    #[derive(serde::Deserialize)]
    struct Wire {
        error: String,
    }
    // `{"error": "..."}`, or the sentence alone.
    let sentence = serde_json::from_str::<Wire>(said).map_or_else(|_| said.clone(), |wire| wire.error);
    let sentence = printable(sentence.as_bytes(), 400);
    outcome::classify_edit(sentence.as_bytes()).unwrap_or(EditError::Invalid { detail: sentence })
}

#[cfg(test)]
mod tests;
