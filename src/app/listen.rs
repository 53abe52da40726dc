//! Which addresses the gateway should be listening on. Pure.
//!
//! Tailnet addresses come from `tailscale status`, never from an address range or
//! an interface name (threat rule 104). While Tailscale is down its addresses
//! stay bound: a listener survives that, and callers get an honest 503 instead of
//! a refused connection. Nothing is ever bound instead of something else.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::config::Bind;
use crate::domain::TailnetState;

/// One address to listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Which.
    pub(super) addr: SocketAddr,
    /// How much it matters.
    pub(super) need: Need,
}

/// How much an address matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// The gateway does not start without it.
    Required,
    /// A warning is enough: a host without IPv6.
    Nice,
    /// It comes and goes with the tailnet; tried again until it is there.
    Tailnet,
}

/// The addresses that do not depend on the tailnet. `containered` answers what
/// `auto` means.
pub(super) fn fixed(bind: Bind, port: u16, containered: bool) -> Vec<Wanted> {
    let v4 = |ip: Ipv4Addr| Wanted { addr: SocketAddr::new(IpAddr::V4(ip), port), need: Need::Required };
    let v6 = Wanted { addr: SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), port), need: Need::Nice };
    match bind {
        Bind::Lan => vec![v4(Ipv4Addr::UNSPECIFIED)],
        Bind::Auto if containered => vec![v4(Ipv4Addr::UNSPECIFIED)],
        Bind::Loopback | Bind::Auto | Bind::Tailnet => vec![v4(Ipv4Addr::LOCALHOST), v6],
        Bind::Custom(host) if host.is_unspecified() || host == Ipv4Addr::LOCALHOST => vec![v4(host)],
        Bind::Custom(host) => vec![v4(host), v4(Ipv4Addr::LOCALHOST)],
    }
}

/// The tailnet addresses to listen on now. `None`: not known, leave what is
/// bound as it is.
pub(super) fn tailnet(bind: Bind, port: u16, state: &TailnetState) -> Option<Vec<Wanted>> {
    if bind != Bind::Tailnet {
        return Some(Vec::new());
    }
    let running = state.running()?;
    let wanted = |ip: &IpAddr| Wanted { addr: SocketAddr::new(*ip, port), need: Need::Tailnet };
    Some(running.ips.iter().filter(|ip| !ip.is_unspecified()).map(wanted).collect())
}

/// Whether this looks like a container: what `bind=auto` asks.
pub(super) fn in_container() -> bool {
    let marked = ["/.dockerenv", "/run/.containerenv", "/var/run/.containerenv"]
        .iter()
        .any(|path| std::path::Path::new(path).exists());
    marked
        || std::fs::read_to_string("/proc/1/cgroup").is_ok_and(|text| {
            ["docker", "containerd", "kubepods", "lxc"].iter().any(|word| text.contains(word))
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Phase;
    use crate::domain::tailnet::tests::state;

    fn addrs(wanted: &[Wanted]) -> Vec<String> {
        wanted.iter().map(|wanted| wanted.addr.to_string()).collect()
    }

    #[test]
    fn nothing_but_lan_and_a_container_binds_the_wildcard() {
        for bind in [Bind::Loopback, Bind::Tailnet, Bind::Auto, Bind::Custom(Ipv4Addr::new(192, 168, 1, 5))] {
            assert!(
                fixed(bind, 1, false).iter().all(|wanted| !wanted.addr.ip().is_unspecified()),
                "{bind:?}"
            );
        }
        assert_eq!(addrs(&fixed(Bind::Lan, 1, false)), ["0.0.0.0:1"]);
        assert_eq!(addrs(&fixed(Bind::Auto, 1, true)), ["0.0.0.0:1"]);
    }

    #[test]
    fn threat_061_tailnet_addresses_come_from_tailscale_and_nothing_replaces_them() {
        let state = state();
        assert_eq!(
            addrs(&tailnet(Bind::Tailnet, 1, &state).unwrap()),
            ["100.64.0.1:1", "[fd7a:115c:a1e0::1]:1"]
        );
        let down = TailnetState {
            phase: Phase::Down { detail: String::new(), fix: None, gone: true },
            ..state.clone()
        };
        assert_eq!(tailnet(Bind::Tailnet, 1, &down), None, "what is bound stays");
        assert_eq!(tailnet(Bind::Loopback, 1, &state), Some(Vec::new()));
    }
}
