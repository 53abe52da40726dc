//! Follows a chunked body, byte for byte, without a doubt about its end.

use super::head::{is_token, is_value};

/// Bytes of extensions on one chunk-size line.
const MAX_EXTENSION: u16 = 256;
/// Bytes of trailers of one body.
const MAX_TRAILERS: u16 = 8 * 1024;
/// Digits of a chunk size; more could overflow somebody's 64 bits.
const MAX_DIGITS: u8 = 15;

/// Where in a chunked body the stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chunked {
    Size {
        value: u64,
        digits: u8,
    },
    Extension {
        value: u64,
        bytes: u16,
    },
    SizeLf {
        value: u64,
    },
    Data {
        left: u64,
    },
    DataCr,
    DataLf,
    /// At the beginning of a trailer line, or of the empty line that ends it all.
    TrailerStart {
        bytes: u16,
    },
    TrailerName {
        bytes: u16,
    },
    TrailerValue {
        bytes: u16,
    },
    TrailerLf {
        bytes: u16,
    },
    LastLf,
    Done,
}

impl Chunked {
    pub(super) const START: Self = Self::Size { value: 0, digits: 0 };

    /// Moves over `data`; says how many bytes were good, and whether the next
    /// one is not. Stops after the last byte of the body.
    pub(super) fn advance(&mut self, data: &[u8]) -> (usize, bool) {
        let mut at = 0;
        while at < data.len() {
            if let Self::Data { left } = self {
                let here = data.len() - at;
                let skip = usize::try_from(*left).map_or(here, |left| left.min(here));
                at += skip;
                *left -= skip as u64;
                if *left == 0 {
                    *self = Self::DataCr;
                }
                continue;
            }
            if *self == Self::Done {
                break;
            }
            match self.step(data[at]) {
                Some(next) => *self = next,
                None => return (at, true),
            }
            at += 1;
        }
        (at, false)
    }

    fn step(self, b: u8) -> Option<Self> {
        Some(match (self, b) {
            (Self::Size { value, digits }, _) if b.is_ascii_hexdigit() => {
                if digits == MAX_DIGITS {
                    return None;
                }
                let digit = (b as char).to_digit(16)?;
                Self::Size { value: value << 4 | u64::from(digit), digits: digits + 1 }
            }
            (Self::Size { digits: 0, .. }, _) => return None,
            (Self::Size { value, .. }, b';') => Self::Extension { value, bytes: 0 },
            (Self::Size { value, .. } | Self::Extension { value, .. }, b'\r') => Self::SizeLf { value },
            (Self::Extension { value, bytes }, _) if is_value(b) && bytes < MAX_EXTENSION => {
                Self::Extension { value, bytes: bytes + 1 }
            }
            (Self::SizeLf { value: 0 }, b'\n') => Self::TrailerStart { bytes: 0 },
            (Self::SizeLf { value }, b'\n') => Self::Data { left: value },
            (Self::DataCr, b'\r') => Self::DataLf,
            (Self::DataLf, b'\n') => Self::START,
            (Self::TrailerStart { .. }, b'\r') => Self::LastLf,
            (Self::LastLf, b'\n') => Self::Done,
            (Self::TrailerLf { bytes }, b'\n') => Self::TrailerStart { bytes },
            (Self::TrailerValue { bytes }, b'\r') => Self::TrailerLf { bytes },
            (Self::TrailerName { bytes }, b':') => Self::TrailerValue { bytes: bytes + 1 },
            (Self::TrailerStart { bytes } | Self::TrailerName { bytes }, _)
                if is_token(b) && bytes < MAX_TRAILERS =>
            {
                Self::TrailerName { bytes: bytes + 1 }
            }
            (Self::TrailerValue { bytes }, _) if is_value(b) && bytes < MAX_TRAILERS => {
                Self::TrailerValue { bytes: bytes + 1 }
            }
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end_of(body: &[u8]) -> Option<usize> {
        let mut state = Chunked::START;
        let (at, fault) = state.advance(body);
        (!fault && state == Chunked::Done).then_some(at)
    }

    #[test]
    fn a_good_body_ends_where_it_says() {
        assert_eq!(end_of(b"0\r\n\r\nGET"), Some(5));
        assert_eq!(end_of(b"5\r\nhello\r\n0\r\n\r\n"), Some(15));
        assert_eq!(end_of(b"A;name=\"v\"\r\n0123456789\r\n000\r\nX-T: 1\r\n\r\n"), Some(39));
    }

    #[test]
    fn threat_079_a_chunk_that_can_be_read_twice_is_refused() {
        for body in [
            &b"\r\n"[..],
            b"x\r\n",
            b"+5\r\nhello\r\n",
            b"-5\r\nhello\r\n",
            b"0x5\r\nhello\r\n",
            b" 5\r\nhello\r\n",
            b"5 \r\nhello\r\n",
            b"5\t\r\nhello\r\n",
            b"5\nhello\r\n",
            b"5\rhello\r\n",
            b"5\r\nhelloo\r\n",
            b"5\r\nhello\n0",
            b"5\r\nhello0\r\n",
            b"5;a\nb\r\nhello",
            b"5;a\x00\r\nhello",
            b"10000000000000000\r\n",
            b"fffffffffffffffff\r\n",
            b"0000000000000005\r\nhello",
            b"0\r\nX-T : 1\r\n\r\n",
            b"0\r\n X: 1\r\n\r\n",
            b"0\r\nX: 1\n\r\n",
            b"0\r\n: 1\r\n\r\n",
            b"0\r\nX: a\x00\r\n\r\n",
            b"0\r\n\n",
        ] {
            let mut state = Chunked::START;
            assert!(state.advance(body).1, "{:?}", String::from_utf8_lossy(body));
        }
    }

    #[test]
    fn threat_079_extensions_and_trailers_are_bounded() {
        let mut state = Chunked::START;
        let mut body = b"5;".to_vec();
        body.resize(1 << 20, b'x');
        let (at, fault) = state.advance(&body);
        assert!(fault && at < 300);

        let mut state = Chunked::START;
        let (at, fault) = state.advance(&[&b"0\r\n"[..], &b"X: y\r\n".repeat(100_000)].concat());
        assert!(fault && at < 20_000);
    }
}
