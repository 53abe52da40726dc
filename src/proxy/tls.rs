//! TLS to an upstream.

use std::io;
use std::sync::{Arc, LazyLock};

use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use crate::any_certificate::AnyCertificate;
use crate::domain::Upstream;

/// The system's roots, read once: it takes milliseconds.
static NATIVE: LazyLock<Vec<CertificateDer<'static>>> =
    LazyLock::new(|| rustls_native_certs::load_native_certs().certs);

/// The TLS settings for one upstream. Blocks on files: once per upstream and
/// worker.
///
/// # Errors
///
/// A `caFile` that cannot be read or holds no certificate.
pub(super) fn client_config(upstream: &Upstream) -> io::Result<Arc<ClientConfig>> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    let config = if upstream.insecure_skip_verify {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate::new(provider)))
    } else {
        builder.with_root_certificates(roots(upstream)?)
    };
    Ok(Arc::new(config.with_no_client_auth()))
}

fn roots(upstream: &Upstream) -> io::Result<RootCertStore> {
    let mut store = RootCertStore::empty();
    // A root of the system that cannot be parsed vouches for nobody.
    store.add_parsable_certificates(NATIVE.iter().cloned());
    let Some(path) = &upstream.ca_file else { return Ok(store) };
    let before = store.len();
    for cert in CertificateDer::pem_file_iter(path).map_err(io::Error::other)? {
        store.add(cert.map_err(io::Error::other)?).map_err(io::Error::other)?;
    }
    if store.len() == before {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the caFile holds no certificate"));
    }
    Ok(store)
}
