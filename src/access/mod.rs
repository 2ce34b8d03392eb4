//! Who may call, and how much: keys with their scopes, and a rate for each client.

mod guard;
mod key;
mod rates;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use guard::{Client, Guard, Need, identify, require};
pub use key::{KeyError, Keys, Scopes, plain};
pub use rates::Rates;

/// `auth.*`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AuthConfig {
    /// Keys that callers may use, each as [`Keys`] reads it. None, and no file: everybody may call.
    pub api_keys: Vec<String>,
    /// A file with one key a line.
    pub api_keys_file: Option<PathBuf>,
    /// Whether the port may be reached from other machines without keys.
    pub allow_anonymous: bool,
}

impl AuthConfig {
    /// Whether a key is needed at all.
    pub fn has_keys(&self) -> bool {
        !self.api_keys.is_empty() || self.api_keys_file.is_some()
    }

    /// Keeps of each key nothing but its hash, which lets in whoever has the key.
    pub fn forget_keys(&mut self) {
        self.api_keys.iter_mut().for_each(|line| *line = key::hashed(line));
    }
}
