//! A client that sends exactly the bytes it is told to.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

pub(crate) struct Answer {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn status(&self) -> u16 {
        self.head.split(' ').nth(1).unwrap().parse().unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("a body of JSON")
    }
}

/// A GET that asks for the connection to be closed after it.
pub(crate) fn get(path: &str, host: &str, headers: &[&str]) -> String {
    request("GET", path, host, headers, "")
}

pub(crate) fn request(method: &str, path: &str, host: &str, headers: &[&str], body: &str) -> String {
    let mut out = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n");
    for header in headers {
        out.push_str(&format!("{header}\r\n"));
    }
    if !body.is_empty() {
        out.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    out + "Connection: close\r\n\r\n" + body
}

pub(crate) fn plain(addr: &str, request: &str) -> Answer {
    exchange(TcpStream::connect(addr).unwrap(), request).unwrap()
}

pub(crate) fn unix(path: &Path, request: &str) -> Answer {
    exchange(UnixStream::connect(path).unwrap(), request).unwrap()
}

/// A configuration that trusts the stand-in's authority only.
pub(crate) fn trusting(ca: &Path) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

/// Over TLS, trusting the stand-in's authority only.
pub(crate) fn tls(stream: TcpStream, ca: &Path, name: &str, request: &str) -> std::io::Result<Answer> {
    let config = trusting(ca);
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let session = ClientConnection::new(Arc::new(config), name).unwrap();
    exchange(StreamOwned::new(session, stream), request)
}

fn exchange(mut stream: impl Read + Write, request: &str) -> std::io::Result<Answer> {
    stream.write_all(request.as_bytes())?;
    let mut all = Vec::new();
    match stream.read_to_end(&mut all) {
        // The other side may close without the goodbye of TLS.
        Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof && !all.is_empty() => {}
        other => {
            other?;
        }
    }
    let at = all.windows(4).position(|w| w == b"\r\n\r\n");
    let at = at.ok_or_else(|| std::io::Error::other("no head"))?;
    let head = String::from_utf8_lossy(&all[..at]).into_owned();
    let mut body = all.split_off(at + 4);
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    if chunked {
        body = unchunk(&body);
    }
    Ok(Answer { head, body })
}

fn unchunk(mut body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(at) = body.windows(2).position(|w| w == b"\r\n") {
        let size = std::str::from_utf8(&body[..at]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            break;
        }
        out.extend_from_slice(&body[at + 2..at + 2 + size]);
        body = &body[at + 4 + size..];
    }
    out
}
