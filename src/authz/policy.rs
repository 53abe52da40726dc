//! The decision.
//!
//! Default: the owner of the gateway's node and nobody else. An empty list never
//! means everybody (threat rule 59). People of other tailnets, tagged machines
//! and machines that forward others' traffic get in only by entries that say so.
//! What the tailnet's policy grants counts like an entry; they add up.

use std::sync::Arc;

use super::{ApiPermit, Permit};
use crate::domain::{
    Access, AccessEntry, Owner, Principal, Public, Reason, Role, Route, TailnetGrant, TailnetGrants,
    TailnetNode, TailnetUser, Who,
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
    let lists = Lists {
        entries: route.allow.as_deref().unwrap_or(&question.access.allow),
        own_list: route.allow.is_some(),
        route: Some(route.name.as_str()),
    };
    let role = match &question.principal {
        // An open route admits everybody, at the least role there is.
        Principal::Public if route.public == Public::Open => Role::User,
        principal => match role_of(principal, &question, &lists) {
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
    let lists = Lists { entries: &question.access.allow, own_list: false, route: None };
    let role = role_of(&question.principal, &question, &lists)?;
    if role < at_least {
        return Err(Reason::RoleRequired);
    }
    Ok(ApiPermit::grant(question.principal, role))
}

/// What may speak for somebody.
struct Lists<'a> {
    /// The entries that count here.
    entries: &'a [AccessEntry],
    /// Whether they are the route's own.
    own_list: bool,
    /// The route; `None` for our own pages.
    route: Option<&'a str>,
}

/// What an entry or a grant that speaks of somebody says.
struct Terms {
    role: Role,
    shared: bool,
    via_router: bool,
}

impl From<&AccessEntry> for Terms {
    fn from(entry: &AccessEntry) -> Self {
        Self { role: entry.role, shared: entry.shared, via_router: entry.via_router }
    }
}

impl From<&TailnetGrant> for Terms {
    fn from(grant: &TailnetGrant) -> Self {
        Self { role: grant.role, shared: grant.shared, via_router: grant.via_router }
    }
}

impl Lists<'_> {
    /// The entries that count now, for this route.
    fn entries(&self, now: i64) -> impl Iterator<Item = &AccessEntry> {
        self.entries.iter().filter(move |entry| {
            entry.until.is_none_or(|until| now < until) && self.covers(entry.routes.as_deref(), entry.role)
        })
    }

    /// The grants that count for this route. One with a list of its own is opened
    /// by a grant that names it, not by one for whatever there is.
    fn grants<'g>(&'g self, grants: &'g TailnetGrants) -> impl Iterator<Item = &'g TailnetGrant> {
        grants.iter().filter(move |grant| {
            self.covers(grant.routes.as_deref(), grant.role) && !(self.own_list && grant.routes.is_none())
        })
    }

    fn covers(&self, routes: Option<&[String]>, role: Role) -> bool {
        match (routes, self.route) {
            (None, _) => true,
            (Some(names), Some(route)) => names.iter().any(|name| name == route),
            // Our own pages are no route: an entry for certain routes does
            // not open them, except to say who one is.
            (Some(_), None) => role == Role::User,
        }
    }
}

fn role_of(principal: &Principal, question: &Question<'_>, lists: &Lists<'_>) -> Result<Role, Reason> {
    match principal {
        Principal::Local => Ok(Role::Admin),
        Principal::SecretHolder { public: true, .. } => Ok(Role::User),
        Principal::SecretHolder { public: false, .. } => Ok(Role::Admin),
        Principal::Public => Err(Reason::NotPublic),
        Principal::User(user) => user_role(user, question, lists),
        Principal::Node(node) => node_role(node, lists, question.now),
        // Whoever the proxy may name was checked against `allowUsers`; an entry
        // can only raise them.
        Principal::Proxy(user) => {
            let raised = lists
                .entries(question.now)
                .filter(|entry| matches!(&entry.who, Who::Proxy(name) if *name == user.name))
                .map(|entry| entry.role)
                .max();
            Ok(raised.unwrap_or(Role::User))
        }
    }
}

fn user_role(user: &TailnetUser, question: &Question<'_>, lists: &Lists<'_>) -> Result<Role, Reason> {
    let owner =
        question.access.owner && user.member && question.owner.is_some_and(|owner| is_owner(user, owner));
    let entries = lists.entries(question.now).filter(|entry| speaks_of_user(&entry.who, user));
    let matching: Vec<Terms> =
        entries.map(Terms::from).chain(lists.grants(&user.grants).map(Terms::from)).collect();
    if matching.is_empty() && !owner {
        return Err(if user.member { Reason::NotAllowed } else { Reason::SharedUserNotListed });
    }
    let covering: Vec<&Terms> = matching.iter().filter(|terms| user.member || terms.shared).collect();
    if covering.is_empty() && !owner {
        return Err(Reason::SharedUserNotListed);
    }
    let mut role =
        covering.iter().filter(|terms| terms.via_router || !user.router).map(|terms| terms.role).max();
    if owner && (!user.router || covering.iter().any(|terms| terms.via_router)) {
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

fn node_role(node: &TailnetNode, lists: &Lists<'_>, now: i64) -> Result<Role, Reason> {
    let entries =
        lists.entries(now).filter(|entry| matches!(&entry.who, Who::Tag(tag) if node.tags.contains(tag)));
    let grants = lists.grants(&node.grants).filter(|grant| grant.tagged);
    let matching: Vec<Terms> = entries.map(Terms::from).chain(grants.map(Terms::from)).collect();
    if matching.is_empty() {
        return Err(Reason::TaggedNodeNotListed);
    }
    matching
        .iter()
        .filter(|terms| terms.via_router || !node.router)
        .map(|terms| terms.role)
        .max()
        .ok_or(Reason::ViaRouter)
}

/// The owner is a login and a user id, never a login alone.
fn is_owner(user: &TailnetUser, owner: &Owner) -> bool {
    user.user_id == owner.user_id && user.login == owner.login
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
