//! Everything that can be set: the configurations of the stages, put together.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::auth::AuthConfig;
use crate::http::{Address, Addresses, TlsConfig};
use crate::ingest::{IngestConfig, LimitsConfig};
use crate::ledger::shard::config::QueueConfig;
use crate::ledger::store::StorageConfig;
use crate::relay::RelayConfig;
use crate::text::settings::{Expectations, Expected};
use crate::text::units;
use crate::tlog;

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

impl Config {
    /// What each setting that belongs to no stage has to be.
    pub const OWN: Expectations = &[
        ("listen", Address::EXPECTED),
        ("socket_mode", Expected::Text("permissions in octal digits such as \"0660\"")),
        ("admin", Expected::Section),
        ("admin.listen", Expected::Text("an address such as 127.0.0.1:7601")),
        ("shards", Expected::Number(1..=256)),
        ("shutdown", Expected::Section),
        ("shutdown.grace", Expected::Duration),
        ("log", Expected::Section),
        ("log.format", Expected::Text("auto, json or text")),
        ("log.level", Expected::Text("error, warn, info, debug or trace")),
    ];

    /// What each setting has to be, by stage.
    pub const EXPECTED: [Expectations; 9] = [
        Config::OWN,
        TlsConfig::EXPECTED,
        StorageConfig::EXPECTED,
        QueueConfig::EXPECTED,
        LimitsConfig::EXPECTED,
        AuthConfig::EXPECTED,
        IngestConfig::EXPECTED,
        RelayConfig::EXPECTED,
        tlog::LogConfig::EXPECTED,
    ];

    /// What a setting has to be; `None` if there is no such setting. Every destination of the relay has the settings of `relay.agnost`.
    pub fn expected(key: &str) -> Option<&'static Expected> {
        let key = match key.strip_prefix("relay.destinations[").and_then(|rest| rest.split_once(']')) {
            Some((_, rest)) => format!("relay.agnost{rest}"),
            None => key.to_owned(),
        };
        let matches = |name: &str| match name.strip_suffix('*') {
            Some(prefix) => key.starts_with(prefix) && key.len() > prefix.len(),
            None => name == key,
        };
        Config::EXPECTED.into_iter().flatten().find(|(name, _)| matches(name)).map(|(_, expected)| expected)
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The keys of a configuration, sections included.
    fn keys(value: &serde_json::Value, path: &str, found: &mut Vec<String>) {
        for (name, value) in value.as_object().into_iter().flatten() {
            let key = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            keys(value, &key, found);
            found.push(key);
        }
    }

    #[test]
    fn every_setting_says_what_it_has_to_be_and_nothing_else_does() {
        let mut config = Config::default();
        config.relay.agnost = Some(crate::relay::DestinationConfig::default());
        let mut found = Vec::new();
        keys(&serde_json::to_value(&config).unwrap(), "", &mut found);
        for key in &found {
            assert!(Config::expected(key).is_some(), "{key}");
        }
        for (name, _) in Config::EXPECTED.into_iter().flatten().filter(|(name, _)| !name.ends_with('*')) {
            assert!(found.iter().any(|key| key == name), "{name} is not a setting");
        }
    }
}
