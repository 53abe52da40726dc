//! Asks the gateway on this machine how it is, over plain text or TLS.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use serde_json::{Value, json};

use super::gateway::Gateway;
use crate::any_certificate::AnyCertificate;
use crate::ingress::{CertFacts, OwnerError, peer_uid};

const LIMIT: Duration = Duration::from_secs(3);
/// How soon it is looked again whether the connection was accepted.
const ACCEPTED_WITHIN: Duration = Duration::from_millis(5);
const MAX_ANSWER: u64 = 256 * 1024;

/// Sends `GET /readyz` to a loopback address. No secret goes out. `service` is the user
/// whose gateway it is by its files, whom root believes, too.
pub(super) fn ask(addr: SocketAddr, tls: bool, service: Option<u32>) -> Gateway {
    let stream = match TcpStream::connect_timeout(&addr, LIMIT) {
        Ok(stream) => stream,
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Gateway::Nobody { addr },
        Err(error) => return Gateway::Other { addr, detail: error.to_string() },
    };
    let trust = match trust(&stream, service) {
        Ok(Trust::AnotherUser(uid)) => return Gateway::OfAnotherUser { addr, uid },
        Ok(trust) => trust,
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
        Some(ready) if trust == Trust::Unknown => {
            Gateway::Answers { addr, ready: json!({"ready": ready["ready"]}), shown }
        }
        Some(ready) => Gateway::Answers { addr, ready, shown },
        None => Gateway::Other { addr, detail: "no answer of /readyz's kind".into() },
    }
}

/// Whose words an answer would be. A port is anybody's who binds it first, and what a
/// gateway says is commands to run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trust {
    /// Ours or root's; to root also those of the user whose files were read.
    Ours,
    /// Somebody else's, with this uid.
    AnotherUser(u32),
    /// This system does not say.
    Unknown,
}

/// Asks the kernel who has accepted the connection, once somebody has.
fn trust(stream: &TcpStream, service: Option<u32>) -> io::Result<Trust> {
    let (server, client) = (stream.peer_addr()?, stream.local_addr()?);
    let deadline = Instant::now() + LIMIT;
    loop {
        match peer_uid(server, client) {
            Ok(owner) => return Ok(judge(owner.uid, rustix::process::geteuid().as_raw(), service)),
            Err(OwnerError::Unsupported) => return Ok(Trust::Unknown),
            Err(OwnerError::NotFound) if Instant::now() < deadline => std::thread::sleep(ACCEPTED_WITHIN),
            Err(OwnerError::NotFound) => return Err(io::Error::other("nobody accepts the connection")),
            Err(error) => return Err(io::Error::other(error)),
        }
    }
}

fn judge(uid: u32, us: u32, service: Option<u32>) -> Trust {
    let is_service = us == 0 && service == Some(uid);
    if uid == us || uid == 0 || is_service { Trust::Ours } else { Trust::AnotherUser(uid) }
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
        .with_custom_certificate_verifier(Arc::new(AnyCertificate::new(provider)))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_root_believes_another_user_and_only_the_one_whose_files_it_read() {
        for (uid, us, service, believed) in [
            (1000, 1000, None, true),
            (0, 1000, None, true),
            (1001, 0, Some(1001), true),
            (1001, 0, None, false),
            (1001, 0, Some(1002), false),
            (1001, 1000, Some(1001), false),
        ] {
            let wanted = if believed { Trust::Ours } else { Trust::AnotherUser(uid) };
            assert!(judge(uid, us, service) == wanted, "{uid} {us} {service:?}");
        }
    }
}
