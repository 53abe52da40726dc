//! JSON5 text to values, and nothing ambiguous on the way: a key given twice, a
//! number that is none and nesting without end are refused.

use serde_json::Value;

use super::edit;
use crate::domain::strict_value::Strict;

/// Reads JSON5 text.
///
/// # Errors
/// Says what was expected and where, never what was found there: that may be a
/// secret.
pub(crate) fn parse(text: &str) -> Result<Value, String> {
    if edit::nests_too_deep(text) {
        return Err("objects and lists nest more than 64 deep".to_owned());
    }
    json5::from_str::<Strict>(text).map(|strict| strict.0).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ambiguous_text_is_refused_without_quoting_it() {
        let twice = parse("{gateway: {bind: 'loopback', bind: 'lan'}}").unwrap_err();
        assert!(twice.contains("\"bind\" is given twice"), "{twice}");
        for text in ["{a: NaN}", "{a: Infinity}", "", "{a: }", "{", &"[".repeat(5000)] {
            assert!(parse(text).is_err(), "{text:.20}");
        }
        let broken = parse("{token: 'hunter2hunter2' x}").unwrap_err();
        assert!(!broken.contains("hunter2"), "{broken}");
    }

    #[test]
    fn json5_is_read() {
        assert_eq!(
            parse("{ // c\n a: 'x', \"b\": [0x10, +1, .5, 3000.0,], /* d */ c: null }").unwrap(),
            json!({"a": "x", "b": [16, 1, 0.5, 3000], "c": null})
        );
    }
}
