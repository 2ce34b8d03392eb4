//! The source of the value of a setting: default, file, environment or flag.

use figment::value::Value;
use figment::{Figment, Metadata, Source};

/// The prefix of environment variables for settings.
pub const ENV_PREFIX: &str = "CAIRN_";

/// Splits a key at the first list index: into the key of the list, and the path within it as a JSON pointer. figment
/// cannot find values within lists.
pub fn split_at_list(key: &str) -> (&str, Option<String>) {
    match key.split_once('[') {
        Some((list, rest)) => (list, Some(format!("/{}", rest.replace(']', "").replace('.', "/")))),
        None => (key, None),
    }
}

/// The value of a setting. Default labels are looked up separately, because figment splits keys at dots and names of
/// labels may contain dots.
pub fn value_of(sources: &Figment, key: &str) -> Option<Value> {
    match key.strip_prefix("ingest.default_labels.") {
        Some(label) => sources.find_value("ingest.default_labels").ok()?.as_dict()?.get(label).cloned(),
        None => sources.find_value(key).ok(),
    }
}

/// The figment metadata of the value of a setting.
pub fn metadata_of<'s>(sources: &'s Figment, key: &str) -> Option<&'s Metadata> {
    sources.get_metadata(value_of(sources, split_at_list(key).0)?.tag())
}

/// The name of the source of a value, for messages.
pub fn source_name(metadata: &Metadata, key: &str) -> String {
    match &metadata.source {
        Some(Source::File(path)) => path.display().to_string(),
        Some(Source::Code(_)) if metadata.name.contains("Flags") => "a flag".to_owned(),
        Some(Source::Code(_)) => "default".to_owned(),
        _ if metadata.name.contains("environment") => {
            format!("{ENV_PREFIX}{}", key.to_ascii_uppercase().replace('.', "__"))
        }
        _ => metadata.name.to_string(),
    }
}
