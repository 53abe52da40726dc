//! Binds the ordinary listeners: on Linux one socket per worker on each address,
//! among which the kernel spreads the connections.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

use super::lock::{ListenLock, LockError};

/// Connections the kernel keeps for us until they are accepted.
const BACKLOG: i32 = 1024;
/// How often another free port is tried when it is not free on every address.
const PORT_ATTEMPTS: usize = 16;

/// Why an address could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another program listens there.
    #[error("another program is already listening on {addr}")]
    InUse {
        /// The address and port.
        addr: SocketAddr,
    },
    /// Another gateway listens there.
    #[error("another openclaw gateway{} is already listening on {addr}", pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default())]
    OtherGateway {
        /// The address and port.
        addr: SocketAddr,
        /// Its process, where it is known.
        pid: Option<u32>,
    },
    /// This machine does not have the address now. It may get it later: a
    /// tailnet address, when Tailscale comes up.
    #[error("{} is not an address of this machine at present", addr.ip())]
    Absent {
        /// The address and port.
        addr: SocketAddr,
    },
    /// The port is one that only root may bind.
    #[error("not permitted to listen on {addr}")]
    Denied {
        /// The address and port.
        addr: SocketAddr,
    },
    /// The lock file could not be made or locked.
    #[error("cannot lock {addr} in {}", run_dir.display())]
    Lock {
        /// The address and port.
        addr: SocketAddr,
        /// Where the lock file belongs.
        run_dir: PathBuf,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
    /// Anything else.
    #[error("cannot listen on {addr}")]
    Other {
        /// The address and port.
        addr: SocketAddr,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
}

impl BindError {
    /// Whether it may go away by itself, so that it is worth another attempt.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Absent { .. })
    }

    fn new(addr: SocketAddr, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::AddrInUse => Self::InUse { addr },
            io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported => Self::Absent { addr },
            io::ErrorKind::PermissionDenied => Self::Denied { addr },
            // A machine without IPv6 says so here.
            _ if source.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error()) => {
                Self::Absent { addr }
            }
            _ => Self::Other { addr, source },
        }
    }
}

/// One bound address: its sockets, one for each worker, and its lock.
#[derive(Debug)]
pub struct Bound {
    addr: SocketAddr,
    listeners: Vec<TcpListener>,
    lock: ListenLock,
}

impl Bound {
    /// The address and the port, which is never 0.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(super) fn into_parts(self) -> (SocketAddr, Vec<TcpListener>, ListenLock) {
        (self.addr, self.listeners, self.lock)
    }
}

/// Several addresses on one port.
#[derive(Debug)]
pub struct BoundSet {
    /// The port they share.
    pub port: u16,
    /// The addresses that are bound.
    pub bound: Vec<Bound>,
    /// The addresses this machine does not have now, to be tried again later.
    pub absent: Vec<BindError>,
}

/// Binds addresses for a number of workers.
#[derive(Clone, Debug)]
pub struct Binder {
    workers: usize,
    run_dir: PathBuf,
}

impl Binder {
    /// `run_dir` is this user's own directory for lock files.
    pub fn new(workers: usize, run_dir: impl Into<PathBuf>) -> Self {
        Self { workers: workers.max(1), run_dir: run_dir.into() }
    }

    /// Binds one address. Port 0 is any free port.
    ///
    /// # Errors
    ///
    /// [`BindError`], which names the address and the cause.
    pub fn bind(&self, addr: SocketAddr) -> Result<Bound, BindError> {
        if addr.port() == 0 { self.bind_any_port(addr) } else { self.bind_port(addr) }
    }

    /// Binds all of these addresses to one port; port 0 is any that is free on
    /// all of them. Addresses this machine does not have are left out and named.
    ///
    /// # Errors
    ///
    /// The first [`BindError`] that is not [`BindError::Absent`].
    pub fn bind_all(&self, ips: &[IpAddr], port: u16) -> Result<BoundSet, BindError> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            match self.bind_once(ips, port) {
                Err(BindError::InUse { .. } | BindError::OtherGateway { .. })
                    if port == 0 && attempt < PORT_ATTEMPTS => {}
                result => return result,
            }
        }
    }

    fn bind_once(&self, ips: &[IpAddr], port: u16) -> Result<BoundSet, BindError> {
        let mut set = BoundSet { port, bound: Vec::new(), absent: Vec::new() };
        for ip in ips {
            match self.bind(SocketAddr::new(*ip, set.port)) {
                Ok(bound) => {
                    set.port = bound.addr.port();
                    set.bound.push(bound);
                }
                Err(error) if error.is_absent() => set.absent.push(error),
                Err(error) => return Err(error),
            }
        }
        Ok(set)
    }

    fn bind_port(&self, addr: SocketAddr) -> Result<Bound, BindError> {
        let lock = lock(&self.run_dir, addr)?;
        let listeners = self.sockets(addr).map_err(|source| BindError::new(addr, source))?;
        Ok(Bound { addr, listeners, lock })
    }

    fn bind_any_port(&self, addr: SocketAddr) -> Result<Bound, BindError> {
        // Held while the others are bound, so that nobody takes the port.
        let first = socket(addr, cfg!(target_os = "linux")).map_err(|source| BindError::new(addr, source))?;
        let addr = first.local_addr().map_err(|source| BindError::new(addr, source))?;
        let lock = lock(&self.run_dir, addr)?;
        let listeners = self.with_first(addr, first).map_err(|source| BindError::new(addr, source))?;
        Ok(Bound { addr, listeners, lock })
    }

    fn sockets(&self, addr: SocketAddr) -> io::Result<Vec<TcpListener>> {
        if cfg!(target_os = "linux") {
            // Without SO_REUSEPORT the kernel refuses an address on which
            // anybody listens, be it a program that has that option set, too.
            drop(socket(addr, false)?);
        }
        self.with_first(addr, socket(addr, cfg!(target_os = "linux"))?)
    }

    fn with_first(&self, addr: SocketAddr, first: TcpListener) -> io::Result<Vec<TcpListener>> {
        let mut listeners = vec![first];
        while listeners.len() < self.workers {
            let next =
                if cfg!(target_os = "linux") { socket(addr, true)? } else { listeners[0].try_clone()? };
            listeners.push(next);
        }
        Ok(listeners)
    }
}

fn lock(run_dir: &Path, addr: SocketAddr) -> Result<ListenLock, BindError> {
    ListenLock::take(run_dir, addr).map_err(|error| match error {
        LockError::Held(pid) => BindError::OtherGateway { addr, pid },
        LockError::Io(source) => BindError::Lock { addr, run_dir: run_dir.to_path_buf(), source },
    })
}

fn socket(addr: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    #[cfg(target_os = "linux")]
    socket.set_reuse_port(shared)?;
    #[cfg(not(target_os = "linux"))]
    let _ = shared;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Accepted sockets inherit both, which saves a call for each.
    socket.set_tcp_nodelay(true)?;
    let keepalive =
        TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(15));
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binder(dir: &tempfile::TempDir) -> Binder {
        Binder::new(2, dir.path().join("run"))
    }

    #[test]
    fn every_worker_gets_a_socket_on_one_port() {
        let dir = tempfile::tempdir().unwrap();
        let set = binder(&dir).bind_all(&["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()], 0).unwrap();
        assert_ne!(set.port, 0);
        assert_eq!(set.bound.len() + set.absent.len(), 2);
        for bound in &set.bound {
            assert_eq!(bound.listeners.len(), 2);
            assert!(bound.listeners.iter().all(|l| l.local_addr().unwrap() == bound.addr()));
            assert_eq!(bound.addr().port(), set.port);
        }
    }

    #[test]
    fn a_second_gateway_is_refused_and_told_who_is_first() {
        let dir = tempfile::tempdir().unwrap();
        let first = binder(&dir).bind("127.0.0.1:0".parse().unwrap()).unwrap();
        match binder(&dir).bind(first.addr()) {
            Err(BindError::OtherGateway { addr, pid }) => {
                assert_eq!((addr, pid), (first.addr(), Some(std::process::id())));
            }
            other => panic!("{other:?}"),
        }
        let addr = first.addr();
        drop(first);
        assert!(binder(&dir).bind(addr).is_ok(), "free again when the first is gone");
    }

    #[test]
    fn another_program_is_noticed_even_when_it_shares_ports() {
        let dir = tempfile::tempdir().unwrap();
        let other = socket("127.0.0.1:0".parse().unwrap(), true).unwrap();
        let addr = other.local_addr().unwrap();
        assert!(matches!(binder(&dir).bind(addr), Err(BindError::InUse { .. })));
        let everywhere = SocketAddr::new("0.0.0.0".parse().unwrap(), addr.port());
        assert!(matches!(binder(&dir).bind(everywhere), Err(BindError::InUse { .. })));
    }

    #[test]
    fn an_address_of_another_machine_is_absent() {
        let dir = tempfile::tempdir().unwrap();
        let set = binder(&dir).bind_all(&["192.0.2.1".parse().unwrap(), "127.0.0.1".parse().unwrap()], 0);
        let set = set.unwrap();
        assert_eq!(set.bound.len(), 1);
        assert!(set.absent[0].is_absent());
        assert_eq!(set.absent[0].to_string(), "192.0.2.1 is not an address of this machine at present");
    }

    #[test]
    fn the_port_that_a_client_just_left_can_be_bound_again() {
        let dir = tempfile::tempdir().unwrap();
        let bound = binder(&dir).bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let addr = bound.addr();
        let client = std::net::TcpStream::connect(addr).unwrap();
        let accepted = bound.listeners.iter().find_map(|l| l.accept().ok());
        // Our side closes first and is left in TIME_WAIT.
        drop(accepted);
        drop(client);
        drop(bound);
        assert!(binder(&dir).bind(addr).is_ok());
    }
}
