//! Encoded words (RFC 2047), as Tailscale Serve writes them: Go's
//! `mime.QEncoding` with charset `utf-8`.

use std::fmt::Write as _;

use http::HeaderValue;

const OPEN: &str = "=?utf-8?q?";
const CLOSE: &str = "?=";
/// What one word of at most 75 characters can hold.
const MAX_CONTENT: usize = 75 - OPEN.len() - CLOSE.len();

/// Encodes text where it is not printable ASCII; other text stays as it is.
/// Long text becomes several words with a space between them.
pub fn encode(text: &str) -> String {
    if text.bytes().all(|b| b == b'\t' || (b' '..=b'~').contains(&b)) {
        return text.to_owned();
    }
    let mut out = String::with_capacity(OPEN.len() + text.len() * 3 + CLOSE.len());
    out.push_str(OPEN);
    let mut used = 0;
    for c in text.chars() {
        let literal = matches!(c, ' '..='~') && !matches!(c, '=' | '?' | '_');
        let width = if literal { 1 } else { 3 * c.len_utf8() };
        if used + width > MAX_CONTENT {
            out.push_str(CLOSE);
            out.push(' ');
            out.push_str(OPEN);
            used = 0;
        }
        used += width;
        match c {
            ' ' => out.push('_'),
            _ if literal => out.push(c),
            _ => {
                for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                    let _ = write!(out, "={byte:02X}");
                }
            }
        }
    }
    out.push_str(CLOSE);
    out
}

/// Text as a header value: ASCII as it is, anything else encoded. `None` for a
/// line break or NUL.
pub fn header_value(text: &str) -> Option<HeaderValue> {
    if text.contains(['\r', '\n', '\0']) {
        return None;
    }
    HeaderValue::from_str(&encode(text)).ok()
}

/// Decodes what [`encode`] or Serve wrote, once. `None` for a word that
/// is broken or of another charset or encoding, for a control character in the
/// result, and for a result that still holds an encoded word: whoever decodes
/// twice would read something else (threat rule 21).
pub fn decode(text: &str) -> Option<String> {
    let decoded = if text.contains("=?") { decode_words(text)? } else { text.to_owned() };
    let sound = !decoded.chars().any(char::is_control) && !has_word(&decoded);
    sound.then_some(decoded)
}

fn decode_words(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    let mut after_word = false;
    while let Some(at) = rest.find("=?") {
        let (gap, word) = rest.split_at(at);
        // Blanks between two words only separate them.
        if !(after_word && gap.trim_matches([' ', '\t']).is_empty()) {
            bytes.extend_from_slice(gap.as_bytes());
        }
        rest = decode_word(word, &mut bytes)?;
        after_word = true;
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8(bytes).ok()
}

/// Decodes the word `text` begins with; answers what follows it.
fn decode_word<'a>(text: &'a str, out: &mut Vec<u8>) -> Option<&'a str> {
    if !text.get(..OPEN.len())?.eq_ignore_ascii_case(OPEN) {
        return None;
    }
    let (content, rest) = text[OPEN.len()..].split_once(CLOSE)?;
    let mut bytes = content.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'_' => out.push(b' '),
            b'=' => {
                let (high, low) = (hex(bytes.next()?)?, hex(bytes.next()?)?);
                out.push(high << 4 | low);
            }
            b'!'..=b'~' if byte != b'?' => out.push(byte),
            _ => return None,
        }
    }
    Some(rest)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// Whether something in `text` has the shape `=?charset?encoding?content?=`.
fn has_word(text: &str) -> bool {
    text.match_indices("=?").any(|(at, _)| {
        let mut parts = text[at + 2..].splitn(3, '?');
        let charset = parts.next().is_some_and(|part| !part.is_empty() && !part.contains(' '));
        let encoding = parts.next().is_some_and(|part| part.len() == 1);
        charset && encoding && parts.next().is_some_and(|part| part.contains(CLOSE))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn encodes_as_serve_was_seen_to() {
        assert_eq!(encode("Bøb Ķ"), "=?utf-8?q?B=C3=B8b_=C4=B6?=");
        assert_eq!(encode("Krūmiņa"), "=?utf-8?q?Kr=C5=ABmi=C5=86a?=");
        assert_eq!(encode("Alice Example"), "Alice Example");
        assert_eq!(encode("a_b=c?d é"), "=?utf-8?q?a=5Fb=3Dc=3Fd_=C3=A9?=");
        assert_eq!(encode(""), "");
    }

    #[test]
    fn long_text_becomes_words_of_at_most_75_characters() {
        let name = "ø".repeat(100);
        let encoded = encode(&name);
        assert!(encoded.split(' ').count() > 1);
        assert!(encoded.split(' ').all(|word| word.len() <= 75 && word.starts_with(OPEN)));
        assert_eq!(decode(&encoded).as_deref(), Some(name.as_str()));
    }

    #[test]
    fn threat_021_what_could_be_read_twice_is_refused() {
        for text in [
            "=?utf-8?q?a=0D=0Ab?=",
            "=?utf-8?q?a=00?=",
            "a\u{0}b",
            "a\tb",
            "=?utf-8?q?=3D=3Futf-8=3Fq=3Fx=3F=3D?=",
            "=?utf-8?q?=C3?=",
            "=?utf-8?q?=4?=",
            "=?utf-8?q?=zz?=",
            "=?utf-8?q?a b?=",
            "=?utf-8?q?never closed",
            "=?iso-8859-1?q?a?=",
            "=?utf-8?b?YQ==?=",
            "=?",
        ] {
            assert_eq!(decode(text), None, "{text:?}");
        }
    }

    #[test]
    fn plain_text_and_mixed_text_decode() {
        assert_eq!(decode("alice@example.com").as_deref(), Some("alice@example.com"));
        assert_eq!(decode("=?UTF-8?Q?a?= b").as_deref(), Some("a b"));
        assert_eq!(decode("=?utf-8?q?a?= =?utf-8?q?b?=").as_deref(), Some("ab"));
    }

    proptest! {
        #[test]
        fn a_round_trip_changes_nothing(text in "[^\\p{Cc}]{0,200}") {
            prop_assume!(!text.contains("=?"));
            prop_assert_eq!(decode(&encode(&text)), Some(text));
        }

        #[test]
        fn encoded_text_is_printable_ascii(text in any::<String>()) {
            prop_assert!(encode(&text).bytes().all(|b| b == b'\t' || (b' '..=b'~').contains(&b)));
        }

        #[test]
        fn decoding_never_panics(text in "(=\\?|\\?=|utf-8\\?q\\?|=[0-9A-F]{2}|.){0,40}") {
            let _ = decode(&text);
        }
    }
}
