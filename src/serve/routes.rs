//! Which calls there are on each port, and what key they need.

use std::sync::Arc;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::IntoResponse;

use crate::access::{self, Guard, Need, Scopes};
use crate::audit::{self, Audit};
use crate::http::Problem;
use crate::ingest::{self, Ingest};
use crate::relay::{self, Relay};

/// The calls of the public port. With keys, each of them needs one, also those that do not exist.
pub fn public(ingest: Arc<Ingest>, relay: Arc<Relay>, audit: Arc<Audit>, guard: &Arc<Guard>) -> Router {
    let with_receipts = from_fn_with_state(Arc::clone(&audit), audit::receipts);
    let otlp = otlp(Arc::clone(&ingest), guard);
    let ingest = guarded(ingest::routes(ingest).layer(with_receipts), guard, Scopes::INGEST);
    let reads = guarded(audit::routes(audit).merge(relay::reads(Arc::clone(&relay))), guard, Scopes::READ);
    // They change what goes out, and what they answer is what was sent.
    let repairs = guarded(relay::repairs(relay), guard, Scopes::ALL);
    let unknown = guarded(with_fallbacks(Router::new()), guard, Scopes::NONE);
    unknown.merge(ingest).merge(reads).merge(repairs).merge(otlp)
}

/// The calls of the port that is for OpenTelemetry's exporters alone.
pub fn otlp_port(ingest: Arc<Ingest>, guard: &Arc<Guard>) -> Router {
    with_fallbacks(otlp(ingest, guard))
}

fn otlp(ingest: Arc<Ingest>, guard: &Arc<Guard>) -> Router {
    guarded(ingest::otlp_routes(ingest), guard, Scopes::INGEST).layer(from_fn(ingest::otlp_status))
}

fn guarded(routes: Router, guard: &Arc<Guard>, scopes: Scopes) -> Router {
    let need = Need { guard: Arc::clone(guard), scopes };
    routes.layer(from_fn_with_state(need, access::require))
}

/// What is answered where there is no call.
pub fn with_fallbacks(routes: Router) -> Router {
    routes
        .fallback(|| async { Problem::not_found("there is no such path").into_response() })
        .method_not_allowed_fallback(|| async { Problem::method_not_allowed().into_response() })
}
