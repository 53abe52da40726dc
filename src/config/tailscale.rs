//! `gateway.tailscale`.

use std::path::PathBuf;

use super::build::Build;
use super::error::Problem;
use super::provenance::Provenance;
use super::{ServeRoute, ServeScheme, TailscaleClient, TailscaleConfig, TailscaleMode, raw};
use crate::domain::RoutePrefix;

/// Ports that Funnel can use. The CLI accepts others and nothing comes of it
/// (rulings 6).
pub const FUNNEL_PORTS: [u16; 3] = [443, 8443, 10000];

/// Settles mode, program and Serve route.
pub(crate) fn tailscale(build: &mut Build<'_>, raw: &raw::Tailscale) -> TailscaleConfig {
    const MODE: &str = "gateway.tailscale.mode";
    let mode = match (build.flags.tailscale, &raw.mode) {
        (Some(mode), _) => {
            build.provenance.record(MODE, Provenance::Flag("--tailscale"));
            mode
        }
        (None, Some(text)) => build.parse(MODE, text).unwrap_or(TailscaleMode::Off),
        (None, None) => TailscaleMode::Off,
    };
    let bin = match &build.flags.tailscale_bin {
        Some(path) => {
            // A bare name is looked for in PATH.
            let path = if path.components().count() > 1 { build.given_path(path) } else { path.clone() };
            build.provenance.record("gateway.tailscale.bin", Provenance::Flag("--tailscale-bin"));
            Some(path)
        }
        None => raw.bin.as_deref().and_then(|text| program(build, text)),
    };
    if build.flags.tailscale_reset_on_exit {
        build
            .provenance
            .record("gateway.tailscale.resetOnExit", Provenance::Flag("--tailscale-reset-on-exit"));
    }
    if raw.trust_local_users {
        build.warn(
            "gateway.tailscale.trustLocalUsers is on: any process of this machine can name any tailnet user",
        );
    }
    TailscaleConfig {
        mode,
        bin,
        socket: raw.socket.as_deref().map(|text| build.path(text)),
        client: match raw.client.as_deref() {
            Some("cli") => TailscaleClient::Cli,
            Some("localapi") => TailscaleClient::LocalApi,
            _ => TailscaleClient::Auto,
        },
        reset_on_exit: raw.reset_on_exit || build.flags.tailscale_reset_on_exit,
        trust_local_users: raw.trust_local_users,
        serve: serve(build, &raw.serve, mode),
    }
}

/// A bare name is looked for in `PATH`; anything else must be a whole path, so
/// that it does not depend on where the gateway was started.
fn program(build: &mut Build<'_>, text: &str) -> Option<PathBuf> {
    const KEY: &str = "gateway.tailscale.bin";
    if text.trim().is_empty() {
        build.refuse(Problem::new(KEY, "is blank; leave it out to have the program found by itself"));
        return None;
    }
    if !text.contains('/') {
        return Some(PathBuf::from(text));
    }
    let path = super::paths::expand(text, build.document.paths.home.as_deref());
    if path.is_relative() {
        build.refuse(Problem::new(
            KEY,
            format!("{text:?} depends on the working directory: give the whole path"),
        ));
        return None;
    }
    Some(path)
}

fn serve(build: &mut Build<'_>, raw: &raw::Serve, mode: TailscaleMode) -> ServeRoute {
    let scheme = match raw.scheme.as_deref() {
        Some("http") => ServeScheme::Http,
        _ => ServeScheme::Https,
    };
    let port = raw.port.unwrap_or(match scheme {
        ServeScheme::Https => 443,
        ServeScheme::Http => 80,
    });
    let path = raw.path.as_deref().and_then(|text| build.parse("gateway.tailscale.serve.path", text));
    if mode == TailscaleMode::Funnel {
        if scheme == ServeScheme::Http {
            build.refuse(
                Problem::new("gateway.tailscale.serve.scheme", "Funnel speaks https only")
                    .fix("openclaw config unset gateway.tailscale.serve.scheme"),
            );
        } else if !FUNNEL_PORTS.contains(&port) {
            let what = format!("{port} is no port that Funnel has: 443, 8443 or 10000");
            build.refuse(
                Problem::new("gateway.tailscale.serve.port", what)
                    .fix("openclaw config set gateway.tailscale.serve.port 443"),
            );
        }
    }
    ServeRoute { scheme, port, path: path.unwrap_or_else(RoutePrefix::root) }
}
