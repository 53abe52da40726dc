//! Reading files that must be what they seem: regular, not too big, and for
//! secrets never behind a link (threat rule 94).
//!
//! Every check is made on the descriptor that is then read, so nothing can be
//! swapped between check and use.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags};

/// Whether a final symbolic link is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Links {
    /// Followed: a configuration may be linked from elsewhere.
    Follow,
    /// Refused: secrets.
    Refuse,
}

/// A file's text and who may touch it.
pub(crate) struct FileText {
    pub(crate) text: String,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
}

impl FileText {
    /// Whether anybody may write it.
    pub(crate) fn world_writable(&self) -> bool {
        self.mode & 0o002 != 0
    }

    /// The owner, if it is neither us nor root, nor whoever it is read for: whoever owns a
    /// file decides what is in it.
    pub(crate) fn foreign_owner(&self, read_for: Option<u32>) -> Option<u32> {
        let us = rustix::process::geteuid().as_raw();
        (self.uid != us && self.uid != 0 && Some(self.uid) != read_for).then_some(self.uid)
    }

    /// Whether the owner's group or anybody may read or write it.
    pub(crate) fn open_to_others(&self) -> bool {
        self.mode & 0o066 != 0
    }
}

/// Why a file was not read. The texts continue a sentence that names the file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileFault {
    #[error("does not exist")]
    Missing,
    #[error("is a symbolic link, and secrets are not read through links: name the file itself")]
    Link,
    #[error("is {0}, not a file")]
    NotAFile(&'static str),
    #[error("is larger than {0} bytes")]
    TooBig(u64),
    #[error("is not UTF-8 text")]
    NotText,
    #[error("cannot be read: {0}")]
    Io(std::io::Error),
}

/// Reads a regular file of at most `max_bytes`. Never blocks on a FIFO.
pub(crate) fn read(path: &Path, links: Links, max_bytes: u64) -> Result<FileText, FileFault> {
    let mut flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    if links == Links::Refuse {
        flags |= OFlags::NOFOLLOW;
    }
    let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| match errno {
        rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR => FileFault::Missing,
        rustix::io::Errno::LOOP => FileFault::Link,
        // Opening a socket fails before it can be looked at.
        rustix::io::Errno::NXIO => FileFault::NotAFile("a socket"),
        errno => FileFault::Io(errno.into()),
    })?;
    let stat = rustix::fs::fstat(&fd).map_err(|errno| FileFault::Io(errno.into()))?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {}
        FileType::Directory => return Err(FileFault::NotAFile("a directory")),
        FileType::Fifo => return Err(FileFault::NotAFile("a FIFO")),
        FileType::CharacterDevice | FileType::BlockDevice => return Err(FileFault::NotAFile("a device")),
        _ => return Err(FileFault::NotAFile("something else")),
    }
    let mut bytes = Vec::new();
    File::from(fd).take(max_bytes + 1).read_to_end(&mut bytes).map_err(FileFault::Io)?;
    if bytes.len() as u64 > max_bytes {
        return Err(FileFault::TooBig(max_bytes));
    }
    let text = String::from_utf8(bytes).map_err(|_| FileFault::NotText)?;
    Ok(FileText { text, mode: mode_bits(stat.st_mode), uid: stat.st_uid })
}

#[cfg_attr(target_os = "linux", expect(clippy::useless_conversion, reason = "mode_t is u16 on macOS"))]
fn mode_bits(mode: rustix::fs::RawMode) -> u32 {
    u32::from(mode) & 0o7777
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threat_094_only_regular_files_are_read_and_never_through_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("real"), "x").unwrap();
        std::os::unix::fs::symlink(at("real"), at("link")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, at("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        let fault = |name: &str, links| read(&at(name), links, 10).err().map(|fault| fault.to_string());

        assert!(fault("link", Links::Refuse).unwrap().contains("symbolic link"));
        assert!(fault("fifo", Links::Follow).unwrap().contains("FIFO"));
        assert!(fault(".", Links::Follow).unwrap().contains("directory"));
        assert!(fault("none", Links::Follow).unwrap().contains("does not exist"));
        std::fs::write(at("big"), "x".repeat(11)).unwrap();
        assert!(fault("big", Links::Follow).unwrap().contains("larger than 10"));
        assert!(fault("link", Links::Follow).is_none());
        assert!(fault("real", Links::Refuse).is_none());
    }
}
