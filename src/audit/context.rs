//! The state that the routes of this stage share, and access to the database.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Semaphore;

use super::verdicts::Verdicts;
use crate::http::{ApiError, MemoryBudget};
use crate::ledger::Ledger;
use crate::ledger::store::StoreError;
use crate::tlog::Log;

/// Most concurrent reads of the database. More would only wait for each other and slow down ingest.
const CONCURRENT_READS: usize = 4;

/// The state that the routes of this stage share.
pub struct Audit {
    /// The ledger.
    pub ledger: Arc<Ledger>,
    /// The transparency log of the ledger.
    pub log: Arc<Log>,
    /// The memory limit that responses count against.
    pub response_memory: MemoryBudget,
    reads: Arc<Semaphore>,
    /// The last verdict on each chain.
    pub verdicts: Verdicts,
}

impl Audit {
    /// Reads from a running ledger and its log. Registers its metrics with the current recorder.
    pub fn new(ledger: Arc<Ledger>, log: Arc<Log>, response_memory: MemoryBudget) -> Arc<Audit> {
        Arc::new(Audit {
            ledger,
            log,
            response_memory,
            reads: Arc::new(Semaphore::new(CONCURRENT_READS)),
            verdicts: Verdicts::register(),
        })
    }

    /// Runs `work` on a blocking thread. If the returned future is dropped, `work` sees that it is cancelled.
    ///
    /// # Errors
    /// The error of `work`.
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
        // A panic is a bug and is propagated.
        read.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
    }
}

/// Shows a read that its result is not needed any more, because the client has disconnected.
#[derive(Clone, Default)]
pub struct Cancelled(Arc<AtomicBool>);

impl Cancelled {
    /// Whether the read must stop.
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

/// Logs a failed read for the operator and converts it to 503.
pub fn store_failed(error: StoreError) -> ApiError {
    if !matches!(error, StoreError::Cancelled) {
        tracing::error!(%error, "reading the ledger failed");
    }
    ApiError::unavailable(format!("the ledger could not be read: {error}"))
}
