//! What is known about the tailnet right now, as one value that is swapped whole.
//!
//! The watcher publishes it, every request reads one snapshot of it. What is not
//! known grants nothing.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use openclaw_tailscale::{BackendState, DaemonProcess, Login, NodeName, ServeConfig, StableNodeId, Version};

/// One snapshot.
#[derive(Clone, Debug)]
pub struct TailnetState {
    /// How Tailscale is doing.
    pub phase: Phase,
    /// The tailnet addresses of the last time it ran. An address of ours stays
    /// ours while Tailscale is down: a connection to it is never a LAN one.
    pub last_ips: Vec<IpAddr>,
    /// What is known of the Serve configuration and of who else can make the
    /// daemon connect to us.
    pub serve: ServeView,
    /// Since when nothing but Serve could have made the daemon connect to us.
    pub clean_since: CleanSince,
    /// Raised whenever cached identities must be asked for again.
    pub epoch: u64,
    /// Whether there is a TUN device, as the last answer said, in whatever state
    /// the daemon is.
    pub tun: Option<bool>,
    /// Whether loopback was exposed when that was last known. A daemon that cannot
    /// be asked any more goes on forwarding.
    pub was_exposed: bool,
}

/// For each of our listeners, when the first of the unbroken row of reads began that
/// showed no way to it but Serve's. `None`: the last one showed another, or nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CleanSince {
    /// The ordinary port.
    pub loopback: Option<Instant>,
    /// The unix ingress.
    pub unix: Option<Instant>,
    /// The loopback ingress.
    pub ingress: Option<Instant>,
}

/// Whether somebody other than local processes can make connections that arrive
/// on loopback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposure {
    /// Nobody can.
    No,
    /// A Serve or TCP route leads to our port, or there is userspace networking.
    Yes,
    /// It cannot be said. Whatever needs [`Exposure::No`] is refused.
    Unknown,
}

/// How Tailscale is doing.
#[derive(Clone, Debug)]
pub enum Phase {
    /// Not asked yet.
    Unknown,
    /// It cannot be asked: not installed, not running, hanging, talking rubbish.
    Down {
        /// What happened, for the operator.
        detail: String,
        /// The command that mends it.
        fix: Option<String>,
        /// Whether there is no daemon at all, rather than one that does not
        /// answer: nothing can come through it then.
        gone: bool,
    },
    /// It answers, and is stopped, logged out or waiting.
    NotRunning {
        /// Which.
        state: BackendState,
    },
    /// It runs.
    Running(Arc<Running>),
}

/// The facts of a running node.
#[derive(Clone, Debug, PartialEq)]
pub struct Running {
    /// The node's own tailnet addresses.
    pub ips: Vec<IpAddr>,
    /// The node.
    pub self_id: Option<StableNodeId>,
    /// Whose node it is; `None` on a tagged node, which nobody owns.
    pub owner: Option<Owner>,
    /// The node's full name.
    pub dns_name: Option<NodeName>,
    /// The tailnet's MagicDNS suffix, without dots at its ends.
    pub suffix: Option<String>,
    /// The tailnet's name: with the login, what a user id is pinned to.
    pub tailnet: String,
    /// The daemon's version.
    pub version: Version,
    /// Whether there is a TUN device. `None`: an old daemon did not say.
    pub tun: Option<bool>,
    /// Names there can be certificates for.
    pub cert_domains: Vec<String>,
    /// What the tailnet permits this node to publish.
    pub attributes: NodeAttributes,
}

/// What the tailnet permits a node to publish, by its node attributes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeAttributes {
    /// Certificates, and with them Serve's https.
    pub https: bool,
    /// Funnel.
    pub funnel: bool,
    /// The ports that Funnel may use.
    pub funnel_ports: Vec<RangeInclusive<u16>>,
}

/// The person whose node this is.
#[derive(Clone, Debug, PartialEq)]
pub struct Owner {
    /// Their login.
    pub login: Login,
    /// Their user id.
    pub user_id: i64,
}

/// What is known of the Serve configuration.
#[derive(Clone, Debug)]
pub enum ServeView {
    /// Nothing yet, or it could not be read.
    Unknown,
    /// As of the last look.
    Known(Arc<ServeFacts>),
}

/// Everything that decides whether a loopback connection of the daemon's can be
/// told to be Serve's (rulings 1.2).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServeFacts {
    /// Web handlers whose target is our ordinary port.
    pub web_to_port: usize,
    /// Raw TCP forwards to our ordinary port.
    pub tcp_to_port: usize,
    /// Raw TCP forwards to our unix ingress.
    pub tcp_to_unix: usize,
    /// Web handlers whose target is our loopback ingress.
    pub web_to_ingress: usize,
    /// Raw TCP forwards to our loopback ingress.
    pub tcp_to_ingress: usize,
    /// Everything that Serve publishes.
    pub config: Arc<ServeConfig>,
    /// Whether a local user may change Tailscale's settings without being root; `None`
    /// when the preferences could not be read.
    pub has_operator: Option<bool>,
    /// The daemon, by the credentials of its LocalAPI socket.
    pub daemon: Option<DaemonProcess>,
    /// Tailscale SSH, whose forwards dial inside the daemon.
    pub run_ssh: Option<bool>,
    /// Whether its command line offers a SOCKS or HTTP proxy; `None` when it
    /// could not be read.
    pub dials_for_others: Option<bool>,
}

/// Says which process tailscaled is right now.
pub trait AskDaemon: Send + Sync {
    /// At once, or not at all.
    fn now(&self) -> Option<DaemonProcess>;
}

/// Sees to it that what is known of Serve is not too old to decide on.
pub trait FreshFacts: Send + Sync {
    /// Waits for facts that were read after this moment; false where that takes too
    /// long.
    fn since(&self, moment: Instant) -> Pin<Box<dyn Future<Output = bool> + '_>>;
}

impl TailnetState {
    /// The state before the first answer.
    pub fn unknown() -> Self {
        Self {
            phase: Phase::Unknown,
            last_ips: Vec::new(),
            serve: ServeView::Unknown,
            clean_since: CleanSince::default(),
            epoch: 0,
            tun: None,
            was_exposed: false,
        }
    }

    /// The running node, if it runs.
    pub fn running(&self) -> Option<&Arc<Running>> {
        match &self.phase {
            Phase::Running(running) => Some(running),
            _ => None,
        }
    }

    /// Whether an address is, or last was, one of this node's tailnet addresses.
    pub fn is_own(&self, ip: IpAddr) -> bool {
        self.last_ips.contains(&ip) || self.running().is_some_and(|running| running.ips.contains(&ip))
    }

    /// The Serve facts, if known.
    pub fn serve_facts(&self) -> Option<&ServeFacts> {
        match &self.serve {
            ServeView::Known(facts) => Some(facts),
            ServeView::Unknown => None,
        }
    }

    /// Whether loopback can be reached from elsewhere. Not known is its own answer:
    /// before the first poll, while the Serve configuration cannot be read, and
    /// with a daemon too old to say whether it has a TUN device.
    pub fn loopback_exposure(&self) -> Exposure {
        match &self.phase {
            Phase::Down { gone: true, .. } => return Exposure::No,
            Phase::Down { gone: false, .. } if self.was_exposed => return Exposure::Yes,
            Phase::Down { gone: false, .. } | Phase::Unknown => return Exposure::Unknown,
            Phase::NotRunning { .. } | Phase::Running(_) => {}
        }
        match (self.tun, self.serve_facts()) {
            (Some(false), _) => Exposure::Yes,
            (_, Some(facts)) if facts.web_to_port + facts.tcp_to_port > 0 => Exposure::Yes,
            (Some(true), Some(_)) => Exposure::No,
            (None, _) | (_, None) => Exposure::Unknown,
        }
    }
}

impl Running {
    /// Whether an address is worth a look-up. A node address lies in Tailscale's
    /// own ranges; only where this node's addresses lie elsewhere (a self-hosted
    /// control server with a prefix of its own) is anything else asked about.
    pub fn worth_asking(&self, ip: IpAddr) -> bool {
        if in_tailscale_range(ip) {
            return !is_reserved(ip);
        }
        let custom = self.ips.iter().any(|own| own.is_ipv4() == ip.is_ipv4() && !in_tailscale_range(*own));
        let plain_loopback =
            ip == IpAddr::from([127, 0, 0, 1]) || ip == IpAddr::V6(std::net::Ipv6Addr::LOCALHOST);
        custom && !plain_loopback && !ip.is_unspecified() && !ip.is_multicast()
    }
}

/// 100.64.0.0/10 and fd7a:115c:a1e0::/48 (tailscale spec 6).
pub fn in_tailscale_range(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            a == 100 && (64..128).contains(&b)
        }
        IpAddr::V6(v6) => v6.segments()[..3] == [0xfd7a, 0x115c, 0xa1e0],
    }
}

/// Parts of those ranges that are never a peer: ChromeOS's 100.115.92.0/23, the
/// built-in services, and 4via6 routes.
fn is_reserved(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => {
            let [_, b, c, d] = v4.octets();
            (b == 115 && (92..94).contains(&c)) || (b, c, d) == (100, 100, 100)
        }
        IpAddr::V6(v6) => {
            let s = v6.segments();
            s[3] == 0x0b1a || s[3..] == [0, 0, 0, 0, 0x53]
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn running() -> Running {
        Running {
            ips: vec!["100.64.0.1".parse().unwrap(), "fd7a:115c:a1e0::1".parse().unwrap()],
            self_id: "nGw".parse().ok(),
            owner: Some(Owner { login: "alice@example.com".parse().unwrap(), user_id: 1 }),
            dns_name: "gw.tailnet-example.ts.net".parse().ok(),
            suffix: Some("tailnet-example.ts.net".into()),
            tailnet: "example.com".into(),
            version: "1.102.3".parse().unwrap(),
            tun: Some(true),
            cert_domains: Vec::new(),
            attributes: NodeAttributes::default(),
        }
    }

    /// Another user's tailscaled, with one route to our ordinary port.
    pub(crate) fn serve_facts() -> ServeFacts {
        ServeFacts {
            web_to_port: 1,
            daemon: Some(DaemonProcess { uid: 0, pid: Some(77) }),
            run_ssh: Some(false),
            dials_for_others: Some(false),
            ..ServeFacts::default()
        }
    }

    pub(crate) fn state() -> TailnetState {
        let running = running();
        TailnetState {
            last_ips: running.ips.clone(),
            phase: Phase::Running(Arc::new(running)),
            epoch: 1,
            tun: Some(true),
            ..TailnetState::unknown()
        }
    }

    #[test]
    fn threat_058_what_is_not_known_is_not_safe() {
        let facts = |web_to_port, tcp_to_port| {
            ServeView::Known(Arc::new(ServeFacts { web_to_port, tcp_to_port, ..ServeFacts::default() }))
        };
        assert_eq!(TailnetState::unknown().loopback_exposure(), Exposure::Unknown);
        assert_eq!(state().loopback_exposure(), Exposure::Unknown, "Serve is not known");
        let known = |serve| TailnetState { serve, ..state() };
        assert_eq!(known(facts(1, 0)).loopback_exposure(), Exposure::Yes);
        assert_eq!(known(facts(0, 1)).loopback_exposure(), Exposure::Yes);
        assert_eq!(known(facts(0, 0)).loopback_exposure(), Exposure::No);
        for (tun, exposure) in [(Some(false), Exposure::Yes), (None, Exposure::Unknown)] {
            assert_eq!(TailnetState { tun, ..known(facts(0, 0)) }.loopback_exposure(), exposure);
        }
        let stopped = Phase::NotRunning { state: BackendState::Stopped };
        let stopped = TailnetState { phase: stopped, tun: Some(false), ..known(facts(0, 0)) };
        assert_eq!(stopped.loopback_exposure(), Exposure::Yes);
        for (gone, exposure) in [(true, Exposure::No), (false, Exposure::Unknown)] {
            let phase = Phase::Down { detail: String::new(), fix: None, gone };
            assert_eq!(TailnetState { phase, ..known(facts(1, 0)) }.loopback_exposure(), exposure);
        }
        // Its socket is gone, and it forwards as before.
        let phase = Phase::Down { detail: String::new(), fix: None, gone: false };
        let cut_off = TailnetState { phase, was_exposed: true, ..state() };
        assert_eq!(cut_off.loopback_exposure(), Exposure::Yes);
    }

    #[test]
    fn addresses_that_cannot_be_a_peers_are_not_asked_about() {
        let running = running();
        for ip in
            ["192.168.1.7", "8.8.8.8", "127.0.0.1", "::1", "100.128.0.1", "100.63.0.1", "100.100.100.100"]
        {
            assert!(!running.worth_asking(ip.parse().unwrap()), "{ip}");
        }
        for ip in ["100.115.92.7", "fd7a:115c:a1e0:b1a::1", "fd7a:115c:a1e0::53", "fd7a:115c:a1e1::2"] {
            assert!(!running.worth_asking(ip.parse().unwrap()), "{ip}");
        }
        for ip in ["100.64.0.2", "100.127.255.254", "fd7a:115c:a1e0::2", "100.115.94.1"] {
            assert!(running.worth_asking(ip.parse().unwrap()), "{ip}");
        }
    }

    #[test]
    fn threat_104_a_custom_prefix_comes_from_the_nodes_own_addresses() {
        let mut running = running();
        running.ips = vec!["192.168.100.1".parse().unwrap()];
        assert!(running.worth_asking("192.168.100.7".parse().unwrap()));
        assert!(!running.worth_asking("127.0.0.1".parse().unwrap()));
        assert!(!running.worth_asking("2001:db8::1".parse().unwrap()), "no custom IPv6 address here");
    }
}
