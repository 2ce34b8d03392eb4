//! The settings `recorder.*`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::text::settings::{Expectations, Expected};
use crate::text::units;

/// The settings `recorder.*`. `docs/recorder.md` describes them.
#[derive(Debug, Clone, Copy, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RecorderConfig {
    /// Whether the server records its own starts, stops, refusals and changes.
    pub enabled: bool,
    /// The interval of the events that show that the server runs; 0 for none.
    #[serde(with = "units::time")]
    pub heartbeat: Duration,
}

impl Default for RecorderConfig {
    fn default() -> RecorderConfig {
        RecorderConfig { enabled: true, heartbeat: Duration::from_secs(3600) }
    }
}

impl RecorderConfig {
    /// The expected value of each setting.
    pub const EXPECTED: Expectations = &[
        ("recorder", Expected::Section),
        ("recorder.enabled", Expected::Bool),
        ("recorder.heartbeat", Expected::Text("a duration such as 1h, or 0s for none")),
    ];
}
