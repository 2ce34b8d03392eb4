//! The configuration section `auth`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::text::settings::{Expectations, Expected};

/// The configuration section `auth`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AuthConfig {
    /// The accepted API keys, in the form that [`super::Keys`] describes. Without keys and without a key file every
    /// request is accepted.
    pub api_keys: Vec<String>,
    /// A file with one API key per line.
    pub api_keys_file: Option<PathBuf>,
    /// Whether requests from other machines are accepted without API keys and without client certificates.
    pub allow_anonymous: bool,
}

impl AuthConfig {
    /// Whether requests need an API key.
    pub fn has_keys(&self) -> bool {
        !self.api_keys.is_empty() || self.api_keys_file.is_some()
    }

    /// The expected value of each setting.
    pub const EXPECTED: Expectations = &[
        ("auth", Expected::Section),
        ("auth.api_keys", Expected::Strings),
        ("auth.api_keys_file", Expected::Path),
        ("auth.allow_anonymous", Expected::Bool),
    ];
}
