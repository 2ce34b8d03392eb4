//! The JSON schema of the configuration, for charts and editors: the names of all settings, and their types.

use serde_json::{Map, Value, json};

use super::Config;
use crate::text::settings::Expected;

/// The schema (draft 07) of a configuration file. It accepts every valid file. It rejects unknown names and most wrong types;
/// ranges, and what settings require of each other, are only checked when the configuration is loaded.
pub fn schema() -> Value {
    let mut root = section();
    for (key, expected) in Config::EXPECTED.into_iter().flatten() {
        // An element of a list or a map; its parent describes it.
        if !key.ends_with(".*") {
            insert(&mut root, key, of(key, expected));
        }
    }
    // Every destination has the settings of this one.
    if let Some(destination) = root.pointer("/properties/relay/properties/agnost").cloned() {
        let mut list = of("relay.destinations", &Expected::Text("a list of destinations"));
        list["type"] = json!(["array", "null"]);
        list["items"] = destination;
        insert(&mut root, "relay.destinations", list);
    }
    root["$schema"] = json!("http://json-schema.org/draft-07/schema#");
    root["title"] = json!("The configuration of Cairn");
    root
}

fn section() -> Value {
    json!({"type": ["object", "null"], "additionalProperties": false, "properties": {}})
}

/// A value that is put in when the file is loaded.
const PLACEHOLDER: &str = r"^\$\{(env|file):[^}]+\}$";

/// The types of settings whose values are described in words.
const DESCRIBED: [(&str, &[&str]); 6] = [
    ("admin.listen", &["string"]),
    ("limits.events_per_second", &["integer", "string", "null"]),
    ("listen", &["string", "array"]),
    ("log.level", &["string", "null"]),
    ("ingest.default_labels", &["object", "null"]),
    ("ingest.otlp.mapping", &["array", "null"]),
];

/// The schema of one setting. Every setting may be null, which stands for its default or for none.
fn of(key: &str, expected: &Expected) -> Value {
    let described = DESCRIBED.iter().find(|(name, _)| *name == key).map(|(_, types)| json!(types));
    let types = match expected {
        Expected::Section => return section(),
        Expected::Choice(words) => {
            let placeholder = json!({"type": "string", "pattern": PLACEHOLDER});
            return json!({"description": expected.to_string(), "anyOf": [{"enum": with_null(words)}, placeholder]});
        }
        Expected::Text(_) => described,
        Expected::Number(_) => Some(json!(["integer", "string", "null"])),
        Expected::Size => Some(json!(["integer", "string", "null"])),
        Expected::Duration | Expected::String | Expected::Path => Some(json!(["string", "null"])),
        Expected::Strings => Some(json!(["array", "null"])),
        Expected::Bool => Some(json!(["boolean", "string", "null"])),
    };
    let mut schema = json!({"description": expected.to_string()});
    if let Some(types) = types {
        schema["type"] = types;
    }
    match expected {
        // At least a number, such as that of .5GiB.
        Expected::Size | Expected::Duration => schema["pattern"] = json!(format!("[0-9]|{PLACEHOLDER}")),
        Expected::Number(_) | Expected::Bool => schema["pattern"] = json!(PLACEHOLDER),
        // A number, described in words.
        Expected::Text(_) if key == "limits.events_per_second" => schema["pattern"] = json!(PLACEHOLDER),
        _ => {}
    }
    schema
}

fn with_null(words: &[&str]) -> Vec<Value> {
    words.iter().map(|word| json!(word)).chain([Value::Null]).collect()
}

/// Puts the schema of a setting in the place that its key names.
fn insert(root: &mut Value, key: &str, schema: Value) {
    let mut place = root;
    for name in key.split('.') {
        let Some(properties) = place["properties"].as_object_mut() else { return };
        place = properties.entry(name).or_insert_with(section);
    }
    // A section may come after its settings, such as `log`, which two stages share.
    if schema.get("properties").is_none() || place["properties"].as_object().is_none_or(Map::is_empty) {
        *place = schema;
    }
}
