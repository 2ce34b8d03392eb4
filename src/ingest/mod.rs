//! Events on their way in: accept, validate, dispatch. One file per wire format.
//!
//! Nothing here knows how events are stored: a validated event goes to the queue of its shard, and the answer is
//! made when its outcome comes back.

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
mod stage;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::routing::post;
use axum::{Extension, Router};

pub use config::{AgnostConfig, IngestConfig, LimitsConfig, OtlpConfig, Select};
pub use fast_path::IngestFastPath;
pub use otlp::with_status as otlp_status;
pub use stage::Ingest;

use crate::auth::Client;

/// The calls that take events.
pub fn routes(ingest: Arc<Ingest>) -> Router {
    type Call = (State<Arc<Ingest>>, Extension<Client>);
    let event = |(State(ingest), Extension(client)): Call, request: Request| native::event(ingest, client, request);
    let batch = |(State(ingest), Extension(client)): Call, request: Request| native::batch(ingest, client, request);
    Router::new().route("/v1/events", post(event)).route("/v1/batch", post(batch)).with_state(ingest)
}

/// The calls of the Agnost SDKs.
pub fn agnost_routes(ingest: Arc<Ingest>) -> Router {
    if !ingest.agnost.enabled {
        return Router::new();
    }
    Router::new()
        .route("/api/v1/capture-session", post(agnost::session))
        .route("/api/v1/capture-event", post(agnost::event))
        .with_state(ingest)
}

/// The calls of OpenTelemetry's exporters, who expect their problems in the form of [`otlp_status`].
pub fn otlp_routes(ingest: Arc<Ingest>) -> Router {
    let routes = if ingest.otlp.enabled { otlp::routes() } else { Router::new() };
    routes.with_state(ingest)
}
