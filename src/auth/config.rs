//! The settings of authentication: `auth.*`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::text::settings::{Expectations, Expected};

/// `auth.*`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AuthConfig {
    /// Keys that callers may use, each in the form of [`super::Keys`]. None, and no file: everybody may call.
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

    /// What each setting has to be.
    pub const EXPECTED: Expectations = &[
        ("auth", Expected::Section),
        ("auth.api_keys", Expected::Strings),
        ("auth.api_keys_file", Expected::Path),
        ("auth.allow_anonymous", Expected::Bool),
    ];
}
