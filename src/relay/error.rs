//! The errors of starting the relay.

use crate::ledger::store::StoreError;
use crate::text::settings::InvalidSetting;

/// Why the relay did not start.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// A setting cannot be used.
    #[error(transparent)]
    Config(#[from] InvalidSetting),
    /// The rows of a destination could not be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A thread could not be started.
    #[error("the relay thread could not be started: {0}")]
    Thread(std::io::Error),
}
