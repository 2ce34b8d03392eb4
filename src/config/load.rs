//! Reads the configuration: defaults < file < environment < flags.
//!
//! This is the only reader of the environment. Reading and checking a configuration starts nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use figment::providers::{Env, Format, Serialized, Yaml};
use figment::value::{Dict, Map, UncasedStr};
use figment::{Figment, Metadata, Profile, Provider};
use serde::Serialize;

use super::provenance::{self, ENV_PREFIX};
use super::settings::Config;
use super::{checks, diagnostics, duplicate_keys};
use crate::http::Addresses;
use crate::text::settings::InvalidSetting;

/// The prefix of the names of default labels, after [`ENV_PREFIX`].
const LABEL_PREFIX: &str = "INGEST__DEFAULT_LABELS__";

/// Settings that flags override.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Flags {
    /// `--listen`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<Addresses>,
    /// `--data-dir`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage: Option<StorageFlags>,
}

/// Settings of the ledger that flags override.
#[derive(Debug, Clone, Serialize)]
pub struct StorageFlags {
    /// `--data-dir`
    pub data_dir: PathBuf,
}

/// A configuration that is not in force, and every reason that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError(pub Vec<String>);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for ConfigError {}

/// A configuration, and where it came from.
#[derive(Debug)]
pub struct Loaded {
    /// What is in force.
    pub config: Config,
    /// The file, if there is one.
    pub file: Option<PathBuf>,
    sources: Figment,
}

/// Reads and checks the configuration.
///
/// # Errors
/// Names every key that is wrong, its value, where it came from, and what was expected.
pub fn load(file: Option<&Path>, flags: &Flags) -> Result<Loaded, ConfigError> {
    let mut sources = Figment::from(Serialized::defaults(Config::default()));
    if let Some(file) = file {
        let failed = |error| ConfigError(vec![format!("{}: {error}", file.display())]);
        let text = std::fs::read_to_string(file).map_err(failed)?;
        let duplicates = duplicate_keys::find(&text).into_iter();
        let twice = |key: String| format!("{key}: expected once, found more than once (in {})", file.display());
        let wrong: Vec<String> = duplicates.map(twice).collect();
        if !wrong.is_empty() {
            return Err(ConfigError(wrong));
        }
        sources = sources.merge(Yaml::file_exact(file));
    }
    let is_read = |key: &UncasedStr| !is_not_ours(key.as_str()) && !key.starts_with(LABEL_PREFIX);
    let env = Env::prefixed(ENV_PREFIX).filter(is_read).split("__");
    sources = sources.merge(env).merge(EnvLabels).merge(Serialized::defaults(flags));
    let config: Config = sources.extract().map_err(|error| ConfigError(diagnostics::explain(&sources, error)))?;
    let loaded = Loaded { config, file: file.map(Path::to_owned), sources };
    let named = |invalid: InvalidSetting| format!("{invalid} (in {})", loaded.source_of(&invalid.key));
    let invalid: Vec<String> = checks::check(&loaded.config).into_iter().map(named).collect();
    if invalid.is_empty() { Ok(loaded) } else { Err(ConfigError(invalid)) }
}

/// Variables that start like ours and are not: those that Kubernetes injects for a Service named cairn, or cairn-central.
fn is_not_ours(key: &str) -> bool {
    let name = key.to_ascii_uppercase();
    let key = format!("_{name}_");
    // Such as PORT_7600_TCP_ADDR, and the same behind the rest of a name.
    let protocols = ["TCP", "UDP", "SCTP"];
    let is_address = || protocols.iter().any(|protocol| key.contains(&format!("_{protocol}_")));
    if key.contains("_SERVICE_PORT_") || key.ends_with("_SERVICE_HOST_") || (key.contains("_PORT_") && is_address()) {
        return true;
    }
    // A slip of somebody who means `listen` looks the same but for its value.
    let value = || std::env::var(format!("{ENV_PREFIX}{name}")).unwrap_or_default();
    key.ends_with("_PORT_")
        && protocols.iter().any(|it| value().starts_with(&format!("{}://", it.to_ascii_lowercase())))
}

/// Default labels of the environment, word for word: a namespace called 007 is not the number 7.
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
    /// Where the value of `key` came from.
    pub fn source_of(&self, key: &str) -> String {
        provenance::origin(&self.sources, key).map_or("default".to_owned(), |metadata| provenance::place(metadata, key))
    }

    /// What is in force, as YAML with the origin of each value behind it, secrets masked.
    pub fn print(&self) -> String {
        let mut config = self.config.clone();
        let org_ids = config.relay.all_mut().filter_map(|destination| destination.org_id.as_mut());
        config.auth.api_keys.iter_mut().chain(org_ids).for_each(|secret| *secret = "********".to_owned());
        // The types are our own: they all have a form in JSON.
        let value = serde_json::to_value(&config).unwrap_or_default();
        let mut out = String::new();
        self.print_level(&value, "", 0, &mut out);
        out
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
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                out.push_str(&format!("{:<44} # {}\n", format!("{indent}{name}: {text}"), self.source_of(&key)));
            }
        }
    }
}
