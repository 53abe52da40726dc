//! `openclaw funnel`: open a path to the internet for a while, see what is open, close it.

mod off;
mod open;
mod status;

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, Subcommand};
use jiff::Timestamp;

use super::{Exit, output};
use crate::config::{Env, Paths};
use crate::domain::RoutePrefix;
use crate::funnel::OpenFor;
use crate::state_db::{StateDb, is_attended};

/// Between two looks at what the gateway answered.
const LOOK: Duration = Duration::from_millis(100);
/// How long the gateway may take for an answer. It takes another minute at most to hear of
/// Tailscale's.
const PATIENCE: Duration = Duration::from_secs(90);

/// `openclaw funnel`.
#[derive(Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    group = ArgGroup::new("how long").args(["for_", "forever"]).required(true)
)]
pub(super) struct FunnelArgs {
    #[command(subcommand)]
    command: Option<FunnelCommand>,
    /// How long it stays open: 30m, 2h, 1h30m, 7d
    #[arg(long = "for", id = "for_", value_name = "DURATION")]
    for_: Option<OpenFor>,
    /// Leave it open until openclaw funnel off
    #[arg(long)]
    forever: bool,
    /// The path to open, as the gateway sees it; everything below it is opened, too
    #[arg(long, value_name = "PATH", required = true)]
    path: Option<RoutePrefix>,
    /// The public port: 443, 8443 or 10000
    #[arg(long, value_name = "PORT", default_value_t = 443)]
    port: u16,
    /// Let everybody in, without token or password: for a route with public "open"
    #[arg(long)]
    open: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Subcommand)]
enum FunnelCommand {
    /// What is open to the internet
    Status {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Close it
    #[command(group = ArgGroup::new("which").args(["path", "all"]).required(true))]
    Off {
        /// What was opened at this path, on every port
        #[arg(long, value_name = "PATH")]
        path: Option<RoutePrefix>,
        /// Everything
        #[arg(long)]
        all: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(args: FunnelArgs, config: Option<PathBuf>, env: &Env) -> Exit {
    let as_json = match &args.command {
        Some(FunnelCommand::Status { json } | FunnelCommand::Off { json, .. }) => *json,
        None => args.json,
    };
    let place = match Place::find(config, env) {
        Ok(place) => place,
        Err(error) => return fail(as_json, &error, None),
    };
    match args.command {
        Some(FunnelCommand::Status { json }) => status::run(&place, json),
        Some(FunnelCommand::Off { path, json, .. }) => off::run(&place, path.as_ref(), json),
        None => open::run(&place, args),
    }
}

/// The state directory and its database.
struct Place {
    state_dir: PathBuf,
    db: StateDb,
}

impl Place {
    fn find(config: Option<PathBuf>, env: &Env) -> Result<Self, String> {
        let paths = Paths::locate(config.as_deref(), env).map_err(|error| error.to_string())?;
        let db = StateDb::open(&paths.state_dir).map_err(|error| crate::telemetry::chain(&error))?;
        Ok(Self { state_dir: paths.state_dir, db })
    }

    /// Whether a gateway runs that does what is asked for here.
    fn is_attended(&self) -> Result<bool, String> {
        is_attended(&self.state_dir)
            .map_err(|error| format!("it cannot be said whether a gateway runs: {error}"))
    }
}

fn fail(as_json: bool, message: &str, fix: Option<&str>) -> Exit {
    let message = match fix {
        Some(fix) => format!("{message}\nTo mend it: {fix}"),
        None => message.to_owned(),
    };
    output::failure(as_json, &message);
    Exit::Failure
}

fn unix_now() -> i64 {
    Timestamp::now().as_second()
}

/// A moment, as people read it.
fn when(unix: i64) -> String {
    Timestamp::from_second(unix).map_or_else(|_| unix.to_string(), |moment| moment.to_string())
}
