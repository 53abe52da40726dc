//! The unix socket that only Tailscale Serve may use.

use tokio::sync::mpsc::UnboundedSender;

use super::worker::Command;

/// The bound socket.
pub struct UnixIngress {}

pub(super) async fn hand_out(_ingress: UnixIngress, _workers: Vec<UnboundedSender<Command>>) {}
