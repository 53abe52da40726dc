//! HTTP/2: many streams on one connection, and frames that no library sends.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Answer, LIMIT};

/// One connection, shared by many streams.
#[derive(Clone)]
pub(crate) struct H2 {
    send: SendRequest<Full<Bytes>>,
    authority: String,
}

impl H2 {
    /// With prior knowledge, without TLS.
    pub(crate) async fn to(addr: SocketAddr) -> Self {
        let stream = tokio::net::TcpStream::connect(addr).await.unwrap();
        Self::over(stream, &addr.to_string()).await
    }

    /// The same, from an address of this machine.
    pub(crate) async fn from(addr: SocketAddr, from: &str) -> Self {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(from.parse().unwrap(), 0)).unwrap();
        Self::over(socket.connect(addr).await.unwrap(), &addr.to_string()).await
    }

    /// Over any stream.
    pub(crate) async fn over<S>(stream: S, authority: &str) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (send, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Self { send, authority: authority.to_owned() }
    }

    /// A request to fill in.
    pub(crate) fn ask(&self, method: &str, target: &str) -> http::request::Builder {
        http::Request::builder().method(method).uri(format!("http://{}{target}", self.authority))
    }

    /// Sends it; the answer's body is still to be read.
    pub(crate) async fn begin(
        &self,
        request: http::request::Builder,
        body: impl Into<Bytes>,
    ) -> hyper::Result<http::Response<Incoming>> {
        let request = request.body(Full::new(body.into())).unwrap();
        let mut send = self.send.clone();
        let answer = tokio::time::timeout(LIMIT, async {
            send.ready().await?;
            send.send_request(request).await
        });
        answer.await.expect("no answer came")
    }

    /// Sends it and reads the whole answer.
    pub(crate) async fn whole(&self, request: http::request::Builder, body: impl Into<Bytes>) -> Answer {
        answer_of(self.begin(request, body).await.unwrap()).await
    }
}

/// The whole of an answer.
pub(crate) async fn answer_of(response: http::Response<Incoming>) -> Answer {
    let (parts, body) = response.into_parts();
    let headers = parts.headers.iter().map(|(name, value)| {
        (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    });
    let headers = headers.collect();
    let body = tokio::time::timeout(LIMIT, body.collect()).await.expect("the body does not end");
    Answer { status: parts.status.as_u16(), headers, body: body.unwrap().to_bytes().to_vec() }
}

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// A frame to the byte.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Header lines, as literals without an index: any byte can be said.
pub(crate) fn block(lines: &[(&[u8], &[u8])]) -> Vec<u8> {
    fn text(block: &mut Vec<u8>, bytes: &[u8]) {
        match bytes.len() {
            short @ 0..=126 => block.push(u8::try_from(short).unwrap()),
            long => {
                block.push(127);
                let mut rest = long - 127;
                while rest >= 128 {
                    block.push(u8::try_from(rest % 128).unwrap() | 128);
                    rest /= 128;
                }
                block.push(u8::try_from(rest).unwrap());
            }
        }
        block.extend(bytes);
    }
    let mut block = Vec::new();
    for (name, value) in lines {
        block.push(0);
        text(&mut block, name);
        text(&mut block, value);
    }
    block
}

/// How the server took a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// With a status; 0 where it is not one of those with an index of their own.
    Answered(u16),
    /// With RST_STREAM.
    Reset,
    /// With the end of the connection.
    Closed,
}

/// A connection whose frames are written by the test.
pub(crate) struct RawH2 {
    pub(crate) stream: TcpStream,
    /// What was read and not looked at.
    buffer: Vec<u8>,
    taken: BTreeMap<u32, Taken>,
}

impl RawH2 {
    /// Says the preface, and settings that may hold parameters.
    pub(crate) fn open(addr: SocketAddr, settings: &[u8]) -> Self {
        let stream = TcpStream::connect_timeout(&addr, LIMIT).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.set_write_timeout(Some(LIMIT)).unwrap();
        let mut raw = Self { stream, buffer: Vec::new(), taken: BTreeMap::new() };
        raw.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        raw.send(&frame(SETTINGS, 0, 0, settings));
        raw
    }

    /// Sends bytes; false when the server takes no more.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> bool {
        use std::io::Write;
        self.stream.write_all(bytes).is_ok()
    }

    /// The next frame: kind, flags, stream, payload. None at the end.
    pub(crate) fn next(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        use std::io::Read;
        loop {
            if let Some((head, rest)) = self.buffer.split_first_chunk::<9>() {
                let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
                if rest.len() >= length {
                    let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
                    let found = (head[3], head[4], stream, rest[..length].to_vec());
                    self.buffer.drain(..9 + length);
                    return Some(found);
                }
            }
            let mut part = [0; 16 * 1024];
            match self.stream.read(&mut part) {
                Ok(0) | Err(_) => return None,
                Ok(read) => self.buffer.extend_from_slice(&part[..read]),
            }
        }
    }

    /// How a stream was taken.
    pub(crate) fn taken(&mut self, stream: u32) -> Taken {
        loop {
            if let Some(taken) = self.taken.get(&stream) {
                return *taken;
            }
            let Some((kind, _, of, payload)) = self.next() else { return Taken::Closed };
            let taken = match kind {
                HEADERS => Taken::Answered(match payload.iter().find(|byte| **byte & 0xe0 != 0x20) {
                    Some(0x88) => 200,
                    Some(0x89) => 204,
                    Some(0x8a) => 206,
                    Some(0x8b) => 304,
                    Some(0x8c) => 400,
                    Some(0x8d) => 404,
                    Some(0x8e) => 500,
                    _ => 0,
                }),
                RST_STREAM => Taken::Reset,
                GOAWAY if payload.get(4..8) != Some(&[0; 4]) => return Taken::Closed,
                _ => continue,
            };
            self.taken.entry(of).or_insert(taken);
        }
    }

    /// How long to wait for the server's bytes.
    pub(crate) fn set_patience(&mut self, patience: Duration) {
        self.stream.set_read_timeout(Some(patience)).unwrap();
    }
}
