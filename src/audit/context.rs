//! The state that the routes of this stage share, and access to the database.

use std::sync::Arc;

use super::erasure::Eraser;
use super::verdicts::Verdicts;
use crate::http::{ApiError, Read, Readers, Turn};
use crate::ledger::Ledger;
use crate::ledger::store::StoreError;
use crate::tlog::Log;

/// The state that the routes of this stage share.
pub struct Audit {
    /// The ledger.
    pub ledger: Arc<Ledger>,
    /// The transparency log of the ledger.
    pub log: Arc<Log>,
    /// Reads of the ledger, and the memory of responses.
    pub readers: Arc<Readers>,
    /// The last verdict on each chain.
    pub verdicts: Verdicts,
    /// Carries out erasures.
    pub eraser: Arc<Eraser>,
    /// Held while an erasure is selected and recorded, and while holds change.
    pub erasing: Arc<tokio::sync::Mutex<()>>,
}

impl Audit {
    /// Reads from a running ledger and its log. Registers its metrics with the current recorder.
    pub fn new(ledger: Arc<Ledger>, log: Arc<Log>, readers: Arc<Readers>, eraser: Arc<Eraser>) -> Arc<Audit> {
        let (verdicts, erasing) = (Verdicts::register(), Arc::default());
        Arc::new(Audit { ledger, log, readers, verdicts, eraser, erasing })
    }

    /// Runs `work` on a blocking thread, see [`Readers::run`].
    ///
    /// # Errors
    /// The error of `work`; 503 if the time is up.
    pub async fn read<T: Send + 'static>(
        self: &Arc<Audit>,
        read: Read,
        work: impl FnOnce(&Audit, &Turn) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let audit = Arc::clone(self);
        self.readers.run(read, move |turn| work(&audit, turn)).await
    }
}

/// Logs a failed read for the operator and converts it to 503.
pub fn store_failed(error: StoreError) -> ApiError {
    if !matches!(error, StoreError::Cancelled) {
        tracing::error!(%error, "reading the ledger failed");
    }
    ApiError::unavailable(format!("the ledger could not be read: {error}"))
}
