//! The routes of each port, and the scopes that their keys need.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{Response, StatusCode};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::IntoResponse;
use axum::routing::get;

use crate::audit::{self, Audit};
use crate::auth::{self, Guard, RequiredScopes, Scopes};
use crate::http::{ApiError, grpc, json_response};
use crate::ingest::{self, Ingest};
use crate::relay::{self, Relay};
use crate::text::did_you_mean;

/// The OpenAPI 3.1 description of all calls.
const OPENAPI: &str = include_str!("openapi.json");

/// What a person gets who opens the address of the server.
const INDEX: &str = concat!(
    "Cairn ",
    env!("CARGO_PKG_VERSION"),
    ": a verifiable record of what AI agents did.\n\n",
    include_str!("index.txt")
);

/// The routes of the public addresses. If keys are configured, every request needs one, even to a path that does not
/// exist.
pub fn public(ingest: Arc<Ingest>, relay: Arc<Relay>, audit: Arc<Audit>, guard: &Arc<Guard>) -> Router {
    let with_receipts = from_fn_with_state(Arc::clone(&audit), audit::receipts);
    let otlp = otlp(Arc::clone(&ingest), guard);
    let native = ingest::routes(Arc::clone(&ingest)).layer(with_receipts);
    let events = require_scopes(native.merge(ingest::agnost_routes(ingest)), guard, Scopes::INGEST);
    let backup = audit::backup_routes(Arc::clone(&audit));
    let erasures = require_scopes(audit::erasure_routes(Arc::clone(&audit)), guard, Scopes::ERASE);
    let reads = require_scopes(audit::routes(audit).merge(relay::read_routes(Arc::clone(&relay))), guard, Scopes::READ);
    // These calls change what is sent, and their responses contain events.
    let repairs = require_scopes(relay::dead_letter_routes(relay).merge(backup), guard, Scopes::ALL);
    let about = Router::new()
        .route("/", get(|| async { INDEX }))
        .route("/openapi.json", get(|| async { json_response(StatusCode::OK, OPENAPI) }));
    let all = with_fallbacks(about.merge(events).merge(reads).merge(repairs).merge(erasures));
    all.layer(from_fn_with_state(Arc::clone(guard), auth::identify)).merge(otlp)
}

/// The routes for OpenTelemetry exporters, served on the public addresses and on `ingest.otlp.listen`.
pub fn otlp(ingest: Arc<Ingest>, guard: &Arc<Guard>) -> Router {
    let routes = require_scopes(ingest::otlp_routes(ingest), guard, Scopes::INGEST);
    routes.layer(from_fn_with_state(Arc::clone(guard), auth::identify)).layer(from_fn(ingest::otlp_status))
}

/// Adds the check that the key of a caller has these scopes.
fn require_scopes(routes: Router, guard: &Arc<Guard>, scopes: Scopes) -> Router {
    // There are none if a feature is turned off, and `route_layer` panics on an empty router.
    if !routes.has_routes() {
        return routes;
    }
    routes.route_layer(from_fn_with_state(RequiredScopes { guard: Arc::clone(guard), scopes }, auth::require))
}

/// Adds the responses for unknown paths and methods.
pub fn with_fallbacks(routes: Router) -> Router {
    routes.method_not_allowed_fallback(unknown_method).fallback(unknown_path)
}

/// The paths of the public addresses, for the counts of refused requests and for suggestions.
pub const PATHS: [&str; 25] = [
    "/api/v1/capture-event",
    "/api/v1/capture-session",
    "/api/public/otel/v1/traces",
    "/grpc.health.v1.Health",
    "/log",
    "/openapi.json",
    "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
    "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
    "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    "/v1/agents",
    "/v1/backup",
    "/v1/batch",
    "/v1/consistency",
    "/v1/erasures",
    "/v1/events",
    "/v1/export",
    "/v1/holds",
    "/v1/logs",
    "/v1/merkle/root",
    "/v1/metrics",
    "/v1/proof",
    "/v1/relay",
    "/v1/stats",
    "/v1/traces",
    "/v1/verify",
];

/// Those that carry events.
pub const EVENT_PATHS: [&str; 9] = [
    "/api/v1/capture-event",
    "/api/v1/capture-session",
    "/api/public/otel/v1/traces",
    "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
    "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    "/v1/batch",
    "/v1/events",
    "/v1/logs",
    "/v1/traces",
];

async fn unknown_path(request: Request) -> Response<Body> {
    if grpc::is_grpc(request.headers()) {
        let message = "there is no such call of gRPC: there are Export of the OTLP services and grpc.health.v1.Health";
        return grpc::failure(ApiError::not_found(message));
    }
    let path = request.uri().path();
    // Exporters are often given a prefix, or none: the end of the path tells what was meant.
    let is_meant = |known: &&&str| path.ends_with(**known) || known.ends_with(path) && path.len() > 1;
    let known = PATHS.iter().filter(is_meant).min_by_key(|known| known.len());
    let hint = known.copied().or_else(|| did_you_mean(path, &PATHS)).map(|known| format!(": did you mean {known}?"));
    let message = format!("there is no such path{}; /openapi.json describes all", hint.unwrap_or_default());
    ApiError::not_found(message).into_response()
}

async fn unknown_method() -> impl IntoResponse {
    ApiError::method_not_allowed()
}
