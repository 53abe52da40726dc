//! The command line: what can be typed, and one thin file for each command.
//!
//! A command gathers, calls the room that knows, prints and returns an exit
//! code ([`Exit`]). What is right or wrong is decided elsewhere.

mod access;
mod config;
mod doctor;
mod exit;
mod funnel;
mod gateway;
pub mod output;
mod tailscale;
mod tied;
mod tls;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::config::Env;

pub use exit::Exit;
pub use gateway::RunArgs;

/// Puts the apps on this machine onto your tailnet, and lets nobody else in.
#[derive(Parser)]
#[command(name = "openclaw", version, arg_required_else_help = true)]
pub struct Cli {
    /// The configuration file, instead of $OPENCLAW_CONFIG_PATH or
    /// ~/.openclaw/config.json
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the gateway
    Gateway(Box<gateway::GatewayArgs>),
    /// Who a login is taken for
    Access(access::AccessArgs),
    /// Read, change and check the configuration
    Config(config::ConfigArgs),
    /// What works, what does not, and what mends it
    Doctor(doctor::DoctorArgs),
    /// Open a path to the internet for a while
    Funnel(Box<funnel::FunnelArgs>),
    /// The certificate of our own: fingerprint, names, end
    Tls(tls::TlsArgs),
    /// What Tailscale says, and what Serve publishes for the gateway
    Tailscale(tailscale::TailscaleArgs),
    /// Print the version
    Version(VersionArgs),
    /// Become another program that ends with the process that asked for it
    #[command(name = crate::app::serve_route::TIED, hide = true)]
    Tied(tied::TiedArgs),
}

#[derive(clap::Args)]
struct VersionArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command that was typed.
pub fn run(args: impl IntoIterator<Item = OsString>, env: &Env) -> Exit {
    let args: Vec<OsString> = args.into_iter().collect();
    let cli = match Cli::try_parse_from(&args) {
        Ok(cli) => cli,
        Err(error) => {
            let unknown = error.kind() == clap::error::ErrorKind::InvalidSubcommand;
            let old = if unknown { tailscale::old_words::answer(&args) } else { None };
            return old.unwrap_or_else(|| usage(&error));
        }
    };
    match cli.command {
        Command::Gateway(args) => gateway::run(*args, cli.config, env),
        Command::Funnel(args) => funnel::run(*args, cli.config, env),
        Command::Access(args) => access::run(args, env),
        Command::Config(args) => config::run(args, cli.config.as_deref(), env),
        Command::Doctor(args) => doctor::run(&args, cli.config.as_deref(), env),
        Command::Tls(args) => tls::run(args, cli.config.as_deref(), env),
        Command::Tailscale(args) => tailscale::run(args, cli.config.as_deref(), env),
        Command::Version(args) => version(&args),
        Command::Tied(args) => tied::run(&args),
    }
}

/// Help and version go to stdout and are no failure; everything else is.
fn usage(error: &clap::Error) -> Exit {
    let text = error.render().to_string();
    if error.use_stderr() {
        output::error(text.trim_end());
        Exit::Usage
    } else {
        output::line(text.trim_end());
        Exit::Ok
    }
}

fn version(args: &VersionArgs) -> Exit {
    let version = env!("CARGO_PKG_VERSION");
    if args.json {
        output::json(&serde_json::json!({"name": "openclaw", "version": version}));
    } else {
        output::line(&format!("openclaw {version}"));
    }
    Exit::Ok
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
