//! JSON that can be read in one way only.
//!
//! Of two equal keys some parsers take the first and some the last. Where a
//! message is checked here and obeyed elsewhere, that is a hole, so the second
//! one is an error.

use serde_json::Value;

use crate::domain::strict_value::Strict;

/// Parses one JSON value; nothing may follow it, no object may have a key twice.
pub(super) fn parse(text: &[u8]) -> Result<Value, serde_json::Error> {
    serde_json::from_slice(text).map(|Strict(value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_twice_is_refused_at_any_depth_and_in_any_spelling() {
        for text in [r#"{"a":1,"a":1}"#, r#"{"a":1,"\u0061":2}"#, r#"[{"x":{"y":1,"y":2}}]"#] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn everything_else_is_what_serde_json_reads() {
        let text = r#"{"a":[null,true,-1,18446744073709551615,1.5,"\u00e9\ud83d\ude00"],"b":{"a":{}}}"#;
        assert_eq!(parse(text.as_bytes()).unwrap(), serde_json::from_str::<Value>(text).unwrap());
        assert!(parse(b"{} {}").is_err());
        assert!(parse("[".repeat(1000).as_bytes()).is_err());
    }
}
