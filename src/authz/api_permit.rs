//! The proof that a decision about our own pages was made.

use crate::domain::{Principal, Role};

/// Leave to use our own endpoints. Like [`super::Permit`], made only here.
pub struct ApiPermit {
    principal: Principal,
    role: Role,
}

impl ApiPermit {
    pub(in crate::authz) fn grant(principal: Principal, role: Role) -> Self {
        Self { principal, role }
    }

    /// Whose it is.
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// What they may do.
    pub fn role(&self) -> Role {
        self.role
    }
}
