//! How much one caller may have open on a worker at a time (threat rule 76).
//!
//! A person's streams, WebSockets and slow uploads live for as long as they like, so
//! there is a bound on how many: half of the worker's connections. Whoever opens all
//! they may leaves the other half to everybody else.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;

use crate::domain::{Principal, Reason, SecretKind};
use crate::ingress::subject_of;

/// Whose budget something open is charged to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Holder {
    User(i64),
    Node(String),
    Proxy(String),
    /// A secret has many holders, so each by its address.
    Secret(SecretKind, Option<IpAddr>),
    Local,
    Public(Option<IpAddr>),
}

impl Holder {
    fn of(principal: &Principal, client: Option<IpAddr>) -> Self {
        let client = client.map(subject_of);
        match principal {
            Principal::User(user) => Self::User(user.user_id),
            Principal::Node(node) => Self::Node(node.node_id.as_str().to_owned()),
            Principal::Proxy(user) => Self::Proxy(user.name.clone()),
            Principal::SecretHolder { kind, .. } => Self::Secret(*kind, client),
            Principal::Local => Self::Local,
            Principal::Public => Self::Public(client),
        }
    }
}

type Open = Rc<RefCell<HashMap<Holder, usize>>>;

/// The budgets of one worker.
pub(super) struct Budgets {
    open: Open,
    max: usize,
}

impl Budgets {
    /// Of a worker with room for so many connections.
    pub(super) fn new(max_connections: usize) -> Self {
        Self { open: Open::default(), max: (max_connections / 2).max(1) }
    }

    /// A place for one more thing of this caller's.
    ///
    /// # Errors
    ///
    /// They have as many open as they may.
    pub(super) fn take(&self, principal: &Principal, client: Option<IpAddr>) -> Result<Share, Reason> {
        let holder = Holder::of(principal, client);
        let mut open = self.open.borrow_mut();
        let count = open.entry(holder.clone()).or_default();
        if *count >= self.max {
            return Err(Reason::TooManyOpen);
        }
        *count += 1;
        Ok(Share { open: Rc::clone(&self.open), holder })
    }

    /// The same for a connection, which goes on being its last caller's: nothing is
    /// counted anew while that is the same one.
    ///
    /// # Errors
    ///
    /// They have as many open as they may.
    pub(super) fn charge(
        &self,
        share: &mut Option<Share>,
        principal: &Principal,
        client: Option<IpAddr>,
    ) -> Result<(), Reason> {
        if share.as_ref().is_some_and(|share| share.is_of(principal, client)) {
            return Ok(());
        }
        // Who may not have it leaves it charged to whoever had it.
        *share = Some(self.take(principal, client)?);
        Ok(())
    }
}

/// One open thing's place in a budget; free again when dropped.
pub(super) struct Share {
    open: Open,
    holder: Holder,
}

impl Share {
    /// The comparison of the warm path: it allocates nothing.
    fn is_of(&self, principal: &Principal, client: Option<IpAddr>) -> bool {
        match (&self.holder, principal) {
            (Holder::User(id), Principal::User(user)) => *id == user.user_id,
            (Holder::Node(id), Principal::Node(node)) => *id == node.node_id.as_str(),
            (Holder::Proxy(name), Principal::Proxy(user)) => *name == user.name,
            (Holder::Secret(kind, at), Principal::SecretHolder { kind: now, .. }) => {
                kind == now && *at == client.map(subject_of)
            }
            (Holder::Local, Principal::Local) => true,
            (Holder::Public(at), Principal::Public) => *at == client.map(subject_of),
            _ => false,
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut open = self.open.borrow_mut();
        if let Some(count) = open.get_mut(&self.holder) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.holder);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(kind: SecretKind) -> Principal {
        Principal::SecretHolder { kind, public: false }
    }

    fn at(ip: &str) -> Option<IpAddr> {
        Some(ip.parse().unwrap())
    }

    #[test]
    fn threat_076_who_has_opened_half_of_it_leaves_the_rest_to_others() {
        let budgets = Budgets::new(4);
        let token = holder(SecretKind::Token);
        let one = budgets.take(&token, at("2001:db8::1")).unwrap();
        let _two = budgets.take(&token, at("2001:db8::2")).unwrap();
        assert_eq!(budgets.take(&token, at("2001:db8::3")).err(), Some(Reason::TooManyOpen), "one /64");
        assert!(budgets.take(&token, at("2001:db8:0:1::1")).is_ok(), "another client");
        assert!(budgets.take(&holder(SecretKind::Password), at("2001:db8::1")).is_ok());
        assert!(budgets.take(&Principal::Public, at("2001:db8::1")).is_ok());
        drop(one);
        assert!(budgets.take(&token, at("2001:db8::3")).is_ok());
    }

    #[test]
    fn a_connection_is_charged_to_whoever_used_it_last() {
        let budgets = Budgets::new(2);
        let (token, local) = (holder(SecretKind::Token), Principal::Local);
        let (mut first, mut second) = (None, None);
        budgets.charge(&mut first, &token, None).unwrap();
        budgets.charge(&mut first, &token, None).unwrap();
        assert_eq!(budgets.charge(&mut second, &token, None), Err(Reason::TooManyOpen));
        budgets.charge(&mut first, &local, None).unwrap();
        budgets.charge(&mut second, &token, None).unwrap();
        assert_eq!(budgets.charge(&mut first, &token, None), Err(Reason::TooManyOpen));
        assert!(first.as_ref().is_some_and(|share| share.is_of(&local, None)), "still somebody's");
        drop((first, second));
        assert!(budgets.open.borrow().is_empty(), "a count of nothing takes no memory");
    }
}
