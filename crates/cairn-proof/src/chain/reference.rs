//! A second, simple implementation of canonical bytes, for tests and fuzzing only.

use serde_json::Value;

/// Canonicalizes a parsed value (RFC 8785). `serde_json` preserves 64-bit integers; `ryu_js` writes other numbers.
pub fn reference_canonical(value: &Value) -> String {
    match value {
        Value::Number(number) if number.is_f64() => ryu_js::Buffer::new().format(number.as_f64().unwrap()).to_owned(),
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(reference_canonical).collect();
            format!("[{}]", items.join(","))
        }
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_by_key(|(key, _)| key.encode_utf16().collect::<Vec<_>>());
            let members: Vec<_> = members
                .into_iter()
                .map(|(key, value)| format!("{}:{}", Value::String(key.clone()), reference_canonical(value)))
                .collect();
            format!("{{{}}}", members.join(","))
        }
        other => other.to_string(),
    }
}
