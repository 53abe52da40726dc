//! Port and bind.

use std::net::Ipv4Addr;

use super::build::Build;
use super::error::Problem;
use super::flags::BindWord;
use super::provenance::Provenance;
use super::{Bind, raw};

/// The default port.
pub(crate) const DEFAULT_PORT: u16 = 18789;

/// Where to listen.
pub(crate) struct Listen {
    pub(crate) port: u16,
    pub(crate) bind: Bind,
    pub(crate) word: BindWord,
    /// Whether anybody but this machine can reach it.
    pub(crate) exposed: bool,
    /// Whether tailnet peers can reach it directly.
    pub(crate) on_tailnet: bool,
}

/// Settles port and bind: flag, then variable (port only), then file.
pub(crate) fn listen(build: &mut Build<'_>, raw: &raw::Gateway) -> Listen {
    let port = port(build, raw);
    let word = match (build.flags.bind, &raw.bind) {
        (Some(word), _) => {
            build.provenance.record("gateway.bind", Provenance::Flag("--bind"));
            word
        }
        (None, Some(text)) => build.parse("gateway.bind", text).unwrap_or(BindWord::Loopback),
        (None, None) => BindWord::Loopback,
    };
    let in_container = word == BindWord::Auto && build.document.env.is_container();
    let host = custom_host(build, raw, word);
    let (bind, exposed) = match word {
        BindWord::Loopback => (Bind::Loopback, false),
        BindWord::Lan => (Bind::Lan, true),
        BindWord::Tailnet => (Bind::Tailnet, true),
        BindWord::Auto => (Bind::Auto, in_container),
        BindWord::Custom => {
            host.map_or((Bind::Loopback, true), |host| (Bind::Custom(host), !host.is_loopback()))
        }
    };
    if exposed && word != BindWord::Tailnet {
        build.warn(format!(
            "{}: machines that are not on the tailnet can reach the port, and only the secret keeps them out",
            build.says("gateway.bind", word.as_str())
        ));
    }
    Listen { port, bind, word, exposed, on_tailnet: word == BindWord::Tailnet || in_container }
}

fn custom_host(build: &mut Build<'_>, raw: &raw::Gateway, word: BindWord) -> Option<Ipv4Addr> {
    const KEY: &str = "gateway.customBindHost";
    match &raw.custom_bind_host {
        // Only the canonical spelling parses: 192.168.001.1 does not.
        Some(text) => match text.parse::<Ipv4Addr>() {
            Ok(host) if host.is_multicast() || host.is_broadcast() => {
                build.refuse(Problem::new(KEY, format!("{host} is no address of one machine")));
                None
            }
            Ok(host) => Some(host),
            Err(_) => {
                let what = format!(
                    "{text:?} is no IPv4 address: four numbers such as 192.168.1.10, no leading zeros"
                );
                build.refuse(Problem::new(KEY, what));
                None
            }
        },
        None if word == BindWord::Custom => {
            let what = format!("is missing, and {}", build.says("gateway.bind", "custom"));
            build.refuse(
                Problem::new(KEY, what)
                    .fix("openclaw config set gateway.customBindHost 192.168.1.10")
                    .at_start(),
            );
            None
        }
        None => None,
    }
}

fn port(build: &mut Build<'_>, raw: &raw::Gateway) -> u16 {
    const KEY: &str = "gateway.port";
    const VARIABLE: &str = "OPENCLAW_GATEWAY_PORT";
    if let Some(port) = build.flags.port {
        build.provenance.record(KEY, Provenance::Flag("--port"));
        return port;
    }
    if let Some(text) = build.document.env.get(VARIABLE) {
        match port_of_variable(text) {
            Some(port) => {
                build.provenance.record(KEY, Provenance::Env(VARIABLE.into()));
                return port;
            }
            None => build.warn(format!("{VARIABLE} is neither a port nor host:port and is ignored")),
        }
    }
    raw.port.unwrap_or(DEFAULT_PORT)
}

/// Digits, `host:port` or `[v6]:port` (gateway spec 1.1); 0 is any free port.
fn port_of_variable(text: &str) -> Option<u16> {
    let digits = match text.rsplit_once(':') {
        None => text,
        Some((host, port)) => {
            let sound = match host.strip_prefix('[') {
                Some(v6) => v6.ends_with(']'),
                None => !host.is_empty() && !host.contains(':'),
            };
            if sound { port } else { return None }
        }
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_digits_and_host_with_digits_are_a_port() {
        for text in ["", "x", "+1", "1x", "::1:80", "65536", ":80", "[::1:80", "-1", "0x50", "a:b"] {
            assert_eq!(port_of_variable(text), None, "{text:?}");
        }
        for (text, port) in [("80", 80), ("0", 0), ("127.0.0.1:81", 81), ("[::1]:82", 82), ("host:83", 83)] {
            assert_eq!(port_of_variable(text), Some(port), "{text:?}");
        }
    }
}
