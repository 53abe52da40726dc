//! Who owns the socket at the other end of a loopback connection.
//!
//! The kernel knows: both ends are its own. The question is put for the one
//! socket whose addresses are the mirror of ours, and only an established socket
//! with an inode counts as an answer. A socket that its owner has closed lives
//! on in the kernel's tables without an owner, and is listed as root's: a client
//! that sends forged headers and closes at once must not become root (rulings
//! 1.2).
//!
//! Linux only; elsewhere nobody can be attested this way.

use std::io;
use std::net::SocketAddr;

use crate::domain::PeerAddr;

#[cfg(target_os = "linux")]
mod netlink;
#[cfg(target_os = "linux")]
mod procfs;

/// The owner of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketOwner {
    /// The uid that made it.
    pub uid: u32,
    /// Its inode, never 0; `/proc/<pid>/fd` of its process points to it.
    pub inode: u32,
}

/// Why the owner of a socket is not known. Whatever the reason, the connection
/// is not attested.
#[derive(Debug, thiserror::Error)]
pub enum OwnerError {
    /// There is no such established socket on this machine: it was closed, or
    /// is in another network namespace.
    #[error("no established socket of this machine has these addresses")]
    NotFound,
    /// The kernel could not be asked.
    #[error("cannot ask the kernel about a socket")]
    Io(#[source] io::Error),
    /// This system has no way to ask.
    #[error("this system does not say who owns a socket")]
    Unsupported,
}

/// Who owns the client's end of the connection from `peer` to our `local`
/// address. Takes a few microseconds, and never waits for anybody.
///
/// # Errors
///
/// [`OwnerError::NotFound`] unless exactly that socket is established and owned.
pub fn peer_uid(peer: SocketAddr, local: SocketAddr) -> Result<SocketOwner, OwnerError> {
    // The mapped form of an IPv4 address names the same connection.
    let (peer, local) = (PeerAddr::new(peer).socket(), PeerAddr::new(local).socket());
    if peer.is_ipv4() != local.is_ipv4() {
        return Err(OwnerError::NotFound);
    }
    #[cfg(target_os = "linux")]
    return match netlink::ask(peer, local) {
        // No such socket family, module or permission: a sandbox may forbid it.
        Err(OwnerError::Io(_)) => procfs::ask(peer, local),
        answer => answer,
    };
    #[cfg(not(target_os = "linux"))]
    return Err(OwnerError::Unsupported);
}

/// A socket the kernel told of.
#[cfg(target_os = "linux")]
#[derive(Clone, Copy, Debug)]
struct Listed {
    src: SocketAddr,
    dst: SocketAddr,
    established: bool,
    uid: u32,
    inode: u32,
}

#[cfg(target_os = "linux")]
impl Listed {
    /// The owner, if this is the client's end of that connection.
    fn owner_of(&self, peer: SocketAddr, local: SocketAddr) -> Option<SocketOwner> {
        let same = PeerAddr::new(self.src).socket() == peer && PeerAddr::new(self.dst).socket() == local;
        (same && self.established && self.inode != 0)
            .then_some(SocketOwner { uid: self.uid, inode: self.inode })
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests;
