//! `openclaw access`: who a login is taken for.

use clap::{Args, Subcommand};

use super::{Exit, output};
use crate::config::{Env, Paths};
use crate::state_db::StateDb;

/// `openclaw access`.
#[derive(Args)]
pub(super) struct AccessArgs {
    #[command(subcommand)]
    command: AccessCommand,
}

#[derive(Subcommand)]
enum AccessCommand {
    /// Forget which user a login belonged to, after an account was made anew
    Unpin {
        /// The login
        login: String,
    },
}

pub(super) fn run(args: AccessArgs, env: &Env) -> Exit {
    let AccessCommand::Unpin { login } = args.command;
    let done = Paths::locate(None, env)
        .map_err(|error| error.to_string())
        .and_then(|paths| StateDb::open(&paths.state_dir).map_err(|error| crate::telemetry::chain(&error)))
        .and_then(|db| db.unpin(&login));
    match done {
        Ok(0) => {
            output::error(&format!("openclaw: nobody is pinned to {}", login.escape_debug()));
            Exit::Failure
        }
        Ok(_) => {
            output::line(&format!(
                "Unpinned {}. The next user with this login who is let in is pinned anew.",
                login.escape_debug()
            ));
            Exit::Ok
        }
        Err(error) => {
            output::error(&format!("openclaw: {error}"));
            Exit::Failure
        }
    }
}
