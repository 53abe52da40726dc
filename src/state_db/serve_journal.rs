//! What Serve publishes for us, in the state database.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::PoisonError;

use rusqlite::{Connection, OpenFlags, Row, params};

use super::StateDb;
use crate::serve::journal::{Entry, Journal, Phase};

/// The journal of a state directory, for whoever only looks: no file is made and no row
/// changed. Empty where there is no database.
///
/// # Errors
///
/// A sentence for the operator: it cannot be read.
pub fn read_serve_journal(state_dir: &Path) -> Result<Vec<Entry>, String> {
    let path = super::place(state_dir);
    // What is no plain file might never answer.
    for name in [path.clone(), path.with_extension("db-wal"), path.with_extension("db-shm")] {
        match std::fs::symlink_metadata(&name) {
            Ok(meta) if meta.is_file() => {}
            Err(error) if error.kind() == ErrorKind::NotFound && name == path => return Ok(Vec::new()),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Ok(_) => return Err(format!("{} is no plain file", name.display())),
            Err(error) => return Err(format!("{}: {error}", name.display())),
        }
    }
    // Without a log beside it nobody has it open, and nothing of it lies elsewhere: then
    // SQLite need not make one.
    let is_whole = !path.with_extension("db-wal").exists();
    let text = path.to_str().ok_or("the state directory's path is no text")?;
    let escaped: String = text
        .chars()
        .map(|c| if "%?#".contains(c) { format!("%{:02x}", c as u32) } else { c.to_string() })
        .collect();
    let uri = format!("file:{escaped}?mode=ro{}", if is_whole { "&immutable=1" } else { "" });
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    let read = || {
        let connection = Connection::open_with_flags(uri, flags)?;
        connection.pragma_update(None, "busy_timeout", 2000)?;
        entries_in(&connection)
    };
    read().map_err(|error| format!("{}: {error}", path.display()))
}

/// Adds what a table of an earlier build lacks.
pub(super) fn complete(connection: &Connection) -> rusqlite::Result<()> {
    match connection.prepare("SELECT session_id FROM serve_mount") {
        Ok(_) => Ok(()),
        Err(_) => connection.execute_batch("ALTER TABLE serve_mount ADD COLUMN session_id TEXT"),
    }
}

fn entries_in(connection: &Connection) -> rusqlite::Result<Vec<Entry>> {
    let mut statement = connection.prepare(
        "SELECT node, host_port, mount, target, session, https, funnel, phase, session_id FROM serve_mount",
    )?;
    statement.query_map([], entry)?.collect()
}

impl Journal for StateDb {
    fn entries(&self) -> Result<Vec<Entry>, String> {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        entries_in(&connection).map_err(|error| error.to_string())
    }

    fn put(&self, entry: &Entry) -> Result<(), String> {
        self.durably(|connection| {
            connection.execute(
                "INSERT INTO serve_mount (node, host_port, mount, target, session, https, funnel, phase, changed, session_id)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
                 ON CONFLICT (node, host_port, mount, target, session)
                 DO UPDATE SET https = ?6, funnel = ?7, phase = ?8, changed = ?9, session_id = ?10",
                params![
                    entry.node,
                    entry.host_port.to_ascii_lowercase(),
                    entry.mount,
                    entry.target,
                    entry.session,
                    entry.https,
                    entry.funnel,
                    entry.phase.as_str(),
                    jiff::Timestamp::now().to_string(),
                    entry.session_id
                ],
            )
        })
    }

    fn strike(&self, entry: &Entry) -> Result<(), String> {
        self.durably(|connection| {
            connection.execute(
                "DELETE FROM serve_mount
                 WHERE node = ?1 AND host_port = ?2 AND mount = ?3 AND target = ?4 AND session = ?5",
                params![
                    entry.node,
                    entry.host_port.to_ascii_lowercase(),
                    entry.mount,
                    entry.target,
                    entry.session
                ],
            )
        })
    }
}

impl StateDb {
    /// A write that a power cut does not undo: what the daemon publishes outlives one, too.
    fn durably(&self, write: impl FnOnce(&Connection) -> rusqlite::Result<usize>) -> Result<(), String> {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let written = connection
            .pragma_update(None, "synchronous", "FULL")
            .and_then(|()| write(&connection))
            .map(|_| ())
            .map_err(|error| error.to_string());
        let _ = connection.pragma_update(None, "synchronous", "NORMAL");
        written
    }
}

fn entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    let phase: String = row.get(7)?;
    Ok(Entry {
        node: row.get(0)?,
        host_port: row.get(1)?,
        mount: row.get(2)?,
        target: row.get(3)?,
        session: row.get(4)?,
        session_id: row.get(8)?,
        https: row.get(5)?,
        funnel: row.get(6)?,
        // A word of a later version: it may be there or not, and is ours either way.
        phase: Phase::parse(&phase).unwrap_or(Phase::Intended),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        Entry {
            node: "nGw".into(),
            host_port: "gw.tailnet-example.ts.net:443".into(),
            mount: "/".into(),
            target: "unix:/run/openclaw/serve.sock".into(),
            https: true,
            session: false,
            session_id: None,
            funnel: false,
            phase: Phase::Intended,
        }
    }

    #[test]
    fn an_entry_lives_through_its_phases_and_a_new_process() {
        let home = tempfile::tempdir().unwrap();
        let db = StateDb::open(home.path()).unwrap();
        db.put(&entry()).unwrap();
        for phase in [Phase::Placed, Phase::Removing] {
            db.put(&entry().in_phase(phase)).unwrap();
        }
        let moved = Entry {
            target: "unix:/elsewhere".into(),
            session: true,
            session_id: Some("1f".into()),
            ..entry()
        };
        db.put(&moved).unwrap();
        drop(db);
        let db = StateDb::open(home.path()).unwrap();
        assert_eq!(db.entries().unwrap(), [entry().in_phase(Phase::Removing), moved.clone()]);
        db.strike(&entry()).unwrap();
        db.strike(&entry()).unwrap();
        assert_eq!(db.entries().unwrap(), [moved]);
    }

    #[test]
    fn whoever_only_looks_sees_the_same_and_makes_nothing() {
        let home = tempfile::tempdir().unwrap();
        let files = || {
            let mut files: Vec<_> = std::fs::read_dir(home.path().join("state"))
                .unwrap()
                .map(|entry| entry.unwrap().file_name())
                .collect();
            files.sort();
            files
        };
        assert_eq!(read_serve_journal(home.path()), Ok(Vec::new()));
        assert!(!home.path().join("state").exists());
        let db = StateDb::open(home.path()).unwrap();
        db.put(&entry()).unwrap();
        let before = files();
        assert_eq!(read_serve_journal(home.path()).unwrap(), [entry()], "while somebody writes");
        assert_eq!(files(), before);
        drop(db);
        let before = files();
        assert_eq!(read_serve_journal(home.path()).unwrap(), [entry()], "afterwards");
        assert_eq!(files(), before);
    }

    #[test]
    fn a_table_of_an_earlier_build_is_completed() {
        let home = tempfile::tempdir().unwrap();
        let db = StateDb::open(home.path()).unwrap();
        db.put(&entry()).unwrap();
        db.connection
            .lock()
            .unwrap()
            .execute_batch("ALTER TABLE serve_mount DROP COLUMN session_id")
            .unwrap();
        drop(db);
        assert_eq!(StateDb::open(home.path()).unwrap().entries().unwrap(), [entry()]);
    }

    #[test]
    fn what_is_no_database_is_not_read() {
        let home = tempfile::tempdir().unwrap();
        drop(StateDb::open(home.path()).unwrap());
        let path = home.path().join("state/tailnet-gateway.db");
        std::fs::write(&path, "no database").unwrap();
        assert!(read_serve_journal(home.path()).is_err());
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
        assert!(read_serve_journal(home.path()).unwrap_err().contains("no plain file"));
    }

    #[test]
    fn without_a_database_nothing_can_be_written_down() {
        let none: Option<StateDb> = None;
        assert_eq!(none.entries(), Ok(Vec::new()));
        assert!(none.put(&entry()).is_err());
        assert!(none.strike(&entry()).is_ok());
    }
}
