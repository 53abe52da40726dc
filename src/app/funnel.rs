//! What is open to the internet: reads what is asked for, answers, and takes it back.
//!
//! A request is compared with the clock by itself. What runs here is the rest: the rows of
//! the state database one step further each half second, the snapshot that the workers
//! look at, and the ports that Serve is to open.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::config::{Config, TailscaleMode};
use crate::domain::{FunnelGrants, FunnelPhase, FunnelRow, Now};
use crate::edge::{Shared, unix_now};
use crate::funnel::{Publication, Verdict, World, advance, boot_now, bound};
use crate::readiness::{Fault, OpenFunnel, Readiness};
use crate::state_db::{Attendance, StateDb};

/// How often the rows are looked at.
pub(super) const GLANCE: Duration = Duration::from_millis(500);
/// After how many looks that failed nothing is open any more: an end that was asked for
/// could not be seen.
const BLIND: u32 = 6;
/// A way in that is configured and does not work.
const NOT_OPEN: &str = "funnel_not_open";

/// The openings of this state directory.
pub(super) struct Funnel {
    state_dir: PathBuf,
    db: Option<StateDb>,
    /// Held by one gateway at a time. Without it nothing is opened here.
    attendance: Option<Attendance>,
    /// Whether it is held, for whoever else keeps to it.
    attended: Arc<AtomicBool>,
    rows: Vec<FunnelRow>,
    bounds: HashMap<i64, Option<Instant>>,
    /// Looks in a row at which the rows could not be read.
    failures: u32,
    waits_said: bool,
}

impl Funnel {
    /// Opens what is kept. What has ended since is struck before anything is served.
    pub(super) fn new(config: &Config) -> Self {
        let db = StateDb::open(&config.state_dir);
        let db = db.map_err(|error| {
            tracing::error!(error = crate::telemetry::chain(&error), "nothing can be opened to the internet");
        });
        Self {
            state_dir: config.state_dir.clone(),
            db: db.ok(),
            attendance: None,
            attended: Arc::default(),
            rows: Vec::new(),
            bounds: HashMap::new(),
            failures: 0,
            waits_said: false,
        }
    }

    /// Whether this gateway, and no other, attends to the state directory.
    pub(super) fn attended(&self) -> Arc<AtomicBool> {
        self.attended.clone()
    }

    /// Looks once. `published` says how Serve gets on with a port. Answers which ports
    /// are to be open.
    pub(super) fn look(&mut self, shared: &Shared, published: &dyn Fn(u16) -> Publication) -> BTreeSet<u16> {
        if !self.attends() {
            return BTreeSet::new();
        }
        self.read();
        let settings = shared.settings.load_full();
        let state = shared.state.load_full();
        let now = Now { unix: unix_now(), instant: Instant::now() };
        for row in &self.rows {
            self.bounds.entry(row.id).or_insert_with(|| bound(row, now, boot_now().as_ref()));
        }
        let world = World { settings: &settings, state: &state, published, now };
        let mut changed = false;
        for row in &self.rows {
            changed |= self.act(row, &advance(row, self.bound(row), &world), now);
        }
        if changed {
            self.read_now();
        }
        self.tell(shared, now);
        report(&self.open(now).collect::<Vec<_>>(), &settings.config, published, &shared.readiness);
        let wanting = self.rows.iter().filter(|row| row.wants_port(self.bound(row), now));
        wanting.map(|row| row.ask.port).collect()
    }

    fn attends(&mut self) -> bool {
        if self.attendance.is_none() {
            match Attendance::take(&self.state_dir) {
                Ok(taken) => self.attendance = taken,
                Err(error) => {
                    tracing::error!(error = %error, "the lock of the state database cannot be taken")
                }
            }
            if self.attendance.is_some() {
                self.attended.store(true, Ordering::Release);
                self.read_now();
            } else if !std::mem::replace(&mut self.waits_said, true) {
                tracing::warn!(
                    "another gateway uses this state directory; Serve and what is opened to the internet are its business"
                );
            }
        }
        self.attendance.is_some()
    }

    fn read(&mut self) {
        if self.failures > 0 || self.db.as_ref().is_some_and(StateDb::was_changed) {
            self.read_now();
        }
    }

    fn read_now(&mut self) {
        let Some(db) = &self.db else { return };
        match db.funnel_rows() {
            Ok(rows) => {
                self.failures = 0;
                self.bounds.retain(|id, _| rows.iter().any(|row| row.id == *id));
                // It is confirmed after it was first seen, and only then has an end.
                for row in rows.iter().filter(|row| row.phase == FunnelPhase::Confirmed) {
                    if self.rows.iter().any(|old| old.id == row.id && old.until != row.until) {
                        self.bounds.remove(&row.id);
                    }
                }
                self.rows = rows;
            }
            Err(error) => {
                self.failures += 1;
                if self.failures == 1 {
                    tracing::error!(error, "what is open to the internet cannot be read");
                }
                if self.failures == BLIND {
                    tracing::error!("nothing is open to the internet any more");
                    self.rows.clear();
                }
            }
        }
    }

    fn bound(&self, row: &FunnelRow) -> Option<Instant> {
        self.bounds.get(&row.id).copied().flatten()
    }

    /// Does what was decided about a row. Whether that changed the database.
    fn act(&self, row: &FunnelRow, verdict: &Verdict, now: Now) -> bool {
        let Some(db) = &self.db else { return false };
        let done = match verdict {
            Verdict::Keep => return false,
            Verdict::Ready(site) => db.funnel_ready(row.id, site, now.unix),
            Verdict::Open => db.funnel_opened(row, now.unix),
            Verdict::Refuse(refusal) => db.funnel_refuse(row.id, refusal, now.unix),
            Verdict::Forget => db.funnel_forget(row.id),
        };
        let url = row.site.as_ref().map(|site| site.url.as_str()).unwrap_or_default();
        match (&done, verdict) {
            (Err(error), _) => tracing::error!(error, "the state of a Funnel could not be written"),
            (Ok(false), _) | (_, Verdict::Ready(_)) => {}
            (_, Verdict::Open) => {
                let until = row.until.map_or_else(|| "for ever".to_owned(), when);
                tracing::warn!(
                    url,
                    until,
                    by = row.by,
                    event = "funnel_opened",
                    "open to the internet: {url}"
                );
            }
            (_, Verdict::Refuse(refusal)) if row.phase == FunnelPhase::Open => tracing::warn!(
                url,
                event = "funnel_closed",
                "not open to the internet any more: {}",
                refusal.reason
            ),
            (_, Verdict::Forget) if matches!(row.phase, FunnelPhase::Open | FunnelPhase::Closing) => {
                tracing::warn!(url, event = "funnel_closed", "not open to the internet any more: {url}");
            }
            _ => {}
        }
        matches!(done, Ok(true))
    }

    /// What is open and has not ended.
    fn open(&self, now: Now) -> impl Iterator<Item = &FunnelRow> {
        self.rows
            .iter()
            .filter(move |row| row.grant(self.bound(row)).is_some_and(|grant| !grant.term.is_over(now)))
    }

    /// Gives the workers what is open now.
    fn tell(&self, shared: &Shared, now: Now) {
        let grants = FunnelGrants(self.open(now).filter_map(|row| row.grant(self.bound(row))).collect());
        if **shared.funnel.load() != grants {
            shared.funnel.store(Arc::new(grants));
        }
    }
}

/// What `/readyz` says of it.
fn report(
    open: &[&FunnelRow],
    config: &Config,
    published: &dyn Fn(u16) -> Publication,
    readiness: &Readiness,
) {
    let funnels = open.iter().filter_map(|row| {
        let url = row.site.as_ref()?.url.clone();
        Some(OpenFunnel { url, until: row.until.map(when), open: row.ask.open })
    });
    readiness.note_funnels(funnels.collect());
    let closed = open.iter().find_map(|row| match published(row.ask.port) {
        Publication::Published => None,
        Publication::Failed(refusal) | Publication::Pending(Some(refusal)) => Some((row, Some(refusal))),
        Publication::Closed | Publication::Pending(None) => Some((row, None)),
    });
    let fault = match closed {
        Some((row, trouble)) => {
            let url = row.site.as_ref().map(|site| site.url.as_str()).unwrap_or_default();
            let why = trouble.as_ref().map(|trouble| format!(": {}", trouble.reason)).unwrap_or_default();
            Some(Fault {
                detail: format!("{url} is not published{why}"),
                fix: trouble.and_then(|trouble| trouble.fix),
            })
        }
        None if open.is_empty() && config.gateway.tailscale.mode == TailscaleMode::Funnel => Some(Fault {
            detail: "gateway.tailscale.mode is funnel, and nothing is open to the internet".into(),
            fix: Some("openclaw funnel --for 2h --path /PATH".into()),
        }),
        None => None,
    };
    let Some(fault) = fault else {
        if readiness.clear(NOT_OPEN) {
            tracing::info!(code = NOT_OPEN, "Funnel is open");
        }
        return;
    };
    let fix = fault.fix.as_deref().map(|fix| format!(" -- to mend it: {fix}")).unwrap_or_default();
    let text = format!("{}{fix}", fault.detail);
    if readiness.fail(NOT_OPEN, fault) {
        tracing::warn!(code = NOT_OPEN, "{text}");
    }
}

/// A moment, as people read it.
fn when(unix: i64) -> String {
    Timestamp::from_second(unix).map_or_else(|_| unix.to_string(), |moment| moment.to_string())
}
