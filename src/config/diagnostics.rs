//! Sentences for values that cannot be read: the key, what was expected, what was found, and where it came from.

use figment::Figment;
use figment::error::Kind;

use super::provenance::{ENV_PREFIX, origin, place, split_at_list, value_of};
use super::settings::Config;
use crate::text::did_you_mean;

/// Turns the library's errors into sentences.
pub fn explain(sources: &Figment, errors: figment::Error) -> Vec<String> {
    let lines = errors.into_iter().map(|error| {
        let mut path = error.path.clone();
        if let Kind::UnknownField(field, _) = &error.kind
            && path.last() != Some(field)
        {
            path.push(field.clone());
        }
        let key = key_of(&path);
        let from = error.metadata.clone().or_else(|| origin(sources, &key).cloned());
        let from = from.map(|metadata| format!(" (in {})", place(&metadata, &key))).unwrap_or_default();
        let message = match &error.kind {
            Kind::UnknownField(field, known) => unknown(field, known),
            // A file that is none of ours may be anything, even a secret.
            _ if key.is_empty() => "expected settings, one a line".to_owned(),
            kind => match Config::expected(&key) {
                // The library's words hold the value.
                expected if may_be_secret(&key) => match expected {
                    Some(expected) => format!("expected {expected}"),
                    None => "expected a string".to_owned(),
                },
                Some(expected) => format!("expected {expected}, found {}", found(sources, &key)),
                None => kind.to_string(),
            },
        };
        let separator = if key.is_empty() { "" } else { ": " };
        format!("{key}{separator}{message}{from}")
    });
    lines.collect()
}

/// What was probably meant by a key that there is not.
fn unknown(field: &str, known: &[&'static str]) -> String {
    // A single underscore between levels is the usual slip in the environment, a dot that in a file.
    let flat = |text: &str| text.replace('.', "_");
    if let Some(meant) = keys().iter().find(|key| key.contains('.') && flat(key) == flat(field)) {
        let variable = format!("{ENV_PREFIX}{}", meant.to_ascii_uppercase().replace('.', "__"));
        return format!("unknown key; did you mean {meant}, one level per line, or {variable}?");
    }
    match did_you_mean(field, known) {
        Some(near) => format!("unknown key; did you mean {near}?"),
        None => format!("unknown key; there are {}", known.join(", ")),
    }
}

/// The names of all settings, with dots between the levels.
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

/// The name of a setting: levels with dots between them, elements of a list by their number, as `destinations[0]`.
fn key_of(path: &[String]) -> String {
    path.iter().fold(String::new(), |key, level| match level.parse::<usize>() {
        Ok(index) => format!("{key}[{index}]"),
        Err(_) if key.is_empty() => level.clone(),
        Err(_) => format!("{key}.{level}"),
    })
}

/// Whether a setting that is wrong may hold a secret, perhaps because a level is missing.
fn may_be_secret(key: &str) -> bool {
    let last = key.rsplit('.').next().unwrap_or(key);
    let is_level = matches!(last, "auth" | "relay" | "agnost") || last.starts_with("destinations");
    key.starts_with("auth.api_keys") || matches!(last, "org_id" | "endpoint") || is_level
}

/// A value as it was written, or nearly.
fn found(sources: &Figment, key: &str) -> String {
    let (key, rest) = split_at_list(key);
    let value = value_of(sources, key).and_then(|value| serde_json::to_value(value).ok());
    let value = value.and_then(|value| rest.map_or(Some(value.clone()), |rest| value.pointer(&rest).cloned()));
    value.map_or("nothing".to_owned(), |value| value.to_string())
}
