//! The settings `ledger.*`: what is recorded of every event.

use serde::{Deserialize, Serialize};

use crate::text::settings::{Expectations, Expected};

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
