//! The settings `ledger.*`: what is recorded of every event; and `retention.*`: how long it is kept.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::text::settings::{Expectations, Expected};
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
#[derive(Debug, Clone, Copy, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RetentionConfig {
    /// The age at which the content of events is erased; 0 to keep it.
    #[serde(with = "units::time")]
    pub content: Duration,
}

impl RetentionConfig {
    /// The expected value of each setting.
    pub const EXPECTED: Expectations = &[
        ("retention", Expected::Section),
        ("retention.content", Expected::Text("a duration such as 180d, or 0s to keep everything")),
    ];
}
