//! Where log lines go and how they look: stderr, JSON unless it is a terminal.
//!
//! stdout belongs to the one ready line. Secrets cannot reach a line: their types
//! have no way to be printed.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

use crate::config::{LogConfig, LogFormat};
use crate::edge::request_log::Style;

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
    let filter = EnvFilter::try_new(ours).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = fmt().with_writer(std::io::stderr).with_env_filter(filter).with_target(false);
    // A second set-up in one process (tests) changes nothing.
    let _ = if json {
        builder.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init()
    } else {
        builder
            .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
            .try_init()
    };
    match level {
        "error" | "warn" => Style::Off,
        _ if json => Style::Json,
        _ => Style::Text,
    }
}
