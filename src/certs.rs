//! Certificates of our own making or asking, and the files they are kept in.
//!
//! [`self_signed`] makes a pair once and keeps it, because clients pin it. The
//! [`NodeKeeper`] asks Tailscale for this node's, keeps it and has it renewed in time.
//! What is shown in a handshake is [`crate::ingress::Tls`]; this room only decides what
//! it should be, and says when it ends ([`judge_expiry`]).

pub mod self_signed;

mod expiry;
mod keeper;
mod node;
mod private_file;

pub use expiry::{WARN_BEFORE, judge_expiry};
pub use keeper::{AskCert, NodeKeeper};
pub use node::{NodeCertificate, node_file};
