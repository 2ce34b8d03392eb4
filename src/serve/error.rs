//! The errors with which a server fails to start or stops.

use std::io;

use crate::auth::KeyError;
use crate::http::{Address, TlsError};
use crate::ledger::store::StoreError;
use crate::relay::RelayError;
use crate::text::settings::InvalidSetting;

/// Why a server did not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The ledger cannot be opened or recovered.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An address cannot be bound.
    #[error("{key}: {address} cannot be bound: {source}")]
    Bind {
        /// The setting that contains the address.
        key: &'static str,
        /// The address.
        address: Address,
        /// The error of the system.
        source: io::Error,
    },
    /// The API keys cannot be read.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// The certificates cannot be read.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The relay cannot start.
    #[error(transparent)]
    Relay(#[from] RelayError),
    /// A setting that was valid when the configuration was checked no longer is: a file was changed.
    #[error(transparent)]
    Setting(#[from] InvalidSetting),
    /// The metrics recorder cannot be created.
    #[error("the metrics recorder cannot be created: {0}")]
    Metrics(#[from] metrics_exporter_prometheus::BuildError),
    /// A thread of the server failed.
    #[error("{0}; the process stops, the next start recovers the ledger")]
    Failed(String),
    /// The data directory was removed.
    #[error("{0}; the process stops: restore the directory before the next start, which would create a new ledger")]
    Gone(String),
}
