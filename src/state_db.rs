//! What outlives the process: `<state>/state/tailnet-gateway.db`.
//!
//! SQLite, in a directory of its own mode 0700, the file 0600. The name keeps
//! clear of a real OpenClaw's files in the same state directory (rulings 6).

use std::fs::{DirBuilder, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};

use rusqlite::{Connection, params};

use crate::authz::pins::{Pin, PinStore};

mod attendance;
mod funnel;
mod serve_journal;

pub use attendance::{Attendance, is_attended};
pub use serve_journal::read_serve_journal;

/// Why the database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The directory or file cannot be made.
    #[error("{} cannot be created", path.display())]
    Create {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// SQLite refuses it.
    #[error("{} cannot be used as a database", path.display())]
    Sqlite {
        /// Which.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
}

/// The open database.
pub struct StateDb {
    connection: Mutex<Connection>,
    /// SQLite's number for the state other processes left the file in.
    version: AtomicI64,
}

impl StateDb {
    /// Opens or makes the database under a state directory.
    ///
    /// # Errors
    ///
    /// The caller goes on without it, degraded.
    pub fn open(state_dir: &Path) -> Result<Self, StateError> {
        let dir = state_dir.join("state");
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .map_err(|source| StateError::Create { path: dir.clone(), source })?;
        let path = place(state_dir);
        // Made by us first: SQLite would use the umask.
        OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
            .open(&path)
            .map_err(|source| StateError::Create { path: path.clone(), source })?;
        let sqlite = |source| StateError::Sqlite { path: path.clone(), source };
        let connection = Connection::open(&path).map_err(sqlite)?;
        connection
            .execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA busy_timeout = 2000;
                 CREATE TABLE IF NOT EXISTS user_id_pin (
                     tailnet TEXT NOT NULL,
                     login TEXT NOT NULL,
                     user_id INTEGER NOT NULL,
                     first_seen TEXT NOT NULL,
                     PRIMARY KEY (tailnet, login)
                 ) STRICT;
                 CREATE TABLE IF NOT EXISTS serve_mount (
                     node TEXT NOT NULL,
                     host_port TEXT NOT NULL,
                     mount TEXT NOT NULL,
                     target TEXT NOT NULL,
                     session INTEGER NOT NULL,
                     https INTEGER NOT NULL,
                     funnel INTEGER NOT NULL,
                     phase TEXT NOT NULL,
                     changed TEXT NOT NULL,
                     session_id TEXT,
                     PRIMARY KEY (node, host_port, mount, target, session)
                 ) STRICT;",
            )
            .and_then(|()| connection.execute_batch(funnel::TABLE))
            .and_then(|()| serve_journal::complete(&connection))
            .map_err(sqlite)?;
        let version = AtomicI64::new(data_version(&connection).unwrap_or(0));
        Ok(Self { connection: Mutex::new(connection), version })
    }

    /// Whether another process has written since this was last asked.
    pub fn was_changed(&self) -> bool {
        let now = data_version(&self.connection.lock().unwrap_or_else(PoisonError::into_inner));
        now.is_none_or(|now| self.version.swap(now, Ordering::Relaxed) != now)
    }

    /// Every pin: tailnet, lower-cased login, user id.
    ///
    /// # Errors
    ///
    /// A sentence for the log.
    pub fn pins(&self) -> Result<Vec<Pin>, String> {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let mut statement = connection
            .prepare("SELECT tailnet, login, user_id FROM user_id_pin")
            .map_err(|error| error.to_string())?;
        let rows = statement
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .map_err(|error| error.to_string())?;
        rows.collect::<Result<_, _>>().map_err(|error| error.to_string())
    }

    /// Forgets whom a login belonged to, on every tailnet (`access unpin`). How
    /// many pins there were.
    ///
    /// # Errors
    ///
    /// A sentence for the person who asked.
    pub fn unpin(&self, login: &str) -> Result<usize, String> {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        connection
            .execute("DELETE FROM user_id_pin WHERE login = ?1", params![login.to_ascii_lowercase()])
            .map_err(|error| error.to_string())
    }
}

/// The database of a state directory.
fn place(state_dir: &Path) -> PathBuf {
    state_dir.join("state").join("tailnet-gateway.db")
}

/// Pins go to the database when there is one.
impl PinStore for Option<StateDb> {
    fn remember(&self, tailnet: &str, login: &str, user_id: i64) -> Result<(), String> {
        let Some(db) = self else { return Err("there is no state database".into()) };
        let connection = db.connection.lock().unwrap_or_else(PoisonError::into_inner);
        connection
            .execute(
                "INSERT OR IGNORE INTO user_id_pin (tailnet, login, user_id, first_seen) VALUES (?1, ?2, ?3, ?4)",
                params![tailnet, login, user_id, jiff::Timestamp::now().to_string()],
            )
            .map(|_| ())
            .map_err(|error| error.to_string())
    }

    fn changed(&self) -> Option<Vec<Pin>> {
        let db = self.as_ref()?;
        let now = data_version(&db.connection.lock().unwrap_or_else(PoisonError::into_inner))?;
        if db.version.load(Ordering::Relaxed) == now {
            return None;
        }
        let pins = db.pins();
        if pins.is_ok() {
            db.version.store(now, Ordering::Relaxed);
        }
        pins.map_err(|error| tracing::error!(error, "the pinned user ids cannot be read")).ok()
    }
}

/// Changes only when another connection wrote.
fn data_version(connection: &Connection) -> Option<i64> {
    connection.pragma_query_value(None, "data_version", |row| row.get(0)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn pins_survive_and_the_first_id_stays() {
        let home = tempfile::tempdir().unwrap();
        let db = Some(StateDb::open(home.path()).unwrap());
        db.remember("t", "alice@example.com", 1).unwrap();
        db.remember("t", "alice@example.com", 7).unwrap();
        drop(db);
        let db = StateDb::open(home.path()).unwrap();
        assert_eq!(db.pins().unwrap(), vec![("t".into(), "alice@example.com".into(), 1)]);
        assert_eq!(db.unpin("Alice@example.com").unwrap(), 1);
        assert!(db.pins().unwrap().is_empty());
    }

    #[test]
    fn what_another_process_unpinned_is_noticed() {
        let home = tempfile::tempdir().unwrap();
        let ours = Some(StateDb::open(home.path()).unwrap());
        ours.remember("t", "alice@example.com", 1).unwrap();
        assert_eq!(ours.changed(), None, "our own writes are no news");
        StateDb::open(home.path()).unwrap().unpin("alice@example.com").unwrap();
        assert_eq!(ours.changed(), Some(Vec::new()));
        assert_eq!(ours.changed(), None);
    }

    #[test]
    fn threat_093_the_file_is_ours_alone_from_the_start() {
        let home = tempfile::tempdir().unwrap();
        let _db = StateDb::open(home.path()).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&home.path().join("state")), 0o700);
        assert_eq!(mode(&home.path().join("state/tailnet-gateway.db")), 0o600);
    }
}
