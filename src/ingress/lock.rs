//! The exclusive lock of one address and port.
//!
//! `SO_REUSEPORT` lets two gateways of one user share a port without a word, and
//! each would get half of the connections. So whoever listens holds a lock on a
//! file that stands for the address (rulings 6). The kernel gives it back when
//! the process ends, however it ends.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// The lock; given back when dropped. The file stays: removing it would let two
/// holders lock two files of one name.
#[derive(Debug)]
pub(super) struct ListenLock {
    _file: File,
}

/// Why there is no lock.
#[derive(Debug)]
pub(super) enum LockError {
    /// Another process holds it: its pid, as far as it is known.
    Held(Option<u32>),
    Io(io::Error),
}

impl ListenLock {
    /// Takes the lock of an address; the directory is made if need be.
    pub(super) fn take(run_dir: &Path, addr: SocketAddr) -> Result<Self, LockError> {
        let name = format!("listen-{}-{}.lock", addr.ip(), addr.port()).replace(':', "_");
        Self::take_file(run_dir, &name)
    }

    pub(super) fn take_file(run_dir: &Path, name: &str) -> Result<Self, LockError> {
        let mut file = open(run_dir, name).map_err(LockError::Io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                let _ = (&file).take(16).read_to_string(&mut pid);
                return Err(LockError::Held(pid.trim().parse().ok()));
            }
            Err(TryLockError::Error(error)) => return Err(LockError::Io(error)),
        }
        // For the message of whoever comes second; nothing depends on it.
        let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(Self { _file: file })
    }
}

fn open(run_dir: &Path, name: &str) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    options.mode(0o600).custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed());
    fs::DirBuilder::new().recursive(true).mode(0o700).create(run_dir)?;
    options.open(run_dir.join(name))
}
