//! Whether a gateway runs that does what is asked for in the database.
//!
//! A lock on a file beside it, which the kernel gives back however the process ends.
//! Of two gateways with one state directory the first has it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The lock; given back when dropped. The file stays.
#[derive(Debug)]
pub struct Attendance {
    _file: File,
}

impl Attendance {
    /// Takes it; `None` where another process has it.
    ///
    /// # Errors
    ///
    /// The file cannot be made or locked.
    pub fn take(state_dir: &Path) -> io::Result<Option<Self>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        options.custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed());
        let file = options.open(path(state_dir))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

/// Whether somebody has it.
///
/// # Errors
///
/// It cannot be said.
pub fn is_attended(state_dir: &Path) -> io::Result<bool> {
    let file = match File::open(path(state_dir)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn path(state_dir: &Path) -> PathBuf {
    state_dir.join("state").join("tailnet-gateway.lock")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_gateway_attends_and_that_is_seen() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join("state")).unwrap();
        assert!(!is_attended(home.path()).unwrap());
        let held = Attendance::take(home.path()).unwrap().unwrap();
        assert!(is_attended(home.path()).unwrap());
        assert!(Attendance::take(home.path()).unwrap().is_none());
        drop(held);
        assert!(!is_attended(home.path()).unwrap());
        assert!(Attendance::take(home.path()).unwrap().is_some());
    }
}
