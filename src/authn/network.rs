//! Tailnet identity: what `whois` says of the evidence the ingress found.

use std::sync::Arc;

use openclaw_tailscale::Whois;

use super::{Identities, SchemeAnswer};
use crate::domain::access::is_sound_login;
use crate::domain::grants::{self, TailnetGrants};
use crate::domain::identity::IdentityHeaders;
use crate::domain::{Principal, Reason, Running, TailnetNode, TailnetState, TailnetUser, rfc2047};
use crate::ingress::{Evidence, IngressFacts};

/// Follows the evidence.
pub async fn authenticate(
    facts: &IngressFacts,
    state: &TailnetState,
    identities: &impl Identities,
) -> SchemeAnswer {
    let answer = match &facts.evidence {
        Evidence::None(None) | Evidence::Proxy => return SchemeAnswer::NotRequested,
        Evidence::None(Some(reason)) => Err(*reason),
        Evidence::Unavailable(reason) => Err(*reason),
        Evidence::Direct { peer, claimed } => match identities.of_peer(*peer).await {
            Ok(principal) => direct_claim(claimed.as_deref(), &principal).map(|()| principal),
            Err(reason) => Err(reason),
        },
        Evidence::Serve { source, login } => match identities.of_peer(*source).await {
            Ok(principal) => serve_claim(login.as_deref(), &principal).map(|()| principal),
            Err(reason) => Err(reason),
        },
        Evidence::Userspace { socket } => match crate::ingress::classify::unavailable(&state.phase) {
            Some(reason) => Err(reason),
            None => match identities.of_socket(*socket).await {
                // Not a direct connection: Serve's, or a forward's. Nobody.
                Err(Reason::PeerUnknown) => Err(Reason::ServePeerUnattested),
                answer => answer,
            },
        },
    };
    match answer {
        Ok(principal) => SchemeAnswer::Authenticated(principal),
        Err(reason) => SchemeAnswer::Failed(reason.into()),
    }
}

/// A direct peer need not send the header; if it does, it must agree.
fn direct_claim(claimed: Option<&[u8]>, principal: &Principal) -> Result<(), Reason> {
    match claimed {
        None => Ok(()),
        Some(claimed) if agrees(claimed, principal)? => Ok(()),
        Some(_) => Err(Reason::TailscaleUserMismatch),
    }
}

/// Serve sends a login for every untagged source and none for a tagged one.
fn serve_claim(login: Option<&[u8]>, principal: &Principal) -> Result<(), Reason> {
    match (login, principal) {
        (None, Principal::Node(_)) => Ok(()),
        (None, _) => Err(Reason::TailscaleUserMissing),
        (Some(login), _) if agrees(login, principal)? => Ok(()),
        (Some(_), _) => Err(Reason::TailscaleUserMismatch),
    }
}

/// Compares with the login of `whois`, by ASCII case only, after decoding once
/// (threat rules 20 and 21).
fn agrees(claimed: &[u8], principal: &Principal) -> Result<bool, Reason> {
    let Principal::User(user) = principal else { return Ok(false) };
    let text = std::str::from_utf8(claimed).map_err(|_| Reason::BadRequest)?;
    if user.login.as_str().eq_ignore_ascii_case(text) {
        return Ok(true);
    }
    if !text.contains("=?") {
        return Ok(false);
    }
    let decoded = rfc2047::decode(text).ok_or(Reason::BadRequest)?;
    if decoded.contains("=?") {
        return Err(Reason::BadRequest);
    }
    Ok(user.login.as_str().eq_ignore_ascii_case(&decoded))
}

/// What a `whois` answer makes of a peer.
///
/// # Errors
///
/// Why the peer gets no identity although Tailscale knows it.
pub fn principal(whois: &Whois, running: &Running) -> Result<Principal, Reason> {
    let node = &whois.node;
    if node.expired {
        return Err(Reason::NodeExpired);
    }
    if node.jailed || node.wireguard_only {
        return Err(Reason::NodeJailed);
    }
    if node.unsigned {
        return Err(Reason::NodeUnsigned);
    }
    if running.self_id.as_ref() == Some(&node.stable_id) {
        return Err(Reason::OwnAddress);
    }
    let node_id = node.stable_id.clone();
    let node_name =
        node.name.as_ref().map_or_else(|| node.computed_name.clone(), |name| name.as_str().to_owned());
    let router = node.is_router();
    let grants = whois.cap_map.get(grants::CAPABILITY);
    let grants = grants.map_or_else(TailnetGrants::default, |values| TailnetGrants::read(values));
    let addr = node.addresses.first().map(|network| network.ip());
    if !node.tags.is_empty() {
        let tags = node.tags.clone();
        return Ok(Principal::Node(Arc::new(TailnetNode { tags, node_id, node_name, addr, router, grants })));
    }
    let profile = &whois.user;
    if !is_sound_login(profile.login.as_str()) {
        return Err(Reason::TailscaleUserMissing);
    }
    let member = !node.sharee_node
        && node.sharer.is_none()
        && match (&node.name, &running.suffix) {
            (Some(name), Some(suffix)) => name.is_under(suffix),
            _ => false,
        };
    let headers = IdentityHeaders::new(
        profile.login.as_str(),
        &profile.display_name,
        profile.profile_pic_url.as_deref(),
    )
    .ok_or(Reason::TailscaleUserMissing)?;
    Ok(Principal::User(Arc::new(TailnetUser {
        login: profile.login.clone(),
        user_id: profile.id,
        display_name: profile.display_name.clone(),
        node_id,
        node_name,
        addr,
        member,
        router,
        grants,
        headers,
    })))
}
