//! What Serve publishes for us, in the state database.

use std::sync::PoisonError;

use rusqlite::{Connection, Row, params};

use super::StateDb;
use crate::serve::journal::{Entry, Journal, Phase};

impl Journal for StateDb {
    fn entries(&self) -> Result<Vec<Entry>, String> {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let mut statement = connection
            .prepare("SELECT node, host_port, mount, target, session, https, funnel, phase FROM serve_mount")
            .map_err(|error| error.to_string())?;
        let rows = statement.query_map([], entry).map_err(|error| error.to_string())?;
        rows.collect::<Result<_, _>>().map_err(|error| error.to_string())
    }

    fn put(&self, entry: &Entry) -> Result<(), String> {
        self.durably(|connection| {
            connection.execute(
                "INSERT INTO serve_mount (node, host_port, mount, target, session, https, funnel, phase, changed)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
                 ON CONFLICT (node, host_port, mount, target, session)
                 DO UPDATE SET https = ?6, funnel = ?7, phase = ?8, changed = ?9",
                params![
                    entry.node,
                    entry.host_port.to_ascii_lowercase(),
                    entry.mount,
                    entry.target,
                    entry.session,
                    entry.https,
                    entry.funnel,
                    entry.phase.as_str(),
                    jiff::Timestamp::now().to_string()
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
        let moved = Entry { target: "unix:/elsewhere".into(), ..entry() };
        db.put(&moved).unwrap();
        drop(db);
        let db = StateDb::open(home.path()).unwrap();
        assert_eq!(db.entries().unwrap(), [entry().in_phase(Phase::Removing), moved.clone()]);
        db.strike(&entry()).unwrap();
        db.strike(&entry()).unwrap();
        assert_eq!(db.entries().unwrap(), [moved]);
    }

    #[test]
    fn without_a_database_nothing_can_be_written_down() {
        let none: Option<StateDb> = None;
        assert_eq!(none.entries(), Ok(Vec::new()));
        assert!(none.put(&entry()).is_err());
        assert!(none.strike(&entry()).is_ok());
    }
}
