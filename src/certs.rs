//! Certificates of our own making or asking, and the files they are kept in.
//!
//! [`self_signed`] makes a pair once and keeps it, because clients pin it. What is
//! shown in a handshake is [`crate::ingress::Tls`]; this room only decides what it
//! should be.

pub mod self_signed;

mod private_file;

use std::time::Duration;

/// How long before the end of a certificate its operator is told.
pub const WARN_BEFORE: Duration = Duration::from_secs(14 * 86_400);
