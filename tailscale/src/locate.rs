//! Where the `tailscale` binary is, and whether its place can be trusted.
//!
//! Whoever can replace the binary decides who everybody is, so its place is checked:
//! the file and every directory above it, along the path as written and along the
//! path that symbolic links lead to.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::Metadata;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::client::LocalUse;
use crate::daemon::{DEFAULT_SOCKET, process_behind_now};
use crate::{Limits, Tailscale, localapi};

/// Which of the two ways of asking is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientMode {
    /// The LocalAPI where something listens at the socket, else the command line.
    ///
    /// Only if the socket is known to belong to the binary: it was configured, or
    /// neither was, and both are the system's own. A configured binary without a
    /// configured socket (a wrapper, a scripted one, another installation) is asked
    /// alone, and the daemon that happens to run on the default socket is not.
    ///
    /// Where there is no binary to be used, and somebody who may be believed listens at
    /// the socket, the socket alone is used, with a warning. Seeing that takes a tokio
    /// runtime around [`Tailscale::locate`].
    #[default]
    Auto,
    /// The command line alone.
    Cli,
    /// The LocalAPI alone. The binary need not exist; what only it can say
    /// ([`Tailscale::ip`], [`Tailscale::version`]) is then [`Error::NotInstalled`].
    ///
    /// [`Error::NotInstalled`]: crate::Error::NotInstalled
    LocalApi,
}

/// How to find the binary, and how to use it.
#[derive(Debug, Clone, Default)]
pub struct LocateOptions {
    /// The binary's path. Absent: it is searched for.
    pub bin: Option<PathBuf>,
    /// The daemon's socket, asked directly and passed on as `--socket`. Absent: the
    /// platform's default, and the tool's own.
    pub socket: Option<PathBuf>,
    /// Whether the socket or the binary is asked.
    pub client: ClientMode,
    /// What each call may take.
    pub limits: Limits,
    /// What to search instead of this process's `PATH`; absent is `PATH`.
    pub search_path: Option<OsString>,
}

/// A binary that was found.
#[derive(Debug, Clone)]
pub struct Located {
    /// It.
    pub tailscale: Tailscale,
    /// What is wrong with its place, as sentences for the log and `audit`.
    pub warnings: Vec<String>,
}

/// Why no binary can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LocateError {
    /// None was found.
    #[error("tailscale was found neither in PATH nor in its usual places")]
    NotFound,
    /// There is nothing at the configured path.
    #[error("there is no file {}", path.display())]
    Missing {
        /// The configured path.
        path: PathBuf,
    },
    /// A configured path is relative: what it means would depend on the directory.
    #[error("{} is not an absolute path", path.display())]
    NotAbsolute {
        /// The configured path.
        path: PathBuf,
    },
    /// It is no file, or one that may not be executed.
    #[error("{} is not an executable file", path.display())]
    NotExecutable {
        /// The path.
        path: PathBuf,
    },
    /// We run as root, and others could replace the binary.
    #[error("refusing to run {} as root: {}", path.display(), reasons.join("; "))]
    Untrusted {
        /// The path.
        path: PathBuf,
        /// What is wrong with its place.
        reasons: Vec<String>,
    },
}

impl LocateError {
    /// A stable name for logs, `doctor` and JSON.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotFound | Self::Missing { .. } => "tailscale_not_installed",
            Self::NotAbsolute { .. } => "tailscale_path_relative",
            Self::NotExecutable { .. } => "tailscale_not_executable",
            Self::Untrusted { .. } => "tailscale_untrusted",
        }
    }
}

impl LocateError {
    /// Rather than about how it was named.
    fn is_about_the_file(&self) -> bool {
        match self {
            Self::NotFound | Self::Missing { .. } | Self::NotExecutable { .. } | Self::Untrusted { .. } => {
                true
            }
            Self::NotAbsolute { .. } => false,
        }
    }
}

const NAME: &str = "tailscale";
const KNOWN: [&str; 4] = [
    "/usr/bin/tailscale",
    "/usr/local/bin/tailscale",
    "/opt/homebrew/bin/tailscale",
    "/Applications/Tailscale.app/Contents/MacOS/Tailscale",
];

pub(crate) fn locate(options: LocateOptions) -> Result<Located, LocateError> {
    let known = KNOWN.map(PathBuf::from);
    locate_as(options, &known, rustix::process::geteuid().as_raw())
}

/// The same for a process with effective user id `euid`.
fn locate_as(options: LocateOptions, known: &[PathBuf], euid: u32) -> Result<Located, LocateError> {
    if let Some(socket) = options.socket.as_ref().filter(|socket| !socket.is_absolute()) {
        return Err(LocateError::NotAbsolute { path: socket.clone() });
    }
    let found = match &options.bin {
        Some(path) => configured(path, euid),
        None => searched(&options, known, euid),
    };
    let mut local = local_use(&options);
    let (path, warnings) = match found.and_then(|found| trusted(found, euid)) {
        Ok((path, warnings)) => (Some(program(path)), warnings),
        Err(_) if local == LocalUse::Only => (None, Vec::new()),
        Err(error) if local == LocalUse::First && error.is_about_the_file() && is_answered(&options) => {
            local = LocalUse::Only;
            (None, vec![format!("{error}; tailscaled is asked at its socket alone")])
        }
        Err(error) => return Err(error),
    };
    let tailscale = Tailscale::new(path, options.socket, options.limits, local);
    Ok(Located { tailscale, warnings })
}

/// Whether somebody listens at the socket who may be believed.
fn is_answered(options: &LocateOptions) -> bool {
    let socket = options.socket.as_deref().unwrap_or(Path::new(DEFAULT_SOCKET));
    // Looking takes a runtime.
    tokio::runtime::Handle::try_current().is_ok()
        && process_behind_now(socket).is_ok_and(|daemon| localapi::is_believed(socket, daemon.uid))
}

/// As [`ClientMode`] says.
fn local_use(options: &LocateOptions) -> LocalUse {
    match options.client {
        ClientMode::Cli => LocalUse::Never,
        ClientMode::LocalApi => LocalUse::Only,
        ClientMode::Auto if options.socket.is_some() || options.bin.is_none() => LocalUse::First,
        ClientMode::Auto => LocalUse::Never,
    }
}

/// Root runs nothing that others could replace.
fn trusted(
    (path, warnings): (PathBuf, Vec<String>),
    euid: u32,
) -> Result<(PathBuf, Vec<String>), LocateError> {
    if euid == 0 && !warnings.is_empty() {
        return Err(LocateError::Untrusted { path, reasons: warnings });
    }
    Ok((path, warnings))
}

fn configured(path: &Path, euid: u32) -> Result<(PathBuf, Vec<String>), LocateError> {
    if !path.is_absolute() {
        return Err(LocateError::NotAbsolute { path: path.to_owned() });
    }
    if !path.exists() {
        return Err(LocateError::Missing { path: path.to_owned() });
    }
    if !is_executable(path) {
        return Err(LocateError::NotExecutable { path: path.to_owned() });
    }
    Ok((path.to_owned(), doubts(path, euid)))
}

/// The first candidate without doubts, else the first.
fn searched(
    options: &LocateOptions,
    known: &[PathBuf],
    euid: u32,
) -> Result<(PathBuf, Vec<String>), LocateError> {
    let mut fallback = None;
    let in_path = candidates(options.search_path.clone().or_else(|| std::env::var_os("PATH")));
    for path in in_path.iter().chain(known) {
        if !is_executable(path) {
            continue;
        }
        let doubts = doubts(path, euid);
        if doubts.is_empty() {
            return Ok((path.clone(), doubts));
        }
        fallback.get_or_insert_with(|| (path.clone(), doubts));
    }
    fallback.ok_or(LocateError::NotFound)
}

/// The binaries in the absolute entries of `PATH`. A relative one, or an empty one,
/// would mean whatever directory the gateway was started in.
fn candidates(search_path: Option<OsString>) -> Vec<PathBuf> {
    let Some(search_path) = search_path else {
        return Vec::new();
    };
    let entries = std::env::split_paths(&search_path).filter(|entry| entry.is_absolute());
    let absolute = match std::env::join_paths(entries) {
        // An empty one would be searched as "the current directory".
        Ok(absolute) if !absolute.is_empty() => absolute,
        _ => return Vec::new(),
    };
    which::which_in_all(NAME, Some(absolute), "/").map(Iterator::collect).unwrap_or_default()
}

fn is_executable(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.mode() & 0o111 != 0)
}

/// What lets others replace the binary at `path`, as sentences.
fn doubts(path: &Path, euid: u32) -> Vec<String> {
    doubts_of(path, &[0, euid])
}

/// What lets anyone but these users decide what is at `path`, as sentences.
pub(crate) fn doubts_of(path: &Path, trusted: &[u32]) -> Vec<String> {
    let mut places: BTreeSet<&Path> = path.ancestors().collect();
    let target = match path.canonicalize() {
        Ok(target) => target,
        Err(error) => return vec![format!("{} cannot be resolved: {error}", path.display())],
    };
    places.extend(target.ancestors());
    places.into_iter().filter_map(|place| doubt(place, trusted)).collect()
}

fn doubt(place: &Path, trusted: &[u32]) -> Option<String> {
    let shown = place.display();
    // Of a symbolic link only the owner counts; its mode says nothing.
    let meta: Metadata = match place.symlink_metadata() {
        Ok(meta) => meta,
        Err(error) => return Some(format!("{shown} cannot be examined: {error}")),
    };
    if !trusted.contains(&meta.uid()) {
        return Some(format!("{shown} belongs to another user (uid {})", meta.uid()));
    }
    // Everybody may write to a socket: that is how it is connected to.
    if meta.is_symlink() || meta.file_type().is_socket() {
        return None;
    }
    match (meta.mode() & 0o002 != 0, meta.mode() & 0o020 != 0) {
        // The sticky bit of /tmp does not help: others may be first.
        (true, _) => Some(format!("{shown} can be written by everybody")),
        (false, true) => Some(format!("{shown} can be written by its group")),
        (false, false) => None,
    }
}

/// What to start. The macOS app aborts when it is started through a symbolic link;
/// elsewhere the name that was used may select what the program does.
fn program(path: PathBuf) -> PathBuf {
    match path.canonicalize() {
        Ok(target) if target.ends_with("Tailscale.app/Contents/MacOS/Tailscale") => target,
        _ => path,
    }
}

#[cfg(test)]
mod tests;
