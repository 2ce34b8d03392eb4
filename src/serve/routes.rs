//! Which calls there are on each port, and what key they need.

use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::IntoResponse;
use axum::routing::get;

use crate::audit::{self, Audit};
use crate::auth::{self, Guard, Need, Scopes};
use crate::http::{ApiError, json_response};
use crate::ingest::{self, Ingest};
use crate::relay::{self, Relay};

/// What the calls are, for programs: OpenAPI 3.1.
const OPENAPI: &str = include_str!("openapi.json");

/// The calls of the public port. With keys, each of them needs one, also those that do not exist.
pub fn public(ingest: Arc<Ingest>, relay: Arc<Relay>, audit: Arc<Audit>, guard: &Arc<Guard>) -> Router {
    let with_receipts = from_fn_with_state(Arc::clone(&audit), audit::receipts);
    let otlp = otlp(Arc::clone(&ingest), guard);
    let native = ingest::routes(Arc::clone(&ingest)).layer(with_receipts);
    let events = needing(native.merge(ingest::agnost_routes(ingest)), guard, Scopes::INGEST);
    let reads = needing(audit::routes(audit).merge(relay::reads(Arc::clone(&relay))), guard, Scopes::READ);
    // They change what goes out, and what they answer is what was sent.
    let repairs = needing(relay::repairs(relay), guard, Scopes::ALL);
    let openapi = Router::new().route("/openapi.json", get(|| async { json_response(StatusCode::OK, OPENAPI) }));
    let all = with_fallbacks(openapi.merge(events).merge(reads).merge(repairs));
    all.layer(from_fn_with_state(Arc::clone(guard), auth::identify)).merge(otlp)
}

/// The calls of OpenTelemetry's exporters, on the public port and on one of their own.
pub fn otlp(ingest: Arc<Ingest>, guard: &Arc<Guard>) -> Router {
    let routes = needing(ingest::otlp_routes(ingest), guard, Scopes::INGEST);
    routes.layer(from_fn_with_state(Arc::clone(guard), auth::identify)).layer(from_fn(ingest::otlp_status))
}

/// Routes whose callers have to be good for something.
fn needing(routes: Router, guard: &Arc<Guard>, scopes: Scopes) -> Router {
    // Some are turned off.
    if !routes.has_routes() {
        return routes;
    }
    routes.route_layer(from_fn_with_state(Need { guard: Arc::clone(guard), scopes }, auth::require))
}

/// What is answered where there is no call.
pub fn with_fallbacks(routes: Router) -> Router {
    routes.method_not_allowed_fallback(no_method).fallback(no_path)
}

async fn no_path() -> impl IntoResponse {
    ApiError::not_found("there is no such path")
}

async fn no_method() -> impl IntoResponse {
    ApiError::method_not_allowed()
}
