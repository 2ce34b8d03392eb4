//! The commit point.
//!
//! What is true if the process ends after each step of [`super::shard`]:
//!
//! 1. events are drained and sealed in memory: nothing of them is stored, nobody was answered;
//! 2. the batch is written: they may be stored or not, nobody was answered; a sender that retries with its id
//!    finds out;
//! 3. the write returned: they are on disk, all or none of them, with their chain rows and heads;
//! 4. they are answered.

use crate::ledger::store::{Batch, CommitError, Store};

/// Puts a batch on disk.
///
/// The trait is this narrow so that tests can make it fail, and so that it can one day be an append to a log
/// that several machines keep.
pub trait Commit: Send + Sync {
    /// Writes all rows of the batch, or none, and returns when they are on disk.
    ///
    /// # Errors
    /// The outcome is unknown then: the rows may be there after all.
    fn commit(&self, batch: Batch) -> Result<(), CommitError>;
}

impl Commit for Store {
    fn commit(&self, batch: Batch) -> Result<(), CommitError> {
        self.write_durable(batch)
    }
}
