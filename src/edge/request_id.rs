//! The number of a request.

use std::cell::RefCell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::BytesMut;
use http::HeaderValue;

/// Numbers are cut from pieces of memory of this size, so that most take no
/// allocation. Small, since one that lives long keeps all of its piece.
const PIECE: usize = 512;
/// The longest: eight digits, a dash, sixteen digits.
const LONGEST: usize = 8 + 1 + 16;
/// The least digits of the counter.
const DIGITS: usize = 6;

/// A number for a request: unique in this process, not guessable from outside,
/// and cheap.
pub(super) fn next_request_id() -> HeaderValue {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    static PREFIX: OnceLock<u32> = OnceLock::new();
    let prefix = PREFIX.get_or_init(|| getrandom::u32().unwrap_or_else(|_| std::process::id()));
    request_id(*prefix, NEXT.fetch_add(1, Ordering::Relaxed))
}

fn request_id(prefix: u32, number: u64) -> HeaderValue {
    thread_local! {
        static REST: RefCell<BytesMut> = RefCell::default();
    }
    let mut text = [0; LONGEST];
    hex(&mut text[..8], u64::from(prefix));
    text[8] = b'-';
    let digits = (16 - number.leading_zeros() as usize / 4).max(DIGITS);
    hex(&mut text[9..9 + digits], number);
    let text = &text[..9 + digits];
    let bytes = REST.with_borrow_mut(|rest| {
        if rest.capacity() < text.len() {
            *rest = BytesMut::with_capacity(PIECE);
        }
        rest.extend_from_slice(text);
        rest.split().freeze()
    });
    HeaderValue::from_maybe_shared(bytes).unwrap_or_else(|_| HeaderValue::from_static("-"))
}

/// Fills `text` with the last hexadecimal digits of a number.
fn hex(text: &mut [u8], mut number: u64) {
    for digit in text.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(number & 15) as usize];
        number >>= 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_written_as_format_would() {
        for prefix in [0, 1, 0x00ab_cdef, u32::MAX] {
            for number in [0, 9, 15, 16, 0xff_ffff, 0x100_0000, u64::MAX >> 4, u64::MAX] {
                assert_eq!(request_id(prefix, number), format!("{prefix:08x}-{number:06x}"));
            }
        }
    }

    #[test]
    fn numbers_differ_and_outlive_their_piece_of_memory() {
        let ids: Vec<HeaderValue> = (0..1000).map(|number| request_id(7, number)).collect();
        for (number, id) in ids.iter().enumerate() {
            assert_eq!(id, format!("00000007-{number:06x}").as_str());
        }
        assert_ne!(next_request_id(), next_request_id());
    }
}
