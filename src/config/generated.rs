//! The token of a run for which none was configured (rulings 6).

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::domain::Secret;

/// 32 random bytes in hex, kept in `<state>/run/token` (0600) for as long as the
/// gateway runs: local commands read it there. Removed when dropped.
///
/// The file is locked while in use, so that a second gateway on the same state
/// directory is told instead of taking the first one's file away; a file left by
/// a crash is not locked and is replaced.
pub struct GeneratedToken {
    secret: Secret,
    path: PathBuf,
    file: File,
}

/// Why no token could be generated.
#[derive(Debug, thiserror::Error)]
pub enum GeneratedTokenError {
    /// Another gateway uses the file.
    #[error(
        "another gateway keeps its token in {}: give this one its own OPENCLAW_STATE_DIR, or configure a token",
        path.display()
    )]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The directory is a link or belongs to somebody else.
    #[error("{} is no directory of ours: remove it", path.display())]
    NotOurs {
        /// The directory.
        path: PathBuf,
    },
    /// A system call failed.
    #[error("cannot keep a generated token in {}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The system gave no randomness.
    #[error("the system gave no random bytes")]
    Random,
}

impl GeneratedToken {
    /// Generates a token and writes it below the state directory.
    ///
    /// # Errors
    /// Where the file is in use by another gateway or cannot be made safely.
    pub fn create(state_dir: &Path) -> Result<Self, GeneratedTokenError> {
        let dir = state_dir.join("run");
        make_private_dir(&dir)?;
        let mut bytes = [0_u8; 32];
        getrandom::fill(&mut bytes).map_err(|_| GeneratedTokenError::Random)?;
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let secret = Secret::new(&hex).ok_or(GeneratedTokenError::Random)?;
        let path = dir.join("token");
        let file = claim(&path)?;
        (&file).write_all(format!("{hex}\n").as_bytes()).map_err(io_fault(&path))?;
        Ok(Self { secret, path, file })
    }

    /// The token.
    pub fn secret(&self) -> &Secret {
        &self.secret
    }

    /// Where it is kept. The path may be logged, the token never.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for GeneratedToken {
    fn drop(&mut self) {
        // Only our own file, in case somebody put another in its place.
        if is_at(&self.file, &self.path) {
            let _left_for_the_next_start = rustix::fs::unlink(&self.path);
        }
    }
}

fn io_fault(path: &Path) -> impl Fn(std::io::Error) -> GeneratedTokenError + '_ {
    move |source| GeneratedTokenError::Io { path: path.to_owned(), source }
}

/// A directory that only we can enter. One that exists and is ours is tightened.
fn make_private_dir(dir: &Path) -> Result<(), GeneratedTokenError> {
    super::store::create_private_dirs(dir).map_err(io_fault(dir))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let not_ours = || GeneratedTokenError::NotOurs { path: dir.to_owned() };
    let fd = rustix::fs::open(dir, flags, Mode::empty()).map_err(|_| not_ours())?;
    let stat = rustix::fs::fstat(&fd).map_err(|errno| io_fault(dir)(errno.into()))?;
    if stat.st_uid != rustix::process::geteuid().as_raw() {
        return Err(not_ours());
    }
    rustix::fs::fchmod(&fd, Mode::RWXU).map_err(|errno| io_fault(dir)(errno.into()))
}

/// A new, empty, locked file at the path.
fn claim(path: &Path) -> Result<File, GeneratedTokenError> {
    let fault = |errno: Errno| io_fault(path)(errno.into());
    // Each round either succeeds, finds the file in use, or lost a race to
    // another start; races end soon.
    for _ in 0..16 {
        let open = |flags| {
            rustix::fs::open(path, flags | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::RUSR | Mode::WUSR)
        };
        match open(OFlags::RDWR) {
            Ok(stale) => {
                lock(&stale, path)?;
                match rustix::fs::unlink(path) {
                    Ok(()) | Err(Errno::NOENT) => {}
                    Err(errno) => return Err(fault(errno)),
                }
            }
            Err(Errno::NOENT) => {}
            // A link, or something that cannot be opened: never ours.
            Err(Errno::LOOP) => rustix::fs::unlink(path).map_err(fault)?,
            Err(errno) => return Err(fault(errno)),
        }
        match open(OFlags::RDWR | OFlags::CREATE | OFlags::EXCL) {
            Ok(fd) => {
                rustix::fs::fchmod(&fd, Mode::RUSR | Mode::WUSR).map_err(fault)?;
                lock(&fd, path)?;
                let file = File::from(fd);
                if is_at(&file, path) {
                    return Ok(file);
                }
            }
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(fault(errno)),
        }
    }
    Err(GeneratedTokenError::InUse { path: path.to_owned() })
}

fn lock(fd: &OwnedFd, path: &Path) -> Result<(), GeneratedTokenError> {
    match rustix::fs::flock(fd, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(()),
        Err(Errno::WOULDBLOCK) => Err(GeneratedTokenError::InUse { path: path.to_owned() }),
        Err(errno) => Err(io_fault(path)(errno.into())),
    }
}

/// Whether an open file is the one at a path.
fn is_at(file: &File, path: &Path) -> bool {
    let ours = rustix::fs::fstat(file);
    let there = rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW);
    matches!((ours, there), (Ok(ours), Ok(there)) if (ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn a_second_gateway_never_takes_the_file_of_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let first = GeneratedToken::create(dir.path()).unwrap();
        assert!(matches!(GeneratedToken::create(dir.path()), Err(GeneratedTokenError::InUse { .. })));
        assert_eq!(std::fs::read_to_string(first.path()).unwrap().trim(), first.secret().expose());
    }

    #[test]
    fn threat_094_links_are_never_written_through() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("precious");
        std::fs::write(&target, "keep").unwrap();
        std::fs::create_dir(dir.path().join("run")).unwrap();
        std::os::unix::fs::symlink(&target, dir.path().join("run/token")).unwrap();
        let token = GeneratedToken::create(dir.path()).unwrap();
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "keep");
        assert!(!token.path().is_symlink());

        let elsewhere = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(dir.path(), elsewhere.path().join("run")).unwrap();
        assert!(matches!(GeneratedToken::create(elsewhere.path()), Err(GeneratedTokenError::NotOurs { .. })));
    }

    #[test]
    fn threat_093_only_we_can_read_it_and_it_goes_with_the_run() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("run")).unwrap();
        std::fs::set_permissions(dir.path().join("run"), std::fs::Permissions::from_mode(0o777)).unwrap();
        let token = GeneratedToken::create(dir.path()).unwrap();
        let path = token.path().to_owned();
        assert_eq!((mode(path.parent().unwrap()), mode(&path)), (0o700, 0o600));
        assert_eq!(token.secret().expose().len(), 64);
        drop(token);
        assert!(!path.exists());
        // Left by a crash: replaced.
        std::fs::write(&path, "old").unwrap();
        assert!(GeneratedToken::create(dir.path()).is_ok());
    }
}
