//! Which process tailscaled is: the other end of its LocalAPI socket.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::Error;

/// Where tailscaled listens unless told otherwise.
pub(crate) const DEFAULT_SOCKET: &str = if cfg!(target_os = "macos") {
    "/var/run/tailscaled.socket"
} else {
    "/var/run/tailscale/tailscaled.sock"
};

/// The process behind the LocalAPI socket, as the kernel vouches for it.
///
/// It is whoever listens on that path. The proof is as good as the path: keep the
/// socket in a directory that only root can write, as packages do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DaemonProcess {
    /// Its effective user id when it began to listen.
    pub uid: u32,
    /// Its process id; `None` where the kernel does not say, or it is outside of our
    /// pid namespace.
    pub pid: Option<u32>,
}

/// A full backlog of a process that hangs is the only thing to wait for here.
const LIMIT: Duration = Duration::from_secs(2);

/// The same without waiting, for whoever must decide now: a daemon that cannot
/// take a connection at once is an error. Needs a tokio runtime around it.
pub(crate) fn process_behind_now(socket: &Path) -> Result<DaemonProcess, Error> {
    let failed = |errno: rustix::io::Errno| unreachable(socket, errno.into());
    let address = SocketAddrUnix::new(socket).map_err(failed)?;
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let fd = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).map_err(failed)?;
    connect(&fd, &address).map_err(failed)?;
    let stream = UnixStream::from_std(fd.into()).map_err(|error| unreachable(socket, error))?;
    of_peer(&stream, socket)
}

/// Connects, asks the kernel, and closes; nothing is sent.
pub(crate) async fn process_behind(socket: &Path) -> Result<DaemonProcess, Error> {
    const COMMAND: &str = "(socket)";
    let stream = match timeout(LIMIT, UnixStream::connect(socket)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(unreachable(socket, error)),
        Err(_) => {
            return Err(Error::TimedOut { command: COMMAND, after: LIMIT });
        }
    };
    of_peer(&stream, socket)
}

pub(crate) fn of_peer(stream: &UnixStream, socket: &Path) -> Result<DaemonProcess, Error> {
    let peer = stream.peer_cred().map_err(|error| unreachable(socket, error))?;
    let pid = peer.pid().and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid != 0);
    Ok(DaemonProcess { uid: peer.uid(), pid })
}

pub(crate) fn unreachable(socket: &Path, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Error::DaemonDown,
        io::ErrorKind::PermissionDenied => {
            Error::Denied { command: "(socket)", detail: format!("{}: {error}", socket.display()) }
        }
        _ => Error::Socket { path: socket.to_owned(), source: Arc::new(error) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::block_on;

    #[test]
    fn no_socket_and_a_dead_socket_are_a_daemon_that_is_down() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.sock");
        let ask = || block_on(process_behind(&path)).unwrap_err().code();
        assert_eq!(ask(), "tailscale_daemon_down");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert_eq!(ask(), "tailscale_daemon_down");
    }

    #[test]
    fn a_path_that_no_socket_can_have_is_an_error() {
        let path = Path::new("/").join("x".repeat(200));
        assert!(block_on(process_behind(&path)).is_err());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_listener_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.sock");
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let daemon = block_on(process_behind(&path)).unwrap();
        assert_eq!(daemon.pid, Some(std::process::id()));
        assert_eq!(daemon.uid, rustix::process::geteuid().as_raw());
    }
}
