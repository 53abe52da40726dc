//! `gateway.tls`.

use std::path::Path;

use super::build::Build;
use super::error::Problem;
use super::file::{self, Links};
use super::{TlsFiles, raw};

const MAX_PEM: u64 = 1024 * 1024;

/// Where our certificate comes from.
pub(crate) enum TlsSource {
    /// Files of the operator's.
    Files(TlsFiles),
    /// Files of ours, made where they are missing.
    SelfSigned(TlsFiles),
    /// The node's own, on the tailnet addresses at this port.
    Tailscale(u16),
}

/// Settles where a certificate comes from. Half a pair or an unreadable file is
/// refused (gateway spec 2, refusal 13): serving plain text instead would be
/// worse than not starting.
pub(crate) fn tls(build: &mut Build<'_>, raw: &raw::Tls) -> Option<TlsSource> {
    if !raw.enabled {
        if raw.cert_path.is_some() || raw.key_path.is_some() || raw.source.is_some() {
            build.warn("gateway.tls.enabled is off: the other keys of gateway.tls have no effect");
        }
        return None;
    }
    let port = raw.port.unwrap_or(443);
    let source = match (raw.source.as_deref(), &raw.cert_path, &raw.key_path) {
        (Some("tailscale"), None, None) => TlsSource::Tailscale(port),
        (Some("self"), None, None) => TlsSource::SelfSigned(self_signed(build)),
        (Some(other @ ("tailscale" | "self")), _, _) => {
            let what = format!("{other:?} brings its own certificate, so certPath and keyPath have no place");
            build.refuse(
                Problem::new("gateway.tls.source", what).fix("openclaw config set gateway.tls.source files"),
            );
            return None;
        }
        (_, Some(cert), Some(key)) => {
            let files = TlsFiles { cert_path: build.path(cert), key_path: build.path(key) };
            readable(build, "gateway.tls.certPath", &files.cert_path);
            readable(build, "gateway.tls.keyPath", &files.key_path);
            TlsSource::Files(files)
        }
        (_, Some(_), None) => return half(build, "gateway.tls.keyPath", "certPath"),
        (_, None, Some(_)) => return half(build, "gateway.tls.certPath", "keyPath"),
        (Some(_), None, None) => {
            let what = "\"files\" wants certPath and keyPath";
            build.refuse(
                Problem::new("gateway.tls.source", what)
                    .fix("openclaw config set gateway.tls.certPath /path/cert.pem")
                    .at_start(),
            );
            return None;
        }
        (None, None, None) if raw.auto_generate == Some(false) => {
            let what =
                "is on, without certPath and keyPath, and autoGenerate is off: there is no certificate";
            build.refuse(
                Problem::new("gateway.tls.enabled", what)
                    .fix("openclaw config set gateway.tls.source tailscale")
                    .at_start(),
            );
            return None;
        }
        (None, None, None) => TlsSource::SelfSigned(self_signed(build)),
    };
    if let Some(text) = &raw.ca_path {
        let path = build.path(text);
        readable(build, "gateway.tls.caPath", &path);
    }
    Some(source)
}

fn self_signed(build: &Build<'_>) -> TlsFiles {
    let dir = build.document.paths.state_dir.join("tls");
    TlsFiles { cert_path: dir.join("self-cert.pem"), key_path: dir.join("self-key.pem") }
}

fn half(build: &mut Build<'_>, missing: &str, given: &str) -> Option<TlsSource> {
    let what = format!("is missing next to {given}: a certificate comes with its key");
    build.refuse(
        Problem::new(missing, what).fix(format!("openclaw config set {missing} /path/file.pem")).at_start(),
    );
    None
}

fn readable(build: &mut Build<'_>, key: &str, path: &Path) {
    match file::read(path, Links::Follow, MAX_PEM) {
        Ok(file) if key == "gateway.tls.keyPath" && file.mode & 0o004 != 0 => {
            let shown = path.display();
            build.warn(format!("{key}: {shown} can be read by anybody on this machine: chmod 600 {shown}"));
        }
        Ok(_) => {}
        Err(fault) => build.refuse(Problem::new(key, format!("{} {fault}", path.display())).at_start()),
    }
}
