//! `openclaw config get|set|unset|validate|file|schema` (security spec 6).

use std::io::Read;
use std::path::Path;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{Exit, output};
use crate::config::{self, Change, Edit, Env, KeyPath, Lookup, Paths, Problem, StoreError};

/// `openclaw config`.
#[derive(Args)]
pub(super) struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Print what holds for a key; secrets are not shown
    Get(GetArgs),
    /// Change one key
    Set(SetArgs),
    /// Take a key out of the file
    Unset(KeyArgs),
    /// Check the configuration as a start would
    Validate(JsonArgs),
    /// Print where the configuration is
    File(JsonArgs),
    /// Print the JSON Schema of the file
    Schema,
}

#[derive(Args)]
struct GetArgs {
    /// The key, such as gateway.port
    key: KeyPath,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Print where the value comes from, too
    #[arg(long)]
    source: bool,
}

#[derive(Args)]
struct SetArgs {
    /// The key, such as gateway.port
    key: KeyPath,
    /// The value: JSON5, else text
    #[arg(allow_hyphen_values = true, required_unless_present = "stdin")]
    value: Option<String>,
    /// Read the value from standard input, where no other process sees it
    #[arg(long, conflicts_with = "value")]
    stdin: bool,
    /// Take the value as JSON only
    #[arg(long, visible_alias = "json")]
    strict_json: bool,
    /// Allow a route that is open to everybody on the internet
    #[arg(long)]
    open: bool,
}

#[derive(Args)]
struct KeyArgs {
    /// The key, such as gateway.port
    key: KeyPath,
}

#[derive(Args)]
struct JsonArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: ConfigArgs, config: Option<&Path>, env: &Env) -> Exit {
    match args.command {
        ConfigCommand::Get(args) => get(&args, config, env),
        ConfigCommand::Set(args) => set(args, config, env),
        ConfigCommand::Unset(args) => unset(args, config, env),
        ConfigCommand::Validate(args) => validate(&args, config, env),
        ConfigCommand::File(args) => file(&args, config, env),
        ConfigCommand::Schema => {
            output::json(&config::json_schema());
            Exit::Ok
        }
    }
}

fn get(args: &GetArgs, config: Option<&Path>, env: &Env) -> Exit {
    let key = &args.key;
    let (value, source) = match config::lookup(key, config, env) {
        Ok(Lookup::Found { value, source }) => (value, source),
        Ok(Lookup::Unset) => {
            output::failure(args.json, &format!("{key} is not set and has no default"));
            return Exit::Failure;
        }
        Ok(Lookup::Unknown { near }) => {
            let near = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
            let hint = "the keys there are: openclaw config schema";
            output::failure(args.json, &format!("Unknown config path: {key}{near}\n  {hint}"));
            return Exit::Failure;
        }
        Err(error) => {
            output::failure(args.json, &error.to_string());
            return Exit::Failure;
        }
    };
    match (&value, args.json, args.source) {
        (_, true, true) => {
            output::json(&json!({"key": key.to_string(), "value": value, "source": source.to_json()}));
        }
        (Value::String(text), false, _) => output::line(text),
        _ => output::json(&value),
    }
    if args.source && !args.json {
        output::line(&format!("from {source}"));
    }
    Exit::Ok
}

fn set(args: SetArgs, config: Option<&Path>, env: &Env) -> Exit {
    let text = match args.value {
        Some(text) => text,
        None => {
            let mut text = String::new();
            if let Err(error) = std::io::stdin().lock().read_to_string(&mut text) {
                output::failure(false, &format!("standard input cannot be read: {error}"));
                return Exit::Failure;
            }
            text
        }
    };
    let shown = args.key.to_string();
    let edit = Edit::Set { key: args.key, text, strict_json: args.strict_json, open: args.open };
    match config::change(&edit, config, env) {
        Ok(change) => {
            let done =
                if change.changed { format!("Updated {shown}.") } else { format!("No change: {shown}.") };
            report(&shown, &done, &change)
        }
        Err(error) => refused(&error),
    }
}

fn unset(args: KeyArgs, config: Option<&Path>, env: &Env) -> Exit {
    let shown = args.key.to_string();
    match config::change(&Edit::Unset { key: args.key }, config, env) {
        Ok(change) => report(&shown, &format!("Removed {shown}."), &change),
        Err(error) => refused(&error),
    }
}

/// Keys that a running gateway reads at its start only.
const AT_START: &[&str] = &[
    "gateway.port",
    "gateway.bind",
    "gateway.customBindHost",
    "gateway.admin",
    "gateway.tls",
    "gateway.log",
    "gateway.reload",
    "gateway.tailscale",
];

fn report(key: &str, done: &str, change: &Change) -> Exit {
    let takes_effect = if AT_START.iter().any(|prefix| key.starts_with(prefix)) {
        "It takes effect when the gateway is restarted."
    } else {
        "A running gateway takes it up by itself."
    };
    output::line(&if change.changed { format!("{done} {takes_effect}") } else { done.to_owned() });
    if let Some(backup) = change.backup.as_deref().filter(|_| change.comments_lost) {
        output::warning(&format!(
            "the file was rewritten and its comments are gone; as it was: {}",
            backup.display()
        ));
    }
    for warning in &change.warnings {
        output::warning(warning);
    }
    Exit::Ok
}

fn refused(error: &StoreError) -> Exit {
    output::failure(false, &error.to_string());
    Exit::Failure
}

fn validate(args: &JsonArgs, config: Option<&Path>, env: &Env) -> Exit {
    let found = match config::validate(config, env) {
        Ok(found) => found,
        Err(error) => {
            let path = Paths::locate(config, env).map(|paths| paths.config).unwrap_or_default();
            return invalid(args.json, &path, error.problems());
        }
    };
    if !found.exists {
        output::failure(
            args.json,
            &format!(
                "Config file not found: {}\n  the gateway starts with the defaults",
                found.path.display()
            ),
        );
        return Exit::Failure;
    }
    if !found.problems.is_empty() {
        return invalid(args.json, &found.path, &found.problems);
    }
    if args.json {
        output::json(
            &json!({"valid": true, "path": found.path.display().to_string(), "warnings": found.warnings}),
        );
        return Exit::Ok;
    }
    output::line(&format!("Config valid: {}", found.path.display()));
    if !found.warnings.is_empty() {
        output::line(&format!("{} warning(s):", found.warnings.len()));
        for warning in &found.warnings {
            output::line(&format!("! {warning}"));
        }
    }
    Exit::Ok
}

fn invalid(as_json: bool, path: &Path, problems: &[Problem]) -> Exit {
    let headline = format!("OpenClaw config is invalid: {}", path.display());
    if as_json {
        let issues: Vec<_> = problems
            .iter()
            .map(|problem| {
                let file = problem.file.as_ref().map(|file| file.display().to_string());
                json!({"path": problem.key, "message": problem.what, "fix": problem.fix, "file": file})
            })
            .collect();
        let path = path.display().to_string();
        output::json(
            &json!({"ok": false, "error": headline, "valid": false, "path": path, "issues": issues}),
        );
        return Exit::Failure;
    }
    output::error(&headline);
    for problem in problems {
        // The headline names the file already, unless the fault is in a part.
        let mut shown = problem.clone();
        shown.file = shown.file.filter(|file| file != path);
        output::error(&format!("\u{d7} {shown}"));
    }
    Exit::Failure
}

fn file(args: &JsonArgs, config: Option<&Path>, env: &Env) -> Exit {
    match Paths::locate(config, env) {
        Ok(paths) if args.json => output::json(&json!({"path": paths.config.display().to_string()})),
        Ok(paths) => output::line(&paths.config.display().to_string()),
        Err(error) => {
            output::failure(args.json, &error.to_string());
            return Exit::Failure;
        }
    }
    Exit::Ok
}
