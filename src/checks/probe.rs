//! Asks the gateway on this machine how it is, over plain text or TLS.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error as RustlsError, SignatureScheme, StreamOwned,
};
use serde_json::Value;

use super::gateway::Gateway;
use crate::ingress::CertFacts;

const LIMIT: Duration = Duration::from_secs(3);
const MAX_ANSWER: u64 = 256 * 1024;

/// Sends `GET /readyz` to a loopback address. No secret goes out.
pub(super) fn ask(addr: SocketAddr, tls: bool) -> Gateway {
    let stream = match TcpStream::connect_timeout(&addr, LIMIT) {
        Ok(stream) => stream,
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Gateway::Nobody { addr },
        Err(error) => return Gateway::Other { addr, detail: error.to_string() },
    };
    let asked = stream
        .set_read_timeout(Some(LIMIT))
        .and_then(|()| stream.set_write_timeout(Some(LIMIT)))
        .and_then(|()| if tls { over_tls(addr, stream) } else { Ok((exchange(addr, stream)?, None)) });
    let (answer, shown) = match asked {
        Ok(done) => done,
        Err(error) => return Gateway::Other { addr, detail: error.to_string() },
    };
    match readyz(&answer) {
        Some(ready) => Gateway::Answers { addr, ready, shown },
        None => Gateway::Other { addr, detail: "no answer of /readyz's kind".into() },
    }
}

fn exchange(addr: SocketAddr, mut stream: impl Read + Write) -> io::Result<Vec<u8>> {
    write!(stream, "GET /readyz HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n")?;
    stream.flush()?;
    let mut answer = Vec::new();
    match stream.take(MAX_ANSWER).read_to_end(&mut answer) {
        // An end without a farewell is an end, too.
        Err(error) if answer.is_empty() || error.kind() != io::ErrorKind::UnexpectedEof => Err(error),
        _ => Ok(answer),
    }
}

/// Takes whatever certificate is shown, and reports it: what it is worth is the
/// operator's to judge, and nothing secret is sent.
fn over_tls(addr: SocketAddr, stream: TcpStream) -> io::Result<(Vec<u8>, Option<CertFacts>)> {
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    let name = ServerName::from(addr.ip());
    let connection = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(connection, stream);
    let answer = exchange(addr, &mut stream)?;
    let shown = stream.conn.peer_certificates().and_then(<[_]>::first).and_then(|der| CertFacts::of(der));
    Ok((answer, shown))
}

/// The body, where it is `/readyz`'s.
fn readyz(answer: &[u8]) -> Option<Value> {
    let at = answer.windows(4).position(|part| part == b"\r\n\r\n")?;
    let body: Value = serde_json::from_slice(&answer[at + 4..]).ok()?;
    body["ready"].is_boolean().then_some(body)
}

/// Believes any certificate, but not that somebody has its key who has not.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, RustlsError> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        verify_tls12_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        verify_tls13_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
