//! TLS to an upstream.

use std::io;
use std::sync::{Arc, LazyLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

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
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Unseen(provider)))
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

/// `insecureSkipVerify`: whatever certificate is shown is believed; the
/// handshake must still be signed with it.
#[derive(Debug)]
struct Unseen(Arc<CryptoProvider>);

impl ServerCertVerifier for Unseen {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
