//! All the asking.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use openclaw_tailscale::{LocateOptions, ServeConfig, Status, Tailscale as Client};

use super::certificate::Certificate;
use super::configuration::Configuration;
use super::gateway::Gateway;
use super::probe;
use super::serve::{Published, Serve};
use super::tailscale::Tailscale;
use crate::certs::node_file;
use crate::config::{self, Bind, Config, Env, GatewayFlags, Paths};
use crate::ingress::{Tls, TlsFiles, serve_dir, serve_socket};
use crate::serve::{Choice, Entry, Ingress, NodeFacts, Wanted, routes};
use crate::state_db::read_serve_journal;

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
    /// What Serve publishes.
    pub serve: Serve,
    /// Its certificate.
    pub certificate: Certificate,
}

/// Looks at everything. Each question has a time limit of seconds; nothing is
/// changed. `locate` says how Tailscale is found under a configuration, `wanted` what it
/// has published, with the ports that are to be open to the internet.
pub async fn gather(
    path: Option<&Path>,
    env: &Env,
    locate: impl Fn(Option<&Config>) -> LocateOptions,
    wanted: impl Fn(&Config, &BTreeSet<u16>) -> Wanted,
) -> Seen {
    // Root looks at the gateway of a user of its own as that user would.
    let of_another = Paths::locate(path, env).ok().and_then(|paths| service_user(&paths));
    let env = &of_another.map_or_else(|| env.clone(), |uid| env.clone().reading_for(uid));
    let (configuration, config) = configuration(path, env);
    let mut options = locate(config.as_ref());
    if of_another.is_some() {
        // But runs no program that another user has chosen.
        options.bin = None;
    }
    let (tailscale, found) = tailscale(options).await;
    let gateway = gateway(config.as_ref(), of_another);
    let certificate = config.as_ref().map_or(Certificate::Absent, certificate);
    let serve = match (&config, &tailscale, found) {
        (Some(config), Tailscale::Answers(status), Some(Ok(found))) => {
            let wanted = |public: &BTreeSet<u16>| wanted(config, public);
            published(config, env, status, found, wanted).map_or(Serve::NotAsked, Serve::Read)
        }
        (_, _, Some(Err(detail))) => Serve::Unreadable { detail },
        _ => Serve::NotAsked,
    };
    Seen { configuration, config, tailscale, gateway, serve, certificate }
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

/// How it is doing, and while it runs what Serve publishes.
async fn tailscale(options: LocateOptions) -> (Tailscale, Option<Result<ServeConfig, String>>) {
    let client = match Client::locate(options) {
        Ok(located) => located.tailscale,
        Err(error) => return (Tailscale::Absent { detail: error.to_string() }, None),
    };
    let status = match client.status().await {
        Ok(status) => status,
        Err(error) => {
            let fix = error.fix().map(str::to_owned);
            return (Tailscale::Silent { detail: error.to_string(), fix }, None);
        }
    };
    let found = match status.is_running() {
        true => Some(client.serve_status().await.map_err(|error| error.to_string())),
        false => None,
    };
    (Tailscale::Answers(Box::new(status)), found)
}

/// `None` where this node has no name yet: then nothing can be published.
fn published(
    config: &Config,
    env: &Env,
    status: &Status,
    found: ServeConfig,
    wanted: impl FnOnce(&BTreeSet<u16>) -> Wanted,
) -> Option<Box<Published>> {
    let node = NodeFacts::of(status)?;
    let journal = read_serve_journal(&config.state_dir)
        .map(|entries| entries.into_iter().filter(|entry| entry.node == node.key()).collect::<Vec<_>>());
    let entries = journal.as_deref().unwrap_or_default();
    // What the gateway opened to the internet stays its affair.
    let public: BTreeSet<u16> = entries.iter().filter(|entry| entry.funnel).filter_map(Entry::port).collect();
    let socket = serve_socket(&serve_dir(|name| env.get(name).map(Into::into), &config.state_dir));
    // Which ingress it is, the gateway decides; what it decided last is in its journal.
    let of_last = entries.iter().find_map(|entry| match entry.target.strip_prefix("unix:") {
        Some(path) => Some(Ingress::Unix(path.into())),
        None => entry.target.strip_prefix("http://127.0.0.1:")?.parse().ok().map(Ingress::Loopback),
    });
    let ingress = of_last.unwrap_or_else(|| Ingress::Unix(socket.clone()));
    let wanted = routes(&wanted(&public), &Choice { ingress: Some(ingress), trouble: None });
    let own = status.tailscale_ips.clone();
    Some(Box::new(Published { found, node, own, journal, wanted, socket }))
}

fn gateway(config: Option<&Config>, service: Option<u32>) -> Gateway {
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
    probe::ask(SocketAddr::new(IpAddr::V4(host), gateway.port), gateway.tls.is_some(), service)
}

/// Whose gateway it is by its files, where root reads another user's: the owner of the
/// state directory, where nobody else can write to it, and of the configuration. `None`
/// where that is not plain.
fn service_user(paths: &Paths) -> Option<u32> {
    const WRITABLE_BY_OTHERS: u32 = 0o022;
    let state = std::fs::symlink_metadata(&paths.state_dir).ok()?;
    let is_theirs = |meta: &std::fs::Metadata| meta.mode() & WRITABLE_BY_OTHERS == 0;
    if !rustix::process::geteuid().is_root() || state.uid() == 0 || !state.is_dir() || !is_theirs(&state) {
        return None;
    }
    match std::fs::symlink_metadata(&paths.config) {
        Ok(file) if file.is_file() && is_theirs(&file) && [0, state.uid()].contains(&file.uid()) => {
            Some(state.uid())
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Some(state.uid()),
        _ => None,
    }
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
