//! Counting requests, and the text that a Prometheus reads (OpenMetrics 1.0).
//!
//! Each worker counts in a place of its own, so that counting costs a request two
//! plain memory accesses; the places are added up when somebody asks.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use crate::domain::Reason;

/// The content type of [`render`]'s text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The requests of one worker, by reason. Only that worker writes.
pub struct WorkerCounts {
    fine: AtomicU64,
    by_reason: Vec<AtomicU64>,
}

impl WorkerCounts {
    /// Counts one. `None`: it was answered by the app or by ourselves as asked.
    pub fn count(&self, reason: Option<Reason>) {
        let place = match reason {
            None => &self.fine,
            Some(reason) => match self.by_reason.get(reason as usize) {
                Some(place) => place,
                None => return,
            },
        };
        // One writer: no lost updates, and no locked instruction.
        place.store(place.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }
}

/// The counts of all workers.
#[derive(Default)]
pub struct Counts {
    workers: Mutex<Vec<Arc<WorkerCounts>>>,
}

impl Counts {
    /// A place for one more worker.
    pub fn worker(&self) -> Arc<WorkerCounts> {
        let by_reason = Reason::ALL.iter().map(|_| AtomicU64::new(0)).collect();
        let counts = Arc::new(WorkerCounts { fine: AtomicU64::new(0), by_reason });
        self.workers.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&counts));
        counts
    }

    /// How many requests ended how, those that never did left out.
    fn totals(&self) -> Vec<(&'static str, u64)> {
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        let sum = |of: &dyn Fn(&WorkerCounts) -> u64| workers.iter().map(|worker| of(worker)).sum::<u64>();
        let mut totals = vec![("ok", sum(&|worker| worker.fine.load(Ordering::Relaxed)))];
        for reason in Reason::ALL {
            let count = sum(&|worker| {
                worker.by_reason.get(*reason as usize).map_or(0, |place| place.load(Ordering::Relaxed))
            });
            if count > 0 {
                totals.push((reason.code(), count));
            }
        }
        totals
    }
}

/// What is told besides the counts.
pub struct Seen<'a> {
    /// Our version.
    pub version: &'a str,
    /// When the process started.
    pub started: SystemTime,
    /// Whether every configured way in works.
    pub ready: bool,
    /// The codes of what does not.
    pub faults: Vec<&'static str>,
    /// The codes of what will not go on working.
    pub warnings: Vec<&'static str>,
    /// Whether Tailscale runs.
    pub tailscale: bool,
    /// The certificate in use: where it is from, and from when to when it is valid.
    pub certificate: Option<(&'static str, SystemTime, SystemTime)>,
}

/// The text. No name, address or path of anybody's is in it: every label is one of a
/// few words of ours.
pub fn render(seen: &Seen<'_>, counts: &Counts) -> String {
    let mut text = String::new();
    let mut family = |name: &str, kind: &str, unit: &str, help: &str, samples: &[(String, f64)]| {
        let _ = writeln!(text, "# TYPE openclaw_{name} {kind}");
        if !unit.is_empty() {
            let _ = writeln!(text, "# UNIT openclaw_{name} {unit}");
        }
        let _ = writeln!(text, "# HELP openclaw_{name} {help}");
        let suffix = match kind {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        for (labels, value) in samples {
            let _ = writeln!(text, "openclaw_{name}{suffix}{labels} {value}");
        }
    };
    let one = |value: f64| vec![(String::new(), value)];
    let of = |name: &str, labels: &[&'static str]| -> Vec<(String, f64)> {
        labels.iter().map(|label| (format!("{{{name}=\"{label}\"}}"), 1.0)).collect()
    };
    let bit = |yes: bool| if yes { 1.0 } else { 0.0 };
    let build = vec![(format!("{{version=\"{}\"}}", seen.version), 1.0)];
    family("build", "info", "", "The program.", &build);
    family(
        "start_time_seconds",
        "gauge",
        "seconds",
        "When it started, since 1970.",
        &one(unix(seen.started)),
    );
    family("ready", "gauge", "", "Whether every configured way in works.", &one(bit(seen.ready)));
    family("fault", "gauge", "", "What does not work, by code.", &of("code", &seen.faults));
    family("warning", "gauge", "", "What will not go on working, by code.", &of("code", &seen.warnings));
    family("tailscale_running", "gauge", "", "Whether Tailscale runs.", &one(bit(seen.tailscale)));
    let certificate = |at: fn(&(&'static str, SystemTime, SystemTime)) -> SystemTime| {
        let sample = seen.certificate.as_ref();
        sample.map(|it| (format!("{{source=\"{}\"}}", it.0), unix(at(it)))).into_iter().collect::<Vec<_>>()
    };
    let (from, until) = (certificate(|it| it.1), certificate(|it| it.2));
    family("certificate_not_before_seconds", "gauge", "seconds", "From when it is valid, since 1970.", &from);
    family(
        "certificate_not_after_seconds",
        "gauge",
        "seconds",
        "Until when it is valid, since 1970.",
        &until,
    );
    let requests: Vec<(String, f64)> = counts
        .totals()
        .into_iter()
        .map(|(reason, count)| (format!("{{reason=\"{reason}\"}}"), precise(count)))
        .collect();
    family(
        "requests",
        "counter",
        "",
        "Requests by how they ended; ok, or the code of the answer.",
        &requests,
    );
    text.push_str("# EOF\n");
    text
}

/// Seconds since 1970.
fn unix(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |since| precise(since.as_secs()))
}

/// Exact up to 2^53.
#[expect(clippy::cast_precision_loss, reason = "no count or time comes near 2^53")]
fn precise(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_place_of_its_own() {
        for (index, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index, "{}", reason.code());
        }
    }

    #[test]
    fn counts_of_all_workers_are_added_up() {
        let counts = Counts::default();
        let (one, two) = (counts.worker(), counts.worker());
        one.count(None);
        two.count(None);
        two.count(Some(Reason::TokenMissing));
        assert_eq!(counts.totals(), [("ok", 2), ("token_missing", 1)]);
        let seen = Seen {
            version: "1.2.3",
            started: SystemTime::UNIX_EPOCH,
            ready: false,
            faults: vec!["whois_unavailable"],
            warnings: Vec::new(),
            tailscale: true,
            certificate: Some(("self", SystemTime::UNIX_EPOCH, SystemTime::UNIX_EPOCH)),
        };
        let text = render(&seen, &counts);
        for line in [
            "openclaw_build_info{version=\"1.2.3\"} 1",
            "openclaw_ready 0",
            "openclaw_fault{code=\"whois_unavailable\"} 1",
            "openclaw_certificate_not_after_seconds{source=\"self\"} 0",
            "openclaw_requests_total{reason=\"ok\"} 2",
            "openclaw_requests_total{reason=\"token_missing\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert!(text.ends_with("# EOF\n") && !text.contains("\n\n"));
    }
}
