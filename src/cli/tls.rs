//! `openclaw tls`: the certificate as clients see it, and a new self-signed one.

use std::path::Path;

use clap::{Args, Subcommand};

use super::{Exit, output};
use crate::app::certificate::{names_now, self_signed_of};
use crate::certs::node_file;
use crate::config::{Config, Env, GatewayFlags, load};
use crate::ingress::{CertFacts, Tls, TlsFiles};
use crate::telemetry;

/// `openclaw tls`.
#[derive(Args)]
pub(super) struct TlsArgs {
    #[command(subcommand)]
    command: TlsCommand,
}

#[derive(Subcommand)]
enum TlsCommand {
    /// Print the certificate's fingerprint, key pin, names and end
    Show {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Make a new self-signed certificate, for the same key and the names of now
    Renew {
        /// Make a new key, too: whatever pinned the old one has to pin the new one
        #[arg(long)]
        new_key: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(args: TlsArgs, config: Option<&Path>, env: &Env) -> Exit {
    let flags = GatewayFlags { config: config.map(Path::to_owned), ..GatewayFlags::default() };
    let json = match &args.command {
        TlsCommand::Show { json } | TlsCommand::Renew { json, .. } => *json,
    };
    let loaded = match load(&flags, env) {
        Ok(loaded) => loaded,
        Err(error) => {
            output::failure(json, &error.to_string());
            return Exit::Config;
        }
    };
    let done = match args.command {
        TlsCommand::Show { .. } => show(&loaded.config),
        TlsCommand::Renew { new_key, .. } => renew(&loaded.config, new_key),
    };
    match done {
        Ok((place, facts)) => {
            print(&place, &facts, json);
            Exit::Ok
        }
        Err(message) => {
            output::failure(json, &message);
            Exit::Failure
        }
    }
}

/// Where the certificate is, and what it says.
type Shown = (String, CertFacts);

fn show(config: &Config) -> Result<Shown, String> {
    if config.gateway.tls_tailscale_port.is_some() {
        let path = node_file(&config.state_dir);
        return if path.exists() {
            shown(TlsFiles { cert: path.clone(), key: path })
        } else {
            Err(format!(
                "{} is not there yet: the gateway asks Tailscale for it when it runs",
                path.display()
            ))
        };
    }
    let Some(files) = &config.gateway.tls else {
        return Err("TLS is off: openclaw config set gateway.tls.enabled true".into());
    };
    let files = TlsFiles { cert: files.cert_path.clone(), key: files.key_path.clone() };
    if config.gateway.tls_self_signed && !files.cert.exists() && !files.key.exists() {
        let place = files.cert.display();
        return Err(format!("{place} is not there yet: the gateway makes it when it starts"));
    }
    shown(files)
}

fn shown(files: TlsFiles) -> Result<Shown, String> {
    let place = files.cert.display().to_string();
    let tls = Tls::load(files).map_err(|error| telemetry::chain(&error))?;
    let facts = tls.facts().ok_or_else(|| format!("the certificate in {place} cannot be read"))?;
    Ok((place, facts))
}

fn renew(config: &Config, new_key: bool) -> Result<Shown, String> {
    let Some(pair) = self_signed_of(config) else {
        return Err(
            "only a self-signed certificate is made here: openclaw config set gateway.tls.source self".into(),
        );
    };
    let names = names_now(config).map_err(|error| error.to_string())?;
    let made = if new_key { pair.renew_key(&names) } else { pair.renew(&names) };
    let facts = made.map_err(|error| telemetry::chain(&error))?;
    Ok((pair.files().cert.display().to_string(), facts))
}

fn print(place: &str, facts: &CertFacts, json: bool) {
    if json {
        return output::json(&serde_json::json!({
            "certificate": place,
            "fingerprint": facts.fingerprint_text(),
            "keyPin": facts.key_pin_text(),
            "names": facts.names(),
            "notAfter": facts.not_after_text(),
        }));
    }
    output::line(&format!("Certificate  {place}"));
    output::line(&format!("Fingerprint  {}", facts.fingerprint_text()));
    output::line(&format!("Key pin      {}", facts.key_pin_text()));
    output::line(&format!("Names        {}", facts.names().join(", ")));
    output::line(&format!("Valid until  {}", facts.not_after_text()));
}
