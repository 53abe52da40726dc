//! `openclaw tailscale`: what Tailscale says, and what Serve publishes for us.

pub(super) mod old_words;
mod serve;

use std::net::IpAddr;
use std::path::Path;

use clap::{Args, Subcommand};
use openclaw_tailscale::{Located, Tailscale, Whois};
use serde_json::{Value, json};

use super::{Exit, output};
use crate::app::locate_options;
use crate::config::{self, Config, Env, GatewayFlags};

/// `openclaw tailscale`.
#[derive(Args)]
pub(super) struct TailscaleArgs {
    #[command(subcommand)]
    command: TailscaleCommand,
}

#[derive(Subcommand)]
enum TailscaleCommand {
    /// How Tailscale is doing on this machine
    Status {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Who is behind an address of the tailnet
    Whois {
        /// The address, without a port
        ip: IpAddr,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// What Serve publishes for the gateway
    Serve {
        #[command(subcommand)]
        command: serve::ServeCommand,
    },
}

pub(super) fn run(args: TailscaleArgs, path: Option<&Path>, env: &Env) -> Exit {
    let as_json = match &args.command {
        TailscaleCommand::Status { json } | TailscaleCommand::Whois { json, .. } => *json,
        TailscaleCommand::Serve { command } => command.as_json(),
    };
    let flags = GatewayFlags { config: path.map(Path::to_owned), ..GatewayFlags::default() };
    let config = match config::load(&flags, env) {
        Ok(loaded) => loaded.config,
        Err(error) => {
            output::failure(as_json, &error.to_string());
            return Exit::Config;
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            output::failure(as_json, &error.to_string());
            return Exit::Failure;
        }
    };
    runtime.block_on(async {
        match args.command {
            TailscaleCommand::Status { json } => status(&config, json).await,
            TailscaleCommand::Whois { ip, json } => whois(&config, ip, json).await,
            TailscaleCommand::Serve { command } => serve::run(command, config, env).await,
        }
    })
}

/// The error and what mends it, in one form for all of these commands.
fn refuse(as_json: bool, code: &str, detail: &str, fix: Option<&str>) -> Exit {
    if as_json {
        output::json(&json!({"ok": false, "error": {"code": code, "message": detail, "fix": fix}}));
    } else {
        let fix = fix.map(|fix| format!("\nTo mend it: {fix}")).unwrap_or_default();
        output::error(&format!("openclaw: {detail}{fix}"));
    }
    Exit::Failure
}

fn locate(config: &Config, as_json: bool) -> Result<Tailscale, Exit> {
    match Tailscale::locate(locate_options(&config.gateway)) {
        Ok(Located { tailscale, .. }) => Ok(tailscale),
        Err(error) => Err(refuse(
            as_json,
            "tailscale_not_installed",
            &error.to_string(),
            Some("see https://tailscale.com/download"),
        )),
    }
}

async fn status(config: &Config, as_json: bool) -> Exit {
    let tailscale = match locate(config, as_json) {
        Ok(tailscale) => tailscale,
        Err(exit) => return exit,
    };
    let status = match tailscale.status().await {
        Ok(status) => status,
        Err(error) => return refuse(as_json, error.code(), &error.to_string(), error.fix()),
    };
    let name = status.self_node.dns_name.as_ref().map(|name| name.as_str().to_owned());
    let asked = if tailscale.local_api_answers() { "localapi" } else { "cli" };
    let error = status.backend_state.as_error();
    let fix = error.as_ref().and_then(|error| error.fix());
    let owner = status.owner().map(|profile| profile.login.as_str().to_owned());
    if as_json {
        output::json(&json!({
            "ok": status.is_running(),
            "state": status.backend_state.as_str(),
            "version": status.version.to_string(),
            "name": name,
            "addresses": status.tailscale_ips,
            "owner": owner,
            "tags": status.self_node.tags,
            "tun": status.tun,
            "https": status.self_node.has_capability("https"),
            "certDomains": status.cert_domains,
            "asked": asked,
            "fix": fix,
        }));
    } else {
        let ips: Vec<_> = status.tailscale_ips.iter().map(ToString::to_string).collect();
        let or_none =
            |text: Option<String>| text.filter(|text| !text.is_empty()).unwrap_or_else(|| "-".into());
        output::line(&format!("State      {}", status.backend_state.as_str()));
        output::line(&format!("Version    {} (asked through {asked})", status.version));
        output::line(&format!("Node       {}", or_none(name)));
        output::line(&format!("Addresses  {}", or_none(Some(ips.join(", ")))));
        let whose =
            if status.self_node.tags.is_empty() { owner } else { Some(status.self_node.tags.join(", ")) };
        output::line(&format!("Owner      {}", or_none(whose)));
        output::line(&format!("HTTPS      {}", if status.cert_domains.is_empty() { "off" } else { "on" }));
        if status.tun == Some(false) {
            output::line("Network    userspace: peers reach loopback through tailscaled");
        }
        if let Some(fix) = fix {
            output::error(&format!("To mend it: {fix}"));
        }
    }
    if status.is_running() { Exit::Ok } else { Exit::Failure }
}

async fn whois(config: &Config, ip: IpAddr, as_json: bool) -> Exit {
    let tailscale = match locate(config, as_json) {
        Ok(tailscale) => tailscale,
        Err(exit) => return exit,
    };
    match tailscale.whois(ip).await {
        Ok(whois) if as_json => {
            output::json(&shown(&whois));
            Exit::Ok
        }
        Ok(whois) => {
            let node = &whois.node;
            let name = node.name.as_ref().map_or("-", |name| name.as_str());
            output::line(&format!("Node   {} ({})", name, node.stable_id));
            if node.tags.is_empty() {
                let user = &whois.user;
                output::line(&format!(
                    "User   {} ({})",
                    user.login.as_str(),
                    user.display_name.escape_debug()
                ));
            } else {
                output::line(&format!("Tags   {}", node.tags.join(", ")));
            }
            Exit::Ok
        }
        Err(error) => refuse(as_json, error.code(), &error.to_string(), error.fix()),
    }
}

fn shown(whois: &Whois) -> Value {
    let node = &whois.node;
    let user = node.tags.is_empty().then(
        || json!({"login": whois.user.login.as_str(), "id": whois.user.id, "name": whois.user.display_name}),
    );
    json!({
        "ok": true,
        "node": {
            "id": node.stable_id.as_str(),
            "name": node.name.as_ref().map(|name| name.as_str()),
            "tags": node.tags,
        },
        "user": user,
    })
}
