//! Where the value of a setting came from: default, file, environment or flag.

use figment::value::Value;
use figment::{Figment, Metadata, Source};

/// The prefix of the environment variables that are settings.
pub const ENV_PREFIX: &str = "CAIRN_";

/// The list that a setting stands in, and the way to it from there; the library does not look into lists.
pub fn split_at_list(key: &str) -> (&str, Option<String>) {
    match key.split_once('[') {
        Some((list, rest)) => (list, Some(format!("/{}", rest.replace(']', "").replace('.', "/")))),
        None => (key, None),
    }
}

/// The value of a setting. The library takes a dot for the end of a level, and names of labels may have dots.
pub fn value_of(sources: &Figment, key: &str) -> Option<Value> {
    match key.strip_prefix("ingest.default_labels.") {
        Some(label) => sources.find_value("ingest.default_labels").ok()?.as_dict()?.get(label).cloned(),
        None => sources.find_value(key).ok(),
    }
}

/// Where the value of a setting came from, as the library knows it.
pub fn origin<'s>(sources: &'s Figment, key: &str) -> Option<&'s Metadata> {
    sources.get_metadata(value_of(sources, split_at_list(key).0)?.tag())
}

/// Where a value came from.
pub fn place(metadata: &Metadata, key: &str) -> String {
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
