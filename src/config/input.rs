//! What a command gives to [`super::load`], and the errors that it gets.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use crate::http::Addresses;

/// Settings that command-line flags override.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Flags {
    /// `--listen`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<Addresses>,
    /// `--data-dir`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage: Option<StorageFlags>,
}

/// Settings of the ledger that command-line flags override.
#[derive(Debug, Clone, Serialize)]
pub struct StorageFlags {
    /// `--data-dir`
    pub data_dir: PathBuf,
}

/// What a command needs of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// All settings. The files with keys and certificates that they name are read and checked.
    Server,
    /// Only the settings that describe the ledger, `storage` and `log`. All others keep their defaults, whatever the
    /// sources say, so that who reads a ledger needs no access to the secrets of its server.
    Ledger,
    /// Only the settings `redaction`, as above.
    Redaction,
}

/// All errors that were found in a configuration, one message each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError(pub Vec<String>);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for ConfigError {}
