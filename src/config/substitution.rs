//! Replaces `${env:NAME}`, `${env:NAME:-DEFAULT}` and `${file:PATH}` in the values of a configuration file, as the OpenTelemetry
//! Collector does. `$${env:` and `$${file:` stand for these texts themselves. What is put in is not looked at again.

use std::collections::HashSet;
use std::io::Read;

use figment::providers::{Format, Yaml};
use figment::value::{Dict, Tag, Value};

use super::settings::Config;

/// The most bytes of a file that is put in.
const MAX_FILE_BYTES: u64 = 64 << 10;

/// What became of the placeholders.
#[derive(Default)]
pub struct Substituted {
    /// The keys of the values in which something was put.
    pub keys: HashSet<String>,
    /// A message for each placeholder that cannot be replaced, with the key of its value. It has names, never values, which may be
    /// secrets.
    pub errors: Vec<String>,
}

/// Replaces all placeholders in the values of `settings`.
pub fn apply(settings: &mut Dict) -> Substituted {
    let mut substituted = Substituted::default();
    in_section(settings, "", &mut substituted);
    substituted
}

fn in_section(settings: &mut Dict, path: &str, substituted: &mut Substituted) {
    for (name, value) in settings {
        let key = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        in_value(value, &key, substituted);
    }
}

fn in_value(value: &mut Value, key: &str, substituted: &mut Substituted) {
    match value {
        Value::String(tag, text) if text.contains("${") => match replace(text) {
            Ok(replaced) if replaced == *text => {}
            Ok(replaced) => {
                *value = typed(key, text, replaced, *tag);
                substituted.keys.insert(key.to_owned());
            }
            Err(error) => substituted.errors.push(format!("{key}: {error}")),
        },
        Value::Dict(_, settings) => in_section(settings, key, substituted),
        Value::Array(_, elements) => {
            for (index, element) in elements.iter_mut().enumerate() {
                in_value(element, &format!("{key}[{index}]"), substituted);
            }
        }
        _ => {}
    }
}

/// The value that a text became. A number or a boolean is one if the placeholder was the whole value, and the setting is no text.
fn typed(key: &str, before: &str, replaced: String, tag: Tag) -> Value {
    let is_whole = before.starts_with("${") && before.find('}') == Some(before.len() - 1);
    // The values of labels are texts, too.
    let is_label = key.starts_with("ingest.default_labels.");
    let is_typed = !is_label && Config::expected(key).is_some_and(|expected| !expected.is_text());
    if is_whole
        && is_typed
        && let Ok(value @ (Value::Num(..) | Value::Bool(..))) = Yaml::from_str::<Value>(&replaced)
    {
        return value;
    }
    Value::String(tag, replaced)
}

/// A text with its placeholders replaced.
fn replace(text: &str) -> Result<String, String> {
    let (mut out, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(at) = rest.find("${") {
        let (before, from) = rest.split_at(at);
        let is_placeholder = ["${env:", "${file:"].iter().any(|start| from.starts_with(start));
        if !is_placeholder {
            out.push_str(&rest[..at + 2]);
            rest = &from[2..];
        } else if let Some(literal) = before.strip_suffix('$') {
            out.push_str(literal);
            out.push_str("${");
            rest = &from[2..];
        } else {
            let end = from.find('}').ok_or_else(|| format!("{from}: expected a closing bracket"))?;
            out.push_str(before);
            out.push_str(&value_of(&from[2..end])?);
            rest = &from[end + 1..];
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// The value of `env:NAME`, `env:NAME:-DEFAULT` or `file:PATH`.
fn value_of(placeholder: &str) -> Result<String, String> {
    let (kind, name) = placeholder.split_once(':').unwrap_or_default();
    if kind == "file" {
        return read(name).map_err(|error| format!("${{{placeholder}}}: {error}"));
    }
    let (name, default) = name.split_once(":-").map_or((name, None), |(name, default)| (name, Some(default)));
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.is_empty() || !name.chars().all(is_name) {
        return Err(format!("${{{placeholder}}}: expected the name of an environment variable"));
    }
    match (std::env::var(name), default) {
        (Ok(value), _) => Ok(value),
        (Err(std::env::VarError::NotPresent), Some(default)) => Ok(default.to_owned()),
        (Err(std::env::VarError::NotPresent), None) => Err(format!("the environment variable {name} is not set")),
        (Err(_), _) => Err(format!("the environment variable {name} is not UTF-8")),
    }
}

/// The content of a file, without line ends at its end.
fn read(path: &str) -> Result<String, String> {
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    let read = file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    if read as u64 > MAX_FILE_BYTES {
        return Err(format!("expected at most {MAX_FILE_BYTES} bytes"));
    }
    text.truncate(text.trim_end_matches(['\r', '\n']).len());
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_replaced_once_and_nothing_else_is() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "s${env:PATH}ecret\r\n\n").unwrap();
        let path = file.path().display();
        let cargo = std::env::var("CARGO_PKG_NAME").unwrap();
        for (text, expected) in [
            ("${env:CARGO_PKG_NAME}".to_owned(), cargo.clone()),
            ("a ${env:CARGO_PKG_NAME} and ${env:CARGO_PKG_NAME}.".to_owned(), format!("a {cargo} and {cargo}.")),
            ("${env:CAIRN_TEST_NOT_SET:-some default}".to_owned(), "some default".to_owned()),
            ("${env:CAIRN_TEST_NOT_SET:-}".to_owned(), String::new()),
            (format!("${{file:{path}}}"), "s${env:PATH}ecret".to_owned()),
            ("$${env:NAME} $${file:x}".to_owned(), "${env:NAME} ${file:x}".to_owned()),
            ("^a$${2}${other}$$ ${".to_owned(), "^a$${2}${other}$$ ${".to_owned()),
        ] {
            assert_eq!(replace(&text).as_deref(), Ok(&*expected), "{text}");
        }
        for (text, expected) in [
            ("${env:CAIRN_TEST_NOT_SET}", "the environment variable CAIRN_TEST_NOT_SET is not set"),
            ("${env:}", "the name of an environment variable"),
            ("${env:A B}", "the name of an environment variable"),
            ("${env:A", "closing bracket"),
            ("${file:/cairn/no/such/file}", "No such file"),
            ("${file:/}", "directory"),
        ] {
            let error = replace(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
