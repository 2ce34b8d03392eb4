//! What others see of a destination.

use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, PoisonError};

use super::backlog::Backlog;
use super::metrics::DestinationMetrics;
use crate::ledger::Ledger;
use crate::ledger::format::keys::{Location, Position};
use crate::ledger::read::committed::Committed;
use crate::ledger::read::lookup;
use crate::ledger::store::{Store, StoreError};

/// What a destination's consumer shares with those who look.
pub struct Shared {
    /// Its name.
    pub name: String,
    /// What it speaks.
    pub kind: super::config::DestinationType,
    /// Its base URL.
    pub endpoint: String,
    /// The key of the configuration that says who we are there.
    pub identity_key: String,
    /// Its rows.
    pub backlog: Backlog,
    /// Its numbers.
    pub metrics: DestinationMetrics,
    /// How far it is. Held for a copy.
    pub status: Mutex<Status>,
    /// It was told to end.
    pub is_ending: AtomicBool,
}

impl Shared {
    /// How far it is now.
    pub fn status(&self) -> Status {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// How far a destination is.
#[derive(Debug, Clone, Default)]
pub struct Status {
    /// The consumer has looked at what is on disk: before that, the numbers mean nothing.
    pub is_known: bool,
    /// Events that were acknowledged, ever.
    pub sent: u64,
    /// Events that were read and not acknowledged.
    pub waiting: u64,
    /// Requests on their way.
    pub in_flight: usize,
    /// The next event of each shard that will be read.
    pub next: Vec<Position>,
    /// The event that was read first of those that wait.
    pub oldest: Option<Location>,
    /// Only probes are sent.
    pub is_open: bool,
    /// How many there are.
    pub dead_letters: u64,
    /// When the last event was acknowledged, in ms since 1970; `None` if none was since the start.
    pub last_sent_ms: Option<u64>,
    /// When the next request goes out, while everything waits, in ms since 1970.
    pub next_try_ms: Option<u64>,
    /// The last request that failed.
    pub last_error: Option<LastError>,
}

/// Why a request failed.
#[derive(Debug, Clone)]
pub struct LastError {
    /// When, in ms since 1970.
    pub at_ms: u64,
    /// In the words of the upstream or of the system.
    pub message: String,
}

impl Status {
    /// How many committed events were not acknowledged.
    pub fn backlog(&self, committed: &Committed) -> u64 {
        self.waiting + committed.lag(&self.next)
    }

    /// Whether nothing will be sent from `since_ms` to `until_ms`, in ms since 1970, after it was tried once more: all is, or
    /// the upstream is away, or what is left has to wait longer.
    pub fn is_at_rest(&self, committed: &Committed, since_ms: u64, until_ms: u64) -> bool {
        let has_failed = self.last_error.as_ref().is_some_and(|error| error.at_ms > since_ms);
        let is_away = self.last_sent_ms.is_none_or(|sent_ms| sent_ms <= since_ms);
        let is_later =
            || committed.lag(&self.next) == 0 && self.next_try_ms.is_some_and(|next_try_ms| next_try_ms > until_ms);
        let is_all_sent = self.backlog(committed) == 0;
        self.is_known && self.in_flight == 0 && (is_all_sent || has_failed && (is_away || is_later()))
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

/// When the first event that was not read was received; `None` if there is none.
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
