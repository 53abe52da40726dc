//! The table as JSON Schema draft-07, for editors.

use serde_json::{Map, Value, json};

use super::{Field, Kind, ROOT};

/// The schema that `config schema` prints.
pub fn json_schema() -> Value {
    let mut schema = export(&ROOT);
    if let Value::Object(map) = &mut schema {
        map.insert("$schema".into(), json!("http://json-schema.org/draft-07/schema#"));
        map.insert("title".into(), json!("openclaw configuration"));
    }
    schema
}

fn export(kind: &Kind) -> Value {
    match kind {
        Kind::Bool => json!({"type": "boolean"}),
        Kind::False => json!({"const": false}),
        Kind::Int(i64::MIN, i64::MAX) => json!({"type": "integer"}),
        Kind::Int(min, i64::MAX) => json!({"type": "integer", "minimum": min}),
        Kind::Int(min, max) => json!({"type": "integer", "minimum": min, "maximum": max}),
        Kind::Text | Kind::Secret => json!({"type": "string"}),
        Kind::Word(words) => json!({"enum": words}),
        Kind::List(inner) => json!({"type": "array", "items": export(inner)}),
        Kind::Object(fields) => {
            let properties: Map<_, _> =
                fields.iter().map(|field| (field.name.to_owned(), property(field))).collect();
            json!({"type": "object", "properties": properties, "additionalProperties": false})
        }
        Kind::Map(inner) => json!({"type": "object", "additionalProperties": export(inner)}),
        Kind::OneOf(kinds, _) => json!({"anyOf": kinds.iter().map(export).collect::<Vec<_>>()}),
    }
}

fn property(field: &Field) -> Value {
    let mut value = export(&field.kind);
    if let Value::Object(map) = &mut value {
        map.insert("description".into(), json!(field.doc));
        if let Some(default) = field.default.and_then(|text| serde_json::from_str(text).ok()) {
            map.insert("default".into(), default);
        }
    }
    value
}
