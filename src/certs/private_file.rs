//! Files that only we can read, whole or not there at all.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use tempfile::NamedTempFile;

/// Puts a file in place where there is none.
pub(super) fn create(path: &Path, text: &[u8]) -> io::Result<()> {
    written(path, text)?.persist_noclobber(path).map_err(|error| error.error)?;
    sync_dir(path);
    Ok(())
}

/// Puts a file in place of whatever is there; a link is replaced, not followed.
pub(super) fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    written(path, text)?.persist(path).map_err(|error| error.error)?;
    sync_dir(path);
    Ok(())
}

fn written(path: &Path, text: &[u8]) -> io::Result<NamedTempFile> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    crate::config::create_private_dirs(dir)?;
    // Made with mode 0600: nobody else can read it at any instant.
    let mut file = tempfile::Builder::new().prefix(".openclaw-").suffix(".tmp").tempfile_in(dir)?;
    file.write_all(text)?;
    file.as_file().sync_all()?;
    Ok(file)
}

pub(super) fn sync_dir(path: &Path) {
    // Where a directory cannot be synced the rename still stands.
    if let Some(dir) = path.parent() {
        let _best_effort = File::open(dir).and_then(|dir| dir.sync_all());
    }
}
