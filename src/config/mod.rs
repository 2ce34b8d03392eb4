//! The configuration: the stages' own settings put together, where each came from, and what is wrong with it.
//!
//! Defaults < file < environment < flags. This is the only reader of the environment. Reading and checking a
//! configuration starts nothing.

mod mistakes;
mod repeated;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use figment::providers::{Env, Format, Serialized, Yaml};
use figment::value::{Dict, Map, UncasedStr};
use figment::{Figment, Metadata, Profile, Provider};
use serde::{Deserialize, Serialize};
use tracing_subscriber::filter::{LevelFilter, Targets};

use crate::access::AuthConfig;
use crate::http::{Addresses, TlsConfig};
use crate::ingest::{IngestConfig, LimitsConfig};
use crate::ledger::{QueueConfig, StorageConfig};
use crate::relay::RelayConfig;
use crate::tlog;
use crate::units;

/// What variables of the environment start with.
const ENV_PREFIX: &str = "CAIRN_";

/// What names of default labels stand behind, after that.
const LABEL_PREFIX: &str = "INGEST__DEFAULT_LABELS__";

/// Everything that can be set.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where events come in and are read.
    pub listen: Addresses,
    /// Who may open sockets in the file system among them: permissions, as of a file.
    #[serde(with = "units::mode")]
    pub socket_mode: u32,
    /// TLS for what comes in over the network.
    pub tls: TlsConfig,
    /// The port for operators.
    pub admin: AdminConfig,
    /// The ledger on disk.
    pub storage: StorageConfig,
    /// How many shards a new ledger gets.
    pub shards: u16,
    /// What waits in front of each shard.
    pub queue: QueueConfig,
    /// What a request may take.
    pub limits: LimitsConfig,
    /// Who may call.
    pub auth: AuthConfig,
    /// Other ways in.
    pub ingest: IngestConfig,
    /// Where events go from here.
    pub relay: RelayConfig,
    /// How the process ends.
    pub shutdown: ShutdownConfig,
    /// What the process says.
    pub log: LogConfig,
}

/// `admin.*`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AdminConfig {
    /// Where metrics and probes are answered.
    pub listen: SocketAddr,
}

/// `shutdown.*`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ShutdownConfig {
    /// How long what is in flight may take to be answered.
    #[serde(with = "units::time")]
    pub grace: Duration,
}

/// `log.*`: what the process says, and the transparency log.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct LogConfig {
    /// How lines look.
    pub format: LogFormat,
    /// Which lines are written.
    pub level: String,
    /// The name of the transparency log, and of its keys; `cairn/` and the ledger's id if there is none.
    pub origin: Option<String>,
    /// The log's signing keys; `log.key` in the data directory if there is none.
    pub key_file: Option<PathBuf>,
    /// The last signed checkpoint; `log.checkpoint` in the data directory if there is none.
    pub checkpoint_file: Option<PathBuf>,
    /// How often a checkpoint is signed at most.
    #[serde(with = "units::time")]
    pub checkpoint_interval: Duration,
    /// How often the last checkpoint goes to the process's log.
    #[serde(with = "units::time")]
    pub announce_interval: Duration,
}

impl LogConfig {
    /// The part that is about the transparency log.
    pub fn tree(&self) -> tlog::LogConfig {
        tlog::LogConfig {
            origin: self.origin.clone(),
            key_file: self.key_file.clone(),
            checkpoint_file: self.checkpoint_file.clone(),
            checkpoint_interval: self.checkpoint_interval,
            announce_interval: self.announce_interval,
        }
    }
}

/// How lines of the log look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            listen: SocketAddr::from(([127, 0, 0, 1], 7600)).into(),
            socket_mode: 0o660,
            tls: TlsConfig::default(),
            admin: AdminConfig { listen: SocketAddr::from(([127, 0, 0, 1], 7601)) },
            storage: StorageConfig::default(),
            shards: 1,
            queue: QueueConfig::default(),
            limits: LimitsConfig::default(),
            auth: AuthConfig::default(),
            ingest: IngestConfig::default(),
            relay: RelayConfig::default(),
            shutdown: ShutdownConfig { grace: Duration::from_secs(20) },
            log: LogConfig {
                format: LogFormat::Auto,
                level: "info".to_owned(),
                origin: None,
                key_file: None,
                checkpoint_file: None,
                checkpoint_interval: Duration::from_secs(1),
                announce_interval: Duration::from_secs(60),
            },
        }
    }
}

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

/// The names of the settings that two configurations do not have in common.
pub fn differences(old: &Config, new: &Config) -> Vec<String> {
    // The types are our own: they all have a form in JSON.
    let value = |config| serde_json::to_value(config).unwrap_or_default();
    let mut found = Vec::new();
    let mut levels = vec![(String::new(), value(old), value(new))];
    while let Some((path, old, new)) = levels.pop() {
        match (old, new) {
            (old, new) if old == new => {}
            (serde_json::Value::Object(mut old), serde_json::Value::Object(new)) => {
                for (name, new) in new {
                    let key = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                    levels.push((key, old.remove(&name).unwrap_or_default(), new));
                }
                found.extend(old.into_iter().map(|(name, _)| format!("{path}.{name}")));
            }
            _ => found.push(path),
        }
    }
    found.sort();
    found
}

/// What is logged, in the words of `log.level`: a level, and others for parts of the program, as `info,cairn::relay=debug`.
/// `None` if it cannot be read.
pub fn levels(text: &str) -> Option<Targets> {
    // An empty level would be read as one, and an unknown word taken for the name of a part.
    let level = |word: &str| Some(word.trim()).filter(|word| !word.is_empty())?.parse::<LevelFilter>().ok();
    let is_part =
        |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_:".contains(&byte));
    let mut levels = Targets::new();
    for part in text.split(',') {
        levels = match part.split_once('=') {
            Some((name, word)) => levels.with_target(Some(name.trim()).filter(|name| is_part(name))?, level(word)?),
            None => levels.with_default(level(part)?),
        };
    }
    Some(levels)
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
        let repeated = repeated::keys(&text).into_iter();
        let twice = |key: String| format!("{key}: expected once, found more than once (in {})", file.display());
        let wrong: Vec<String> = repeated.map(twice).collect();
        if !wrong.is_empty() {
            return Err(ConfigError(wrong));
        }
        sources = sources.merge(Yaml::file_exact(file));
    }
    let is_read = |key: &UncasedStr| !is_not_ours(key.as_str()) && !key.starts_with(LABEL_PREFIX);
    let env = Env::prefixed(ENV_PREFIX).filter(is_read).split("__");
    sources = sources.merge(env).merge(EnvLabels).merge(Serialized::defaults(flags));
    let config: Config = sources.extract().map_err(|error| mistakes::explain(&sources, error))?;
    let loaded = Loaded { config, file: file.map(Path::to_owned), sources };
    let wrong = mistakes::check(&loaded);
    if wrong.is_empty() { Ok(loaded) } else { Err(ConfigError(wrong)) }
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
        mistakes::origin(&self.sources, key).map_or("default".to_owned(), |metadata| mistakes::place(metadata, key))
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
