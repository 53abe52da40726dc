//! `tailscale status --json`: the state of this node.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::whois::WireUser;
use crate::{Error, Login, NodeName, StableNodeId, UserProfile, Version, json};

/// The state of this node and its daemon.
#[derive(Debug, Clone, PartialEq)]
pub struct Status {
    /// The *daemon's* version: the one that security gates go by.
    pub version: Version,
    /// Whether there is a TUN device. `Some(false)` is userspace networking, where
    /// every peer that the policy admits can reach this host's loopback.
    pub tun: Option<bool>,
    /// What the daemon is doing.
    pub backend_state: BackendState,
    /// This node's addresses. Kept while stopped.
    pub tailscale_ips: Vec<IpAddr>,
    /// This node.
    pub self_node: SelfNode,
    /// The tailnet's DNS suffix, without dots at its ends.
    pub magic_dns_suffix: Option<String>,
    /// The tailnet; `None` without a network map.
    pub current_tailnet: Option<Tailnet>,
    /// The names that certificates can be had for. Empty: no HTTPS.
    pub cert_domains: Vec<String>,
    /// Profiles by user id. Without peers, only this node's owner.
    pub users: BTreeMap<i64, UserProfile>,
    /// Complaints of the daemon, to show. Their wording changes.
    pub health: Vec<String>,
    /// Whether a login is pending. The link itself is a secret of sorts and is
    /// dropped.
    pub has_auth_url: bool,
}

impl Status {
    /// The person who owns this node; nobody when it is tagged, logged out, or its
    /// profile is not known.
    #[must_use]
    pub fn owner(&self) -> Option<&UserProfile> {
        if !self.self_node.tags.is_empty() {
            return None;
        }
        let owner = self.users.get(&self.self_node.user_id)?;
        (!owner.login.is_tagged_devices()).then_some(owner)
    }

    /// Whether the backend is `Running`, the only state in which `whois` counts.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.backend_state == BackendState::Running
    }

    /// Whether `ip` is one of this node's addresses.
    #[must_use]
    pub fn owns(&self, ip: IpAddr) -> bool {
        self.tailscale_ips.contains(&ip.to_canonical())
    }
}

/// This node, as `status` describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SelfNode {
    /// Its stable id; `None` before the first login.
    pub id: Option<StableNodeId>,
    /// Its DNS name; `None` before login or without MagicDNS names.
    pub dns_name: Option<NodeName>,
    /// The host's own name.
    pub host_name: String,
    /// The owner's number; 0 before login.
    pub user_id: i64,
    /// Its tags.
    pub tags: Vec<String>,
    /// The names of its node attributes (`https`, `funnel`, ...).
    pub capabilities: BTreeSet<String>,
    /// Whether control sees it online.
    pub online: bool,
    /// When its key expires (RFC 3339, as printed); `None` is never or unknown.
    pub key_expiry: Option<String>,
    /// Whether its key has expired.
    pub expired: bool,
}

impl SelfNode {
    /// Whether it has a node attribute: `https` and `funnel` say what the tailnet
    /// permits to serve.
    #[must_use]
    pub fn has_capability(&self, name: &str) -> bool {
        self.capabilities.contains(name)
    }

    /// The ports that Funnel may use here, from the attribute that lists them:
    /// `.../cap/funnel-ports?ports=443,8443,10000`, where `8000-8010` is a range. What
    /// cannot be read there permits nothing.
    #[must_use]
    pub fn funnel_ports(&self) -> Vec<RangeInclusive<u16>> {
        let lists = self.capabilities.iter().filter_map(|name| {
            name.strip_prefix(FUNNEL_PORTS)?
                .strip_prefix('?')?
                .split('&')
                .find_map(|p| p.strip_prefix("ports="))
        });
        lists.flat_map(|list| list.split(',')).filter_map(port_range).collect()
    }
}

/// The attribute that says which ports Funnel may use.
const FUNNEL_PORTS: &str = "https://tailscale.com/cap/funnel-ports";

fn port_range(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let range = first.parse().ok()?..=last.parse().ok()?;
    (!range.is_empty()).then_some(range)
}

/// The tailnet this node is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tailnet {
    /// Its name.
    pub name: String,
    /// Its DNS suffix, without dots at its ends.
    pub magic_dns_suffix: Option<String>,
}

/// What the daemon is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackendState {
    /// Just started.
    NoState,
    /// Another user of this machine has it (Windows).
    InUseOtherUser,
    /// Logged out, or the key has expired.
    NeedsLogin,
    /// Waits for an admin's approval.
    NeedsMachineAuth,
    /// Switched off with `tailscale down`.
    Stopped,
    /// Connecting.
    Starting,
    /// Connected.
    Running,
    /// A state that this crate does not know; counts as not running.
    Other(String),
}

impl BackendState {
    /// As printed.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::NoState => "NoState",
            Self::InUseOtherUser => "InUseOtherUser",
            Self::NeedsLogin => "NeedsLogin",
            Self::NeedsMachineAuth => "NeedsMachineAuth",
            Self::Stopped => "Stopped",
            Self::Starting => "Starting",
            Self::Running => "Running",
            Self::Other(text) => text,
        }
    }

    /// Why nothing can be asked in this state; `None` when running.
    #[must_use]
    pub fn as_error(&self) -> Option<Error> {
        match self {
            Self::Running => None,
            Self::NeedsLogin => Some(Error::LoggedOut),
            Self::Stopped => Some(Error::Stopped),
            Self::NoState
            | Self::InUseOtherUser
            | Self::NeedsMachineAuth
            | Self::Starting
            | Self::Other(_) => Some(Error::NotReady { state: self.clone() }),
        }
    }
}

impl FromStr for BackendState {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text {
            "NoState" => Self::NoState,
            "InUseOtherUser" => Self::InUseOtherUser,
            "NeedsLogin" => Self::NeedsLogin,
            "NeedsMachineAuth" => Self::NeedsMachineAuth,
            "Stopped" => Self::Stopped,
            "Starting" => Self::Starting,
            "Running" => Self::Running,
            other => Self::Other(crate::text::printable(other.as_bytes(), 64)),
        })
    }
}

impl fmt::Display for BackendState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Any array and any object may be `null`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireStatus {
    version: Option<String>,
    #[serde(rename = "TUN")]
    tun: Option<bool>,
    backend_state: Option<String>,
    #[serde(rename = "AuthURL")]
    auth_url: Option<String>,
    #[serde(rename = "TailscaleIPs")]
    tailscale_ips: Option<Vec<IpAddr>>,
    #[serde(rename = "Self")]
    self_node: Option<WireSelf>,
    health: Option<Vec<String>>,
    #[serde(rename = "MagicDNSSuffix")]
    magic_dns_suffix: Option<String>,
    current_tailnet: Option<WireTailnet>,
    cert_domains: Option<Vec<String>>,
    user: Option<BTreeMap<String, Option<WireUser>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireSelf {
    /// Empty before login.
    #[serde(rename = "ID")]
    id: Option<String>,
    #[serde(rename = "DNSName")]
    dns_name: Option<String>,
    host_name: Option<String>,
    #[serde(rename = "UserID")]
    user_id: Option<i64>,
    tags: Option<Vec<String>>,
    cap_map: Option<BTreeMap<String, IgnoredAny>>,
    /// What older daemons had instead of `CapMap`.
    capabilities: Option<Vec<String>>,
    online: Option<bool>,
    key_expiry: Option<String>,
    expired: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireTailnet {
    name: Option<String>,
    #[serde(rename = "MagicDNSSuffix")]
    magic_dns_suffix: Option<String>,
}

const COMMAND: &str = "status";

/// Parses the output of `tailscale status --json`, or the LocalAPI's answer.
///
/// # Errors
/// When it is not one JSON object, or `Version`, `BackendState` or `Self` is missing
/// or wrong. A profile without a usable login is left out, not an error.
pub fn parse_status(bytes: &[u8]) -> Result<Status, Error> {
    let wire: WireStatus = json::decode(COMMAND, bytes)?;
    let missing = |field| move || Error::wrong_shape(COMMAND, field, "it is missing");
    let version = wire.version.ok_or_else(missing("Version"))?;
    let state = wire.backend_state.ok_or_else(missing("BackendState"))?;
    let Ok(backend_state) = state.parse();
    let tailscale_ips = wire.tailscale_ips.unwrap_or_default();
    Ok(Status {
        version: version.parse().map_err(|error| wrong("Version", error))?,
        tun: wire.tun,
        backend_state,
        tailscale_ips: tailscale_ips.iter().map(IpAddr::to_canonical).collect(),
        self_node: self_node(wire.self_node.ok_or_else(missing("Self"))?)?,
        magic_dns_suffix: suffix(wire.magic_dns_suffix),
        current_tailnet: wire.current_tailnet.map(|tailnet| Tailnet {
            name: tailnet.name.unwrap_or_default(),
            magic_dns_suffix: suffix(tailnet.magic_dns_suffix),
        }),
        cert_domains: wire.cert_domains.unwrap_or_default(),
        users: users(wire.user.unwrap_or_default()),
        health: wire.health.unwrap_or_default(),
        has_auth_url: wire.auth_url.is_some_and(|url| !url.is_empty()),
    })
}

fn wrong(field: &str, detail: impl ToString) -> Error {
    Error::wrong_shape(COMMAND, field, detail.to_string())
}

fn self_node(wire: WireSelf) -> Result<SelfNode, Error> {
    let filled = |text: Option<String>| text.filter(|text| !text.is_empty());
    let id = filled(wire.id).map(|id| id.parse()).transpose();
    let dns_name = filled(wire.dns_name).map(|name| name.parse()).transpose();
    let mut capabilities: BTreeSet<String> = wire.capabilities.unwrap_or_default().into_iter().collect();
    capabilities.extend(wire.cap_map.unwrap_or_default().into_keys());
    Ok(SelfNode {
        id: id.map_err(|error| wrong("Self.ID", error))?,
        dns_name: dns_name.map_err(|error| wrong("Self.DNSName", error))?,
        host_name: wire.host_name.unwrap_or_default(),
        user_id: wire.user_id.unwrap_or_default(),
        tags: wire.tags.unwrap_or_default(),
        capabilities,
        online: wire.online.unwrap_or(false),
        key_expiry: filled(wire.key_expiry).filter(|time| !time.starts_with("0001-01-01T")),
        expired: wire.expired.unwrap_or(false),
    })
}

fn suffix(text: Option<String>) -> Option<String> {
    let text = text?.trim_matches('.').to_ascii_lowercase();
    (!text.is_empty()).then_some(text)
}

/// Profiles by the key of the map. One whose own id differs, or whose login is
/// unusable, is left out: it can then own nothing.
fn users(wire: BTreeMap<String, Option<WireUser>>) -> BTreeMap<i64, UserProfile> {
    let profile = |(key, user): (String, Option<WireUser>)| {
        let (id, user) = (key.parse::<i64>().ok()?, user?);
        let login: Login = user.login_name.as_deref()?.parse().ok()?;
        user.id.is_none_or(|own| own == id).then(|| (id, user.into_profile(id, login)))
    };
    wire.into_iter().filter_map(profile).collect()
}

#[cfg(test)]
mod tests;
