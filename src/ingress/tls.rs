//! TLS of our own: a certificate and its key, which can be replaced while they
//! are in use.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{CipherSuite, Error as RustlsError, ServerConfig, SupportedCipherSuite};

mod facts;

pub use facts::CertFacts;

/// Why a certificate and its key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which one.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: io::Error,
    },
    /// There is no certificate in the certificate file, or not only well-formed
    /// ones.
    #[error("{} holds no certificate in PEM form", path.display())]
    Certificate {
        /// The certificate file.
        path: PathBuf,
        /// What went wrong, where something was there.
        #[source]
        source: Option<pem::Error>,
    },
    /// There is no private key in the key file.
    #[error("{} holds no private key in PEM form", path.display())]
    Key {
        /// The key file.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: pem::Error,
    },
    /// The key is of a kind that is not supported.
    #[error("the private key in {} cannot be used", path.display())]
    UnusableKey {
        /// The key file.
        path: PathBuf,
        /// What went wrong.
        #[source]
        source: RustlsError,
    },
    /// The key is not the certificate's.
    #[error("the private key in {} does not belong to the certificate in {}", key.display(), cert.display())]
    Mismatch {
        /// The certificate file.
        cert: PathBuf,
        /// The key file.
        key: PathBuf,
    },
    /// rustls refused its own defaults.
    #[error("cannot set up TLS")]
    Setup(#[source] RustlsError),
}

/// The files of a certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate chain, in PEM form.
    pub cert: PathBuf,
    /// The private key, in PEM form.
    pub key: PathBuf,
}

impl TlsFiles {
    /// The mode of the key file, if others than its owner may read it.
    pub fn exposed_key_mode(&self) -> Option<u32> {
        use std::os::unix::fs::MetadataExt;
        let mode = fs::metadata(&self.key).ok()?.mode() & 0o7777;
        (mode & 0o077 != 0).then_some(mode)
    }

    fn load(&self) -> Result<CertifiedKey, TlsError> {
        let read = |path: &Path| {
            fs::read(path).map_err(|source| TlsError::Read { path: path.to_path_buf(), source })
        };
        self.pair(&read(&self.cert)?, &read(&self.key)?)
    }

    fn pair(&self, cert: &[u8], key: &[u8]) -> Result<CertifiedKey, TlsError> {
        let bad_cert = |source| TlsError::Certificate { path: self.cert.clone(), source };
        let chain: Vec<_> = CertificateDer::pem_slice_iter(cert)
            .collect::<Result<_, _>>()
            .map_err(|source| bad_cert(Some(source)))?;
        if chain.is_empty() {
            return Err(bad_cert(None));
        }
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|source| TlsError::Key { path: self.key.clone(), source })?;
        let key = ring::default_provider()
            .key_provider
            .load_private_key(key)
            .map_err(|source| TlsError::UnusableKey { path: self.key.clone(), source })?;
        let pair = CertifiedKey::new(chain, key);
        match pair.keys_match() {
            Ok(()) => Ok(pair),
            Err(RustlsError::InvalidCertificate(_)) => Err(bad_cert(None)),
            Err(_) => Err(TlsError::Mismatch { cert: self.cert.clone(), key: self.key.clone() }),
        }
    }
}

/// A certificate in use. Clones share it, and see when it is replaced.
#[derive(Clone)]
pub struct Tls {
    config: Arc<ServerConfig>,
    current: Arc<Current>,
    files: TlsFiles,
}

impl Tls {
    /// Reads a certificate and its key from files.
    ///
    /// # Errors
    ///
    /// [`TlsError`], which names the file at fault.
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let pair = files.load()?;
        Self::new(files, pair)
    }

    /// Takes a certificate and its key from memory; `files` only names them in
    /// errors, unless [`Tls::reload`] is called.
    ///
    /// # Errors
    ///
    /// [`TlsError`], which names the part at fault.
    pub fn from_pem(files: TlsFiles, cert: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        let pair = files.pair(cert, key)?;
        Self::new(files, pair)
    }

    fn new(files: TlsFiles, pair: CertifiedKey) -> Result<Self, TlsError> {
        let current = Arc::new(Current(ArcSwap::from_pointee(pair)));
        let resolver: Arc<dyn ResolvesServerCert> = Arc::<Current>::clone(&current);
        let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(TlsError::Setup)?
            .with_no_client_auth()
            .with_cert_resolver(resolver);
        config.ignore_client_order = true;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { config: Arc::new(config), current, files })
    }

    /// Reads the files again. On an error the pair in use stays in use.
    ///
    /// # Errors
    ///
    /// [`TlsError`], which names the file at fault.
    pub fn reload(&self) -> Result<(), TlsError> {
        self.current.0.store(Arc::new(self.files.load()?));
        Ok(())
    }

    /// Replaces the pair by one from memory. On an error the pair in use stays
    /// in use.
    ///
    /// # Errors
    ///
    /// [`TlsError`], which names the part at fault.
    pub fn replace(&self, cert: &[u8], key: &[u8]) -> Result<(), TlsError> {
        self.current.0.store(Arc::new(self.files.pair(cert, key)?));
        Ok(())
    }

    /// The files it was read from.
    pub fn files(&self) -> &TlsFiles {
        &self.files
    }

    /// What the certificate in use says of itself; `None` if it cannot be read.
    pub fn facts(&self) -> Option<CertFacts> {
        CertFacts::of(self.current.0.load().end_entity_cert().ok()?)
    }

    /// Whether a client that asks for this host name or address would take the
    /// certificate in use for its own.
    pub fn covers(&self, name: &str) -> bool {
        self.current.0.load().end_entity_cert().is_ok_and(|der| facts::covers(der, name))
    }

    pub(super) fn server_config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("files", &self.files).finish_non_exhaustive()
    }
}

/// ring, with AES-128 before its other suites: what many clients name first needs
/// SHA-384, which few processors have instructions for, and is no safer in practice.
fn provider() -> CryptoProvider {
    let mut provider = ring::default_provider();
    let later = |suite: &SupportedCipherSuite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256;
    provider.cipher_suites.sort_by_key(later);
    provider
}

/// The pair that new handshakes use.
#[derive(Debug)]
struct Current(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

#[cfg(test)]
mod tests;
