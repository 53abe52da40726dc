//! Which ingress Serve is pointed at. Pure.
//!
//! The unix socket proves the most: the kernel names the process at its other end, and no
//! local user, no SOCKS proxy and no peer of a userspace-networking daemon gets there. But
//! from 1.100 on tailscaled wants root, or an operator with sudo, for *every* edit while
//! anything of it leads to a unix socket: our route would take Serve out of an operator's
//! hands. So it is used where no operator is set or the operator is us; else the loopback
//! port of our own, which is published for as long as we run (rulings 1.2 to 1.4).

use std::path::{Path, PathBuf};

use super::status::Trouble;
use crate::domain::{Running, ServeFacts};
use crate::ingress::attest::{self, Condition};

/// Serve leads to us, and gives nobody an identity.
pub const IDENTITY_OFF: &str = "serve_identity_off";

/// An ingress that Serve can be pointed at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ingress {
    /// The unix socket at this path.
    Unix(PathBuf),
    /// This port of 127.0.0.1.
    Loopback(u16),
}

/// What there is to choose from, and what is known.
#[derive(Clone, Debug)]
pub struct Options {
    /// The unix ingress, if it is bound.
    pub unix: Option<PathBuf>,
    /// The loopback ingress, if it is bound.
    pub loopback: Option<u16>,
    /// Our uid.
    pub our_uid: u32,
    /// Whether tailscaled refused a unix target of ours since it was last started.
    pub unix_refused: bool,
    /// `gateway.tailscale.trustLocalUsers`.
    pub trust_local_users: bool,
    /// Whether this system says who owns a loopback connection.
    pub knows_owners: bool,
    /// What was chosen last. It stays while too little is known to choose anew: taking a
    /// route away on no evidence would be harm, too.
    pub before: Option<Ingress>,
}

/// The choice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Where Serve is to lead; `None` where it must lead nowhere.
    pub ingress: Option<Ingress>,
    /// Why there is none, or why nobody gets an identity by it.
    pub trouble: Option<Trouble>,
}

/// The choice of whoever looks once, and binds nothing.
#[must_use]
pub fn choose_ingress(
    unix: &Path,
    loopback: u16,
    trust_local_users: bool,
    running: &Running,
    facts: &ServeFacts,
) -> Choice {
    let options = Options {
        unix: Some(unix.to_owned()),
        loopback: Some(loopback),
        our_uid: rustix::process::geteuid().as_raw(),
        unix_refused: false,
        trust_local_users,
        knows_owners: cfg!(target_os = "linux"),
        before: None,
    };
    choose(&options, running, facts)
}

/// Chooses.
#[must_use]
pub fn choose(options: &Options, running: &Running, facts: &ServeFacts) -> Choice {
    if facts.daemon.is_none() {
        let trouble = Trouble::new(
            "serve_state_unknown",
            "nobody answers on Tailscale's LocalAPI socket, so the Serve ingress refuses everybody",
        );
        let trouble = trouble.fix("set gateway.tailscale.socket to tailscaled's --socket");
        return Choice { ingress: options.before.clone(), trouble: Some(trouble) };
    }
    let unusable = match (&options.unix, unix(options, running, facts)) {
        (Some(path), Ok(())) => {
            let trouble = attest::unix_ingress(running, facts).err().map(|condition| {
                let detail = format!(
                    "Serve leads to a unix socket, where nobody gets an identity: {}",
                    says(condition)
                );
                Trouble { fix: fix(condition), ..Trouble::new(IDENTITY_OFF, detail) }
            });
            return Choice { ingress: Some(Ingress::Unix(path.clone())), trouble };
        }
        (None, _) => NotUnix::NotBound,
        (Some(_), Err(why)) => why,
    };
    let Some(port) = options.loopback else {
        let detail = format!("there is no ingress that Serve could lead to: {}", unusable.says());
        let trouble = Trouble { fix: unusable.fix(), ..Trouble::new("serve_no_ingress", detail) };
        return Choice { ingress: None, trouble: Some(trouble) };
    };
    if !options.knows_owners && !options.trust_local_users {
        let detail = format!(
            "this system does not say who opens a loopback connection, and {}; any local program could be anybody",
            unusable.says()
        );
        let trouble = Trouble::new("serve_no_ingress", detail)
            .fix("openclaw config set gateway.bind tailnet (and leave Serve off)");
        return Choice { ingress: None, trouble: Some(trouble) };
    }
    let trouble = loopback(options, running, facts).err().map(|condition| {
        let detail = format!(
            "Serve leads to a loopback port ({}), where nobody gets an identity: {}",
            unusable.says(),
            says(condition)
        );
        Trouble { fix: fix(condition).or_else(|| unusable.fix()), ..Trouble::new(IDENTITY_OFF, detail) }
    });
    Choice { ingress: Some(Ingress::Loopback(port)), trouble }
}

/// Why the unix ingress is not used.
#[derive(Clone, Copy, Debug)]
enum NotUnix {
    NotBound,
    TooOld,
    Refused,
    Operator,
    OurUid,
    OtherUid,
}

impl NotUnix {
    fn says(self) -> &'static str {
        match self {
            Self::NotBound => "the unix ingress is not bound",
            Self::TooOld => "tailscaled is older than 1.94 and knows no unix targets",
            Self::Refused => "tailscaled lets this user serve no unix socket",
            Self::Operator => "a unix target would take Serve out of the operator's hands",
            Self::OurUid => "tailscaled runs as our user and cannot be told from its other programs",
            Self::OtherUid => "tailscaled runs as a user who may not open our socket",
        }
    }

    fn fix(self) -> Option<String> {
        match self {
            Self::NotBound | Self::OurUid | Self::OtherUid => None,
            Self::TooOld => Some("update Tailscale to 1.94 or later".into()),
            Self::Refused => Some("run the gateway as root, or let its user run sudo tailscale".into()),
            Self::Operator => Some("sudo tailscale set --operator=".into()),
        }
    }
}

fn unix(options: &Options, running: &Running, facts: &ServeFacts) -> Result<(), NotUnix> {
    if !running.version.at_least(1, 94, 0) {
        return Err(NotUnix::TooOld);
    }
    match facts.daemon {
        Some(daemon) if daemon.uid == options.our_uid && daemon.pid.is_none() => {
            return Err(NotUnix::OurUid);
        }
        // The socket is 0600 in a directory of mode 0700.
        Some(daemon) if daemon.uid != options.our_uid && daemon.uid != 0 => return Err(NotUnix::OtherUid),
        _ => {}
    }
    // Before 1.100 a unix target wants no more than any other.
    if running.version.at_least(1, 100, 0) {
        let locks_out = match facts.has_operator {
            Some(has) => has,
            // A unix target that is there already locks nobody out anew.
            None => !matches!(options.before, Some(Ingress::Unix(_))),
        };
        if options.our_uid == 0 && locks_out {
            return Err(NotUnix::Operator);
        }
        if options.unix_refused {
            return Err(NotUnix::Refused);
        }
    }
    Ok(())
}

/// Whether Serve's connections to the loopback ingress could be told to be Serve's.
fn loopback(options: &Options, running: &Running, facts: &ServeFacts) -> Result<(), Condition> {
    if !options.knows_owners {
        return Ok(());
    }
    let owner = facts.daemon.map(|daemon| daemon.uid);
    // The route that we are about to publish.
    let mut facts = facts.clone();
    facts.web_to_ingress = 1;
    attest::loopback_ingress(running, &facts, owner, options.our_uid)
}

fn says(condition: Condition) -> &'static str {
    match condition {
        Condition::DaemonUnknown => "it is not known which process tailscaled is",
        Condition::DaemonIsOurUid => "tailscaled runs as our own user, so any of its programs could be Serve",
        Condition::SocketIsNotDaemons => "its connections are not tailscaled's",
        Condition::NoTun => "with userspace networking every peer reaches loopback through tailscaled",
        Condition::DaemonTooOld => "tailscaled before 1.98.1 connects for any local user",
        Condition::TailscaleSsh => "Tailscale SSH is on, whose forwards come from tailscaled",
        Condition::DialsForOthers => {
            "tailscaled offers a SOCKS or HTTP proxy, which connects for any local user"
        }
        Condition::NotOneWebHandler => "more than one Serve route leads there",
        Condition::TcpForward => "a raw TCP forward leads there",
        Condition::PeerIsNotDaemon => "the peer is not tailscaled",
        Condition::OlderThanFacts => "its connections are older than what is known",
    }
}

fn fix(condition: Condition) -> Option<String> {
    let text = match condition {
        Condition::DaemonTooOld => "update Tailscale to 1.98.1 or later",
        Condition::TailscaleSsh => "sudo tailscale set --ssh=false",
        Condition::DialsForOthers => {
            "start tailscaled without --socks5-server and --outbound-http-proxy-listen"
        }
        Condition::DaemonIsOurUid => "run the gateway as a user of its own",
        Condition::TcpForward => "take that TCP forward away: tailscale serve status",
        Condition::NotOneWebHandler => "take the other route away: tailscale serve status",
        Condition::DaemonUnknown
        | Condition::SocketIsNotDaemons
        | Condition::NoTun
        | Condition::PeerIsNotDaemon
        | Condition::OlderThanFacts => return None,
    };
    Some(text.to_owned())
}

#[cfg(test)]
mod tests;
