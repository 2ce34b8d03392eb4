//! Reading what is stored: lists, single events, agents, totals, verification, evidence.
//!
//! Reads of the database happen on threads made for blocking; answers that may be long are made piece by piece as
//! the reader takes them.

mod agents;
mod events;
pub mod export;
mod filter;
mod log;
mod pieces;
mod receipt;
mod source;
mod verdicts;
pub mod verify;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::routing::get;
use tokio::sync::Semaphore;

use crate::http::{Inflight, Problem};
use crate::ledger::Ledger;
use crate::ledger::store::StoreError;
use crate::tlog::Log;
pub use receipt::receipts;
use verdicts::Verdicts;

/// How many reads of the database go on at once. More would only wait for each other, and starve ingest.
const CONCURRENT_READS: usize = 4;

/// What the calls of this stage share.
pub struct Audit {
    ledger: Arc<Ledger>,
    log: Arc<Log>,
    inflight: Inflight,
    reads: Arc<Semaphore>,
    verdicts: Verdicts,
}

impl Audit {
    /// Over a running ledger and its log. Metrics register with the recorder that is in force.
    pub fn new(ledger: Arc<Ledger>, log: Arc<Log>, inflight: Inflight) -> Arc<Audit> {
        Arc::new(Audit {
            ledger,
            log,
            inflight,
            reads: Arc::new(Semaphore::new(CONCURRENT_READS)),
            verdicts: Verdicts::register(),
        })
    }

    /// Runs a read on a thread made for blocking. If the caller goes away, the read is told so.
    async fn read<T: Send + 'static>(
        self: &Arc<Audit>,
        work: impl FnOnce(&Audit, &Cancelled) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
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
fn store_failed(error: StoreError) -> Problem {
    if !matches!(error, StoreError::BrokenOff) {
        tracing::error!(%error, "a read failed");
    }
    Problem::unavailable(format!("the ledger could not be read: {error}"))
}

/// The calls that read.
pub fn routes(audit: Arc<Audit>) -> Router {
    Router::new()
        .route("/v1/events", get(events::list))
        .route("/v1/events/{id}", get(events::by_id))
        .route("/v1/agents", get(agents::list))
        .route("/v1/stats", get(agents::stats))
        .route("/v1/verify", get(agents::verify))
        .route("/v1/merkle/root", get(log::root))
        .route("/v1/proof", get(log::proof))
        .route("/v1/consistency", get(log::consistency))
        .route("/v1/export", get(export::export))
        .route("/log/checkpoint", get(log::checkpoint))
        .route("/log/tile/{*path}", get(log::tile))
        .with_state(audit)
}
