//! Why the server did not start, or had to stop.

use std::io;

use crate::auth::KeyError;
use crate::http::{Address, TlsError};
use crate::ledger::store::StoreError;
use crate::relay::RelayError;

/// Why the server did not start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The ledger cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An address cannot be bound.
    #[error("{key}: {address} cannot be bound: {source}")]
    Bind {
        /// The key that names it.
        key: &'static str,
        /// The address.
        address: Address,
        /// What the system said.
        source: io::Error,
    },
    /// The keys cannot be read.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// The certificates cannot be read.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The relay cannot start.
    #[error(transparent)]
    Relay(#[from] RelayError),
    /// The metrics cannot be set up.
    #[error("the metrics cannot be set up: {0}")]
    Metrics(#[from] metrics_exporter_prometheus::BuildError),
    /// A part of the server cannot go on.
    #[error("{0}; the process ends, and its next start recovers")]
    Failed(String),
    /// The data directory is not there any more.
    #[error("{0}; the process ends: restore it before the next start, which would begin a new ledger")]
    Gone(String),
}
