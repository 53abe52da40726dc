//! What tailscaled tells as it happens: `watch-ipn-bus`.
//!
//! Read for one question, whether what is known of peers may be wrong now, so little
//! of an event is kept. A line that cannot be read is an event as well
//! ([`BusEvent::Unreadable`]): something happened, and nobody knows what.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::json::MAX_DOCUMENT;
use crate::localapi::{Line, Stream};
use crate::{BackendState, Error, Tailscale};

const COMMAND: &str = "watch-ipn-bus";

/// The state (2), no private keys (16: releases about 1.90 want it of who is not
/// root), changes of peers (4096), no whole network map (8192).
const TARGET: &str = "/localapi/v0/watch-ipn-bus?mask=12306";

/// The stream of events. Dropping it ends it.
pub struct Bus {
    stream: Stream,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BusEvent {
    /// A line that says what.
    Told(Told),
    /// A line that is no event as we know them, or too long: a large tailnet's list of
    /// all its peers may be.
    Unreadable,
}

/// What an event said. All of it may be empty: of what else happens (engine, health,
/// preferences) nothing is kept.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Told {
    /// The state the daemon is in now.
    pub state: Option<BackendState>,
    /// This node, or what the tailnet's policy lets others do to it, may have changed.
    /// A changed grant shows nowhere else.
    pub self_changed: bool,
    /// Peers that are new, or of which anything changed.
    pub peers_changed: Vec<BusPeer>,
    /// Peers that are gone, by their numeric id.
    pub peers_removed: Vec<i64>,
    /// Names or logins of people may have changed.
    pub profiles_changed: bool,
    /// A whole network map came, as releases send it that do not know of single
    /// changes. It is not looked into.
    pub whole_map: bool,
}

/// A peer of which something changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BusPeer {
    /// Its numeric id.
    pub id: i64,
    /// Equal as long as everything is that decides who it is: name, owner, tags,
    /// expiry, addresses, routes, whether it is shared, jailed or unsigned. Coming and
    /// going, endpoints and host details are left out.
    pub identity: u64,
}

impl Tailscale {
    /// Listens to what tailscaled tells: GET `watch-ipn-bus`. At the socket only; any
    /// local user may. The first events say what is so now. A change of the Serve
    /// configuration is not told.
    ///
    /// # Errors
    /// [`Error::LocalApiOnly`] where the socket is not used, and why nothing can be
    /// heard there.
    pub async fn watch(&self) -> Result<Bus, Error> {
        Ok(Bus { stream: self.open(COMMAND, TARGET).await? })
    }
}

impl Bus {
    /// The next event. Nothing is lost when the future is dropped.
    ///
    /// # Errors
    /// When the stream has ended: the daemon went, or this watcher was too slow for it.
    pub async fn next(&mut self) -> Result<BusEvent, Error> {
        loop {
            match self.stream.line(MAX_DOCUMENT).await? {
                Some(Line::Text(line)) if line.trim_ascii().is_empty() => {}
                Some(Line::Text(line)) => return Ok(parse(&line)),
                Some(Line::TooLong) => return Ok(BusEvent::Unreadable),
                None => return Err(Error::StreamEnded { command: COMMAND }),
            }
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Wire {
    state: Option<i64>,
    self_change: Option<IgnoredAny>,
    peers_changed: Option<Vec<WirePeer>>,
    peers_removed: Option<Vec<i64>>,
    peer_changed_patch: Option<Vec<BTreeMap<String, IgnoredAny>>>,
    user_profiles: Option<IgnoredAny>,
    net_map: Option<IgnoredAny>,
}

/// The fields that decide who a peer is, as they were printed.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WirePeer {
    #[serde(rename = "ID")]
    id: i64,
    #[serde(rename = "StableID")]
    stable_id: Option<Printed>,
    name: Option<Printed>,
    user: Option<Printed>,
    sharer: Option<Printed>,
    tags: Option<Printed>,
    addresses: Option<Printed>,
    #[serde(rename = "AllowedIPs")]
    allowed_ips: Option<Printed>,
    key: Option<Printed>,
    key_expiry: Option<Printed>,
    expired: Option<Printed>,
    machine_authorized: Option<Printed>,
    is_wire_guard_only: Option<Printed>,
    is_jailed: Option<Printed>,
    #[serde(rename = "UnsignedPeerAPIOnly")]
    unsigned_peer_api_only: Option<Printed>,
    hostinfo: Option<WireHost>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireHost {
    sharee_node: Option<Printed>,
}

impl WirePeer {
    /// Absent details of the host say the same as details without the mark.
    fn is_sharee(&self) -> Option<&Printed> {
        self.hostinfo.as_ref()?.sharee_node.as_ref()
    }
}

/// Any value, for comparison only.
#[derive(Deserialize)]
struct Printed(Value);

impl Hash for Printed {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.to_string().hash(state);
    }
}

impl From<&WirePeer> for BusPeer {
    fn from(peer: &WirePeer) -> Self {
        let mut hasher = DefaultHasher::new();
        let decides = [
            &peer.stable_id,
            &peer.name,
            &peer.user,
            &peer.sharer,
            &peer.tags,
            &peer.addresses,
            &peer.allowed_ips,
            &peer.key,
            &peer.key_expiry,
            &peer.expired,
            &peer.machine_authorized,
            &peer.is_wire_guard_only,
            &peer.is_jailed,
            &peer.unsigned_peer_api_only,
        ];
        (decides, peer.is_sharee()).hash(&mut hasher);
        Self { id: peer.id, identity: hasher.finish() }
    }
}

/// What a patch may name without meaning who the peer is.
const FLEETING: [&str; 8] =
    ["NodeID", "DERPRegion", "Cap", "Endpoints", "DiscoKey", "Online", "LastSeen", "KeySignature"];

fn parse(line: &[u8]) -> BusEvent {
    let Ok(wire) = serde_json::from_slice::<Wire>(line) else { return BusEvent::Unreadable };
    let patches = wire.peer_changed_patch.unwrap_or_default();
    // Whatever else is patched (a key, its expiry) is not looked into.
    if patches.iter().flat_map(BTreeMap::keys).any(|name| !FLEETING.contains(&name.as_str())) {
        return BusEvent::Unreadable;
    }
    BusEvent::Told(Told {
        state: wire.state.map(state),
        self_changed: wire.self_change.is_some(),
        peers_changed: wire.peers_changed.unwrap_or_default().iter().map(BusPeer::from).collect(),
        peers_removed: wire.peers_removed.unwrap_or_default(),
        profiles_changed: wire.user_profiles.is_some(),
        whole_map: wire.net_map.is_some(),
    })
}

/// By its number in tailscaled.
fn state(number: i64) -> BackendState {
    match number {
        0 => BackendState::NoState,
        1 => BackendState::InUseOtherUser,
        2 => BackendState::NeedsLogin,
        3 => BackendState::NeedsMachineAuth,
        4 => BackendState::Stopped,
        5 => BackendState::Starting,
        6 => BackendState::Running,
        other => BackendState::Other(other.to_string()),
    }
}

#[cfg(test)]
mod tests;
