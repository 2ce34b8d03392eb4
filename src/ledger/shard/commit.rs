//! The commit point.
//!
//! What is true if the process ends after each step of [`super::thread`]:
//!
//! 1. events are drained and sealed in memory: none of them is stored, and no sender was answered;
//! 2. the batch is written: the events may be stored or not, and no sender was answered; a sender that retries with an
//!    id finds out;
//! 3. the write returned: they are on disk, all or none of them, with their runs and heads, from which their ids follow;
//! 4. the senders are answered: an acknowledged event is on disk.

use crate::ledger::store::{Batch, CommitError, Store};

/// Writes a batch to disk.
///
/// The trait has one method so that tests can make it fail, and so that an append to a replicated log can implement it.
pub trait Commit: Send + Sync {
    /// Writes all rows of the batch or none, and returns when they are on disk.
    ///
    /// # Errors
    /// When the write fails. It is then unknown whether the rows are stored.
    fn commit(&self, batch: Batch) -> Result<(), CommitError>;
}

impl Commit for Store {
    fn commit(&self, batch: Batch) -> Result<(), CommitError> {
        self.write_durable(batch)
    }
}
