//! The openclaw gateway: puts the apps that run on a machine onto its tailnet,
//! learns from Tailscale who is calling, and lets nobody else in.
//!
//! The rooms, in the direction a request travels:
//!
//! 1. [`ingress`] accepts connections and settles the facts about them.
//! 2. [`authn`] says who the request belongs to.
//! 3. [`authz`] says whether they may, and hands out a [`authz::Permit`].
//! 4. [`proxy`] and [`api`] act, and only with a permit in hand.
//!
//! [`edge`] runs a request through them in one fixed order; [`app`] builds them
//! all from a checked [`config::Config`]. [`domain`] holds the words they share,
//! [`watch`] keeps what is known of the tailnet true.

pub mod any_certificate;
pub mod api;
pub mod app;
pub mod authn;
pub mod authz;
pub mod body;
pub mod certs;
pub mod checks;
pub mod cli;
pub mod config;
pub mod domain;
pub mod edge;
pub mod funnel;
pub mod ingress;
pub mod limits;
pub mod metrics;
pub mod page;
pub mod proxy;
pub mod readiness;
pub mod serve;
pub mod state_db;
pub mod telemetry;
pub mod watch;
