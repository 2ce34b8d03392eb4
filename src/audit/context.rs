//! What the calls of this stage share, and how they read the database.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Semaphore;

use super::verdicts::Verdicts;
use crate::http::{ApiError, MemoryBudget};
use crate::ledger::Ledger;
use crate::ledger::store::StoreError;
use crate::tlog::Log;

/// How many reads of the database go on at once. More would only wait for each other, and starve ingest.
const CONCURRENT_READS: usize = 4;

/// What the calls of this stage share.
pub struct Audit {
    /// The ledger.
    pub ledger: Arc<Ledger>,
    /// Its log.
    pub log: Arc<Log>,
    /// The memory of answers.
    pub memory_budget: MemoryBudget,
    reads: Arc<Semaphore>,
    /// The last verdict on each chain.
    pub verdicts: Verdicts,
}

impl Audit {
    /// Over a running ledger and its log. Metrics register with the recorder that is in force.
    pub fn new(ledger: Arc<Ledger>, log: Arc<Log>, memory_budget: MemoryBudget) -> Arc<Audit> {
        Arc::new(Audit {
            ledger,
            log,
            memory_budget,
            reads: Arc::new(Semaphore::new(CONCURRENT_READS)),
            verdicts: Verdicts::register(),
        })
    }

    /// Runs a read on a thread made for blocking. If the caller goes away, the read is told so.
    pub async fn read<T: Send + 'static>(
        self: &Arc<Audit>,
        work: impl FnOnce(&Audit, &Cancelled) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let permit = Arc::clone(&self.reads).acquire_owned().await;
        let cancelled = Cancelled::default();
        let _cancel_on_drop = CancelOnDrop(cancelled.clone());
        let audit = Arc::clone(self);
        let read = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            work(&audit, &cancelled)
        });
        // A panic in a read is a bug, and goes on as one.
        read.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
    }
}

/// Whether whoever wanted a read has gone away.
#[derive(Clone, Default)]
pub struct Cancelled(Arc<AtomicBool>);

impl Cancelled {
    /// Whether to stop.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

struct CancelOnDrop(Cancelled);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Relaxed);
    }
}

/// The database could not be read: for the operator, who finds more in the log.
pub fn store_failed(error: StoreError) -> ApiError {
    if !matches!(error, StoreError::BrokenOff) {
        tracing::error!(%error, "a read failed");
    }
    ApiError::unavailable(format!("the ledger could not be read: {error}"))
}
