//! `tailscale whois --json`: who is behind an address.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::Deserialize;

use crate::{Error, Login, NodeName, StableNodeId, json};

/// App capabilities that the policy grants to the asked-about peer on this node: a
/// name, and one JSON value per grant. Held without parameters is an empty list.
pub type CapMap = BTreeMap<String, Vec<serde_json::Value>>;

/// Who is behind an address: a machine, and its owner.
///
/// A tagged machine has no owner. Ask [`Whois::owner`], which knows.
#[derive(Debug, Clone, PartialEq)]
pub struct Whois {
    /// The machine.
    pub node: Node,
    /// The profile that came with it: the owner's, or a stand-in on a tagged node.
    pub user: UserProfile,
    /// App capabilities (not node attributes).
    pub cap_map: CapMap,
}

impl Whois {
    /// The person who owns the machine; nobody when it is tagged. Devices of people
    /// this node is shared with have an owner too: see [`Node::sharee_node`].
    #[must_use]
    pub fn owner(&self) -> Option<&UserProfile> {
        self.node.tags.is_empty().then_some(&self.user)
    }
}

/// A machine of the tailnet, or one shared with it.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Its number; may exceed 2^53.
    pub id: i64,
    /// Its stable id: the key for a device.
    pub stable_id: StableNodeId,
    /// Its DNS name; absent where the tailnet has no MagicDNS names.
    pub name: Option<NodeName>,
    /// A name to show. Partly chosen by its user, so never authorise on it.
    pub computed_name: String,
    /// Its own addresses: never empty, each a single host.
    pub addresses: Vec<IpNetwork>,
    /// Its own addresses and the routes that go through it.
    pub allowed_ips: Vec<IpNetwork>,
    /// Its tags; a tagged node has no owner.
    pub tags: Vec<String>,
    /// The user who shared this machine into our tailnet.
    pub sharer: Option<i64>,
    /// Whether it belongs to somebody whom this node is shared with.
    pub sharee_node: bool,
    /// Whether its key has expired. `whois` goes on answering for such nodes.
    pub expired: bool,
    /// Whether it may only answer, not open connections.
    pub jailed: bool,
    /// Whether tailnet lock has not signed it (`UnsignedPeerAPIOnly`).
    pub unsigned: bool,
    /// Whether it is a plain WireGuard peer, such as a Mullvad exit node.
    pub wireguard_only: bool,
    /// Whether control sees it online; unknown when absent.
    pub online: Option<bool>,
    /// When its key expires (RFC 3339, as printed); `None` is never.
    pub key_expiry: Option<String>,
    /// Its operating system, as it says itself.
    pub os: Option<String>,
}

impl Node {
    /// Whether traffic of other machines may arrive under its address: its allowed
    /// addresses exceed its own (subnet router or exit node).
    #[must_use]
    pub fn is_router(&self) -> bool {
        self.allowed_ips.iter().any(|network| !self.addresses.contains(network))
    }

    /// Whether `ip` is one of its own addresses.
    #[must_use]
    pub fn owns(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.addresses.iter().any(|network| network.ip().to_canonical() == ip)
    }
}

/// A person's profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserProfile {
    /// The user's number; may exceed 2^53.
    pub id: i64,
    /// The login name: what rules name people by.
    pub login: Login,
    /// A name to show; chosen by the person, any characters.
    pub display_name: String,
    /// The picture's address, as printed and unchecked.
    pub profile_pic_url: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireWhois {
    node: Option<WireNode>,
    user_profile: Option<WireUser>,
    /// `null` when nothing is granted.
    cap_map: Option<BTreeMap<String, Option<Vec<serde_json::Value>>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireNode {
    #[serde(rename = "ID")]
    id: Option<i64>,
    #[serde(rename = "StableID")]
    stable_id: Option<String>,
    /// With a trailing dot.
    name: Option<String>,
    computed_name: Option<String>,
    addresses: Option<Vec<IpNetwork>>,
    #[serde(rename = "AllowedIPs")]
    allowed_ips: Option<Vec<IpNetwork>>,
    /// Omitted if empty.
    tags: Option<Vec<String>>,
    sharer: Option<i64>,
    /// Omitted (1.96 and later) or the year 1 when there is none.
    key_expiry: Option<String>,
    expired: Option<bool>,
    online: Option<bool>,
    is_jailed: Option<bool>,
    is_wire_guard_only: Option<bool>,
    #[serde(rename = "UnsignedPeerAPIOnly")]
    unsigned_peer_api_only: Option<bool>,
    hostinfo: Option<WireHostinfo>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireHostinfo {
    #[serde(rename = "OS")]
    os: Option<String>,
    sharee_node: Option<bool>,
}

/// A profile, in `whois` and in the user map of `status`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct WireUser {
    #[serde(rename = "ID")]
    pub(crate) id: Option<i64>,
    pub(crate) login_name: Option<String>,
    display_name: Option<String>,
    /// Omitted if empty; always present in old releases.
    #[serde(rename = "ProfilePicURL")]
    profile_pic_url: Option<String>,
}

impl WireUser {
    pub(crate) fn into_profile(self, id: i64, login: Login) -> UserProfile {
        UserProfile {
            id,
            login,
            display_name: self.display_name.unwrap_or_default(),
            profile_pic_url: self.profile_pic_url.filter(|url| !url.is_empty()),
        }
    }
}

const COMMAND: &str = "whois";

/// Parses the output of `tailscale whois --json`, or the LocalAPI's answer, which
/// has the same shape.
///
/// # Errors
/// When it is not one JSON object; when `Node` (with its ids and at least one
/// address) or `UserProfile` is missing or wrong; when an untagged node has no login
/// or claims the login of tagged ones. What cannot be read grants nothing.
pub fn parse_whois(bytes: &[u8]) -> Result<Whois, Error> {
    let wire: WireWhois = json::decode(COMMAND, bytes)?;
    let node = node(wire.node.ok_or_else(|| missing("Node"))?)?;
    let user = user(wire.user_profile.ok_or_else(|| missing("UserProfile"))?, &node)?;
    let cap_map = wire.cap_map.unwrap_or_default();
    let cap_map = cap_map.into_iter().map(|(name, values)| (name, values.unwrap_or_default()));
    Ok(Whois { node, user, cap_map: cap_map.collect() })
}

fn missing(field: &str) -> Error {
    Error::wrong_shape(COMMAND, field, "it is missing")
}

fn wrong(field: &str, detail: impl ToString) -> Error {
    Error::wrong_shape(COMMAND, field, detail.to_string())
}

fn node(wire: WireNode) -> Result<Node, Error> {
    let stable_id = wire.stable_id.ok_or_else(|| missing("Node.StableID"))?;
    let name = wire.name.filter(|name| !name.is_empty());
    let addresses = wire.addresses.unwrap_or_default();
    if addresses.is_empty() {
        return Err(missing("Node.Addresses"));
    }
    // A wider network among its own addresses would hide that it is a router.
    if addresses.iter().any(|network| network.prefix() != host_prefix(network)) {
        return Err(wrong("Node.Addresses", "one of them is a network, not an address"));
    }
    let hostinfo = wire.hostinfo;
    Ok(Node {
        id: wire.id.ok_or_else(|| missing("Node.ID"))?,
        stable_id: stable_id.parse().map_err(|error| wrong("Node.StableID", error))?,
        name: name.map(|name| name.parse()).transpose().map_err(|e| wrong("Node.Name", e))?,
        computed_name: wire.computed_name.unwrap_or_default(),
        addresses,
        allowed_ips: wire.allowed_ips.unwrap_or_default(),
        tags: wire.tags.unwrap_or_default(),
        sharer: wire.sharer.filter(|id| *id != 0),
        sharee_node: hostinfo.as_ref().and_then(|info| info.sharee_node).unwrap_or(false),
        expired: wire.expired.unwrap_or(false),
        jailed: wire.is_jailed.unwrap_or(false),
        unsigned: wire.unsigned_peer_api_only.unwrap_or(false),
        wireguard_only: wire.is_wire_guard_only.unwrap_or(false),
        online: wire.online,
        key_expiry: wire.key_expiry.filter(|time| !time.is_empty() && !is_zero_time(time)),
        os: hostinfo.and_then(|info| info.os).filter(|os| !os.is_empty()),
    })
}

fn host_prefix(network: &IpNetwork) -> u8 {
    if network.is_ipv4() { 32 } else { 128 }
}

fn is_zero_time(time: &str) -> bool {
    time.starts_with("0001-01-01T00:00:00")
}

fn user(wire: WireUser, node: &Node) -> Result<UserProfile, Error> {
    const LOGIN: &str = "UserProfile.LoginName";
    let id = wire.id.ok_or_else(|| missing("UserProfile.ID"))?;
    let tagged = !node.tags.is_empty();
    let login = match wire.login_name.as_deref() {
        // Nobody owns a tagged node, so nobody's login is needed to know what it is.
        None | Some("") if tagged => Login::tagged_devices(),
        None => return Err(missing(LOGIN)),
        Some(text) => text.parse().map_err(|error| wrong(LOGIN, error))?,
    };
    // Seen halfway through a change of tags, or forged: either way not a person.
    if !tagged && login.is_tagged_devices() {
        return Err(wrong(LOGIN, "the login of tagged devices on a node without tags"));
    }
    Ok(wire.into_profile(id, login))
}

#[cfg(test)]
mod tests;
