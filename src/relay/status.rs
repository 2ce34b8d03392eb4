//! The state of a destination that other threads read.

use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, PoisonError};

use super::backlog::Backlog;
use super::metrics::DestinationMetrics;
use crate::ledger::Ledger;
use crate::ledger::format::keys::{Location, Position};
use crate::ledger::read::committed::Committed;
use crate::ledger::read::lookup;
use crate::ledger::store::{Store, StoreError};

/// What the consumer of a destination shares with other threads.
pub struct Shared {
    /// The name of the destination.
    pub name: String,
    /// Its protocol.
    pub kind: super::config::DestinationType,
    /// Its base URL.
    pub endpoint: String,
    /// The key of the setting that identifies the organization.
    pub identity_key: String,
    /// Its rows on disk.
    pub backlog: Backlog,
    /// Its metrics.
    pub metrics: DestinationMetrics,
    /// Its progress. Locked for one copy.
    pub status: Mutex<Status>,
    /// Whether a stop was requested.
    pub is_ending: AtomicBool,
}

impl Shared {
    /// A copy of its progress.
    pub fn status(&self) -> Status {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The progress of a destination.
#[derive(Debug, Clone, Default)]
pub struct Status {
    /// Whether the consumer has loaded its state from disk. Before that, the other fields have no meaning.
    pub is_loaded: bool,
    /// The number of events acknowledged since the destination was created.
    pub sent: u64,
    /// The number of events that were read and are not acknowledged.
    pub waiting: u64,
    /// The number of requests in flight.
    pub in_flight: usize,
    /// The position of the next event of each shard.
    pub next: Vec<Position>,
    /// The waiting event that was read first.
    pub oldest: Option<Location>,
    /// Whether the circuit is open, so that only probes are sent.
    pub is_open: bool,
    /// The number of dead letters.
    pub dead_letters: u64,
    /// When the last event was acknowledged, in ms since 1970; `None` if none was since the start.
    pub last_sent_ms: Option<u64>,
    /// When the next request is due, in ms since 1970; `None` unless everything waits.
    pub next_try_ms: Option<u64>,
    /// The error of the last failed request.
    pub last_error: Option<LastError>,
}

/// Why a request failed.
#[derive(Debug, Clone)]
pub struct LastError {
    /// When it failed, in ms since 1970.
    pub at_ms: u64,
    /// The message of the upstream or of the system.
    pub message: String,
}

impl Status {
    /// The number of committed events that are not acknowledged.
    pub fn backlog(&self, committed: &Committed) -> u64 {
        self.waiting + committed.lag(&self.next)
    }

    /// Whether everything that is committed is acknowledged.
    pub fn is_sent(&self, committed: &Committed) -> bool {
        self.in_flight == 0 && self.backlog(committed) == 0
    }

    /// When the oldest event of the backlog was received, in ms since 1970.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn oldest_ms(&self, ledger: &Ledger) -> Result<Option<u64>, StoreError> {
        match self.oldest {
            Some(location) => {
                let record = lookup::record(ledger.store(), location)?;
                Ok(record.and_then(|record| record.as_ref().received_ms()))
            }
            None => oldest_unread_ms(ledger.store(), ledger.committed(), &self.next),
        }
    }
}

/// When the oldest event that is not read was received, in ms since 1970; `None` if there is none.
///
/// # Errors
/// When the database cannot be read.
pub fn oldest_unread_ms(store: &Store, committed: &Committed, next: &[Position]) -> Result<Option<u64>, StoreError> {
    let mut oldest = None;
    for (shard, &position) in committed.shards().zip(next) {
        if position < committed.next(shard) {
            let record = lookup::record(store, Location { shard, position })?;
            oldest = oldest.into_iter().chain(record.and_then(|record| record.as_ref().received_ms())).min();
        }
    }
    Ok(oldest)
}
