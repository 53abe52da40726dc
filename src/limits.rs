//! How often somebody may guess.
//!
//! Decides whether an attempt to present a shared secret is looked at, and
//! remembers the wrong ones. Knows clients and credential classes, nothing of
//! requests. Numbers and keys are those of rulings 6.

mod lockout;
mod subject;

pub use lockout::{Attempt, CredentialClass, Guess, Limiter, PendingGuess};
pub use subject::Subject;
