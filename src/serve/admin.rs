//! The admin port: `/metrics`, `/healthz`, `/readyz`. It does not serve events. `docs/metrics.md` describes the metrics
//! and probes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use metrics::{Gauge, Unit, describe_gauge, gauge};

use super::metrics::Metrics;
use crate::http::{ApiError, ConnectionLimits, Readers};
use crate::ingest::RequestMemory;
use crate::ledger::Ledger;
use crate::relay::Relay;
use crate::tlog::Log;

/// The shared state of the calls of the admin port.
pub struct Admin {
    ledger: Arc<Ledger>,
    relay: Arc<Relay>,
    log: Arc<Log>,
    metrics: Arc<Metrics>,
    process: metrics_process::Collector,
    request_memory: Arc<RequestMemory>,
    readers: Arc<Readers>,
    inflight_bytes: Gauge,
    response_bytes: Gauge,
    connections: Arc<ConnectionLimits>,
    open_connections: Gauge,
    ready: Gauge,
    draining: AtomicBool,
}

impl Admin {
    /// Creates the state and registers its metrics.
    pub fn new(
        (ledger, relay, log): (Arc<Ledger>, Arc<Relay>, Arc<Log>),
        metrics: Arc<Metrics>,
        (request_memory, readers): (Arc<RequestMemory>, Arc<Readers>),
        connections: Arc<ConnectionLimits>,
    ) -> Arc<Admin> {
        let (process, ready, (inflight_bytes, response_bytes), open_connections) = metrics.scope(|| {
            describe_gauge!(
                "cairn_inflight_bytes",
                Unit::Bytes,
                "Memory of requests that bring events, of all connections, bounded by limits.inflight_bytes."
            );
            describe_gauge!(
                "cairn_response_bytes",
                Unit::Bytes,
                "Memory of responses of all connections, bounded by limits.response_bytes."
            );
            describe_gauge!(
                "cairn_connections",
                "Open connections to listen and to the addresses of OTLP, bounded by limits.connections."
            );
            describe_gauge!("cairn_ready", "1 if the server accepts events, otherwise 0.");
            describe_gauge!("cairn_build_info", Unit::Count, "Always 1. The labels contain version and revision.");
            let revision = option_env!("BUILD_REVISION").unwrap_or("unknown");
            gauge!("cairn_build_info", "version" => env!("CARGO_PKG_VERSION"), "revision" => revision).set(1.0);
            let process = metrics_process::Collector::default();
            process.describe();
            let bytes = (gauge!("cairn_inflight_bytes"), gauge!("cairn_response_bytes"));
            (process, gauge!("cairn_ready"), bytes, gauge!("cairn_connections"))
        });
        Arc::new(Admin {
            ledger,
            relay,
            log,
            metrics,
            process,
            request_memory,
            readers,
            inflight_bytes,
            response_bytes,
            connections,
            open_connections,
            ready,
            draining: AtomicBool::new(false),
        })
    }

    /// Marks the process as shutting down: from now on it is not ready.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether the process is shutting down.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// The reason why the server does not accept events; `None` if it does.
    pub fn not_ready(&self) -> Option<String> {
        if self.is_draining() {
            return Some("shutting down".to_owned());
        }
        let space = self.ledger.space();
        if let Some(why) = space.disk_full() {
            return Some(space.explain(why));
        }
        space.is_failing().then(|| "commits fail because of a lack of disk space".to_owned())
    }
}

/// The routes of the admin port.
pub fn routes(admin: Arc<Admin>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(admin)
}

async fn metrics(State(admin): State<Arc<Admin>>) -> Response {
    admin.ready.set(if admin.not_ready().is_none() { 1.0 } else { 0.0 });
    admin.ledger.observe();
    admin.relay.observe();
    admin.log.observe();
    admin.open_connections.set(admin.connections.open() as f64);
    admin.inflight_bytes.set(admin.request_memory.used() as f64);
    admin.response_bytes.set(admin.readers.used() as f64);
    admin.metrics.scope(|| admin.process.collect());
    let mut response = admin.metrics.render().into_response();
    let content_type = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}

async fn ready(State(admin): State<Arc<Admin>>) -> Response {
    match admin.not_ready() {
        None => (StatusCode::OK, "ready\n").into_response(),
        Some(why) => ApiError::unavailable(why).into_response(),
    }
}
