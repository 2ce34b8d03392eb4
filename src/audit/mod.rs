//! The read API over the ledger and its log: lists, single events, agents, totals, verification, proofs and evidence
//! packages.
//!
//! The calls are specified in `docs/http-api.md`. This stage owns no state of the ledger; it only remembers the last
//! verdict on each chain.
//!
//! The database is read on blocking threads. Responses that may be long are streamed in chunks, each made when the
//! client has read the one before.

mod agents;
pub mod backup;
mod context;
mod erasure;
mod events;
pub mod export;
mod filter;
mod log;
mod package_parts;
mod receipt;
mod recorder_part;
pub mod repair;
mod retention;
mod retention_part;
mod source;
mod streamed_response;
mod verdicts;
pub mod verify;

use std::sync::Arc;

use axum::Router;
use axum::routing::get;

pub use context::Audit;
pub use erasure::{Eraser, EraserThread, RelayErasure, erasure_routes};
pub use package_parts::ExportRange;
pub use receipt::receipts;
pub use retention::{Accepted, Dropper, erase_old};

/// The route of backups, which contain every event.
pub fn backup_routes(audit: Arc<Audit>) -> Router {
    Router::new().route("/v1/backup", get(backup::backup)).with_state(audit)
}

/// The routes of the read API.
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
        .with_state(Arc::clone(&audit))
        .merge(erasure::read_routes(audit))
}
