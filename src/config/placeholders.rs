//! Finds values that a shell or Kubernetes would have replaced: a `~` at the beginning of a path, and `$(NAME)` or
//! `${NAME}` anywhere. Without this, a ledger is created in a directory that is named `~` or `$(POD_NAME)`.

use std::collections::HashSet;

use figment::value::{Dict, Value};
use figment::{Figment, Provider};

use super::provenance::{metadata_of, source_name};
use super::settings::Config;
use crate::text::settings::Expected;

/// A message for each such value, except those under the keys in `substituted`, which are what a file or a variable contains. The message
/// contains the name, never the value, which may be a secret.
pub fn find(sources: &Figment, substituted: &HashSet<String>) -> Vec<String> {
    let mut found = Vec::new();
    for settings in sources.data().unwrap_or_default().into_values() {
        in_section(&settings, "", &mut |key, text| {
            let Some(problem) = problem(key, text).filter(|_| !substituted.contains(key)) else { return };
            let source = metadata_of(sources, key).map(|metadata| format!(" (in {})", source_name(metadata, key)));
            found.push(format!("{key}: {problem}{}", source.unwrap_or_default()));
        });
    }
    found
}

/// Calls `visit` with the key and the value of each text.
fn in_section(settings: &Dict, path: &str, visit: &mut impl FnMut(&str, &str)) {
    for (name, value) in settings {
        let key = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        in_value(value, &key, visit);
    }
}

fn in_value(value: &Value, key: &str, visit: &mut impl FnMut(&str, &str)) {
    match value {
        Value::String(_, text) => visit(key, text),
        Value::Dict(_, settings) => in_section(settings, key, visit),
        Value::Array(_, elements) => {
            elements.iter().enumerate().for_each(|(index, value)| in_value(value, &format!("{key}[{index}]"), visit));
        }
        _ => {}
    }
}

/// What is wrong with a text.
fn problem(key: &str, text: &str) -> Option<String> {
    let is_path = Config::expected(key) == Some(&Expected::Path) || text.starts_with("unix:");
    if is_path && text.trim_start_matches("unix:").starts_with('~') {
        return Some("expected a path without ~, which only a shell replaces by the home directory".to_owned());
    }
    let name = unexpanded(text)?;
    Some(format!("expected a value, found {name}, which nothing has replaced"))
}

/// The first `$(NAME)` or `${NAME}` in a text.
fn unexpanded(text: &str) -> Option<&str> {
    let mut from = 0;
    while let Some(start) = text[from..].find('$').map(|at| from + at) {
        from = start + 1;
        let close = match text[from..].chars().next() {
            Some('(') => ')',
            Some('{') => '}',
            _ => continue,
        };
        let Some(length) = text[from..].find(close) else { continue };
        let name = &text[from + 1..from + length];
        let is_name = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
        if !name.is_empty() && name.chars().all(is_name) {
            return Some(&text[start..=from + length]);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_name_in_brackets_after_a_dollar_sign_is_a_placeholder() {
        for (text, found) in [
            ("/data/$(POD_NAME)/x", Some("$(POD_NAME)")),
            ("${HOME}", Some("${HOME}")),
            ("$()$$(metadata.name)", Some("$(metadata.name)")),
            ("cost: $5 (five)", None),
            ("$(echo hello)", None),
            ("$(", None),
            ("a$", None),
        ] {
            assert_eq!(unexpanded(text), found, "{text}");
        }
        assert!(problem("storage.data_dir", "~/cairn").is_some());
        assert!(problem("log.origin", "~tilde").is_none());
    }
}
