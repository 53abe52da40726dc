//! Clients that send what they are told, to the byte.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use serde_json::Value;
use socket2::{Domain, Socket, Type};
use tokio_tungstenite::tungstenite;
use tungstenite::WebSocket;

use super::LIMIT;

/// A client at an address. Cheap to clone; each request is a new connection.
#[derive(Clone, Debug)]
#[must_use = "a client by itself sends nothing"]
pub(crate) struct Client {
    to: SocketAddr,
    from: Option<IpAddr>,
    unix: Option<PathBuf>,
    host: String,
    headers: Vec<(String, String)>,
}

impl Client {
    /// One that dials this address and names it as Host.
    pub(crate) fn to(to: SocketAddr) -> Self {
        Self { to, from: None, unix: None, host: to.to_string(), headers: Vec::new() }
    }

    /// One on a unix socket, as Serve has it: `Host: localhost`.
    pub(crate) fn unix(path: &Path) -> Self {
        let to = SocketAddr::from(([0, 0, 0, 0], 0));
        Self { unix: Some(path.to_owned()), host: "localhost".to_owned(), ..Self::to(to) }
    }

    /// From this address of this machine.
    pub(crate) fn from(mut self, from: IpAddr) -> Self {
        self.from = Some(from);
        self
    }

    /// With another Host.
    pub(crate) fn host(&self, host: &str) -> Self {
        Self { host: host.to_owned(), ..self.clone() }
    }

    /// With one more header line.
    pub(crate) fn with(&self, name: &str, value: &str) -> Self {
        let mut client = self.clone();
        client.headers.push((name.to_owned(), value.to_owned()));
        client
    }

    /// With the token as a bearer.
    pub(crate) fn bearer(&self, token: &str) -> Self {
        self.with("Authorization", &format!("Bearer {token}"))
    }

    #[track_caller]
    pub(crate) fn get(&self, target: &str) -> Answer {
        self.request("GET", target, b"")
    }

    /// One request with what was set, on a connection of its own.
    #[track_caller]
    pub(crate) fn request(&self, method: &str, target: &str, body: &[u8]) -> Answer {
        self.ask(method, &self.bytes(method, target, body))
    }

    /// These bytes as they are, and the one answer to them.
    #[track_caller]
    pub(crate) fn raw(&self, bytes: impl AsRef<[u8]>) -> Answer {
        self.ask("GET", bytes.as_ref())
    }

    #[track_caller]
    fn ask(&self, method: &str, bytes: &[u8]) -> Answer {
        if let Some(path) = &self.unix {
            let mut wire =
                Self::open_unix(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            wire.send(bytes);
            return wire.answer_to(method);
        }
        let mut wire = self.open();
        wire.send(bytes);
        wire.answer_to(method)
    }

    /// The answer to a GET, or none where the connection is closed without one.
    #[track_caller]
    pub(crate) fn try_get(&self, target: &str) -> Option<Answer> {
        let bytes = self.bytes("GET", target, b"");
        let rest = match &self.unix {
            Some(path) => {
                let mut wire = Self::open_unix(path).ok()?;
                wire.send(&bytes);
                wire.rest()
            }
            None => {
                let mut wire = self.try_open().ok()?;
                wire.send(&bytes);
                wire.rest()
            }
        };
        (!rest.is_empty()).then(|| Answer::parse(&rest))
    }

    /// A connection to a unix socket.
    pub(crate) fn open_unix(path: &Path) -> std::io::Result<Wire<UnixStream>> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(LIMIT))?;
        Ok(Wire { stream, buffer: Vec::new() })
    }

    /// Without this header.
    pub(crate) fn without(&self, name: &str) -> Self {
        let mut client = self.clone();
        client.headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        client
    }

    /// With this header in place of any of the name.
    pub(crate) fn instead(&self, name: &str, value: &str) -> Self {
        self.without(name).with(name, value)
    }

    /// The bytes that [`Self::request`] sends.
    pub(crate) fn bytes(&self, method: &str, target: &str, body: &[u8]) -> Vec<u8> {
        let mut head = format!("{method} {target} HTTP/1.1\r\nHost: {}\r\n", self.host);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let has = |wanted: &str| self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(wanted));
        if !has("connection") {
            head.push_str("Connection: close\r\n");
        }
        if !body.is_empty() && !has("content-length") && !has("transfer-encoding") {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        let mut bytes = format!("{head}\r\n").into_bytes();
        bytes.extend_from_slice(body);
        bytes
    }

    /// A connection.
    #[track_caller]
    pub(crate) fn open(&self) -> Wire {
        self.try_open().unwrap_or_else(|error| panic!("{} cannot be reached: {error}", self.to))
    }

    /// A connection, where there may be nobody.
    pub(crate) fn try_open(&self) -> std::io::Result<Wire> {
        let socket = Socket::new(Domain::for_address(self.to), Type::STREAM, None)?;
        if let Some(from) = self.from {
            socket.bind(&SocketAddr::new(from, 0).into())?;
        }
        socket.connect_timeout(&self.to.into(), LIMIT)?;
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_write_timeout(Some(LIMIT))?;
        stream.set_nodelay(true)?;
        Ok(Wire { stream, buffer: Vec::new() })
    }

    /// Opens a WebSocket, with the headers set and no others; or the refusal.
    #[track_caller]
    pub(crate) fn websocket(&self, target: &str) -> Result<WebSocket<TcpStream>, Answer> {
        let key = tungstenite::handshake::client::generate_key();
        let mut request = http::Request::builder()
            .uri(format!("ws://{}{target}", self.host))
            .header("Host", &self.host)
            .header("Connection", "Upgrade")
            .header("Upgrade", "websocket")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", key);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        match tungstenite::client(request.body(()).unwrap(), self.open().stream) {
            Ok((socket, _)) => Ok(socket),
            Err(tungstenite::HandshakeError::Failure(tungstenite::Error::Http(response))) => {
                let headers = response.headers().iter();
                let headers = headers.map(|(name, value)| {
                    (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
                });
                Err(Answer {
                    status: response.status().as_u16(),
                    headers: headers.collect(),
                    body: response.body().clone().unwrap_or_default(),
                })
            }
            Err(other) => panic!("the handshake failed otherwise: {other}"),
        }
    }

    /// So many requests at once on one HTTP/2 connection; their statuses.
    #[track_caller]
    pub(crate) fn h2_many(&self, target: &str, count: usize) -> Vec<u16> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let stream = self.open().stream;
            stream.set_nonblocking(true).unwrap();
            let stream = hyper_util::rt::TokioIo::new(tokio::net::TcpStream::from_std(stream).unwrap());
            let executor = hyper_util::rt::TokioExecutor::new();
            let (send, connection) = hyper::client::conn::http2::handshake(executor, stream).await.unwrap();
            tokio::spawn(connection);
            let mut asked = Vec::new();
            for _ in 0..count {
                let request = http::Request::builder().uri(format!("http://{}{target}", self.host));
                let body = http_body_util::Empty::<bytes::Bytes>::new();
                let mut send = send.clone();
                asked.push(tokio::spawn(async move {
                    let response = send.send_request(request.body(body).unwrap()).await.unwrap();
                    let status = response.status().as_u16();
                    // Read to its end, so that its place goes to the next.
                    drop(http_body_util::BodyExt::collect(response.into_body()).await.unwrap());
                    status
                }));
            }
            let mut statuses = Vec::new();
            for asked in asked {
                statuses.push(asked.await.unwrap());
            }
            statuses
        })
    }

    /// One HTTP/2 request without TLS. `:authority` is the Host.
    #[track_caller]
    pub(crate) fn h2(&self, method: &str, target: &str) -> Answer {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let stream = self.open().stream;
            stream.set_nonblocking(true).unwrap();
            let stream = hyper_util::rt::TokioIo::new(tokio::net::TcpStream::from_std(stream).unwrap());
            let executor = hyper_util::rt::TokioExecutor::new();
            let (mut send, connection) =
                hyper::client::conn::http2::handshake(executor, stream).await.unwrap();
            tokio::spawn(connection);
            let mut request =
                http::Request::builder().method(method).uri(format!("http://{}{target}", self.host));
            for (name, value) in &self.headers {
                request = request.header(name, value);
            }
            let body = http_body_util::Empty::<bytes::Bytes>::new();
            let response = send.send_request(request.body(body).unwrap()).await.unwrap();
            let (parts, body) = response.into_parts();
            let headers = parts.headers.iter().map(|(name, value)| {
                (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
            });
            let headers = headers.collect();
            let body = http_body_util::BodyExt::collect(body).await.unwrap().to_bytes().to_vec();
            Answer { status: parts.status.as_u16(), headers, body }
        })
    }
}

/// One connection.
pub(crate) struct Wire<S = TcpStream> {
    pub(crate) stream: S,
    buffer: Vec<u8>,
}

impl<S: Read + Write> Wire<S> {
    /// Sends bytes. A peer that has closed is no fault here: its answer tells.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// The next whole answer, to a request of this method.
    #[track_caller]
    pub(crate) fn answer_to(&mut self, method: &str) -> Answer {
        let mut answer = self.head();
        answer.body = if method == "HEAD" || matches!(answer.status, 100..=199 | 204 | 304) {
            Vec::new()
        } else if answer.header("transfer-encoding").is_some_and(|value| value.contains("chunked")) {
            self.chunked()
        } else if let Some(length) = answer.header("content-length") {
            self.exactly(length.parse().unwrap())
        } else {
            self.rest()
        };
        answer
    }

    /// The head of the next answer.
    #[track_caller]
    pub(crate) fn head(&mut self) -> Answer {
        let head = self.through(b"\r\n\r\n");
        Answer::parse_head(&head)
    }

    /// Everything up to and including a mark.
    #[track_caller]
    pub(crate) fn through(&mut self, mark: &[u8]) -> Vec<u8> {
        loop {
            if let Some(at) = self.buffer.windows(mark.len()).position(|part| part == mark) {
                return self.buffer.drain(..at + mark.len()).collect();
            }
            if !self.more() {
                let so_far = String::from_utf8_lossy(&self.buffer);
                panic!("the connection ended before {:?}: {so_far:?}", String::from_utf8_lossy(mark));
            }
        }
    }

    #[track_caller]
    fn exactly(&mut self, length: usize) -> Vec<u8> {
        while self.buffer.len() < length {
            assert!(self.more(), "the connection ended inside a body");
        }
        self.buffer.drain(..length).collect()
    }

    #[track_caller]
    fn chunked(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let line = String::from_utf8(self.through(b"\r\n")).unwrap();
            let size = usize::from_str_radix(line.trim().split(';').next().unwrap(), 16).unwrap();
            if size == 0 {
                while self.through(b"\r\n") != b"\r\n" {}
                return body;
            }
            body.extend(self.exactly(size));
            assert_eq!(self.exactly(2), b"\r\n");
        }
    }

    /// Everything until the other side closes.
    #[track_caller]
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        while self.more() {}
        std::mem::take(&mut self.buffer)
    }

    /// Whether the other side has closed without another byte.
    #[track_caller]
    pub(crate) fn is_closed(&mut self) -> bool {
        let rest = self.rest();
        assert!(rest.is_empty(), "more was sent: {:?}", String::from_utf8_lossy(&rest));
        true
    }

    /// Reads once; false at the end.
    #[track_caller]
    fn more(&mut self) -> bool {
        let mut part = [0; 16 * 1024];
        match self.stream.read(&mut part) {
            Ok(0) => false,
            Ok(read) => {
                self.buffer.extend_from_slice(&part[..read]);
                true
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
            Err(error) => {
                panic!("nothing came: {error}; before: {:?}", String::from_utf8_lossy(&self.buffer));
            }
        }
    }
}

/// What came back.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// From all bytes of a connection that was closed after it.
    #[track_caller]
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let at = bytes.windows(4).position(|part| part == b"\r\n\r\n");
        let at = at.unwrap_or_else(|| panic!("no answer: {:?}", String::from_utf8_lossy(bytes)));
        let mut answer = Self::parse_head(&bytes[..at + 4]);
        answer.body = bytes[at + 4..].to_vec();
        answer
    }

    #[track_caller]
    fn parse_head(head: &[u8]) -> Self {
        let text = String::from_utf8_lossy(head);
        let mut lines = text.split("\r\n");
        let line = lines.next().unwrap_or_default();
        let status = line.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no status line: {line:?}"));
        let headers = lines.filter_map(|line| line.split_once(':'));
        let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()));
        Self { status, headers: headers.collect(), body: Vec::new() }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?} {}", self.text()))
    }

    /// The reason code of a refusal.
    #[track_caller]
    pub(crate) fn code(&self) -> String {
        let json = self.json();
        json["error"]["code"].as_str().unwrap_or_else(|| panic!("no code: {json}")).to_owned()
    }

    /// Fails unless it is this refusal.
    #[track_caller]
    pub(crate) fn assert_refused(&self, status: u16, code: &str) {
        let said = self.text();
        assert!(
            self.status == status && said.contains(&format!("\"{code}\"")),
            "not {status} {code}: {} {said}",
            self.status
        );
    }

    /// What an echoing upstream saw of the request; fails if there was another answer.
    #[track_caller]
    pub(crate) fn seen(&self) -> Seen {
        assert_eq!(self.status, 200, "{}", self.text());
        Seen(self.json())
    }
}

/// A request as an echoing upstream saw it.
#[derive(Clone, Debug)]
pub(crate) struct Seen(pub(crate) Value);

impl Seen {
    /// Every value of a header, by its lower-case name.
    pub(crate) fn all(&self, name: &str) -> Vec<String> {
        let lines = self.0["headers"].as_array().unwrap().iter();
        let lines = lines.filter(|line| line[0].as_str().unwrap().eq_ignore_ascii_case(name));
        lines.map(|line| line[1].as_str().unwrap().to_owned()).collect()
    }

    /// The value of a header that occurs once.
    #[track_caller]
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let mut all = self.all(name);
        assert!(all.len() <= 1, "{name} occurs twice: {}", self.0);
        all.pop()
    }

    /// The names as they were written.
    pub(crate) fn names(&self) -> Vec<String> {
        self.0["headers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|line| line[0].as_str().unwrap().to_owned())
            .collect()
    }

    pub(crate) fn target(&self) -> &str {
        self.0["target"].as_str().unwrap()
    }

    /// Whose request the upstream takes it for.
    #[track_caller]
    pub(crate) fn login(&self) -> Option<String> {
        self.header("tailscale-user-login")
    }
}
