//! Changing the configuration: one writer at a time, checked as a whole before
//! anything is written, and the old or the new file at every instant (threat
//! rule 95).

use std::fs::{DirBuilder, File};
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags};
use serde_json::Value;

use super::document::Document;
use super::error::{ConfigError, Problem, When};
use super::keypath::{EditError, KeyPath};
use super::load::assess;
use super::paths::Paths;
use super::{Env, edit, schema, syntax};

/// One change.
#[derive(Clone, Debug, PartialEq)]
pub enum Edit {
    /// A value as typed, put at a key.
    Set {
        /// The key.
        key: KeyPath,
        /// What was typed: JSON5, else text (security spec 6.2).
        text: String,
        /// Whether it must be JSON.
        strict_json: bool,
        /// Whether the operator said that a route may be open to everybody
        /// (rulings 3).
        open: bool,
    },
    /// A key taken away.
    Unset {
        /// The key.
        key: KeyPath,
    },
}

/// What a change did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The file.
    pub path: PathBuf,
    /// Whether it is another file now. An equal value leaves it byte for byte.
    pub changed: bool,
    /// Whether comments could not be kept. They are in the backup.
    pub comments_lost: bool,
    /// The file as it was, where there was one.
    pub backup: Option<PathBuf>,
    /// What is allowed but should be known, and what the gateway would still
    /// refuse to start with.
    pub warnings: Vec<String>,
}

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be read.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The result would be refused.
    #[error("Config validation failed: {0}")]
    Refused(ConfigError),
    /// `OPENCLAW_CONFIG_READONLY` is set.
    #[error("OPENCLAW_CONFIG_READONLY is set: the configuration is not changed")]
    ReadOnly,
    /// The key leads through something that cannot hold it.
    #[error(transparent)]
    Edit(#[from] EditError),
    /// The value is not JSON, where it must be.
    #[error("the value is no JSON: {0}")]
    NotJson(String),
    /// There is nothing at the key.
    #[error("Config path not found: {key}")]
    NotFound {
        /// The key.
        key: String,
    },
    /// The key's value comes from a part.
    #[error("{key} is not in {}: it comes from {}", path.display(), part.display())]
    InPart {
        /// The key.
        key: String,
        /// The configuration.
        path: PathBuf,
        /// The part.
        part: PathBuf,
    },
    /// The file is a link to something that is not ours.
    #[error("{} is a link to {}, which is not ours to write", path.display(), target.display())]
    Link {
        /// The link.
        path: PathBuf,
        /// What it leads to.
        target: PathBuf,
    },
    /// A system call failed.
    #[error("cannot write {}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// Applies one change to the configuration.
///
/// The result is refused where it has a problem that was not there before and
/// that no later command would make right; what only the start refuses is a
/// warning. A file with two faults can therefore be mended one at a time.
///
/// # Errors
/// Where nothing was changed, and why.
pub fn change(edit: &Edit, config: Option<&Path>, env: &Env) -> Result<Change, StoreError> {
    if env.get("OPENCLAW_CONFIG_READONLY").is_some_and(|value| value != "0") {
        return Err(StoreError::ReadOnly);
    }
    let paths = Paths::locate(config, env)?;
    let target = target(&paths.config)?;
    let dir = target.parent().unwrap_or(Path::new("/")).to_owned();
    create_private_dirs(&dir).map_err(|source| StoreError::Io { path: dir.clone(), source })?;
    let _lock = Lock::take(&target)?;
    // Where the file was asked for by flag it need not exist yet.
    let reading = if target.exists() { config } else { None };
    let env_with_path;
    let env = match config {
        Some(path) if reading.is_none() => {
            env_with_path = env.with_config_path(path);
            &env_with_path
        }
        _ => env,
    };
    let document = Document::read(reading, env)?;
    let own = apply(edit, &document)?;
    let unchanged = Change {
        path: paths.config.clone(),
        changed: false,
        comments_lost: false,
        backup: None,
        warnings: Vec::new(),
    };
    if own == document.own {
        return Ok(unchanged);
    }
    let warnings = judge(edit, &document, own.clone())?;
    let text = document.text.as_deref();
    let kept = text.and_then(|text| splice(edit, text, &own));
    let comments_lost = text.is_some() && kept.is_none();
    let new = kept.unwrap_or_else(|| format!("{own:#}\n"));
    let backup = match text {
        Some(old) => {
            let backup = suffixed(&target, ".bak");
            write_whole(&backup, old)?;
            Some(backup)
        }
        None => None,
    };
    write_whole(&target, &new)?;
    Ok(Change { changed: true, comments_lost, backup, warnings, ..unchanged })
}

fn apply(edit: &Edit, document: &Document) -> Result<Value, StoreError> {
    let mut own = document.own.clone();
    match edit {
        Edit::Set { key, text, strict_json, .. } => key.set(&mut own, typed(key, text, *strict_json)?)?,
        Edit::Unset { key } => {
            if key.remove(&mut own).is_none() {
                let shown = key.to_string();
                return Err(match document.origins.of(key) {
                    Some(part) if key.find(&document.value).is_some() => StoreError::InPart {
                        key: shown,
                        path: document.paths.config.clone(),
                        part: part.to_owned(),
                    },
                    _ => StoreError::NotFound { key: shown },
                });
            }
        }
    }
    Ok(own)
}

/// A value as typed. Where the key takes only text it stays as typed, so that a
/// token of digits is a token; else it is JSON5, else text.
fn typed(key: &KeyPath, text: &str, strict_json: bool) -> Result<Value, StoreError> {
    let text = text.trim();
    if strict_json {
        return serde_json::from_str(text).map_err(|error| StoreError::NotJson(error.to_string()));
    }
    let quoted = text.len() > 1
        && (text.starts_with('"') && text.ends_with('"') || text.starts_with('\'') && text.ends_with('\''));
    if schema::at(key).is_some_and(schema::Kind::takes_only_text) && !quoted {
        return Ok(Value::from(text));
    }
    Ok(syntax::parse(text).unwrap_or_else(|_| Value::from(text)))
}

/// Refuses what is newly and finally wrong; returns what is to be said about
/// the rest.
fn judge(edit: &Edit, before: &Document, own: Value) -> Result<Vec<String>, StoreError> {
    let after = before.with_own(own);
    let known = assess(before).problems;
    let found = assess(&after);
    let (mut refused, mut rest) = (Vec::new(), Vec::new());
    for problem in found.problems {
        if problem.when == When::Always && !known.contains(&problem) {
            refused.push(problem);
        } else {
            rest.push(problem);
        }
    }
    if let Edit::Set { key, open, .. } = edit {
        refused.extend(marker(key, &after.own));
        if !open {
            refused.extend(newly_open(&before.value, &after.value));
        }
    }
    if let Some(error) = ConfigError::of(refused) {
        return Err(StoreError::Refused(error));
    }
    let not_yet = rest.iter().map(|problem| format!("the gateway would not start like this yet: {problem}"));
    Ok(not_yet.chain(found.warnings).collect())
}

/// The marker that stands for a hidden secret is never a value.
fn marker(key: &KeyPath, own: &Value) -> Option<Problem> {
    fn holds(value: &Value) -> bool {
        match value {
            Value::String(text) => text == schema::REDACTED,
            Value::Array(list) => list.iter().any(holds),
            Value::Object(map) => map.values().any(holds),
            _ => false,
        }
    }
    let found = key.find(own).is_some_and(holds);
    found.then(|| {
        Problem::new(key.to_string(), "holds the marker that stands for a hidden secret, not a value")
    })
}

/// A route that is open to everybody must be said to be (rulings 3).
fn newly_open(before: &Value, after: &Value) -> Option<Problem> {
    let routes = after["gateway"]["routes"].as_object()?;
    let is_open = |root: &Value, name: &str| root["gateway"]["routes"][name]["public"] == "open";
    let name = routes.keys().find(|name| is_open(after, name) && !is_open(before, name))?;
    let what = "\"open\" lets everybody on the internet use the app without any credential: say --open if that is meant";
    Some(Problem::new(format!("gateway.routes.{name}.public"), what))
}

fn splice(edit: &Edit, text: &str, own: &Value) -> Option<String> {
    match edit {
        Edit::Set { key, .. } => edit::set(text, key, key.find(own)?, own),
        Edit::Unset { key } => edit::remove(text, key, own),
    }
}

/// The file that is written: a link's target, where it is ours.
fn target(path: &Path) -> Result<PathBuf, StoreError> {
    if !path.is_symlink() {
        return Ok(path.to_owned());
    }
    let not_ours = |target: &Path| StoreError::Link { path: path.to_owned(), target: target.to_owned() };
    let target = path.canonicalize().map_err(|_| not_ours(&std::fs::read_link(path).unwrap_or_default()))?;
    let stat = rustix::fs::stat(&target).map_err(|_| not_ours(&target))?;
    if stat.st_uid == rustix::process::geteuid().as_raw() { Ok(target) } else { Err(not_ours(&target)) }
}

/// Directories that only we can enter, under any umask. Those that exist stay as
/// they are.
pub(crate) fn create_private_dirs(dir: &Path) -> std::io::Result<()> {
    let mut missing = Vec::new();
    let mut at = dir;
    while !at.exists() {
        missing.push(at);
        at = at.parent().ok_or(std::io::ErrorKind::NotFound)?;
    }
    for dir in missing.into_iter().rev() {
        match DirBuilder::new().mode(0o700).create(dir) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// The one writer: held until dropped.
struct Lock {
    _file: File,
}

impl Lock {
    fn take(target: &Path) -> Result<Self, StoreError> {
        let path = suffixed(target, ".lock");
        let fault = |errno: rustix::io::Errno| StoreError::Io { path: path.clone(), source: errno.into() };
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd = rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR).map_err(fault)?;
        rustix::fs::flock(&fd, FlockOperation::LockExclusive).map_err(fault)?;
        Ok(Self { _file: File::from(fd) })
    }
}

/// Replaces a file as a whole: temporary file beside it, on disk, renamed.
fn write_whole(path: &Path, text: &str) -> Result<(), StoreError> {
    let fault = |source| StoreError::Io { path: path.to_owned(), source };
    let dir = path.parent().unwrap_or(Path::new("/"));
    // Made with mode 0600.
    let mut file =
        tempfile::Builder::new().prefix(".openclaw-").suffix(".tmp").tempfile_in(dir).map_err(fault)?;
    file.write_all(text.as_bytes()).map_err(fault)?;
    file.as_file().sync_all().map_err(fault)?;
    file.persist(path).map_err(|error| fault(error.error))?;
    // Where a directory cannot be synced the rename still stands.
    let _best_effort = File::open(dir).and_then(|dir| dir.sync_all());
    Ok(())
}
