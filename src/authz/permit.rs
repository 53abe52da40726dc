//! The proof that a decision was made.

use std::sync::Arc;

use crate::domain::{Principal, Role, Route};

/// Leave to send one request to one route. Its fields are private and only
/// [`crate::authz`] makes one, so forwarding without a decision does not compile.
pub struct Permit {
    route: Arc<Route>,
    principal: Principal,
    role: Role,
}

impl Permit {
    /// Only the decision function calls this.
    pub(in crate::authz) fn grant(route: Arc<Route>, principal: Principal, role: Role) -> Self {
        Self { route, principal, role }
    }

    /// The route it is good for.
    pub fn route(&self) -> &Arc<Route> {
        &self.route
    }

    /// Whose it is.
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// What they may do there.
    pub fn role(&self) -> Role {
        self.role
    }
}

#[cfg(test)]
impl Permit {
    /// A permit for tests of the proxy alone.
    #[doc(hidden)]
    pub fn for_tests(route: Arc<Route>, principal: Principal) -> Self {
        Self::grant(route, principal, Role::User)
    }
}
