//! TLS of our own.

use std::sync::Arc;

use tokio_rustls::rustls::ServerConfig;

/// A server certificate in use.
#[derive(Clone)]
pub struct Tls(Arc<ServerConfig>);

impl Tls {
    pub(super) fn server_config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.0)
    }
}
