//! The routes of each port, and the scopes that their keys need.

use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::IntoResponse;
use axum::routing::get;

use crate::audit::{self, Audit};
use crate::auth::{self, Guard, RequiredScopes, Scopes};
use crate::http::{ApiError, json_response};
use crate::ingest::{self, Ingest};
use crate::relay::{self, Relay};

/// The OpenAPI 3.1 description of all calls.
const OPENAPI: &str = include_str!("openapi.json");

/// The routes of the public addresses. If keys are configured, every request needs one, even to a path that does not
/// exist.
pub fn public(ingest: Arc<Ingest>, relay: Arc<Relay>, audit: Arc<Audit>, guard: &Arc<Guard>) -> Router {
    let with_receipts = from_fn_with_state(Arc::clone(&audit), audit::receipts);
    let otlp = otlp(Arc::clone(&ingest), guard);
    let native = ingest::routes(Arc::clone(&ingest)).layer(with_receipts);
    let events = require_scopes(native.merge(ingest::agnost_routes(ingest)), guard, Scopes::INGEST);
    let reads = require_scopes(audit::routes(audit).merge(relay::read_routes(Arc::clone(&relay))), guard, Scopes::READ);
    // These calls change what is sent, and their responses contain events.
    let repairs = require_scopes(relay::dead_letter_routes(relay), guard, Scopes::ALL);
    let openapi = Router::new().route("/openapi.json", get(|| async { json_response(StatusCode::OK, OPENAPI) }));
    let all = with_fallbacks(openapi.merge(events).merge(reads).merge(repairs));
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

async fn unknown_path() -> impl IntoResponse {
    ApiError::not_found("there is no such path")
}

async fn unknown_method() -> impl IntoResponse {
    ApiError::method_not_allowed()
}
