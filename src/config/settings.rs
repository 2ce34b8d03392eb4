//! The whole configuration, composed of the settings of the stages.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cairn_proof::hex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::auth::AuthConfig;
use crate::http::{Address, Addresses, HttpConfig, TlsConfig};
use crate::ingest::{IngestConfig, LimitsConfig, RedactionConfig};
use crate::ledger::shard::config::QueueConfig;
use crate::ledger::store::StorageConfig;
use crate::ledger::{LedgerConfig, RetentionConfig};
use crate::recorder::RecorderConfig;
use crate::relay::RelayConfig;
use crate::text::settings::{Expectations, Expected};
use crate::text::units;
use crate::tlog;

/// The whole configuration. `docs/configuration.md` describes every setting.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The addresses that receive events and serve reads.
    pub listen: Addresses,
    /// The file permissions of Unix sockets among these addresses.
    #[serde(with = "units::mode")]
    pub socket_mode: u32,
    /// TLS for these addresses.
    pub tls: TlsConfig,
    /// The hosts that requests may name.
    pub http: HttpConfig,
    /// The admin port.
    pub admin: AdminConfig,
    /// The storage of the ledger.
    pub storage: StorageConfig,
    /// The number of shards of a new ledger.
    pub shards: u16,
    /// What is recorded of every event.
    pub ledger: LedgerConfig,
    /// What the server records of itself.
    pub recorder: RecorderConfig,
    /// How long the content of events is kept.
    pub retention: RetentionConfig,
    /// The queue of each shard.
    pub queue: QueueConfig,
    /// Limits of requests and connections.
    pub limits: LimitsConfig,
    /// Authentication.
    pub auth: AuthConfig,
    /// Default labels, the Agnost API and OTLP.
    pub ingest: IngestConfig,
    /// What is removed from events before they are stored.
    pub redaction: RedactionConfig,
    /// The destinations of the relay.
    pub relay: RelayConfig,
    /// Shutdown.
    pub shutdown: ShutdownConfig,
    /// The process log and the transparency log.
    pub log: LogConfig,
}

/// `admin.*`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AdminConfig {
    /// The address that serves metrics and probes.
    pub listen: Address,
}

/// `shutdown.*`
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ShutdownConfig {
    /// The maximum time to answer requests in flight and send the backlog of the relay.
    #[serde(with = "units::time")]
    pub grace: Duration,
    /// How long of that the relay tries to send its backlog to an upstream that accepts nothing.
    #[serde(with = "units::time")]
    pub relay_time: Duration,
    /// Whether the process ends with an exit status of its own if events were not relayed.
    pub fail_if_unsent: bool,
}

/// `log.*`: the process log and the transparency log.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct LogConfig {
    /// The format of the lines of the process log.
    pub format: LogFormat,
    /// The level of the process log.
    pub level: String,
    /// The name of the transparency log and of its keys. Default: `cairn/` followed by the id of the ledger.
    pub origin: Option<String>,
    /// The file with the signing keys of the transparency log. Default: `log.key` in the data directory.
    pub key_file: Option<PathBuf>,
    /// The file with the last signed checkpoint. Default: `log.checkpoint` in the data directory.
    pub checkpoint_file: Option<PathBuf>,
    /// The minimum interval between checkpoints.
    #[serde(with = "units::time")]
    pub checkpoint_interval: Duration,
    /// The interval at which the last checkpoint is written to the process log.
    #[serde(with = "units::time")]
    pub announce_interval: Duration,
}

impl LogConfig {
    /// The settings of the transparency log.
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

/// The format of the lines of the process log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text if standard output is a terminal, else JSON.
    Auto,
    /// One JSON object per line.
    Json,
    /// Human-readable text.
    Text,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            listen: SocketAddr::from(([127, 0, 0, 1], 7600)).into(),
            socket_mode: 0o660,
            tls: TlsConfig::default(),
            http: HttpConfig::default(),
            admin: AdminConfig { listen: SocketAddr::from(([127, 0, 0, 1], 7601)).into() },
            storage: StorageConfig::default(),
            shards: 1,
            ledger: LedgerConfig::default(),
            recorder: RecorderConfig::default(),
            retention: RetentionConfig::default(),
            queue: QueueConfig::default(),
            limits: LimitsConfig::default(),
            auth: AuthConfig::default(),
            ingest: IngestConfig::default(),
            redaction: RedactionConfig::default(),
            relay: RelayConfig::default(),
            shutdown: ShutdownConfig {
                grace: Duration::from_secs(20),
                relay_time: Duration::from_secs(20),
                fail_if_unsent: false,
            },
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
    /// The valid values of the settings that belong to no stage.
    pub const OWN: Expectations = &[
        ("listen", Address::EXPECTED),
        ("socket_mode", Expected::Text("permissions in octal digits such as \"0660\"")),
        ("admin", Expected::Section),
        ("admin.listen", Expected::Text("an address such as 127.0.0.1:7601 or localhost:7601")),
        ("shards", Expected::Number(1..=256)),
        ("shutdown", Expected::Section),
        ("shutdown.grace", Expected::Duration),
        ("shutdown.relay_time", Expected::Duration),
        ("shutdown.fail_if_unsent", Expected::Bool),
        ("log", Expected::Section),
        ("log.format", Expected::Choice(&["auto", "json", "text"])),
        ("log.level", Expected::Text("error, warn, info, debug or trace")),
    ];

    /// The valid values of all settings, by stage.
    pub const EXPECTED: [Expectations; 14] = [
        Config::OWN,
        TlsConfig::EXPECTED,
        HttpConfig::EXPECTED,
        StorageConfig::EXPECTED,
        LedgerConfig::EXPECTED,
        RecorderConfig::EXPECTED,
        RetentionConfig::EXPECTED,
        QueueConfig::EXPECTED,
        LimitsConfig::EXPECTED,
        AuthConfig::EXPECTED,
        IngestConfig::EXPECTED,
        RedactionConfig::EXPECTED,
        RelayConfig::EXPECTED,
        tlog::LogConfig::EXPECTED,
    ];

    /// The configuration with a mask in the place of each secret.
    pub fn masked(&self) -> Config {
        let mut config = self.clone();
        let relay = config.relay.all_mut().flat_map(|destination| {
            destination.org_id.iter_mut().chain(&mut destination.secret).chain(destination.headers.values_mut())
        });
        config.auth.api_keys.iter_mut().chain(relay).for_each(|secret| *secret = "********".to_owned());
        config
    }

    /// The SHA-256 of the settings as JSON, secrets masked, in hex digits: it tells whether two configurations are the same.
    pub fn digest(&self) -> String {
        // Every type of `Config` can be serialized, so this does not fail.
        hex::encode(&Sha256::digest(serde_json::to_vec(&self.masked()).unwrap_or_default()))
    }

    /// The files with keys and certificates that the settings name.
    pub fn secret_files(&self) -> Vec<&Path> {
        let relay = self
            .relay
            .all()
            .flat_map(|(_, destination)| [&destination.org_id_file, &destination.secret_file, &destination.ca_file]);
        let others = self.auth.api_keys_file.as_deref().into_iter().chain(relay.flatten().map(PathBuf::as_path));
        self.tls.files().chain(others).collect()
    }

    /// The valid values of a setting; `None` if there is no such setting. Every destination of the relay has the
    /// settings of `relay.agnost`.
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

/// The keys of the settings that differ between two configurations, sorted.
pub fn differences(old: &Config, new: &Config) -> Vec<String> {
    // Every type of `Config` can be serialized, so this does not fail.
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
    fn every_setting_has_an_expectation_and_every_expectation_a_setting() {
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
