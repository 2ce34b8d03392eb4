//! Loads the configuration: defaults < file < environment < flags.
//!
//! Loading and checking a configuration starts nothing. `docs/configuration.md` specifies sources and precedence.

use std::path::{Path, PathBuf};

use bytesize::ByteSize;
use figment::Figment;
use figment::providers::{Format, Serialized, Yaml};

use super::input::{ConfigError, Flags, Scope};
use super::memory::{self, Division};
use super::provenance;
use super::settings::Config;
use super::sources::{self, Merged};
use super::{checks, extract, placeholders};
use crate::ingest::LimitsConfig;
use crate::text::settings::InvalidSetting;

/// A valid configuration and the sources of its values.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// The configuration file, if there is one.
    pub file: Option<PathBuf>,
    /// Whether the file sets nothing, because there are only comments in it.
    pub is_file_blank: bool,
    sources: Figment,
}

/// Loads and checks the configuration.
///
/// # Errors
/// When values cannot be read or are invalid: all of them. Each message names the key, its value, its source, and the
/// expected value.
pub fn load(file: Option<&Path>, flags: &Flags, scope: Scope) -> Result<Loaded, ConfigError> {
    let Merged { sources, mut errors, substituted, is_file_blank } = sources::merged(file, flags, scope)?;
    errors.extend(placeholders::find(&sources, &substituted));
    // The defaults of some settings depend on others.
    let mut defaults = Config::default();
    defaults.limits.memory = ByteSize(memory::default_bytes());
    let mut divided = extract::config(&sources, &defaults)?.config;
    memory::set_defaults(&mut divided, |key| provenance::value_of(&sources, key).is_some());
    (defaults.storage.memory_bytes, defaults.queue, defaults.limits) = (
        divided.storage.memory_bytes,
        divided.queue,
        LimitsConfig { memory: defaults.limits.memory, ..divided.limits },
    );
    let extracted = extract::config(&sources, &defaults)?;
    let invalid = checks::check(&extracted.config, scope);
    let invalid: Vec<InvalidSetting> =
        invalid.into_iter().filter(|invalid| !extracted.explains(&invalid.key)).collect();
    errors.extend(extracted.errors);
    let sources = Figment::from(Serialized::defaults(&defaults)).merge(&sources);
    let loaded = Loaded { config: extracted.config, file: file.map(Path::to_owned), is_file_blank, sources };
    errors.extend(invalid.into_iter().map(|invalid| {
        let limit = invalid.limited_by.map(|key| format!("; {key} in {}", loaded.source_of(key))).unwrap_or_default();
        format!("{invalid} (in {}{limit})", loaded.source_of(&invalid.key))
    }));
    if errors.is_empty() { Ok(loaded) } else { Err(ConfigError(errors)) }
}

impl Loaded {
    /// The source of the value of `key`.
    pub fn source_of(&self, key: &str) -> String {
        let metadata = provenance::metadata_of(&self.sources, key);
        metadata.map_or("default".to_owned(), |metadata| provenance::source_name(metadata, key))
    }

    /// The configuration as YAML, with the source of each value in a comment, secrets masked, and the division of
    /// `limits.memory`.
    pub fn print(&self) -> String {
        let config = self.config.masked();
        // Every type of `Config` can be serialized, so this does not fail.
        let value = serde_json::to_value(&config).unwrap_or_default();
        let mut out = String::new();
        self.print_level(&value, "", 0, &mut out);
        out + &Division::of(&self.config).to_string()
            + &format!("# SHA-256 of the settings: {}\n", self.config.digest())
    }

    fn print_level(&self, value: &serde_json::Value, path: &str, depth: usize, out: &mut String) {
        let Some(members) = value.as_object() else { return };
        for (name, value) in members {
            let key = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            let indent = "  ".repeat(depth);
            if value.as_object().is_some_and(|members| !members.is_empty()) {
                out.push_str(&format!("{indent}{name}:\n"));
                self.print_level(value, &key, depth + 1, out);
            } else {
                let text = value.as_str().map_or_else(|| value.to_string(), in_yaml);
                out.push_str(&format!("{:<44} # {}\n", format!("{indent}{name}: {text}"), self.source_of(&key)));
            }
        }
    }
}

/// A text as a value in YAML: in quotes if it would be read as another type or text without them.
fn in_yaml(text: &str) -> String {
    let read = Figment::from(Yaml::string(&format!("text: {text}"))).extract_inner::<String>("text");
    let is_plain = read.is_ok_and(|read| read == text) && text.parse::<f64>().is_err();
    if is_plain { text.to_owned() } else { serde_json::Value::from(text).to_string() }
}
