//! What of somebody else's is in the way, named.

/// A conflict. The sentence names what is there; [`Conflict::fix`] says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// The port forwards raw TCP.
    #[error("port {port} of Serve is a TCP forward to {target}")]
    RawTcp {
        /// The port.
        port: u16,
        /// Where it leads.
        target: String,
    },
    /// The port speaks the other scheme.
    #[error("port {port} of Serve speaks {}", if *https { "https" } else { "http" })]
    OtherScheme {
        /// The port.
        port: u16,
        /// Which it speaks.
        https: bool,
    },
    /// A foreground `tailscale serve` or another program's session has the port.
    #[error("port {port} of Serve is held by another program's session: {what}")]
    Session {
        /// The port.
        port: u16,
        /// What it serves.
        what: String,
    },
    /// A claim that lasts as long as we do needs the port for itself.
    #[error("port {port} of Serve is in use: {what}")]
    PortHeld {
        /// The port.
        port: u16,
        /// What is served there.
        what: String,
    },
    /// The mount leads elsewhere.
    #[error("{host_port}{mount} of Serve leads to {target}")]
    Mount {
        /// The site.
        host_port: String,
        /// The path.
        mount: String,
        /// Where it leads.
        target: String,
    },
    /// A mount that nothing listens for would come to life with ours.
    #[error("a listener for us would publish {host_port}{mount} again, too, which leads to {target}")]
    Dormant {
        /// Its site.
        host_port: String,
        /// Its path.
        mount: String,
        /// Where it leads.
        target: String,
    },
    /// Somebody opened the site to the internet.
    #[error("{host_port} is open to the internet by somebody's Funnel")]
    Public {
        /// The site.
        host_port: String,
    },
    /// Opening the site would open somebody else's mount.
    #[error("Funnel would open {host_port}{mount} to the internet, too, which leads to {target}")]
    WouldPublish {
        /// The site.
        host_port: String,
        /// The path.
        mount: String,
        /// Where it leads.
        target: String,
    },
}

impl Conflict {
    /// What to do about it. Taking somebody's route away is never proposed as a
    /// command: it is theirs.
    #[must_use]
    pub fn fix(&self) -> String {
        let elsewhere = "openclaw config set gateway.tailscale.serve.port 8443";
        match self {
            Self::Public { .. } => format!("close that Funnel, or use another port: {elsewhere}"),
            Self::WouldPublish { .. } | Self::Dormant { .. } => {
                format!("move that mount, or use another port: {elsewhere}")
            }
            Self::Mount { .. } => format!(
                "take that mount away, or use another port or path: {elsewhere}, gateway.tailscale.serve.path"
            ),
            Self::RawTcp { .. } | Self::OtherScheme { .. } | Self::Session { .. } | Self::PortHeld { .. } => {
                format!("free that port, or use another: {elsewhere}")
            }
        }
    }
}
