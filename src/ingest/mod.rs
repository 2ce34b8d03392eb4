//! Accepts, validates and dispatches events. One file per wire format.
//!
//! This module does not store events: it sends each validated event to the queue of its shard and writes the response
//! when the shard returns the outcome. The calls are specified in `docs/http-api.md`, `docs/agnost.md` and
//! `docs/otlp.md`, the rules of an event in `docs/events.md`.

mod accept;
pub mod agnost;
mod body;
mod config;
mod dispatch;
mod fast_path;
mod metrics;
mod native;
pub mod otlp;
mod redact;
mod request_memory;
mod stage;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::routing::post;
use axum::{Extension, Router};

pub use config::{AgnostConfig, IngestConfig, LimitsConfig, MetricsExports, OtlpConfig, Select};
pub use fast_path::IngestFastPath;
pub use metrics::RefusalCounts;
pub use otlp::with_status as otlp_status;
pub use redact::{RedactionConfig, Redactor};
pub use request_memory::{RequestMemory, working_bytes};
pub use stage::Ingest;

use crate::auth::Client;

/// The calls of Cairn's own API that receive events.
pub fn routes(ingest: Arc<Ingest>) -> Router {
    type Call = (State<Arc<Ingest>>, Extension<Client>);
    let event = |(State(ingest), Extension(client)): Call, request: Request| native::event(ingest, client, request);
    let batch = |(State(ingest), Extension(client)): Call, request: Request| native::batch(ingest, client, request);
    Router::new().route("/v1/events", post(event)).route("/v1/batch", post(batch)).with_state(ingest)
}

/// The calls of the Agnost SDKs; none if `ingest.agnost.enabled` is false.
pub fn agnost_routes(ingest: Arc<Ingest>) -> Router {
    if !ingest.agnost.enabled {
        return Router::new();
    }
    Router::new()
        .route("/api/v1/capture-session", post(agnost::session))
        .route("/api/v1/capture-event", post(agnost::event))
        .with_state(ingest)
}

/// The calls of OpenTelemetry exporters; none if `ingest.otlp.enabled` is false. Exporters expect errors in the form of
/// [`otlp_status`].
pub fn otlp_routes(ingest: Arc<Ingest>) -> Router {
    let routes = if ingest.otlp.enabled { otlp::routes() } else { Router::new() };
    routes.with_state(ingest)
}
