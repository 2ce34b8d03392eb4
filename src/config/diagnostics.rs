//! Messages for values that cannot be read: the key, the expected value, the value found, and its source. A message
//! never contains a value that may be a secret.

use figment::Figment;
use figment::error::Kind;

use super::provenance::{ENV_PREFIX, metadata_of, source_name, split_at_list, value_of};
use super::settings::Config;
use crate::text::did_you_mean;

/// Formats the errors of figment, one message per error.
pub fn explain(sources: &Figment, errors: figment::Error) -> Vec<String> {
    let lines = errors.into_iter().map(|error| {
        let mut path = error.path.clone();
        if let Kind::UnknownField(field, _) = &error.kind
            && path.last() != Some(field)
        {
            path.push(field.clone());
        }
        let key = key_of(&path);
        let source = metadata_of(sources, &key);
        let source = source.map(|metadata| format!(" (in {})", source_name(metadata, &key))).unwrap_or_default();
        let message = match &error.kind {
            Kind::UnknownField(field, valid) => unknown_key(field, valid),
            // A file that is not a configuration may contain anything, even a secret.
            _ if key.is_empty() => "expected settings, one on each line".to_owned(),
            kind => match Config::expected(&key) {
                // The message of figment contains the value.
                expected if may_be_secret(&key) => match expected {
                    Some(expected) => format!("expected {expected}"),
                    None => "expected a string".to_owned(),
                },
                Some(expected) => format!("expected {expected}, found {}", found(sources, &key)),
                None => kind.to_string(),
            },
        };
        let separator = if key.is_empty() { "" } else { ": " };
        format!("{key}{separator}{message}{source}")
    });
    lines.collect()
}

/// The message for an unknown key, with the key that was probably meant. `valid` are the keys of its section.
fn unknown_key(field: &str, valid: &[&'static str]) -> String {
    // Common mistakes: a single underscore between levels in the environment, a dot between levels in a file.
    let flat = |text: &str| text.replace('.', "_");
    if let Some(meant) = keys().iter().find(|key| key.contains('.') && flat(key) == flat(field)) {
        let variable = format!("{ENV_PREFIX}{}", meant.to_ascii_uppercase().replace('.', "__"));
        return format!("unknown key; did you mean {meant}, one level per line, or {variable}?");
    }
    match did_you_mean(field, valid) {
        Some(near) => format!("unknown key; did you mean {near}?"),
        None => format!("unknown key; valid keys are {}", valid.join(", ")),
    }
}

/// The keys of all settings, with dots between the levels.
fn keys() -> Vec<String> {
    let mut found = Vec::new();
    let mut levels = vec![(String::new(), serde_json::to_value(Config::default()).unwrap_or_default())];
    while let Some((path, value)) = levels.pop() {
        match value {
            serde_json::Value::Object(members) if !members.is_empty() => levels.extend(
                members
                    .into_iter()
                    .map(|(name, value)| (if path.is_empty() { name } else { format!("{path}.{name}") }, value)),
            ),
            _ => found.push(path),
        }
    }
    found
}

/// The key of a setting: levels separated by dots, elements of a list by index, such as `destinations[0]`.
fn key_of(path: &[String]) -> String {
    path.iter().fold(String::new(), |key, level| match level.parse::<usize>() {
        Ok(index) => format!("{key}[{index}]"),
        Err(_) if key.is_empty() => level.clone(),
        Err(_) => format!("{key}.{level}"),
    })
}

/// Whether an invalid setting may contain a secret, possibly because a level is missing.
fn may_be_secret(key: &str) -> bool {
    let last = key.rsplit('.').next().unwrap_or(key);
    let is_level = matches!(last, "auth" | "relay" | "agnost") || last.starts_with("destinations");
    key.starts_with("auth.api_keys") || matches!(last, "org_id" | "endpoint") || is_level
}

/// The value of a setting as JSON text, close to how it was written.
fn found(sources: &Figment, key: &str) -> String {
    let (key, rest) = split_at_list(key);
    let value = value_of(sources, key).and_then(|value| serde_json::to_value(value).ok());
    let value = value.and_then(|value| rest.map_or(Some(value.clone()), |rest| value.pointer(&rest).cloned()));
    value.map_or("nothing".to_owned(), |value| value.to_string())
}
