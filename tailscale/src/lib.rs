//! A typed client for Tailscale: its LocalAPI and its command line.
//!
//! In three steps, one module each: `command` says what is asked, as an argument
//! vector and as a LocalAPI request; `localapi` asks at the daemon's socket, or
//! `runner` starts the process (nothing else in the project may); and the parsers
//! turn the answer, which is the same JSON either way, into checked types.
//!
//! What this crate decides: where the binary is and whether its place, or that of
//! the socket, can be trusted ([`Tailscale::locate`]), which of the two is asked
//! ([`ClientMode`]), how long and how much a call may take ([`Limits`]), and whether
//! an answer is whole ([`parse_whois`] and its siblings refuse rather than guess).
//! What it trusts: the binary it was told to run, and the daemon. What it leaves to
//! its caller: who is allowed in, caching, and how many calls run at once.
//!
//! Answers of Tailscale 1.102.3 are recorded in `fixtures/tailscale`, and every
//! parser is tested on them. Fields that are unknown are ignored; fields that are
//! missing and matter are an [`Error::WrongShape`] naming the field.

mod bus;
mod cert;
mod claim;
mod client;
mod command;
mod daemon;
mod error;
mod failure;
mod json;
mod localapi;
mod locate;
mod names;
mod prefs;
mod runner;
mod serve_config;
mod serve_document;
mod serve_edit;
mod serve_session;
mod status;
mod text;
mod version;
mod whois;

pub use bus::{Bus, BusEvent, BusPeer, Told};
pub use cert::CertPair;
pub use claim::{Claim, ForegroundEntry};
pub use client::{Tailscale, WhoisFuture, WhoisSource};
pub use command::WhoisScope;
pub use daemon::DaemonProcess;
pub use error::Error;
pub use localapi::ETag;
pub use locate::{ClientMode, LocateError, LocateOptions, Located};
pub use names::{Login, LoginError, NameError, NodeName, ServiceName, StableNodeId};
pub use prefs::{Prefs, parse_prefs};
pub use runner::Limits;
pub use serve_config::{
    FunnelHost, Listener, Origin, ServeConfig, TargetsPort, TcpForward, WebHandler, parse_serve_config,
};
pub use serve_document::ServeDocument;
pub use serve_edit::{EditError, Mount, ProxyTarget};
pub use serve_session::{ServeSession, Tie, exec_tied};
pub use status::{BackendState, SelfNode, Status, Tailnet, parse_status};
pub use version::{Version, VersionError, VersionInfo, parse_version};
pub use whois::{CapMap, Node, UserProfile, Whois, parse_whois};

/// The IP network type of [`Node::addresses`] and [`Node::allowed_ips`].
pub use ipnetwork::IpNetwork;

// Compiles the README's example.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(test)]
mod test_support;
