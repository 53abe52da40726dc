//! Only one process of a state directory edits what Serve publishes at a time.
//!
//! The kernel gives the lock back when its holder ends, however it ends.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long another editor is waited for: longer than one edit may take.
const PATIENCE: Duration = Duration::from_secs(25);
const GLANCE: Duration = Duration::from_millis(50);

/// The lock; given back when dropped.
#[derive(Debug)]
pub struct EditLock {
    _file: File,
}

/// Why there is no lock.
#[derive(Debug, thiserror::Error)]
pub enum EditLockError {
    /// Another process is still editing.
    #[error("another openclaw process is changing the Serve route (it holds {})", path.display())]
    Held {
        /// The lock file.
        path: PathBuf,
    },
    /// The file cannot be made or locked.
    #[error("{} cannot be locked", path.display())]
    Io {
        /// The lock file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl EditLock {
    /// Takes the lock of a state directory, and waits for whoever holds it.
    ///
    /// # Errors
    ///
    /// As [`EditLockError`] says.
    pub async fn take(state_dir: &Path) -> Result<Self, EditLockError> {
        let dir = state_dir.join("run");
        let path = dir.join("serve-edit.lock");
        let failed = |source| EditLockError::Io { path: path.clone(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(failed)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        options.mode(0o600).custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed());
        let file = options.open(&path).map_err(failed)?;
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: file }),
                Err(TryLockError::Error(source)) => return Err(failed(source)),
                Err(TryLockError::WouldBlock) if tokio::time::Instant::now() >= deadline => {
                    return Err(EditLockError::Held { path });
                }
                Err(TryLockError::WouldBlock) => tokio::time::sleep(GLANCE).await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_second_waits_for_the_first_and_no_longer_than_that() {
        let dir = tempfile::tempdir().unwrap();
        let first = EditLock::take(dir.path()).await.unwrap();
        let second = EditLock::take(dir.path()).await;
        assert!(matches!(second, Err(EditLockError::Held { .. })), "{second:?}");
        let mut waiting = tokio_test_future(EditLock::take(dir.path()));
        assert!(tokio::time::timeout(Duration::from_secs(1), &mut waiting).await.is_err());
        drop(first);
        assert!(waiting.await.is_ok());
    }

    fn tokio_test_future<F: Future>(future: F) -> std::pin::Pin<Box<F>> {
        Box::pin(future)
    }
}
