//! The decision.
//!
//! Default: the owner of the gateway's node and nobody else. An empty list never
//! means everybody (threat rule 59). People of other tailnets, tagged machines
//! and machines that forward others' traffic get in only by entries that say so.

use std::sync::Arc;

use super::{ApiPermit, Permit};
use crate::domain::{
    Access, AccessEntry, Owner, Principal, Public, Reason, Role, Route, TailnetNode, TailnetUser, Who,
};
use crate::ingress::Via;

/// What is decided on, besides the route.
pub struct Question<'a> {
    /// Who asks.
    pub principal: Principal,
    /// By which way.
    pub via: Via,
    /// `gateway.access`.
    pub access: &'a Access,
    /// Whose the gateway's node is; nobody's if it is tagged or not running.
    pub owner: Option<&'a Owner>,
    /// The user id this login was first seen with on this tailnet.
    pub pinned: Option<i64>,
    /// Now, in Unix seconds: entries may end.
    pub now: i64,
}

/// Decides whether a request may go to a route.
///
/// # Errors
///
/// Why not. 403 in every case.
pub fn decide(route: &Arc<Route>, question: Question<'_>) -> Result<Permit, Reason> {
    // Whatever is presented, Funnel reaches public routes only.
    if question.via == Via::Funnel && route.public == Public::No {
        return Err(Reason::NotPublic);
    }
    let entries = route.allow.as_deref().unwrap_or(&question.access.allow);
    let role = match &question.principal {
        // An open route admits everybody, at the least role there is.
        Principal::Public if route.public == Public::Open => Role::User,
        principal => match role_of(principal, &question, entries, Some(route.name.as_str())) {
            Ok(role) => role,
            // Also somebody whom the list does not know: they are the public then,
            // and the app is told no name.
            Err(_) if route.public == Public::Open && route.role == Role::User => {
                return Ok(Permit::grant(route.clone(), Principal::Public, Role::User));
            }
            Err(reason) => return Err(reason),
        },
    };
    if role < route.role {
        return Err(Reason::RoleRequired);
    }
    Ok(Permit::grant(route.clone(), question.principal, role))
}

/// Decides whether a request may use our own pages at a role.
///
/// # Errors
///
/// Why not. 403 in every case.
pub fn decide_own(at_least: Role, question: Question<'_>) -> Result<ApiPermit, Reason> {
    if question.via == Via::Funnel {
        return Err(Reason::NotPublic);
    }
    let role = role_of(&question.principal, &question, &question.access.allow, None)?;
    if role < at_least {
        return Err(Reason::RoleRequired);
    }
    Ok(ApiPermit::grant(question.principal, role))
}

fn role_of(
    principal: &Principal,
    question: &Question<'_>,
    entries: &[AccessEntry],
    route: Option<&str>,
) -> Result<Role, Reason> {
    match principal {
        Principal::Local => Ok(Role::Admin),
        Principal::SecretHolder { public: true, .. } => Ok(Role::User),
        Principal::SecretHolder { public: false, .. } => Ok(Role::Admin),
        Principal::Public => Err(Reason::NotPublic),
        Principal::User(user) => user_role(user, question, entries, route),
        Principal::Node(node) => node_role(node, question, entries, route),
        // Whoever the proxy may name was checked against `allowUsers`; an entry
        // can only raise them.
        Principal::Proxy(user) => {
            let raised = in_force(entries, question.now, route)
                .filter(|entry| matches!(&entry.who, Who::Proxy(name) if *name == user.name))
                .map(|entry| entry.role)
                .max();
            Ok(raised.unwrap_or(Role::User))
        }
    }
}

fn user_role(
    user: &TailnetUser,
    question: &Question<'_>,
    entries: &[AccessEntry],
    route: Option<&str>,
) -> Result<Role, Reason> {
    let owner =
        question.access.owner && user.member && question.owner.is_some_and(|owner| is_owner(user, owner));
    let matching: Vec<&AccessEntry> =
        in_force(entries, question.now, route).filter(|entry| speaks_of_user(&entry.who, user)).collect();
    if matching.is_empty() && !owner {
        return Err(if user.member { Reason::NotAllowed } else { Reason::SharedUserNotListed });
    }
    let covering: Vec<&AccessEntry> =
        matching.iter().copied().filter(|entry| user.member || entry.shared).collect();
    if covering.is_empty() && !owner {
        return Err(Reason::SharedUserNotListed);
    }
    let mut role =
        covering.iter().filter(|entry| entry.via_router || !user.router).map(|entry| entry.role).max();
    if owner && (!user.router || covering.iter().any(|entry| entry.via_router)) {
        role = Some(Role::Admin);
    }
    let role = role.ok_or(Reason::ViaRouter)?;
    // Only for those who would get in: the answer must not tell strangers which
    // logins are listed.
    match question.pinned {
        Some(id) if id != user.user_id => Err(Reason::UserIdChanged),
        _ => Ok(role),
    }
}

fn node_role(
    node: &TailnetNode,
    question: &Question<'_>,
    entries: &[AccessEntry],
    route: Option<&str>,
) -> Result<Role, Reason> {
    let matching: Vec<&AccessEntry> = in_force(entries, question.now, route)
        .filter(|entry| matches!(&entry.who, Who::Tag(tag) if node.tags.contains(tag)))
        .collect();
    if matching.is_empty() {
        return Err(Reason::TaggedNodeNotListed);
    }
    matching
        .iter()
        .filter(|entry| entry.via_router || !node.router)
        .map(|entry| entry.role)
        .max()
        .ok_or(Reason::ViaRouter)
}

/// The owner is a login and a user id, never a login alone.
fn is_owner(user: &TailnetUser, owner: &Owner) -> bool {
    user.user_id == owner.user_id && user.login == owner.login
}

fn in_force<'a>(
    entries: &'a [AccessEntry],
    now: i64,
    route: Option<&'a str>,
) -> impl Iterator<Item = &'a AccessEntry> {
    entries.iter().filter(move |entry| {
        entry.until.is_none_or(|until| now < until)
            && match (&entry.routes, route) {
                (None, _) => true,
                (Some(names), Some(route)) => names.iter().any(|name| name == route),
                // Our own pages are no route: an entry for certain routes does
                // not open them, except to say who one is.
                (Some(_), None) => entry.role == Role::User,
            }
    })
}

fn speaks_of_user(who: &Who, user: &TailnetUser) -> bool {
    match who {
        Who::Login(login) => *login == user.login,
        Who::Domain(domain) => user
            .login
            .as_str()
            .split_once('@')
            .is_some_and(|(local, of)| !local.is_empty() && of.eq_ignore_ascii_case(domain)),
        Who::Member => user.member,
        Who::Tag(_) | Who::Proxy(_) => false,
    }
}

#[cfg(test)]
mod tests;
