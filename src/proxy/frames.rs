//! WebSocket frames, as far as a tunnel has to know them (RFC 6455, 5).

/// The longest frame head: two bytes, eight of length, four of mask.
const MAX_HEAD: usize = 14;

pub(super) const CONTINUATION: u8 = 0;
pub(super) const TEXT: u8 = 1;
pub(super) const CLOSE: u8 = 8;

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) fin: bool,
    pub(super) reserved: bool,
    pub(super) opcode: u8,
    pub(super) mask: Option<[u8; 4]>,
    /// How many bytes of payload follow.
    pub(super) payload: u64,
    /// How many bytes the head itself takes.
    pub(super) length: usize,
}

impl Head {
    /// Reads the head `bytes` begin with; `None` while it is incomplete.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let (&[first, second], rest) = bytes.split_first_chunk()?;
        let (payload, rest) = match second & 0x7f {
            126 => {
                let (length, rest) = rest.split_first_chunk()?;
                (u64::from(u16::from_be_bytes(*length)), rest)
            }
            127 => {
                let (length, rest) = rest.split_first_chunk()?;
                (u64::from_be_bytes(*length), rest)
            }
            short => (u64::from(short), rest),
        };
        let (mask, rest) = match second & 0x80 {
            0 => (None, rest),
            _ => {
                let (mask, rest) = rest.split_first_chunk()?;
                (Some(*mask), rest)
            }
        };
        Some(Self {
            fin: first & 0x80 != 0,
            reserved: first & 0x70 != 0,
            opcode: first & 0x0f,
            mask,
            payload,
            length: bytes.len() - rest.len(),
        })
    }

    pub(super) fn is_control(&self) -> bool {
        self.opcode >= CLOSE
    }
}

/// Follows a stream of frames, to know where one may be put in between.
#[derive(Default)]
pub(super) struct Cursor {
    /// Payload bytes of the present frame that are still to come.
    left: u64,
    head: [u8; MAX_HEAD],
    head_length: usize,
}

impl Cursor {
    /// Takes note of bytes that passed.
    pub(super) fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let skipped = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
            self.left -= skipped as u64;
            bytes = &bytes[skipped..];
            // Byte by byte, as a head may arrive in pieces; it is short.
            while let Some((&byte, rest)) = bytes.split_first().filter(|_| self.left == 0) {
                self.head[self.head_length] = byte;
                self.head_length += 1;
                bytes = rest;
                if let Some(head) = Head::parse(&self.head[..self.head_length]) {
                    self.left = head.payload;
                    self.head_length = 0;
                }
            }
        }
    }

    /// Whether the last frame is complete.
    pub(super) fn is_between_frames(&self) -> bool {
        self.left == 0 && self.head_length == 0
    }
}

/// Undoes, or does, the masking of a payload.
pub(super) fn mask(payload: &mut [u8], mask: [u8; 4]) {
    payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
}

/// A server's close frame. The reason is one of ours and short.
pub(super) fn close(code: u16, reason: &str) -> Vec<u8> {
    let length = u8::try_from(reason.len() + 2).unwrap_or(125).min(125);
    let mut frame = vec![0x80 | CLOSE, length];
    frame.extend_from_slice(&code.to_be_bytes());
    frame.extend_from_slice(&reason.as_bytes()[..usize::from(length) - 2]);
    frame
}

/// A client's text frame: one frame, masked.
pub(super) fn masked_text(text: &[u8], key: [u8; 4]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(MAX_HEAD + text.len());
    frame.push(0x80 | TEXT);
    match (u8::try_from(text.len()), u16::try_from(text.len())) {
        (Ok(length @ 0..=125), _) => frame.push(0x80 | length),
        (_, Ok(length)) => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&length.to_be_bytes());
        }
        _ => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(text.len() as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&key);
    let start = frame.len();
    frame.extend_from_slice(text);
    mask(&mut frame[start..], key);
    frame
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn heads_of_every_length_are_read() {
        for (length, head_length) in [(0, 6), (125, 6), (126, 8), (65535, 8), (65536, 14)] {
            let frame = masked_text(&vec![b'a'; length], [1, 2, 3, 4]);
            for end in 0..head_length {
                assert_eq!(Head::parse(&frame[..end]), None);
            }
            let head = Head::parse(&frame).unwrap();
            assert_eq!((head.payload, head.length), (length as u64, head_length));
            assert!(head.fin && !head.reserved && head.opcode == TEXT && head.mask == Some([1, 2, 3, 4]));
        }
    }

    #[test]
    fn the_example_of_the_rfc_is_masked_alike() {
        let frame = masked_text(b"Hello", [0x37, 0xfa, 0x21, 0x3d]);
        assert_eq!(frame, [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58]);
    }

    #[test]
    fn a_close_frame_says_code_and_reason() {
        assert_eq!(close(1008, "no"), [0x88, 4, 0x03, 0xf0, b'n', b'o']);
        assert_eq!(close(1008, &"x".repeat(200)).len(), 127);
    }

    proptest! {
        #[test]
        fn the_cursor_finds_the_ends_however_bytes_arrive(
            lengths in proptest::collection::vec(prop_oneof![0..130_usize, 65_530..65_540_usize], 0..4),
            step in 1..200_usize,
        ) {
            let frames: Vec<u8> =
                lengths.iter().flat_map(|&length| masked_text(&vec![0; length], [9; 4])).collect();
            let mut cursor = Cursor::default();
            frames.chunks(step).for_each(|chunk| cursor.pass(chunk));
            prop_assert!(cursor.is_between_frames());
            cursor.pass(&[0x81]);
            prop_assert!(!cursor.is_between_frames());
            cursor.pass(&[1]);
            prop_assert!(!cursor.is_between_frames());
            cursor.pass(b"x");
            prop_assert!(cursor.is_between_frames());
        }
    }
}
