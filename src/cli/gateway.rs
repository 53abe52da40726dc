//! `openclaw gateway [run]`.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Subcommand};

use super::{Exit, output};
use crate::app;
use crate::config::{self, AuthMode, BindWord, ConfigError, Env, GatewayFlags, Loaded, TailscaleMode};
use crate::domain::Secret;
use crate::telemetry;

/// `openclaw gateway`.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct GatewayArgs {
    #[command(flatten)]
    run: RunArgs,
    #[command(subcommand)]
    command: Option<GatewayCommand>,
}

#[derive(Subcommand)]
enum GatewayCommand {
    /// Run the gateway in the foreground (what `openclaw gateway` does)
    Run(RunArgs),
}

/// The flags of `openclaw gateway run`. What is not given comes from the
/// environment, the file or the defaults.
#[derive(Args)]
pub struct RunArgs {
    /// loopback, lan, tailnet, auto or custom
    #[arg(long, value_name = "MODE", value_parser = BindWord::from_str)]
    bind: Option<BindWord>,
    /// The port; 0 takes any free one
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// none, token, password or trusted-proxy
    #[arg(long, value_name = "MODE", value_parser = AuthMode::from_str)]
    auth: Option<AuthMode>,
    /// The token of this run; other processes can see it: prefer --token-file
    #[arg(long, value_name = "TOKEN", value_parser = secret, conflicts_with = "token_file")]
    token: Option<Secret>,
    /// A file that holds the token of this run
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The password of this run; other processes can see it: prefer --password-file
    #[arg(long, value_name = "PASSWORD", value_parser = secret, conflicts_with = "password_file")]
    password: Option<Secret>,
    /// A file that holds the password of this run
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// The app behind: a port, host:port, URL or unix:/path
    #[arg(long, value_name = "UPSTREAM")]
    upstream: Option<String>,
    /// off, serve or funnel
    #[arg(long, value_name = "MODE", value_parser = TailscaleMode::from_str)]
    tailscale: Option<TailscaleMode>,
    /// The tailscale program
    #[arg(long, value_name = "FILE")]
    tailscale_bin: Option<PathBuf>,
    /// Undo our own Serve route when stopping
    #[arg(long)]
    tailscale_reset_on_exit: bool,
    /// Accepted for OpenClaw's sake: a gateway starts without a configuration
    #[arg(long)]
    allow_unconfigured: bool,
    /// Log more
    #[arg(long)]
    verbose: bool,
}

/// A secret on the command line. The message does not repeat it.
fn secret(text: &str) -> Result<Secret, String> {
    Secret::new(text).ok_or_else(|| "blank".to_owned())
}

impl RunArgs {
    fn flags(self, config: Option<PathBuf>) -> GatewayFlags {
        GatewayFlags {
            config,
            port: self.port,
            bind: self.bind,
            auth: self.auth,
            token: self.token,
            token_file: self.token_file,
            password: self.password,
            password_file: self.password_file,
            upstream: self.upstream,
            tailscale: self.tailscale,
            tailscale_bin: self.tailscale_bin,
            tailscale_reset_on_exit: self.tailscale_reset_on_exit,
            verbose: self.verbose,
        }
    }
}

pub(super) fn run(args: GatewayArgs, config: Option<PathBuf>, env: &Env) -> Exit {
    let run = match args.command {
        Some(GatewayCommand::Run(run)) => run,
        None => args.run,
    };
    // Not by clap, which would repeat the value: a URL may hold a password.
    if let Some(Err(error)) = run.upstream.as_deref().map(config::parse_upstream) {
        output::error(&format!("error: invalid value for '--upstream <UPSTREAM>': {error}"));
        return Exit::Usage;
    }
    let flags = run.flags(config);
    match config::load(&flags, env) {
        Ok(loaded) => start(loaded, flags, env),
        Err(error) => refuse(&error),
    }
}

/// Prints everything that is wrong. A restart would not help, so the code is 78.
fn refuse(error: &ConfigError) -> Exit {
    let count = error.problems().len();
    output::error(&format!(
        "openclaw: the gateway does not start with this configuration ({count} problem{}):",
        if count == 1 { "" } else { "s" }
    ));
    for line in error.to_string().lines() {
        output::error(&format!("  {line}"));
    }
    output::error("Check it with: openclaw config validate");
    Exit::Config
}

/// Runs the gateway until it is told to stop.
fn start(loaded: Loaded, flags: GatewayFlags, env: &Env) -> Exit {
    match app::run(loaded, flags, env.clone()) {
        Ok(()) => Exit::Ok,
        Err(error) => {
            output::error(&format!("openclaw: the gateway did not start: {}", telemetry::chain(&error)));
            if error.is_configuration() { Exit::Config } else { Exit::Failure }
        }
    }
}
