//! Loading, as the gateway does it, and validating, as `config validate` does.

use std::path::{Path, PathBuf};

use super::build::{self, Resolved};
use super::document::Document;
use super::error::{ConfigError, Problem};
use super::flags::GatewayFlags;
use super::generated::GeneratedToken;
use super::provenance::{Provenance, Provenances};
use super::{Config, Env};

/// A configuration the gateway may run with.
#[derive(Clone)]
pub struct Loaded {
    /// The checked values.
    pub config: Config,
    /// Where each came from.
    pub provenance: Provenances,
    /// The configuration file, whether it exists or not.
    pub path: PathBuf,
    /// Every file that was read: parts, `.env`, secrets. A change of one of them
    /// is a change of the configuration.
    pub files: Vec<PathBuf>,
    needs_token: bool,
    existed: bool,
}

impl Loaded {
    /// Whether there was a configuration file.
    pub fn path_existed(&self) -> bool {
        self.existed
    }

    /// Whether mode token is in force without a token: the gateway generates one
    /// for this run ([`GeneratedToken`]) and installs it, at a reload the same
    /// one again.
    pub fn needs_token(&self) -> bool {
        self.needs_token
    }

    /// Puts the generated token in force, where one is needed.
    pub fn install(&mut self, token: &GeneratedToken) {
        if self.needs_token {
            self.config.gateway.auth.token = Some(token.secret().clone());
            self.provenance.record("gateway.auth.token", Provenance::Generated);
        }
    }
}

/// Loads the configuration for `openclaw gateway run`. A reload calls it again
/// with the same flags and environment.
///
/// # Errors
/// Everything that is wrong, each with its key and what would be right. The
/// command exits with 78.
pub fn load(flags: &GatewayFlags, env: &Env) -> Result<Loaded, ConfigError> {
    let document = Document::read(flags.config.as_deref(), env)?;
    let mut problems = document.problems.clone();
    let resolved = build::resolve(&document, flags);
    match resolved {
        Some(Resolved { config, provenance, problems: more, needs_token, files }) => {
            problems.extend(more);
            match ConfigError::of(problems) {
                Some(error) => Err(error),
                None => {
                    let existed = document.text.is_some();
                    Ok(Loaded {
                        config,
                        provenance,
                        path: document.paths.config,
                        files,
                        needs_token,
                        existed,
                    })
                }
            }
        }
        None => Err(ConfigError::of(problems).unwrap_or_else(|| disagree(&document.paths.config))),
    }
}

/// The table of keys accepted what the types do not: a fault of ours. The value
/// is not shown, it may be a secret.
fn disagree(path: &Path) -> ConfigError {
    Problem::of_file(path, "a value has a type that its key cannot hold").into()
}

/// What `config validate` found.
pub struct Validation {
    /// The configuration file.
    pub path: PathBuf,
    /// Whether it exists.
    pub exists: bool,
    /// What is wrong.
    pub problems: Vec<Problem>,
    /// What is allowed but should be known.
    pub warnings: Vec<String>,
}

/// Checks the configuration as a start without flags would.
///
/// # Errors
/// Where there is nothing to check: no place, an unreadable file.
pub fn validate(config: Option<&Path>, env: &Env) -> Result<Validation, ConfigError> {
    let document = Document::read(config, env)?;
    let found = assess(&document);
    let exists = document.text.is_some();
    Ok(Validation { path: document.paths.config, exists, problems: found.problems, warnings: found.warnings })
}

/// Everything that is to be said about a document.
pub(crate) struct Assessment {
    pub(crate) problems: Vec<Problem>,
    pub(crate) warnings: Vec<String>,
}

pub(crate) fn assess(document: &Document) -> Assessment {
    let mut problems = document.problems.clone();
    match build::resolve(document, &GatewayFlags::default()) {
        Some(resolved) => {
            problems.extend(resolved.problems);
            Assessment { problems, warnings: resolved.config.warnings }
        }
        None => {
            if problems.is_empty() {
                problems.extend(disagree(&document.paths.config).problems().iter().cloned());
            }
            Assessment { problems, warnings: document.warnings.clone() }
        }
    }
}
