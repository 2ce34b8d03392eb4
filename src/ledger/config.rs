//! The settings `ledger.*`: what is recorded of every event; and `retention.*`: how long it is kept.

use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use super::store::StorageConfig;
use crate::text::settings::{Checks, Expectations, Expected, InvalidSetting};
use crate::text::units;

/// The settings `ledger.*`.
#[derive(Debug, Clone, Copy, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct LedgerConfig {
    /// Whether every event gets a random salt, so that erased content cannot be guessed from its hash.
    pub salt: bool,
}

impl Default for LedgerConfig {
    fn default() -> LedgerConfig {
        LedgerConfig { salt: true }
    }
}

impl LedgerConfig {
    /// The expected value of each setting.
    pub const EXPECTED: Expectations = &[("ledger", Expected::Section), ("ledger.salt", Expected::Bool)];
}

/// The settings `retention.*`.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RetentionConfig {
    /// The age at which the content of events is erased; 0 to keep it.
    #[serde(with = "units::time")]
    pub content: Duration,
    /// When events are dropped whole.
    pub events: EventRetention,
    /// Who must have accepted an event before it is dropped.
    pub after: Vec<RetentionConsumer>,
    /// Whether events are dropped for the size of the ledger although nobody else has them.
    pub unrelayed: bool,
}

/// The settings `retention.events.*`.
#[derive(Debug, Clone, Copy, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct EventRetention {
    /// The age at which events are dropped; 0 to keep them.
    #[serde(with = "units::time")]
    pub max_age: Duration,
    /// The size of the ledger above which the oldest events are dropped; 0 for no limit.
    #[serde(with = "units::size")]
    pub max_bytes: ByteSize,
}

impl EventRetention {
    /// Whether events are dropped at all.
    pub fn is_set(&self) -> bool {
        !self.max_age.is_zero() || self.max_bytes.as_u64() > 0
    }
}

/// A consumer of events that retention waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RetentionConsumer {
    /// Every destination of the relay.
    Relay,
}

impl RetentionConfig {
    /// The expected value of each setting.
    pub const EXPECTED: Expectations = &[
        ("retention", Expected::Section),
        ("retention.content", Expected::Text("a duration such as 180d, or 0s to keep everything")),
        ("retention.events", Expected::Section),
        ("retention.events.max_age", Expected::Text("a duration such as 180d, or 0s to keep everything")),
        ("retention.events.max_bytes", Expected::Size),
        ("retention.after", Expected::Text("a list of consumers: relay")),
        ("retention.unrelayed", Expected::Bool),
    ];

    /// Returns the settings that contradict each other. `has_relay` tells whether the relay has a destination.
    pub fn check(&self, has_relay: bool, storage: &StorageConfig) -> Vec<InvalidSetting> {
        let (mut checks, max_bytes) = (Checks::default(), self.events.max_bytes);
        let is_safe = !self.after.is_empty() || self.unrelayed;
        checks.require(
            max_bytes.as_u64() == 0 || is_safe,
            "retention.events.max_bytes",
            "retention.after: [relay] beside it, or retention.unrelayed: true if events may be lost that nobody else has",
            max_bytes,
        );
        // What the log and the newest files take is not freed by dropping events.
        let least = ByteSize::b(2 * (storage.wal_bytes() + storage.table_bytes()));
        checks.require(
            max_bytes.as_u64() == 0 || max_bytes >= least,
            "retention.events.max_bytes",
            format!("at least {least}, for storage.max_bytes of {}", storage.max_bytes),
            max_bytes,
        );
        checks.require(
            max_bytes < storage.max_bytes,
            "retention.events.max_bytes",
            "less than storage.max_bytes, above which new events are refused",
            max_bytes,
        );
        let waits_for_relay = self.after.contains(&RetentionConsumer::Relay);
        checks.require(has_relay || !waits_for_relay, "retention.after", "a destination of the relay", "relay");
        checks.finish()
    }
}
