//! Everything a command prints goes through here: results to stdout, the rest to
//! stderr, no colour. A reader that has gone away is no failure.

use std::io::{Write, stderr, stdout};

use serde_json::{Value, json};

/// A line of the result.
pub fn line(text: &str) {
    let _reader_gone = writeln!(stdout().lock(), "{text}");
}

/// JSON as the result, indented by 2.
pub fn json(value: &Value) {
    line(&format!("{value:#}"));
}

/// What went wrong.
pub fn error(text: &str) {
    let _reader_gone = writeln!(stderr().lock(), "{text}");
}

/// What the user should know although it worked.
pub fn warning(text: &str) {
    error(&format!("warning: {text}"));
}

/// A failure: text on stderr, or as JSON on stdout where JSON was asked for.
pub fn failure(as_json: bool, message: &str) {
    if as_json {
        json(&json!({"ok": false, "error": {"type": "cli_error", "message": message}}));
    } else {
        error(&format!("openclaw: {message}"));
    }
}
