//! Where log lines go and how they look: stderr, JSON unless it is a terminal.
//!
//! stdout belongs to the one ready line. Every JSON line, a request's included,
//! begins with `ts`, `level` and `msg`. Secrets cannot reach a line: their types
//! have no way to be printed.

use std::fmt;
use std::io::IsTerminal;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{LogConfig, LogFormat};

/// How request lines look; decided once at start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
    /// None at all (`level` is below info).
    Off,
}

/// Sets the process's log up. `verbose` raises the level to debug. Answers how
/// request lines look.
pub fn init(config: &LogConfig, verbose: bool) -> Style {
    let json = match config.format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !std::io::stderr().is_terminal(),
    };
    let level = if verbose { "debug" } else { config.level.as_str() };
    let ours = format!("warn,openclaw={level},openclaw_tailscale={level}");
    let filter = ours.parse().unwrap_or_else(|_| Targets::new().with_default(tracing::Level::INFO));
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let log = tracing_subscriber::registry().with(filter);
    // A second set-up in one process (tests) changes nothing.
    let _ = if json {
        log.with(lines.event_format(JsonLine)).try_init()
    } else {
        let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        log.with(lines.with_target(false).with_timer(Now).with_ansi(colour)).try_init()
    };
    match level {
        "error" | "warn" => Style::Off,
        _ if json => Style::Json,
        _ => Style::Text,
    }
}

/// UTC, RFC 3339, to the millisecond.
pub fn timestamp() -> String {
    format!("{:.3}", jiff::Timestamp::now())
}

/// An error with all of its causes: what the operator's log gets.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

struct Now;

impl FormatTime for Now {
    fn format_time(&self, out: &mut Writer<'_>) -> fmt::Result {
        out.write_str(&timestamp())
    }
}

struct JsonLine;

impl<S, N> FormatEvent<S, N> for JsonLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let level = event.metadata().level().as_str().to_ascii_lowercase();
        let msg = Value::from(fields.message);
        write!(out, "{{\"ts\":\"{}\",\"level\":\"{level}\",\"msg\":{msg}", timestamp())?;
        for (name, value) in &fields.rest {
            write!(out, ",{}:{value}", Value::from(name.as_str()))?;
        }
        writeln!(out, "}}")
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    rest: Map<String, Value>,
}

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.message = text,
            ("message", value) => self.message = value.to_string(),
            (name, value) => {
                self.rest.insert(name.to_owned(), value);
            }
        }
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}").into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_with_colours_is_written_to() {
        // Colours are a feature of the crate that panics where it is left out.
        let subscriber = tracing_subscriber::fmt()
            .with_writer(std::io::sink)
            .with_target(false)
            .with_timer(Now)
            .with_ansi(true)
            .finish();
        tracing::subscriber::with_default(subscriber, || tracing::info!(listen = "127.0.0.1:1", "ready"));
    }
}
