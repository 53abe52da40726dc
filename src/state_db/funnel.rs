//! What is open to the internet, or about to be: the table `funnel_grant`.
//!
//! The command writes what is asked for, the gateway what became of it. Every change
//! names the phase that it starts from, so that two who act at once cannot undo each
//! other's word: an end that was asked for stays asked for.

use std::sync::PoisonError;

use rusqlite::{Connection, Row, params};

use super::StateDb;
use crate::domain::{BootMoment, FunnelAsk, FunnelPhase, FunnelRefusal, FunnelRow, FunnelSite};

pub(super) const TABLE: &str = "CREATE TABLE IF NOT EXISTS funnel_grant (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    path TEXT NOT NULL,
    port INTEGER NOT NULL,
    open INTEGER NOT NULL,
    phase TEXT NOT NULL,
    host TEXT,
    url TEXT,
    route TEXT,
    reason TEXT,
    fix TEXT,
    by TEXT NOT NULL,
    since INTEGER NOT NULL,
    opened_at INTEGER,
    until INTEGER,
    boot TEXT,
    boot_until INTEGER
) STRICT;";

const COLUMNS: &str = "id, path, port, open, phase, host, url, route, reason, fix, by, since, opened_at, until, boot, boot_until";

type Done<T> = Result<T, String>;

impl StateDb {
    /// Asks for an opening. Its number.
    ///
    /// # Errors
    ///
    /// A sentence for the person who asked, as in every function here.
    pub fn funnel_ask(&self, ask: &FunnelAsk, by: &str, now: i64) -> Done<i64> {
        self.with(|connection| {
            connection.execute(
                "INSERT INTO funnel_grant (path, port, open, phase, by, since) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![ask.path.as_str(), ask.port, ask.open, FunnelPhase::Asked.as_str(), by, now],
            )?;
            Ok(connection.last_insert_rowid())
        })
    }

    /// Every opening, in the order in which they were asked for. One that cannot be
    /// read grants nothing: it is left out, and the log says so.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn funnel_rows(&self) -> Done<Vec<FunnelRow>> {
        let rows: Vec<(i64, Option<FunnelRow>)> = self.with(|connection| {
            let mut statement =
                connection.prepare_cached(&format!("SELECT {COLUMNS} FROM funnel_grant ORDER BY id"))?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, read(row).ok().flatten())))?;
            rows.collect()
        })?;
        let read = rows.into_iter().filter_map(|(id, row)| {
            if row.is_none() {
                tracing::error!(id, "a Funnel grant in the state database cannot be read; it opens nothing");
            }
            row
        });
        Ok(read.collect())
    }

    /// The gateway's answer: where it would be. False where the row has moved on.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn funnel_ready(&self, id: i64, site: &FunnelSite, now: i64) -> Done<bool> {
        self.with(|connection| {
            connection.execute(
                "UPDATE funnel_grant SET phase = 'ready', host = ?2, url = ?3, route = ?4, since = ?5
                 WHERE id = ?1 AND phase = 'asked'",
                params![id, site.host, site.url, site.route.as_str(), now],
            )
        })
        .map(|changed| changed > 0)
    }

    /// The command's word that the address was announced: publish it, until then.
    /// False where the row has moved on, or is gone.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn funnel_confirm(
        &self,
        id: i64,
        now: i64,
        until: Option<i64>,
        boot_until: Option<&BootMoment>,
    ) -> Done<bool> {
        self.with(|connection| {
            connection.execute(
                "UPDATE funnel_grant SET phase = 'confirmed', since = ?2, opened_at = ?2, until = ?3,
                 boot = ?4, boot_until = ?5 WHERE id = ?1 AND phase = 'ready'",
                params![
                    id,
                    now,
                    until,
                    boot_until.map(|moment| moment.boot.as_str()),
                    boot_until.map(|moment| moment.seconds)
                ],
            )
        })
        .map(|changed| changed > 0)
    }

    /// It is published. It replaces what was opened before at the same place.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn funnel_opened(&self, row: &FunnelRow, now: i64) -> Done<bool> {
        self.with(|connection| {
            let changed = connection.execute(
                "UPDATE funnel_grant SET phase = 'open', since = ?2 WHERE id = ?1 AND phase = 'confirmed'",
                params![row.id, now],
            )?;
            if changed > 0 {
                connection.execute(
                    "DELETE FROM funnel_grant WHERE id < ?1 AND phase = 'open' AND path = ?2 AND port = ?3",
                    params![row.id, row.ask.path.as_str(), row.ask.port],
                )?;
            }
            Ok(changed > 0)
        })
    }

    /// It is not possible, or no more. An end that was asked for stays.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn funnel_refuse(&self, id: i64, refusal: &FunnelRefusal, now: i64) -> Done<bool> {
        self.with(|connection| {
            connection.execute(
                "UPDATE funnel_grant SET phase = 'refused', reason = ?2, fix = ?3, since = ?4
                 WHERE id = ?1 AND phase <> 'closing'",
                params![id, refusal.reason, refusal.fix, now],
            )
        })
        .map(|changed| changed > 0)
    }

    /// Asks for an end.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn funnel_close(&self, id: i64, now: i64) -> Done<bool> {
        self.with(|connection| {
            connection.execute(
                "UPDATE funnel_grant SET phase = 'closing', since = ?2 WHERE id = ?1",
                params![id, now],
            )
        })
        .map(|changed| changed > 0)
    }

    /// Strikes it.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn funnel_forget(&self, id: i64) -> Done<bool> {
        self.with(|connection| connection.execute("DELETE FROM funnel_grant WHERE id = ?1", params![id]))
            .map(|changed| changed > 0)
    }

    fn with<T>(&self, act: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Done<T> {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        act(&connection).map_err(|error| error.to_string())
    }
}

/// `None` where it has the shape but not the words of an opening.
fn read(row: &Row<'_>) -> rusqlite::Result<Option<FunnelRow>> {
    let text = |at| row.get::<_, Option<String>>(at);
    let (path, phase) = (row.get::<_, String>(1)?, row.get::<_, String>(4)?);
    let (host, url, route) = (text(5)?, text(6)?, text(7)?);
    let site = match (host, url, route) {
        (Some(host), Some(url), Some(route)) => match route.parse() {
            Ok(route) => Some(FunnelSite { host, url, route }),
            Err(_) => return Ok(None),
        },
        _ => None,
    };
    let (Ok(path), Some(phase)) = (path.parse(), FunnelPhase::parse(&phase)) else { return Ok(None) };
    let (opened_at, until): (Option<i64>, Option<i64>) = (row.get(12)?, row.get(13)?);
    let boot_until = match (text(14)?, row.get::<_, Option<i64>>(15)?) {
        (Some(boot), Some(seconds)) => Some(BootMoment { boot, seconds }),
        _ => None,
    };
    let live = matches!(phase, FunnelPhase::Confirmed | FunnelPhase::Open);
    if live && (site.is_none() || opened_at.is_none()) {
        return Ok(None);
    }
    let fix = text(9)?;
    Ok(Some(FunnelRow {
        id: row.get(0)?,
        ask: FunnelAsk { path, port: row.get(2)?, open: row.get(3)? },
        phase,
        site,
        refusal: text(8)?.map(|reason| FunnelRefusal { reason, fix }),
        by: row.get(10)?,
        since: row.get(11)?,
        opened_at,
        until,
        boot_until,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask() -> FunnelAsk {
        FunnelAsk { path: "/hook".parse().unwrap(), port: 443, open: false }
    }

    fn site() -> FunnelSite {
        let url = "https://gw.example.ts.net/hook".to_owned();
        FunnelSite { host: "gw.example.ts.net".into(), url, route: "hooks".parse().unwrap() }
    }

    fn db() -> (tempfile::TempDir, StateDb) {
        let home = tempfile::tempdir().unwrap();
        let db = StateDb::open(home.path()).unwrap();
        (home, db)
    }

    fn phases(db: &StateDb) -> Vec<FunnelPhase> {
        db.funnel_rows().unwrap().iter().map(|row| row.phase).collect()
    }

    #[test]
    fn nothing_is_skipped_on_the_way_to_open() {
        let (_home, db) = db();
        let id = db.funnel_ask(&ask(), "uid 0", 10).unwrap();
        assert!(!db.funnel_confirm(id, 11, None, None).unwrap(), "the address was not announced");
        let row = db.funnel_rows().unwrap().remove(0);
        assert!(!db.funnel_opened(&row, 11).unwrap());
        assert!(db.funnel_ready(id, &site(), 11).unwrap());
        assert!(!db.funnel_ready(id, &site(), 11).unwrap());
        let moment = BootMoment { boot: "b".into(), seconds: 77 };
        assert!(db.funnel_confirm(id, 12, Some(100), Some(&moment)).unwrap());
        assert!(!db.funnel_confirm(id, 13, None, None).unwrap(), "a second word changes no end");
        assert!(db.funnel_opened(&row, 14).unwrap());
        let row = db.funnel_rows().unwrap().remove(0);
        assert_eq!((row.ask.clone(), row.site.clone()), (ask(), Some(site())));
        assert_eq!((row.opened_at, row.until, row.boot_until), (Some(12), Some(100), Some(moment)));
    }

    #[test]
    fn an_end_that_was_asked_for_stays_asked_for() {
        let (_home, db) = db();
        let id = db.funnel_ask(&ask(), "uid 0", 10).unwrap();
        db.funnel_ready(id, &site(), 11).unwrap();
        db.funnel_confirm(id, 12, None, None).unwrap();
        let row = db.funnel_rows().unwrap().remove(0);
        db.funnel_close(id, 13).unwrap();
        assert!(!db.funnel_opened(&row, 14).unwrap());
        let refusal = FunnelRefusal { reason: "no".into(), fix: None };
        assert!(!db.funnel_refuse(id, &refusal, 14).unwrap());
        assert_eq!(phases(&db), [FunnelPhase::Closing]);
        assert!(db.funnel_forget(id).unwrap());
        assert!(!db.funnel_forget(id).unwrap());
    }

    #[test]
    fn a_later_opening_of_the_same_place_replaces_the_earlier() {
        let (_home, db) = db();
        let open = |ask: &FunnelAsk| {
            let id = db.funnel_ask(ask, "uid 0", 10).unwrap();
            db.funnel_ready(id, &site(), 11).unwrap();
            db.funnel_confirm(id, 12, None, None).unwrap();
            let row = db.funnel_rows().unwrap().into_iter().find(|row| row.id == id).unwrap();
            db.funnel_opened(&row, 13).unwrap();
            id
        };
        open(&ask());
        let other = open(&FunnelAsk { port: 8443, ..ask() });
        let later = open(&ask());
        let ids: Vec<i64> = db.funnel_rows().unwrap().iter().map(|row| row.id).collect();
        assert_eq!(ids, [other, later]);
    }

    #[test]
    fn a_row_that_cannot_be_read_opens_nothing_and_hides_nothing() {
        let (home, db) = db();
        db.funnel_ask(&ask(), "uid 0", 10).unwrap();
        let connection = Connection::open(home.path().join("state/tailnet-gateway.db")).unwrap();
        for (path, phase, port) in
            [("/../x", "open", 443), ("/x", "OPEN", 443), ("/x", "open", 443), ("/x", "asked", 70_000)]
        {
            connection
                .execute(
                    "INSERT INTO funnel_grant (path, port, open, phase, by, since) VALUES (?1, ?2, 1, ?3, 'x', 1)",
                    params![path, port, phase],
                )
                .unwrap();
        }
        assert_eq!(phases(&db), [FunnelPhase::Asked]);
    }
}
