//! Whether a connection can be told to be Tailscale Serve's.
//!
//! A loopback connection from tailscaled's uid is no proof by itself: SOCKS and
//! HTTP proxies, Tailscale SSH forwards, raw TCP forwards and, before 1.98.1,
//! the LocalAPI make tailscaled dial for others. Every condition of rulings 1.2
//! must hold; the first that does not is named in the log. Pure: the facts come
//! from the watcher, the owner of the socket from the kernel.

use std::time::Instant;

use openclaw_tailscale::DaemonProcess;

use crate::domain::{Running, ServeFacts, TailnetState};

/// The condition that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Nobody answers on the LocalAPI socket, or its owner is unknown.
    DaemonUnknown,
    /// tailscaled runs as our own uid: it cannot be told from our user's programs.
    DaemonIsOurUid,
    /// The connecting socket is not tailscaled's, or its owner is unknown.
    SocketIsNotDaemons,
    /// Userspace networking, or not known not to be.
    NoTun,
    /// The daemon is too old to be believed.
    DaemonTooOld,
    /// Tailscale SSH is on, or not known to be off.
    TailscaleSsh,
    /// A SOCKS or HTTP proxy is offered, or not known not to be.
    DialsForOthers,
    /// Not exactly one Serve web handler leads to our port.
    NotOneWebHandler,
    /// A raw TCP forward leads here.
    TcpForward,
    /// The unix peer is not tailscaled.
    PeerIsNotDaemon,
    /// The connection was accepted under other facts than those of now.
    OlderThanFacts,
}

impl Condition {
    /// The word in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DaemonUnknown => "daemon_unknown",
            Self::DaemonIsOurUid => "daemon_is_our_uid",
            Self::SocketIsNotDaemons => "socket_is_not_daemons",
            Self::NoTun => "no_tun",
            Self::DaemonTooOld => "daemon_too_old",
            Self::TailscaleSsh => "tailscale_ssh",
            Self::DialsForOthers => "dials_for_others",
            Self::NotOneWebHandler => "not_one_web_handler",
            Self::TcpForward => "tcp_forward",
            Self::PeerIsNotDaemon => "peer_is_not_daemon",
            Self::OlderThanFacts => "older_than_facts",
        }
    }
}

const OVERFLOW_UID: u32 = 65_534;

/// What was known when a connection was accepted. A connection may have come by a
/// way that is closed by now, and be older than the facts that close it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AtAccept {
    /// Nothing but Serve could make tailscaled connect to our port.
    pub loopback: bool,
    /// Nothing but Serve could make it connect to the unix ingress.
    pub unix: bool,
    /// Nothing but Serve could make it connect to the loopback ingress.
    pub ingress: bool,
}

impl AtAccept {
    /// Nothing is known in a connection's favour.
    pub const NONE: Self = Self { loopback: false, unix: false, ingress: false };

    /// Judges by the facts of now. Unknown facts exclude nothing.
    pub fn now(facts: Option<&ServeFacts>) -> Self {
        let dials_for_nobody =
            facts.is_some_and(|facts| facts.run_ssh == Some(false) && facts.dials_for_others == Some(false));
        let without = |forwards: fn(&ServeFacts) -> usize| facts.is_some_and(|facts| forwards(facts) == 0);
        Self {
            loopback: dials_for_nobody && without(|facts| facts.tcp_to_port),
            // Of what dials for others only SSH reaches unix sockets.
            unix: facts.is_some_and(|facts| facts.run_ssh == Some(false))
                && without(|facts| facts.tcp_to_unix),
            ingress: dials_for_nobody && without(|facts| facts.tcp_to_ingress),
        }
    }

    /// What holds of a connection accepted at `accepted`, by a read of after that: what
    /// the read shows, unless an earlier read of after that, or of about then, showed
    /// otherwise. A way that was open for a moment may have been used in it.
    #[must_use]
    pub fn of(state: &TailnetState, accepted: Instant) -> Self {
        let since = |since: Option<Instant>| since.is_some_and(|since| since <= accepted);
        let clean = &state.clean_since;
        let unbroken =
            Self { loopback: since(clean.loopback), unix: since(clean.unix), ingress: since(clean.ingress) };
        Self::now(state.serve_facts()).and(unbroken)
    }

    /// What held then and holds now.
    #[must_use]
    pub fn and(self, now: Self) -> Self {
        Self {
            loopback: self.loopback && now.loopback,
            unix: self.unix && now.unix,
            ingress: self.ingress && now.ingress,
        }
    }
}

/// Whether a TCP connection to the ordinary port is Serve's. `socket_uid` is the uid of
/// the connecting socket, `None` where the kernel did not say.
pub fn loopback(
    running: &Running,
    facts: &ServeFacts,
    socket_uid: Option<u32>,
    our_uid: u32,
) -> Result<(), Condition> {
    tcp(running, facts, (facts.web_to_port, facts.tcp_to_port), socket_uid, our_uid)
}

/// The same of a connection to the loopback ingress, which Serve alone uses.
pub fn loopback_ingress(
    running: &Running,
    facts: &ServeFacts,
    socket_uid: Option<u32>,
    our_uid: u32,
) -> Result<(), Condition> {
    tcp(running, facts, (facts.web_to_ingress, facts.tcp_to_ingress), socket_uid, our_uid)
}

/// `leading_here` counts the web handlers and the raw forwards to the port in question.
fn tcp(
    running: &Running,
    facts: &ServeFacts,
    leading_here: (usize, usize),
    socket_uid: Option<u32>,
    our_uid: u32,
) -> Result<(), Condition> {
    let (web, raw) = leading_here;
    let daemon = facts.daemon.as_ref().ok_or(Condition::DaemonUnknown)?;
    // Every uid that our user namespace does not map reads as the overflow uid.
    if daemon.pid.is_none() || daemon.uid == OVERFLOW_UID {
        return Err(Condition::DaemonUnknown);
    }
    if daemon.uid == our_uid {
        return Err(Condition::DaemonIsOurUid);
    }
    if socket_uid != Some(daemon.uid) {
        return Err(Condition::SocketIsNotDaemons);
    }
    if running.tun != Some(true) {
        return Err(Condition::NoTun);
    }
    if !running.version.at_least(1, 98, 1) {
        return Err(Condition::DaemonTooOld);
    }
    if facts.run_ssh != Some(false) {
        return Err(Condition::TailscaleSsh);
    }
    if facts.dials_for_others != Some(false) {
        return Err(Condition::DialsForOthers);
    }
    if raw != 0 {
        return Err(Condition::TcpForward);
    }
    if web != 1 {
        return Err(Condition::NotOneWebHandler);
    }
    Ok(())
}

/// Whether the peer of the unix ingress is tailscaled (rulings 1.3). Where
/// tailscaled runs as our uid, its pid must be known and equal.
pub fn unix_peer(daemon: &DaemonProcess, peer: super::UnixPeer, our_uid: u32) -> Result<(), Condition> {
    if peer.uid != daemon.uid || (peer.uid == OVERFLOW_UID && daemon.pid.is_none()) {
        return Err(Condition::PeerIsNotDaemon);
    }
    match (daemon.pid, peer.pid) {
        (Some(daemon_pid), Some(peer_pid)) if daemon_pid == peer_pid => Ok(()),
        (Some(_), Some(_)) => Err(Condition::PeerIsNotDaemon),
        _ if daemon.uid == our_uid => Err(Condition::DaemonIsOurUid),
        _ => Ok(()),
    }
}

/// Whether a peer of the unix ingress is tailscaled: the one that is known, or,
/// since it may have been started a moment ago or again, the one of `now`.
pub fn admit_unix(
    known: Option<DaemonProcess>,
    now: impl FnOnce() -> Option<DaemonProcess>,
    peer: super::UnixPeer,
    our_uid: u32,
) -> Result<(), Condition> {
    if known.is_some_and(|daemon| unix_peer(&daemon, peer, our_uid).is_ok()) {
        return Ok(());
    }
    let daemon = now().ok_or(Condition::DaemonUnknown)?;
    unix_peer(&daemon, peer, our_uid)
}

/// Whether the Serve configuration and version let the unix ingress carry
/// identity at all.
pub fn unix_ingress(running: &Running, facts: &ServeFacts) -> Result<(), Condition> {
    if !running.version.at_least(1, 94, 0) {
        return Err(Condition::DaemonTooOld);
    }
    // Its forwards of unix sockets are dialled by tailscaled itself, with its rights.
    if facts.run_ssh != Some(false) {
        return Err(Condition::TailscaleSsh);
    }
    if facts.tcp_to_unix != 0 {
        return Err(Condition::TcpForward);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::tailnet::tests::running;
    use crate::ingress::UnixPeer;

    const OURS: u32 = 1000;

    fn facts() -> ServeFacts {
        ServeFacts {
            web_to_port: 1,
            tcp_to_port: 0,
            tcp_to_unix: 0,
            config: std::sync::Arc::default(),
            daemon: Some(DaemonProcess { uid: 0, pid: Some(77) }),
            run_ssh: Some(false),
            dials_for_others: Some(false),
            ..ServeFacts::default()
        }
    }

    #[test]
    fn threat_002_every_condition_alone_refuses_a_loopback_connection() {
        let sound = running();
        let check = |change: fn(&mut ServeFacts)| {
            let mut facts = facts();
            change(&mut facts);
            loopback(&sound, &facts, Some(0), OURS).unwrap_err()
        };
        assert_eq!(check(|f| f.daemon = None), Condition::DaemonUnknown);
        assert_eq!(check(|f| f.daemon = Some(DaemonProcess { uid: 0, pid: None })), Condition::DaemonUnknown);
        assert_eq!(
            check(|f| f.daemon = Some(DaemonProcess { uid: OURS, pid: Some(1) })),
            Condition::DaemonIsOurUid
        );
        assert_eq!(check(|f| f.run_ssh = Some(true)), Condition::TailscaleSsh);
        assert_eq!(check(|f| f.run_ssh = None), Condition::TailscaleSsh);
        assert_eq!(check(|f| f.dials_for_others = Some(true)), Condition::DialsForOthers);
        assert_eq!(check(|f| f.dials_for_others = None), Condition::DialsForOthers);
        assert_eq!(check(|f| f.web_to_port = 0), Condition::NotOneWebHandler);
        assert_eq!(check(|f| f.web_to_port = 2), Condition::NotOneWebHandler);
        assert_eq!(check(|f| f.tcp_to_port = 1), Condition::TcpForward);
        for socket_uid in [None, Some(OURS), Some(65534)] {
            assert_eq!(loopback(&sound, &facts(), socket_uid, OURS), Err(Condition::SocketIsNotDaemons));
        }
        for tun in [None, Some(false)] {
            let node = Running { tun, ..running() };
            assert_eq!(loopback(&node, &facts(), Some(0), OURS), Err(Condition::NoTun));
        }
        let old = Running { version: "1.98.0".parse().unwrap(), ..running() };
        assert_eq!(loopback(&old, &facts(), Some(0), OURS), Err(Condition::DaemonTooOld));
        assert_eq!(loopback(&sound, &facts(), Some(0), OURS), Ok(()));
    }

    #[test]
    fn threat_003_a_unix_peer_must_be_tailscaled_itself() {
        let daemon = DaemonProcess { uid: 0, pid: Some(77) };
        let peer = |uid, pid| UnixPeer { uid, pid };
        assert_eq!(unix_peer(&daemon, peer(65534, Some(77)), OURS), Err(Condition::PeerIsNotDaemon));
        assert_eq!(unix_peer(&daemon, peer(0, Some(78)), OURS), Err(Condition::PeerIsNotDaemon));
        assert_eq!(unix_peer(&daemon, peer(0, Some(77)), OURS), Ok(()));
        // Another pid namespace: the uid alone, unless it is our own.
        assert_eq!(unix_peer(&daemon, peer(0, None), OURS), Ok(()));
        let ours = DaemonProcess { uid: OURS, pid: None };
        assert_eq!(unix_peer(&ours, peer(OURS, Some(9)), OURS), Err(Condition::DaemonIsOurUid));
    }

    #[test]
    fn threat_003_a_daemon_that_was_started_again_is_asked_for_once() {
        let (old, new) = (DaemonProcess { uid: 0, pid: Some(7) }, DaemonProcess { uid: 0, pid: Some(8) });
        let peer = UnixPeer { uid: 0, pid: Some(8) };
        assert_eq!(admit_unix(Some(old), || None, peer, OURS), Err(Condition::DaemonUnknown));
        assert_eq!(admit_unix(Some(old), || Some(old), peer, OURS), Err(Condition::PeerIsNotDaemon));
        assert_eq!(admit_unix(Some(old), || Some(new), peer, OURS), Ok(()));
        assert_eq!(admit_unix(None, || Some(new), peer, OURS), Ok(()));
        assert_eq!(admit_unix(Some(new), || panic!("asked for nothing"), peer, OURS), Ok(()));
    }

    #[test]
    fn threat_002_a_way_that_was_open_for_a_moment_leaves_its_connections_unbelieved() {
        use crate::domain::tailnet::tests::state;
        use crate::domain::{CleanSince, ServeView};
        use std::time::Duration;

        let accepted = Instant::now();
        let read = |since: Option<Instant>| {
            let clean_since = CleanSince { loopback: since, unix: since, ingress: since };
            let serve = ServeView::Known(std::sync::Arc::new(facts()));
            AtAccept::of(&TailnetState { serve, clean_since, ..state() }, accepted)
        };
        // The forward was there at a read of after the accept, and is gone at the last one.
        assert_eq!(read(Some(accepted + Duration::from_millis(1))), AtAccept::NONE);
        assert_eq!(read(None), AtAccept::NONE);
        assert_eq!(read(Some(accepted)), AtAccept::now(Some(&facts())));
    }

    #[test]
    fn a_raw_forward_or_an_old_daemon_ends_the_unix_ingress() {
        assert_eq!(
            unix_ingress(&running(), &ServeFacts { tcp_to_unix: 1, ..facts() }),
            Err(Condition::TcpForward)
        );
        let old = Running { version: "1.92.5".parse().unwrap(), ..running() };
        assert_eq!(unix_ingress(&old, &facts()), Err(Condition::DaemonTooOld));
        for run_ssh in [Some(true), None] {
            let facts = ServeFacts { run_ssh, ..facts() };
            assert_eq!(unix_ingress(&running(), &facts), Err(Condition::TailscaleSsh));
            assert!(!AtAccept::now(Some(&facts)).unix);
        }
        assert_eq!(unix_ingress(&running(), &facts()), Ok(()));
    }
}
