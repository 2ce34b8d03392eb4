//! Loads the configuration: defaults < file < environment < flags.
//!
//! This is the only code that reads settings from the environment. Loading and checking a configuration starts nothing.
//! `docs/configuration.md` specifies sources and precedence.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use bytesize::ByteSize;
use figment::providers::{Env, Format, Serialized, Yaml};
use figment::value::{Dict, Map, UncasedStr, Value};
use figment::{Figment, Metadata, Profile, Provider};
use serde::Serialize;

use super::memory::{self, Division};
use super::provenance::{self, ENV_PREFIX};
use super::settings::Config;
use super::{checks, diagnostics, duplicate_keys};
use crate::http::Addresses;
use crate::ingest::LimitsConfig;
use crate::text::settings::InvalidSetting;

/// The prefix of the environment variables for default labels, after [`ENV_PREFIX`].
const LABEL_PREFIX: &str = "INGEST__DEFAULT_LABELS__";

/// Settings that command-line flags override.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Flags {
    /// `--listen`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<Addresses>,
    /// `--data-dir`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage: Option<StorageFlags>,
}

/// Settings of the ledger that command-line flags override.
#[derive(Debug, Clone, Serialize)]
pub struct StorageFlags {
    /// `--data-dir`
    pub data_dir: PathBuf,
}

/// All errors that were found in a configuration, one message each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError(pub Vec<String>);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for ConfigError {}

/// A valid configuration and the sources of its values.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// The configuration file, if there is one.
    pub file: Option<PathBuf>,
    sources: Figment,
}

/// Loads and checks the configuration.
///
/// # Errors
/// When a value cannot be read or is invalid. Each message names the key, its value, its source, and the expected
/// value.
pub fn load(file: Option<&Path>, flags: &Flags) -> Result<Loaded, ConfigError> {
    let mut sources = Figment::new();
    if let Some(file) = file {
        let failed = |error| ConfigError(vec![format!("{}: {error}", file.display())]);
        let text = std::fs::read_to_string(file).map_err(failed)?;
        let duplicates = duplicate_keys::find(&text).into_iter();
        let message = |key: String| format!("{key}: expected once, found more than once (in {})", file.display());
        let messages: Vec<String> = duplicates.map(message).collect();
        if !messages.is_empty() {
            return Err(ConfigError(messages));
        }
        sources = sources.merge(Yaml::file_exact(file));
    }
    let is_setting = |key: &UncasedStr| !is_kubernetes_service_variable(key.as_str()) && !key.starts_with(LABEL_PREFIX);
    let env = Env::prefixed(ENV_PREFIX).filter(is_setting).split("__");
    sources = EnvText::all().fold(sources.merge(env), Figment::merge);
    sources = sources.merge(EnvLabels).merge(Serialized::defaults(flags));
    let extract = |defaults: &Config| {
        let sources = Figment::from(Serialized::defaults(defaults)).merge(&sources);
        let config = sources.extract::<Config>();
        config
            .map(|config| (config, sources.clone()))
            .map_err(|error| ConfigError(diagnostics::explain(&sources, error)))
    };
    // The defaults of some settings depend on others.
    let mut defaults = Config::default();
    defaults.limits.memory = ByteSize(memory::default_bytes());
    let (mut divided, _) = extract(&defaults)?;
    memory::set_defaults(&mut divided, |key| provenance::value_of(&sources, key).is_some());
    (defaults.storage.memory_bytes, defaults.queue, defaults.limits) = (
        divided.storage.memory_bytes,
        divided.queue,
        LimitsConfig { memory: defaults.limits.memory, ..divided.limits },
    );
    let (config, sources) = extract(&defaults)?;
    let loaded = Loaded { config, file: file.map(Path::to_owned), sources };
    let with_source = |invalid: InvalidSetting| {
        let limit = invalid.limited_by.map(|key| format!("; {key} in {}", loaded.source_of(key))).unwrap_or_default();
        format!("{invalid} (in {}{limit})", loaded.source_of(&invalid.key))
    };
    let invalid: Vec<String> = checks::check(&loaded.config).into_iter().map(with_source).collect();
    if invalid.is_empty() { Ok(loaded) } else { Err(ConfigError(invalid)) }
}

/// Whether a variable has the prefix of a setting but is one that Kubernetes injects for a Service, such as `cairn` or
/// `cairn-central`. `key` is the name without [`ENV_PREFIX`].
fn is_kubernetes_service_variable(key: &str) -> bool {
    let name = key.to_ascii_uppercase();
    let key = format!("_{name}_");
    // Such as PORT_7600_TCP_ADDR, or CENTRAL_PORT_7600_TCP_ADDR.
    let protocols = ["TCP", "UDP", "SCTP"];
    let is_address = || protocols.iter().any(|protocol| key.contains(&format!("_{protocol}_")));
    if key.contains("_SERVICE_PORT_") || key.ends_with("_SERVICE_HOST_") || (key.contains("_PORT_") && is_address()) {
        return true;
    }
    // CAIRN_PORT may also be a mistake for CAIRN_LISTEN; only the value distinguishes the two.
    let value = || std::env::var(format!("{ENV_PREFIX}{name}")).unwrap_or_default();
    key.ends_with("_PORT_")
        && protocols.iter().any(|protocol| value().starts_with(&format!("{}://", protocol.to_ascii_lowercase())))
}

/// Provides a setting that is a text from the environment, where its value looks like another type: a log origin `007` is
/// not the number 7, and `1.10` is not 1.1.
struct EnvText {
    key: &'static str,
    text: String,
}

impl EnvText {
    /// All such settings.
    fn all() -> impl Iterator<Item = EnvText> {
        let texts = Config::EXPECTED.into_iter().flatten().filter(|(_, expected)| expected.is_text());
        texts.filter_map(|(key, _)| {
            let variable = format!("{ENV_PREFIX}{}", key.to_ascii_uppercase().replace('.', "__"));
            let text = std::env::var(variable).ok()?;
            let Ok(parsed) = text.parse::<Value>();
            let is_other = matches!(parsed, Value::Num(..) | Value::Bool(..) | Value::Char(..));
            is_other.then_some(EnvText { key, text })
        })
    }
}

impl Provider for EnvText {
    fn metadata(&self) -> Metadata {
        Metadata::named("environment variable(s)")
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Serialized::default(self.key, &self.text).data()
    }
}

/// Provides default labels from the environment. Their values are always text: a namespace named 007 is not the number
/// 7.
struct EnvLabels;

impl Provider for EnvLabels {
    fn metadata(&self) -> Metadata {
        Metadata::named("environment variable(s)")
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let prefix = format!("{ENV_PREFIX}{LABEL_PREFIX}");
        let labels: BTreeMap<_, _> =
            Env::prefixed(&prefix).iter().map(|(name, text)| (name.to_string(), text)).collect();
        match labels.is_empty() {
            true => Ok(Map::new()),
            false => Serialized::default("ingest.default_labels", labels).data(),
        }
    }
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
        let mut config = self.config.clone();
        let org_ids = config.relay.all_mut().filter_map(|destination| destination.org_id.as_mut());
        config.auth.api_keys.iter_mut().chain(org_ids).for_each(|secret| *secret = "********".to_owned());
        // Every type of `Config` can be serialized, so this does not fail.
        let value = serde_json::to_value(&config).unwrap_or_default();
        let mut out = String::new();
        self.print_level(&value, "", 0, &mut out);
        out + &Division::of(&self.config).to_string()
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
