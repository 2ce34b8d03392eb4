//! Why the relay did not start.

use crate::ledger::store::StoreError;
use crate::text::settings::InvalidSetting;

/// Why the relay did not start.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// A setting cannot be used.
    #[error(transparent)]
    Config(#[from] InvalidSetting),
    /// A destination's place in the ledger could not be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A thread could not be made.
    #[error("the relay's thread cannot be made: {0}")]
    Thread(std::io::Error),
}
