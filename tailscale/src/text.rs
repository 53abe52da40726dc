//! Making text of other programs fit to be shown in a log or an error.

/// Trims `bytes`, escapes what could alter a terminal or a log line, and cuts the
/// result at `limit` bytes (an ellipsis marks the cut).
pub(crate) fn printable(bytes: &[u8], limit: usize) -> String {
    // Escaping can only lengthen text, so more input than this is never needed.
    let head = bytes.get(..limit.saturating_mul(4)).unwrap_or(bytes);
    let text = String::from_utf8_lossy(head);
    let mut out = String::new();
    for c in text.trim().chars() {
        let before = out.len();
        if c.is_control() || is_invisible(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
        if out.len() > limit {
            out.truncate(before);
            out.push('…');
            break;
        }
    }
    out
}

/// Characters that reorder or hide the text around them.
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_and_direction_marks_are_escaped() {
        assert_eq!(printable("a\u{1b}[31mb\nc\u{202e}d\n".as_bytes(), 400), "a\\u{1b}[31mb\\nc\\u{202e}d");
    }

    #[test]
    fn long_text_is_cut_at_a_character() {
        let text = "é".repeat(1000);
        let shown = printable(text.as_bytes(), 9);
        assert_eq!(shown, "éééé…");
    }

    #[test]
    fn bytes_that_are_no_text_are_replaced() {
        assert_eq!(printable(b"\xff\xfeok", 400), "\u{fffd}\u{fffd}ok");
    }
}
