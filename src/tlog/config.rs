//! The settings of the log.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::text::settings::{Checks, Expectations, Expected, InvalidSetting};

/// The part of `log.*` that is about the transparency log. Unset files lie in the data directory.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// The log's name: `log.origin`.
    pub origin: Option<String>,
    /// The signing keys: `log.key_file`.
    pub key_file: Option<PathBuf>,
    /// The last signed checkpoint: `log.checkpoint_file`.
    pub checkpoint_file: Option<PathBuf>,
    /// How often a checkpoint is signed at most: `log.checkpoint_interval`.
    pub checkpoint_interval: Duration,
    /// How often the last one goes to the process's log: `log.announce_interval`.
    pub announce_interval: Duration,
}

impl LogConfig {
    /// What each setting has to be.
    pub const EXPECTED: Expectations = &[
        ("log.origin", Expected::Text("a text")),
        ("log.key_file", Expected::Path),
        ("log.checkpoint_file", Expected::Path),
        ("log.checkpoint_interval", Expected::Duration),
        ("log.announce_interval", Expected::Duration),
    ];

    /// The settings that cannot be used.
    pub fn check(&self) -> Vec<InvalidSetting> {
        let mut checks = Checks::default();
        checks.positive("log.checkpoint_interval", self.checkpoint_interval);
        checks.positive("log.announce_interval", self.announce_interval);
        let is_origin = self.origin.as_ref().is_none_or(|origin| is_origin(origin));
        let found = self.origin.as_deref().unwrap_or_default();
        checks.require(is_origin, "log.origin", "a name without white space and +", format_args!("{found:?}"));
        checks.finish()
    }

    /// Where the keys are.
    pub fn key_path(&self, data_dir: &Path) -> PathBuf {
        self.key_file.clone().unwrap_or_else(|| data_dir.join("log.key"))
    }

    /// Where the last checkpoint is.
    pub fn checkpoint_path(&self, data_dir: &Path) -> PathBuf {
        self.checkpoint_file.clone().unwrap_or_else(|| data_dir.join("log.checkpoint"))
    }
}

/// Whether an origin can be the name of a key (C2SP signed-note): no white space, no plus.
fn is_origin(origin: &str) -> bool {
    !origin.is_empty() && !origin.chars().any(|c| c.is_whitespace() || c.is_control() || c == '+')
}
