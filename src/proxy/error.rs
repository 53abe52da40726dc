//! Why a permitted request was not forwarded.

use std::io;
use std::time::Duration;

use super::CloseReason;
use crate::domain::Reason;

/// Why a permitted request got no answer from its upstream. The client sees
/// [`ProxyError::reason`]; the message and its causes are for the log and hold
/// no secret and no header value.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The request cannot be forwarded without changing its meaning.
    #[error("the request cannot be forwarded: {0}")]
    BadRequest(&'static str),
    /// The client's own body broke off.
    #[error("the client's request body broke off")]
    RequestBody(#[source] hyper::Error),
    /// The request has been through this process before (threat rule 68).
    #[error("the request has been through this gateway before")]
    Loop,
    /// No connection.
    #[error("cannot connect to {upstream}")]
    Connect {
        /// Where to, as configured.
        upstream: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// No connection in time.
    #[error("no connection to {upstream} within {after:?}")]
    ConnectTimeout {
        /// Where to, as configured.
        upstream: String,
        /// The limit.
        after: Duration,
    },
    /// The TLS settings of the upstream cannot be used.
    #[error("cannot speak TLS to {upstream}")]
    Tls {
        /// Where to, as configured.
        upstream: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Somebody else listens there (threat rule 67).
    #[error("the listener at {upstream} is not known to belong to uid {uid}: {why}")]
    Owner {
        /// Where, as configured.
        upstream: String,
        /// Whose it should be.
        uid: u32,
        /// What was found.
        why: &'static str,
    },
    /// No answer in time.
    #[error("no answer from the upstream within {0:?}")]
    FirstByteTimeout(Duration),
    /// The connection ended, or carried something that is not HTTP, before an
    /// answer was there.
    #[error("the upstream gave no usable answer")]
    Response(#[source] hyper::Error),
    /// The connection broke before a byte of an answer was there.
    #[error("the connection to the upstream broke before it answered")]
    Lost(#[source] io::Error),
    /// An answer that cannot be passed on.
    #[error("the upstream's answer cannot be passed on: {0}")]
    BadResponse(&'static str),
    /// The caller's right was taken away, or the gateway is stopping.
    #[error("the request was ended while it waited: {0:?}")]
    Ended(CloseReason),
}

impl ProxyError {
    /// What the client is told.
    pub fn reason(&self) -> Reason {
        match self {
            Self::BadRequest(_) | Self::RequestBody(_) => Reason::BadRequest,
            Self::Loop => Reason::LoopDetected,
            Self::Connect { .. } | Self::Tls { .. } => Reason::UpstreamUnreachable,
            Self::ConnectTimeout { .. } | Self::FirstByteTimeout(_) => Reason::UpstreamTimeout,
            Self::Owner { .. } => Reason::UpstreamOwnerMismatch,
            Self::Response(_) | Self::Lost(_) | Self::BadResponse(_) => Reason::UpstreamBadResponse,
            Self::Ended(CloseReason::Revoked) => Reason::NotAllowed,
            Self::Ended(CloseReason::Draining) => Reason::Draining,
        }
    }
}
