//! The settings of the queue in front of each shard: `queue.*`.

use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use crate::text::settings::{Checks, Expectations, Expected, InvalidSetting};
use crate::text::units;

/// The settings `queue.*`, which bound the queue of each shard.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct QueueConfig {
    /// The most events that wait for one shard or are being committed by it.
    pub events: usize,
    /// The most memory of these events.
    #[serde(with = "units::size")]
    pub bytes: ByteSize,
    /// How long a sender waits for a permit before its events are refused with 503.
    #[serde(with = "units::time")]
    pub max_wait: Duration,
}

impl Default for QueueConfig {
    fn default() -> QueueConfig {
        QueueConfig { events: 10_000, bytes: ByteSize::mib(11), max_wait: Duration::from_secs(1) }
    }
}

impl QueueConfig {
    /// The expected value of each setting.
    pub const EXPECTED: Expectations = &[
        ("queue", Expected::Section),
        ("queue.events", Expected::Number(1..=1_000_000)),
        ("queue.bytes", Expected::Size),
        ("queue.max_wait", Expected::Duration),
    ];

    /// Returns the settings that are invalid.
    pub fn check(&self) -> Vec<InvalidSetting> {
        let mut checks = Checks::default();
        checks.number(QueueConfig::EXPECTED, "queue.events", self.events as u64);
        // The semaphore counts permits in 32 bits.
        let is_valid = (64 << 10..4 << 30).contains(&self.bytes.as_u64());
        checks.require(is_valid, "queue.bytes", "from 64KiB to less than 4GiB", self.bytes);
        checks.finish()
    }
}
