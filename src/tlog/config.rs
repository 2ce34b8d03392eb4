//! The settings of the transparency log, `log.*`. `docs/configuration.md` lists them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::text::settings::{Checks, Expectations, Expected, InvalidSetting};

/// The settings `log.*` of the transparency log. Files without a setting are in the data directory.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// The name of the log: `log.origin`.
    pub origin: Option<String>,
    /// The file of the signing keys: `log.key_file`.
    pub key_file: Option<PathBuf>,
    /// The file of the last checkpoint: `log.checkpoint_file`.
    pub checkpoint_file: Option<PathBuf>,
    /// The shortest time between two checkpoints: `log.checkpoint_interval`.
    pub checkpoint_interval: Duration,
    /// How often the last checkpoint is written to the process log: `log.announce_interval`.
    pub announce_interval: Duration,
}

impl LogConfig {
    /// The expected value of each setting.
    pub const EXPECTED: Expectations = &[
        ("log.origin", Expected::String),
        ("log.key_file", Expected::Path),
        ("log.checkpoint_file", Expected::Path),
        ("log.checkpoint_interval", Expected::Duration),
        ("log.announce_interval", Expected::Duration),
    ];

    /// Returns the settings that are invalid.
    pub fn check(&self) -> Vec<InvalidSetting> {
        let mut checks = Checks::default();
        checks.positive("log.checkpoint_interval", self.checkpoint_interval);
        checks.positive("log.announce_interval", self.announce_interval);
        let is_origin = self.origin.as_ref().is_none_or(|origin| is_origin(origin));
        let found = self.origin.as_deref().unwrap_or_default();
        let expected = "a name without white space, control characters and +";
        checks.require(is_origin, "log.origin", expected, format_args!("{found:?}"));
        checks.finish()
    }

    /// The path of the key file.
    pub fn key_path(&self, data_dir: &Path) -> PathBuf {
        self.key_file.clone().unwrap_or_else(|| data_dir.join("log.key"))
    }

    /// The path of the checkpoint file.
    pub fn checkpoint_path(&self, data_dir: &Path) -> PathBuf {
        self.checkpoint_file.clone().unwrap_or_else(|| data_dir.join("log.checkpoint"))
    }
}

/// Whether an origin can be the name of a key (C2SP signed-note): not empty, without white space and `+`. Control
/// characters are rejected, too.
fn is_origin(origin: &str) -> bool {
    !origin.is_empty() && !origin.chars().any(|c| c.is_whitespace() || c.is_control() || c == '+')
}
