//! The unix socket that only Tailscale Serve may use (rulings 1.3).
//!
//! The file system keeps others out: the socket has mode 0600 before it can be
//! found, in a directory that nobody else can change. Whoever connects is known
//! by the kernel's word, and [`Handler::admit`](super::Handler::admit) takes
//! tailscaled only.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;
use tokio::sync::mpsc::UnboundedSender;

use super::UnixPeer;
use super::accept::Backoff;
use super::lock::{ListenLock, LockError};
use super::private_dir::{DirError, private_dir};
use super::worker::Command;

const SOCKET: &str = "serve.sock";
const LOCK: &str = "serve.lock";

/// Why the socket is not there.
#[derive(Debug, thiserror::Error)]
pub enum UnixError {
    /// Its directory is not safe.
    #[error("cannot place the Serve socket")]
    Dir(#[from] DirError),
    /// Another gateway, or another program, listens on it.
    #[error("another program is already listening on {}", path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// Something that is no socket is in its place.
    #[error("{} is in the way: it is not a socket", path.display())]
    Occupied {
        /// The place.
        path: PathBuf,
    },
    /// Anything else.
    #[error("cannot listen on {}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
}

/// The directory of the Serve socket: `$RUNTIME_DIRECTORY`, else
/// `$XDG_RUNTIME_DIR/openclaw`, else `run` in the state directory. One below a
/// directory for temporary files is passed over: everybody may write there.
pub fn serve_dir(env: impl Fn(&str) -> Option<OsString>, state_dir: &Path) -> PathBuf {
    let set = |name: &str| env(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    // systemd separates several by colons.
    let runtime =
        set("RUNTIME_DIRECTORY").and_then(|list| list.to_str()?.split(':').next().map(PathBuf::from));
    let xdg = set("XDG_RUNTIME_DIR").map(|dir| dir.join("openclaw"));
    let temporary: Vec<PathBuf> = ["/tmp", "/var/tmp", "/private/tmp", "/private/var/tmp", "/dev/shm"]
        .into_iter()
        .map(PathBuf::from)
        .chain(set("TMPDIR").filter(|dir| dir.is_absolute()))
        .collect();
    [runtime, xdg]
        .into_iter()
        .flatten()
        .find(|dir| dir.is_absolute() && !temporary.iter().any(|temporary| dir.starts_with(temporary)))
        .unwrap_or_else(|| state_dir.join("run"))
}

/// Where the socket of a directory is, for whoever does not bind it.
#[must_use]
pub fn serve_socket(dir: &Path) -> PathBuf {
    fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned()).join(SOCKET)
}

/// Whether anybody listens at the socket.
#[must_use]
pub fn is_served_at(socket: &Path) -> bool {
    StdStream::connect(socket).is_ok()
}

/// The bound Serve socket. Dropping it closes and removes it.
#[derive(Debug)]
pub struct UnixIngress {
    listener: StdListener,
    path: PathBuf,
    /// Device and inode, so that only our own socket is ever removed.
    file: (u64, u64),
    _lock: ListenLock,
}

impl UnixIngress {
    /// Binds the socket in this directory, which is made if need be.
    ///
    /// # Errors
    ///
    /// [`UnixError`], which names the path at fault.
    pub fn bind(dir: &Path) -> Result<Self, UnixError> {
        Self::bind_in(private_dir(dir)?)
    }

    #[cfg(test)]
    pub(super) fn bind_below(dir: &Path, trusted: &Path) -> Result<Self, UnixError> {
        Self::bind_in(super::private_dir::private_dir_below(dir, Some(trusted))?)
    }

    fn bind_in(dir: PathBuf) -> Result<Self, UnixError> {
        let path = dir.join(SOCKET);
        let lock = ListenLock::take_file(&dir, LOCK).map_err(|error| match error {
            LockError::Held(_) => UnixError::InUse { path: path.clone() },
            LockError::Io(source) => UnixError::Io { path: path.clone(), source },
        })?;
        clear(&path)?;
        match place(&dir, &path) {
            Ok((listener, file)) => Ok(Self { listener, path, file, _lock: lock }),
            Err(source) => Err(UnixError::Io { path, source }),
        }
    }

    /// Where it is: what `tailscale serve` is given as `unix:PATH`.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for UnixIngress {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == self.file) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Makes sure that whatever is in the place may be replaced.
fn clear(path: &Path) -> Result<(), UnixError> {
    let io = |source| UnixError::Io { path: path.to_path_buf(), source };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io(error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(UnixError::Occupied { path: path.to_path_buf() });
        }
        Ok(_) => {}
    }
    match StdStream::connect(path) {
        // Nobody answers: it was left behind.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) => Err(io(error)),
        Ok(_) => Err(UnixError::InUse { path: path.to_path_buf() }),
    }
}

/// Binds in a directory of our own, narrows the mode there, and moves the socket
/// into place. The umask belongs to the whole process, so it is not relied on;
/// and this way there is no moment in which the socket is open to others.
fn place(dir: &Path, path: &Path) -> io::Result<(StdListener, (u64, u64))> {
    let inner = dir.join(format!(".bind-{}", std::process::id()));
    match DirBuilder::new().mode(0o700).create(&inner) {
        // Left behind by a process of our number; the lock says it is gone.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_dir_all(&inner).and_then(|()| DirBuilder::new().mode(0o700).create(&inner))?
        }
        made => made?,
    }
    let placed = bind_there(&inner.join(SOCKET), path);
    let _ = fs::remove_dir_all(&inner);
    placed
}

fn bind_there(first: &Path, path: &Path) -> io::Result<(StdListener, (u64, u64))> {
    let listener = StdListener::bind(first)?;
    fs::set_permissions(first, Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    let found = fs::symlink_metadata(first)?;
    fs::rename(first, path)?;
    Ok((listener, (found.dev(), found.ino())))
}

/// Accepts for all workers, and hands the connections out in turn.
pub(super) async fn hand_out(ingress: UnixIngress, workers: Vec<UnboundedSender<Command>>) {
    let listener = match ingress.listener.try_clone().and_then(UnixListener::from_std) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "cannot listen on the Serve socket"),
    };
    let mut backoff = Backoff::default();
    let mut turn = 0;
    loop {
        let accepted = async {
            let (stream, _) = listener.accept().await?;
            let credentials = stream.peer_cred()?;
            let pid = credentials.pid().and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid != 0);
            io::Result::Ok((stream.into_std()?, UnixPeer { uid: credentials.uid(), pid }))
        };
        match accepted.await {
            Ok((stream, peer)) => {
                backoff.reset();
                // A worker that is gone drops the connection.
                let _ = workers[turn % workers.len()].send(Command::Take { stream, peer });
                turn = turn.wrapping_add(1);
            }
            Err(error) => backoff.after(&error).await,
        }
    }
}

#[cfg(test)]
mod tests;
