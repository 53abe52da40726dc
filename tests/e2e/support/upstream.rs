//! Apps behind the gateway: one that repeats what it was asked, and one that says
//! exactly what a test wants said.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::json;
use tokio_tungstenite::tungstenite;
use tungstenite::handshake::derive_accept_key;
use tungstenite::protocol::Role;
use tungstenite::{Message, WebSocket};

use super::LIMIT;

#[derive(Clone, Debug)]
enum Place {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

#[derive(Default)]
struct Records {
    requests: Mutex<Vec<Vec<u8>>>,
    connections: AtomicUsize,
    stop: AtomicBool,
}

/// An app. It stops accepting when it is dropped.
pub(crate) struct Upstream {
    place: Place,
    records: Arc<Records>,
}

impl Upstream {
    /// Answers with the head of the request as JSON. `/sse` is a stream of one
    /// event that stays open; an upgrade becomes a WebSocket whose first message
    /// is the JSON and that then repeats what it hears.
    pub(crate) fn echo() -> Self {
        Self::scripted(echo)
    }

    /// The same on a unix socket.
    pub(crate) fn echo_at(path: &Path) -> Self {
        Self::scripted_at(path, echo)
    }

    /// Answers every request with these bytes.
    pub(crate) fn answering(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        Self::scripted(move |mut conn| {
            while conn.request().is_some() {
                conn.send(&bytes);
            }
        })
    }

    /// Does with each connection what the test says, on a thread of its own.
    pub(crate) fn scripted(script: impl Fn(Conn) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let place = Place::Tcp(listener.local_addr().unwrap());
        let accept = move || listener.accept().map(|(stream, _)| Socket::Tcp(stream));
        Self::serve(place, accept, script)
    }

    /// The same on a unix socket.
    pub(crate) fn scripted_at(path: &Path, script: impl Fn(Conn) + Send + Sync + 'static) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let accept = move || listener.accept().map(|(stream, _)| Socket::Unix(stream));
        Self::serve(Place::Unix(path.to_owned()), accept, script)
    }

    fn serve(
        place: Place,
        accept: impl Fn() -> std::io::Result<Socket> + Send + 'static,
        script: impl Fn(Conn) + Send + Sync + 'static,
    ) -> Self {
        let records = Arc::new(Records::default());
        let (ours, script) = (Arc::clone(&records), Arc::new(script));
        std::thread::spawn(move || {
            while let Ok(socket) = accept() {
                if ours.stop.load(Ordering::Relaxed) {
                    return;
                }
                ours.connections.fetch_add(1, Ordering::Relaxed);
                socket.set_limits();
                let conn = Conn { socket, buffer: Vec::new(), records: Arc::clone(&ours) };
                let script = Arc::clone(&script);
                std::thread::spawn(move || script(conn));
            }
        });
        Self { place, records }
    }

    /// What `--upstream` takes.
    pub(crate) fn flag(&self) -> String {
        match &self.place {
            Place::Tcp(addr) => addr.to_string(),
            Place::Unix(path) => format!("unix:{}", path.display()),
        }
    }

    /// The port, of one on TCP.
    pub(crate) fn port(&self) -> u16 {
        match &self.place {
            Place::Tcp(addr) => addr.port(),
            Place::Unix(path) => panic!("{} has no port", path.display()),
        }
    }

    /// The requests so far, each to the byte, bodies included.
    pub(crate) fn requests(&self) -> Vec<Vec<u8>> {
        self.records.requests.lock().unwrap().clone()
    }

    /// How many connections there were.
    pub(crate) fn connections(&self) -> usize {
        self.records.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.records.stop.store(true, Ordering::Relaxed);
        match &self.place {
            Place::Tcp(addr) => drop(TcpStream::connect(addr)),
            Place::Unix(path) => drop(UnixStream::connect(path)),
        }
    }
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    fn set_limits(&self) {
        let _ = match self {
            Self::Tcp(stream) => {
                let _ = stream.set_nodelay(true);
                stream.set_read_timeout(Some(LIMIT)).and(stream.set_write_timeout(Some(LIMIT)))
            }
            Self::Unix(stream) => {
                stream.set_read_timeout(Some(LIMIT)).and(stream.set_write_timeout(Some(LIMIT)))
            }
        };
    }

    fn shutdown(&self, how: Shutdown) {
        let _ = match self {
            Self::Tcp(stream) => stream.shutdown(how),
            Self::Unix(stream) => stream.shutdown(how),
        };
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(buffer),
            Self::Unix(stream) => stream.write(buffer),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.flush(),
            Self::Unix(stream) => stream.flush(),
        }
    }
}

/// A connection of the gateway's to an app.
pub(crate) struct Conn {
    socket: Socket,
    buffer: Vec<u8>,
    records: Arc<Records>,
}

impl Conn {
    /// The next request to the byte, recorded; none when the gateway has closed.
    pub(crate) fn request(&mut self) -> Option<Vec<u8>> {
        let head = self.request_head()?;
        let body = self.body_of(&head);
        let mut requests = self.records.requests.lock().unwrap();
        let mut bytes = head;
        bytes.extend(body?);
        if let Some(last) = requests.last_mut() {
            *last = bytes.clone();
        }
        Some(bytes)
    }

    /// The head of the next request. It is recorded before its body is there.
    pub(crate) fn request_head(&mut self) -> Option<Vec<u8>> {
        let head = self.through(b"\r\n\r\n")?;
        self.records.requests.lock().unwrap().push(head.clone());
        Some(head)
    }

    fn body_of(&mut self, head: &[u8]) -> Option<Vec<u8>> {
        let text = String::from_utf8_lossy(head).to_ascii_lowercase();
        let field = |name: &str| {
            text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim))
        };
        if field("transfer-encoding").is_some() {
            let mut body = Vec::new();
            loop {
                let line = self.through(b"\r\n")?;
                let size = String::from_utf8_lossy(&line);
                let size = usize::from_str_radix(size.trim().split(';').next()?, 16).ok()?;
                body.extend(line);
                if size == 0 {
                    body.extend(self.through(b"\r\n")?);
                    return Some(body);
                }
                body.extend(self.exactly(size + 2)?);
            }
        }
        let length = field("content-length").map_or(Some(0), |length| length.parse().ok())?;
        self.exactly(length)
    }

    /// Everything up to and including a mark; none when the connection ends first.
    pub(crate) fn through(&mut self, mark: &[u8]) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = self.buffer.windows(mark.len()).position(|part| part == mark) {
                return Some(self.buffer.drain(..at + mark.len()).collect());
            }
            self.more()?;
        }
    }

    /// So many bytes.
    pub(crate) fn exactly(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.buffer.len() < length {
            self.more()?;
        }
        Some(self.buffer.drain(..length).collect())
    }

    /// Everything until the gateway closes.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        while self.more().is_some() {}
        std::mem::take(&mut self.buffer)
    }

    fn more(&mut self) -> Option<()> {
        let mut part = [0; 16 * 1024];
        let read = self.socket.read(&mut part).ok().filter(|read| *read > 0)?;
        self.buffer.extend_from_slice(&part[..read]);
        Some(())
    }

    /// Sends bytes; false when the gateway is gone.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> bool {
        self.socket.write_all(bytes).and_then(|()| self.socket.flush()).is_ok()
    }

    /// Ends the sending half, or both.
    pub(crate) fn shutdown(&self, how: Shutdown) {
        self.socket.shutdown(how);
    }

    /// Answers with JSON.
    pub(crate) fn send_json(&mut self, value: &serde_json::Value) -> bool {
        let body = value.to_string();
        let length = body.len();
        self.send(
            format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
            )
            .as_bytes(),
        )
    }
}

/// A request as JSON.
pub(crate) fn describe(request: &[u8]) -> serde_json::Value {
    let at = request.windows(4).position(|part| part == b"\r\n\r\n").unwrap_or(request.len());
    let head = String::from_utf8_lossy(&request[..at]);
    let body = String::from_utf8_lossy(request.get(at + 4..).unwrap_or_default());
    let mut lines = head.split("\r\n");
    let mut first = lines.next().unwrap_or_default().split(' ');
    let headers: Vec<_> =
        lines.filter_map(|line| line.split_once(':')).map(|(n, v)| json!([n, v.trim()])).collect();
    json!({
        "method": first.next(),
        "target": first.next(),
        "version": first.next(),
        "headers": headers,
        "body": body,
    })
}

fn echo(mut conn: Conn) {
    while let Some(request) = conn.request() {
        let seen = describe(&request);
        let header = |name: &str| {
            let mut lines = seen["headers"].as_array().unwrap().iter();
            let line = lines.find(|line| line[0].as_str().unwrap().eq_ignore_ascii_case(name));
            line.map(|line| line[1].as_str().unwrap().to_owned())
        };
        if let Some(key) = header("sec-websocket-key") {
            let accept = derive_accept_key(key.as_bytes());
            conn.send(
                format!("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n\r\n")
                    .as_bytes(),
            );
            let early = std::mem::take(&mut conn.buffer);
            let mut socket = WebSocket::from_partially_read(conn.socket, early, Role::Server, None);
            let mut going = socket.send(Message::text(seen.to_string())).is_ok();
            while going {
                going = match socket.read() {
                    Ok(message @ (Message::Text(_) | Message::Binary(_))) => socket.send(message).is_ok(),
                    Ok(_) => true,
                    Err(_) => false,
                };
            }
            return;
        }
        if seen["target"].as_str().is_some_and(|target| target.contains("/sse")) {
            let event = format!("data: {seen}\n\n");
            let head =
                "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
            conn.send(format!("{head}{:x}\r\n{event}\r\n", event.len()).as_bytes());
            conn.rest();
            return;
        }
        if !conn.send_json(&seen) {
            return;
        }
    }
}
