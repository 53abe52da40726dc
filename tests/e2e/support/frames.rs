//! WebSocket frames to the byte, for apps that say exactly what a test wants.

use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::Conn;

pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;

/// A final frame as servers send it.
pub(crate) fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = head(0x80 | opcode, 0, payload.len());
    frame.extend(payload);
    frame
}

/// A frame as clients send it, its first byte as given.
pub(crate) fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x11, 0x22, 0x33, 0x44];
    let mut frame = head(first, 0x80, payload.len());
    frame.extend(MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

fn head(first: u8, masked: u8, length: usize) -> Vec<u8> {
    let mut head = vec![first];
    match length {
        0..=125 => head.push(masked | u8::try_from(length).unwrap()),
        126..=0xffff => {
            head.push(masked | 126);
            head.extend(u16::try_from(length).unwrap().to_be_bytes());
        }
        _ => {
            head.push(masked | 127);
            head.extend((length as u64).to_be_bytes());
        }
    }
    head
}

/// The value of a header in a request's bytes.
pub(crate) fn header_of(request: &[u8], name: &str) -> Option<String> {
    let text = String::from_utf8_lossy(request).into_owned();
    let mut lines = text.lines().filter_map(|line| line.split_once(':'));
    let line = lines.find(|(known, _)| known.eq_ignore_ascii_case(name));
    line.map(|(_, value)| value.trim().to_owned())
}

impl Conn {
    /// Answers an upgrade with 101.
    pub(crate) fn accept_websocket(&mut self, request: &[u8]) -> bool {
        let key = header_of(request, "sec-websocket-key").unwrap_or_default();
        let accept = derive_accept_key(key.as_bytes());
        self.send(
            format!(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Accept: {accept}\r\n\r\n"
            )
            .as_bytes(),
        )
    }

    /// The next frame of a client: opcode and unmasked payload.
    pub(crate) fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let head = self.exactly(2)?;
        let length = match head[1] & 0x7f {
            126 => u64::from(u16::from_be_bytes(self.exactly(2)?.try_into().unwrap())),
            127 => u64::from_be_bytes(self.exactly(8)?.try_into().unwrap()),
            short => u64::from(short),
        };
        assert!(head[1] & 0x80 != 0, "a client's frame is masked");
        let mask = self.exactly(4)?;
        let payload = self.exactly(usize::try_from(length).unwrap())?;
        let payload = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
        Some((head[0] & 0x0f, payload))
    }
}
