//! Whether a path may be opened to the internet, and what becomes of it.
//!
//! The command asks, the gateway answers by [`check`] under which address it would be,
//! the command announces that address and confirms, and only then is anything published.
//! [`advance`] takes one row one step further. It decides nothing about a request:
//! [`crate::domain::FunnelGrants`] does, with the clock in hand.

mod advance;
mod boot;
mod check;
mod duration;

pub use advance::{Publication, Verdict, World, advance, bound};
pub use boot::boot_now;
pub use check::{check, is_own};
pub use duration::{DurationError, OpenFor};
