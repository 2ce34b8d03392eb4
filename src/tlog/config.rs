//! The settings of the log.

use std::path::{Path, PathBuf};
use std::time::Duration;

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
    /// Where the keys are.
    pub fn key_path(&self, data_dir: &Path) -> PathBuf {
        self.key_file.clone().unwrap_or_else(|| data_dir.join("log.key"))
    }

    /// Where the last checkpoint is.
    pub fn checkpoint_path(&self, data_dir: &Path) -> PathBuf {
        self.checkpoint_file.clone().unwrap_or_else(|| data_dir.join("log.checkpoint"))
    }

    /// Whether an origin can be the name of a key (C2SP signed-note): no white space, no plus.
    pub fn is_origin(origin: &str) -> bool {
        !origin.is_empty() && !origin.chars().any(|c| c.is_whitespace() || c.is_control() || c == '+')
    }
}
