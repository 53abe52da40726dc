//! From the file as written to the checked configuration: what every area's
//! part shares, and the order they come in.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::document::Document;
use super::error::Problem;
use super::file::{self, Links};
use super::flags::GatewayFlags;
use super::provenance::{Provenance, Provenances};
use super::{Config, access, auth, combos, listen, raw, routes, tailscale, tls, trusted_proxy};
use crate::domain::Secret;

/// How large a file with a secret may be.
const MAX_SECRET: u64 = 64 * 1024;

/// What came of a configuration: complete even where it is refused, so that
/// `config get` can show it.
pub(crate) struct Resolved {
    pub(crate) config: Config,
    pub(crate) provenance: Provenances,
    pub(crate) problems: Vec<Problem>,
    /// Whether a token is to be generated at the start.
    pub(crate) needs_token: bool,
    pub(crate) files: Vec<PathBuf>,
}

/// Checks the meaning of a document whose shape is right. `None` where it is
/// not: nothing can be said then.
pub(crate) fn resolve(document: &Document, flags: &GatewayFlags) -> Option<Resolved> {
    let root: raw::Root = serde_json::from_value(document.value.clone()).ok()?;
    let mut build = Build {
        document,
        flags,
        problems: Vec::new(),
        warnings: document.warnings.clone(),
        provenance: Provenances::default(),
        files: document.files.clone(),
    };
    let raw = &root.gateway;
    build.record_file_keys();
    let listen = listen::listen(&mut build, raw);
    let tailscale = tailscale::tailscale(&mut build, &raw.tailscale);
    let proxies = trusted_proxy::proxies(&mut build, &raw.trusted_proxies);
    let auth = auth::auth(&mut build, &raw.auth, &proxies, &listen, &tailscale);
    let tls = tls::tls(&mut build, &raw.tls);
    let routes = routes::routes(&mut build, raw, listen.port);
    let access = access::access(&mut build, &raw.access, &routes.names());
    let origins = access::origins(&mut build, &raw.control_ui.allowed_origins);
    let hosts = access::hosts(&mut build, &raw.allowed_hosts);
    let needs_token = auth.needs_token;
    let gateway = combos::assemble(
        &mut build,
        raw,
        combos::Parts { listen, tailscale, auth: auth.auth, proxies, tls, routes, access, origins, hosts },
    );
    combos::channels(&mut build, &root.channels, &gateway.auth);
    let state_dir = document.paths.state_dir.clone();
    let Build { mut problems, warnings, provenance, files, .. } = build;
    // A word that is none was refused with the shape already.
    problems.retain(|problem| {
        document.problems.iter().all(|known| known.key.is_empty() || known.key != problem.key)
    });
    let config = Config { gateway, state_dir, warnings };
    Some(Resolved { config, provenance, problems, needs_token, files })
}

/// What the parts share.
pub(crate) struct Build<'a> {
    pub(crate) document: &'a Document,
    pub(crate) flags: &'a GatewayFlags,
    pub(crate) problems: Vec<Problem>,
    pub(crate) warnings: Vec<String>,
    pub(crate) provenance: Provenances,
    files: Vec<PathBuf>,
}

impl Build<'_> {
    /// Notes a problem, and the file its key is in.
    pub(crate) fn refuse(&mut self, mut problem: Problem) {
        match self.provenance.of(&problem.key) {
            Provenance::File(path) if problem.file.is_none() => problem.file = Some(path.clone()),
            // A missing key is missing in the file, where there is one.
            Provenance::Default if problem.file.is_none() && self.document.text.is_some() => {
                problem.file = Some(self.document.paths.config.clone());
            }
            // Changing the file would not help against what comes before it.
            Provenance::Flag(name) if problem.fix.is_some() => {
                problem.fix = Some(format!("leave out {name}, or give it another value"));
            }
            Provenance::Env(name) if problem.fix.is_some() => problem.fix = Some(format!("unset {name}")),
            _ => {}
        }
        self.problems.push(problem);
    }

    /// Notes something that is allowed but that the operator should know.
    pub(crate) fn warn(&mut self, text: impl Into<String>) {
        self.warnings.push(text.into());
    }

    /// `gateway.bind is "lan" (from --bind)`: a value, and where it came from
    /// where that is not the file.
    pub(crate) fn says(&self, key: &str, value: &str) -> String {
        format!("{key} {}", self.is(key, value))
    }

    /// ` (from --token)`, or nothing where it is the file that the message names
    /// anyway.
    pub(crate) fn from(&self, key: &str) -> String {
        match self.provenance.of(key) {
            Provenance::File(_) | Provenance::Default => String::new(),
            from => format!(" (from {from})"),
        }
    }

    /// Whether something is wrong with a key already, so that nothing is said
    /// twice.
    pub(crate) fn is_refused(&self, keys: &[&str]) -> bool {
        self.problems.iter().any(|problem| keys.contains(&problem.key.as_str()))
    }

    /// The same without the key.
    pub(crate) fn is(&self, key: &str, value: &str) -> String {
        match self.provenance.of(key) {
            Provenance::File(_) => format!("is {value:?}"),
            Provenance::Default => format!("is {value:?} by default"),
            from => format!("is {value:?} (from {from})"),
        }
    }

    /// Reads a value by a parser. A refusal names the key.
    pub(crate) fn parse<T: std::str::FromStr>(&mut self, key: &str, text: &str) -> Option<T>
    where
        T::Err: std::fmt::Display,
    {
        match text.trim().parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.refuse(Problem::new(key, error.to_string()));
                None
            }
        }
    }

    /// A path as written in the file.
    pub(crate) fn path(&self, text: &str) -> PathBuf {
        self.document.paths.of_file(text)
    }

    /// A path as given by flag or variable: `~` expanded, relative to the working
    /// directory.
    pub(crate) fn given_path(&self, path: &Path) -> PathBuf {
        let path = path.to_str().map_or_else(
            || path.to_owned(),
            |text| super::paths::expand(text, self.document.paths.home.as_deref()),
        );
        match self.document.env.cwd() {
            Some(cwd) if path.is_relative() => cwd.join(path),
            _ => path,
        }
    }

    /// Reads a secret from a file. It is one line; a wrong file is a problem with
    /// `key`.
    pub(crate) fn secret_file(&mut self, key: &str, path: &Path) -> Option<Secret> {
        let shown = path.display();
        self.files.push(path.to_owned());
        let file = match file::read(path, Links::Refuse, MAX_SECRET) {
            Ok(file) => file,
            Err(fault) => {
                self.refuse(Problem::new(key, format!("{shown} {fault}")).at_start());
                return None;
            }
        };
        if let Some(uid) = file.foreign_owner(self.document.env.read_for()) {
            let what = format!("{shown} belongs to uid {uid}, neither to us nor to root");
            self.refuse(Problem::new(key, what).at_start());
        }
        if file.world_writable() {
            let what = format!("{shown} can be written by anybody on this machine");
            self.refuse(Problem::new(key, what).fix(format!("chmod 600 {shown}")).at_start());
        } else if file.open_to_others() {
            self.warn(format!(
                "{key}: {shown} is open to other users (mode {:04o}): chmod 600 {shown}",
                file.mode
            ));
        }
        let text = file.text.trim();
        if text.contains(['\n', '\r']) {
            self.refuse(Problem::new(key, format!("{shown} holds more than one line")).at_start());
            return None;
        }
        let secret = Secret::new(text);
        if secret.is_none() {
            self.refuse(Problem::new(key, format!("{shown} is empty")).at_start());
        }
        secret
    }

    /// Notes for every key in the file which file it is.
    fn record_file_keys(&mut self) {
        fn walk(build: &mut Build<'_>, path: &super::keypath::KeyPath, value: &serde_json::Value) {
            match value {
                serde_json::Value::Object(map) if !map.is_empty() => {
                    for (key, inner) in map {
                        walk(build, &path.key(key), inner);
                    }
                }
                _ => {
                    let key = path.to_string();
                    let file = build.document.file_of(&key);
                    build.provenance.record(key, Provenance::File(file));
                }
            }
        }
        let document = self.document;
        walk(self, &super::keypath::KeyPath::root(), &document.value);
    }
}

/// A duration in milliseconds as written.
pub(crate) fn millis(raw: Option<u64>, default: Duration) -> Duration {
    raw.map_or(default, Duration::from_millis)
}
