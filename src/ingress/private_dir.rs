//! A directory that nobody but its owner can change, all the way up.
//!
//! A socket in a directory that others may write to can be renamed away and
//! replaced by theirs (threat rule 3). The sticky bit is no protection here: it
//! keeps others from removing what is there, not from being first.

use std::fs::{self, DirBuilder, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

const OTHERS_WRITE: u32 = 0o022;

/// Why a directory is not used.
#[derive(Debug, thiserror::Error)]
pub enum DirError {
    /// It, or one above it, can be changed by others.
    #[error("{} can be written by others (mode {mode:04o}), so a socket below it could be replaced", path.display())]
    Writable {
        /// Which one.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It, or one above it, belongs to somebody who is neither root nor us.
    #[error("{} belongs to uid {uid}, who could replace a socket below it", path.display())]
    Foreign {
        /// Which one.
        path: PathBuf,
        /// Its owner.
        uid: u32,
    },
    /// It is a symbolic link or a file.
    #[error("{} is not a directory", path.display())]
    NotADirectory {
        /// Which one.
        path: PathBuf,
    },
    /// It cannot be made or looked at.
    #[error("cannot use the directory {}", path.display())]
    Io {
        /// Which one.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
}

/// Makes the directory if need be, with mode 0700 whatever the umask is, and
/// returns its real path once it and all above it are found to be safe.
pub(super) fn private_dir(dir: &Path) -> Result<PathBuf, DirError> {
    private_dir_below(dir, None)
}

/// The same, but directories from `trusted` upwards are not looked at.
pub(super) fn private_dir_below(dir: &Path, trusted: Option<&Path>) -> Result<PathBuf, DirError> {
    let io = |path: &Path| {
        let path = path.to_path_buf();
        move |source| DirError::Io { path, source }
    };
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io(dir))?;
    // The last step must not be a link; links above it lead to where the check
    // is then made.
    let own = fs::symlink_metadata(dir).map_err(io(dir))?;
    if !own.is_dir() {
        return Err(DirError::NotADirectory { path: dir.to_path_buf() });
    }
    let real = fs::canonicalize(dir).map_err(io(dir))?;
    let us = rustix::process::geteuid().as_raw();
    if own.uid() != us {
        return Err(DirError::Foreign { path: real, uid: own.uid() });
    }
    for path in real.ancestors().take_while(|path| Some(*path) != trusted) {
        check(path, &fs::symlink_metadata(path).map_err(io(path))?, us)?;
    }
    Ok(real)
}

fn check(path: &Path, metadata: &Metadata, us: u32) -> Result<(), DirError> {
    let mode = metadata.mode() & 0o7777;
    if mode & OTHERS_WRITE != 0 {
        return Err(DirError::Writable { path: path.to_path_buf(), mode });
    }
    let uid = metadata.uid();
    if uid != 0 && uid != us {
        return Err(DirError::Foreign { path: path.to_path_buf(), uid });
    }
    Ok(())
}
