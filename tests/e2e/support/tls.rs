//! Certificates for a test, and a client that looks at them.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use tempfile::TempDir;

use super::tailnet::private_dir;
use super::{Answer, LIMIT};

/// A certificate and its key, in PEM.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) cert: String,
    pub(crate) key: String,
}

impl Pair {
    /// One that signs itself, for these names.
    pub(crate) fn of(names: &[&str]) -> Self {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        Self { cert: made.cert.pem(), key: made.signing_key.serialize_pem() }
    }

    /// One that ends in so many days.
    pub(crate) fn ending(names: &[&str], days: i64) -> Self {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(names).unwrap();
        let now = std::time::SystemTime::now();
        let away = std::time::Duration::from_secs(days.unsigned_abs() * 86_400 + 3600);
        params.not_before = (now - std::time::Duration::from_secs(90 * 86_400)).into();
        params.not_after = if days < 0 { now - away } else { now + away }.into();
        Self { cert: params.self_signed(&key).unwrap().pem(), key: key.serialize_pem() }
    }

    pub(crate) fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.cert.as_bytes()).unwrap()
    }
}

/// A directory with a pair in it.
pub(crate) struct TlsDir(TempDir);

impl TlsDir {
    pub(crate) fn with(pair: &Pair) -> Self {
        let dir = Self(private_dir());
        dir.put(&pair.cert, &pair.key);
        dir
    }

    /// Puts other texts into place, each by a rename.
    pub(crate) fn put(&self, cert: &str, key: &str) {
        for (path, text) in [(self.key(), key), (self.cert(), cert)] {
            let fresh = path.with_extension("new");
            std::fs::write(&fresh, text).unwrap();
            set_private(&fresh);
            std::fs::rename(fresh, path).unwrap();
        }
    }

    pub(crate) fn cert(&self) -> PathBuf {
        self.0.path().join("cert.pem")
    }

    pub(crate) fn key(&self) -> PathBuf {
        self.0.path().join("key.pem")
    }

    /// `gateway.tls` that uses it.
    pub(crate) fn config(&self) -> String {
        format!(
            "tls: {{enabled: true, source: \"files\", certPath: {:?}, keyPath: {:?}}}",
            self.cert().to_str().unwrap(),
            self.key().to_str().unwrap()
        )
    }
}

fn set_private(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// What a client offers: these pairs are trusted, these protocols spoken.
pub(crate) fn client_config(trusted: &[&Pair], alpn: &[&str]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for pair in trusted {
        roots.add(pair.der()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    Arc::new(config)
}

/// An app over TLS that answers every request with these bytes. It ends with the
/// test; where it listens.
pub(crate) fn tls_app(pair: &Pair, answer: &'static [u8]) -> (SocketAddr, Arc<AtomicUsize>) {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![pair.der()], key)
        .unwrap();
    let (config, requests) = (Arc::new(config), Arc::new(AtomicUsize::new(0)));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (place, ours) = (listener.local_addr().unwrap(), Arc::clone(&requests));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (config, requests) = (Arc::clone(&config), Arc::clone(&ours));
            std::thread::spawn(move || {
                let mut stream = StreamOwned::new(ServerConnection::new(config).unwrap(), stream);
                let mut part = [0; 16 * 1024];
                // A request without a body comes in one piece.
                while stream.read(&mut part).is_ok_and(|read| read > 0) {
                    requests.fetch_add(1, Ordering::SeqCst);
                    if stream.write_all(answer).and_then(|()| stream.flush()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    (place, requests)
}

/// A connection over TLS.
pub(crate) struct TlsWire(StreamOwned<ClientConnection, TcpStream>);

impl TlsWire {
    /// Shakes hands with this server name.
    pub(crate) fn open(addr: SocketAddr, name: &str, config: &Arc<ClientConfig>) -> std::io::Result<Self> {
        Self::over(TcpStream::connect_timeout(&addr, LIMIT)?, name, config)
    }

    /// The same from this address of this machine.
    pub(crate) fn open_from(
        from: IpAddr,
        addr: SocketAddr,
        name: &str,
        config: &Arc<ClientConfig>,
    ) -> std::io::Result<Self> {
        let socket = socket2::Socket::new(socket2::Domain::for_address(addr), socket2::Type::STREAM, None)?;
        socket.bind(&SocketAddr::new(from, 0).into())?;
        socket.connect_timeout(&addr.into(), LIMIT)?;
        Self::over(socket.into(), name, config)
    }

    fn over(stream: TcpStream, name: &str, config: &Arc<ClientConfig>) -> std::io::Result<Self> {
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_write_timeout(Some(LIMIT))?;
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let connection = ClientConnection::new(Arc::clone(config), name).unwrap();
        let mut stream = StreamOwned::new(connection, stream);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Self(stream))
    }

    pub(crate) fn alpn(&self) -> Option<String> {
        self.0.conn.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned())
    }

    /// The certificate that was shown.
    pub(crate) fn certificate(&self) -> Vec<u8> {
        self.0.conn.peer_certificates().unwrap()[0].to_vec()
    }

    /// One request; the answer has a length.
    #[track_caller]
    pub(crate) fn request(&mut self, bytes: &[u8]) -> Answer {
        self.try_request(bytes).expect("the connection ended without a whole answer")
    }

    /// The same; none where the connection ends before the answer does.
    pub(crate) fn try_request(&mut self, bytes: &[u8]) -> Option<Answer> {
        self.0.write_all(bytes).ok()?;
        let mut all = Vec::new();
        let mut part = [0; 16 * 1024];
        loop {
            if let Some(at) = all.windows(4).position(|part| part == b"\r\n\r\n") {
                let answer = Answer::parse(&all);
                let length = answer.header("content-length").unwrap_or("0").parse::<usize>().unwrap();
                if all.len() >= at + 4 + length {
                    return Some(answer);
                }
            }
            let read = self.0.read(&mut part).ok().filter(|read| *read > 0)?;
            all.extend_from_slice(&part[..read]);
        }
    }

    /// Sends bytes.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).and_then(|()| self.0.flush()).unwrap();
    }

    /// Everything until the other side closes.
    pub(crate) fn rest(mut self) -> Vec<u8> {
        let mut all = Vec::new();
        // An end without a farewell is an end, too.
        let ended = self.0.read_to_end(&mut all);
        if let Err(error) = ended {
            use std::io::ErrorKind::{ConnectionReset, UnexpectedEof};
            assert!(matches!(error.kind(), ConnectionReset | UnexpectedEof), "not closed: {error}");
        }
        all
    }

    /// The stream, for another protocol.
    pub(crate) fn into_stream(self) -> StreamOwned<ClientConnection, TcpStream> {
        self.0
    }
}
