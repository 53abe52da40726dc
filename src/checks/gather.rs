//! All the asking.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use openclaw_tailscale::{LocateOptions, Tailscale as Client};

use super::certificate::Certificate;
use super::configuration::Configuration;
use super::gateway::Gateway;
use super::probe;
use super::tailscale::Tailscale;
use crate::certs::node_file;
use crate::config::{self, Bind, Config, Env, GatewayFlags, Paths};
use crate::ingress::{Tls, TlsFiles};

/// Everything that was seen.
pub struct Seen {
    /// The configuration and what is wrong with it.
    pub configuration: Configuration,
    /// The checked configuration, where it can be used.
    pub config: Option<Config>,
    /// Tailscale.
    pub tailscale: Tailscale,
    /// The gateway on this machine.
    pub gateway: Gateway,
    /// Its certificate.
    pub certificate: Certificate,
}

/// Looks at everything. Each question has a time limit of seconds; nothing is
/// changed. `locate` says how Tailscale is found under a configuration.
pub async fn gather(
    path: Option<&Path>,
    env: &Env,
    locate: impl Fn(Option<&Config>) -> LocateOptions,
) -> Seen {
    let (configuration, config) = configuration(path, env);
    let tailscale = tailscale(locate(config.as_ref())).await;
    let gateway = gateway(config.as_ref());
    let certificate = config.as_ref().map_or(Certificate::Absent, certificate);
    Seen { configuration, config, tailscale, gateway, certificate }
}

fn configuration(path: Option<&Path>, env: &Env) -> (Configuration, Option<Config>) {
    let flags = GatewayFlags { config: path.map(Path::to_owned), ..GatewayFlags::default() };
    let config = config::load(&flags, env).ok().map(|loaded| loaded.config);
    let seen = match config::validate(path, env) {
        Ok(found) => Configuration {
            path: found.path,
            exists: found.exists,
            problems: found.problems,
            warnings: found.warnings,
        },
        Err(error) => Configuration {
            path: Paths::locate(path, env).map(|paths| paths.config).unwrap_or_default(),
            exists: true,
            problems: error.problems().to_vec(),
            warnings: Vec::new(),
        },
    };
    (seen, config)
}

async fn tailscale(options: LocateOptions) -> Tailscale {
    let client = match Client::locate(options) {
        Ok(located) => located.tailscale,
        Err(error) => return Tailscale::Absent { detail: error.to_string() },
    };
    match client.status().await {
        Ok(status) => Tailscale::Answers(Box::new(status)),
        Err(error) => Tailscale::Silent { detail: error.to_string(), fix: error.fix().map(str::to_owned) },
    }
}

fn gateway(config: Option<&Config>) -> Gateway {
    let Some(config) = config else {
        return Gateway::NotAsked {
            why: "the gateway was not asked: its configuration cannot be used".into(),
        };
    };
    let gateway = &config.gateway;
    if gateway.port == 0 {
        return Gateway::NotAsked { why: "the gateway was not asked: its port is any free one".into() };
    }
    let host = match gateway.bind {
        // It listens there beside the address.
        Bind::Custom(host) if host.is_loopback() => host,
        _ => Ipv4Addr::LOCALHOST,
    };
    probe::ask(SocketAddr::new(IpAddr::V4(host), gateway.port), gateway.tls.is_some())
}

fn certificate(config: &Config) -> Certificate {
    let gateway = &config.gateway;
    if gateway.tls_tailscale_port.is_some() {
        let path = node_file(&config.state_dir);
        return if path.exists() {
            load(TlsFiles { cert: path.clone(), key: path }, "tailscale")
        } else {
            Certificate::NotYet { path }
        };
    }
    let Some(files) = &gateway.tls else { return Certificate::Absent };
    let source = if gateway.tls_self_signed { "self" } else { "files" };
    let path = files.cert_path.clone();
    if gateway.tls_self_signed && !files.cert_path.exists() && !files.key_path.exists() {
        return Certificate::NotYet { path };
    }
    load(TlsFiles { cert: path, key: files.key_path.clone() }, source)
}

fn load(files: TlsFiles, source: &'static str) -> Certificate {
    match Tls::load(files.clone()) {
        Ok(tls) => Certificate::Loaded { path: files.cert, source, tls },
        Err(error) => Certificate::Broken { detail: crate::telemetry::chain(&error) },
    }
}
