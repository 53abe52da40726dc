//! JSON5 text to values, and nothing ambiguous on the way: a key given twice, a
//! number that is none and nesting without end are refused.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::edit;

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

struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Self)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        // `3000.0` and `3e3` are the whole number they stand for.
        #[expect(clippy::cast_possible_truncation, reason = "checked to be whole and in range")]
        if value.fract() == 0.0 && value.abs() < 9.0e15 {
            return Ok(Value::from(value as i64));
        }
        Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| E::custom("Infinity and NaN are no values here"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Strict(value)) = seq.next_element()? {
            list.push(value);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            if map.contains_key(&key) {
                return Err(A::Error::custom(format!("the key {key:?} is given twice in one object")));
            }
            let Strict(value) = access.next_value()?;
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
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
