//! The port for operators: `/metrics`, `/healthz`, `/readyz`. It carries no events.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use metrics::{Gauge, Unit, describe_gauge, gauge, with_local_recorder};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use crate::http::{ConnectionLimits, Inflight, Problem};
use crate::ledger::{Ledger, LedgerMetrics};
use crate::relay::Relay;
use crate::tlog::Log;

/// Bounds of a time from the shortest answer to the longest wait, in seconds.
const SECONDS: [f64; 16] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Bounds of a number of events.
const EVENTS: [f64; 10] = [1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 500.0, 2000.0, 10_000.0];

/// Where the numbers of this server are kept. Each server has its own, so that several can run in one process.
pub struct Metrics {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
}

impl Metrics {
    /// Nothing yet.
    ///
    /// # Errors
    /// When the bounds of a histogram make no sense, which a test would see.
    pub fn new() -> Result<Metrics, BuildError> {
        let mut builder = PrometheusBuilder::new();
        for name in [
            "ingest_request_duration_seconds",
            "queue_wait_seconds",
            "commit_duration_seconds",
            "relay_request_duration_seconds",
        ] {
            builder = builder.set_buckets_for_metric(Matcher::Full(format!("cairn_{name}")), &SECONDS)?;
        }
        builder = builder.set_buckets_for_metric(Matcher::Full("cairn_commit_events".to_owned()), &EVENTS)?;
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        Ok(Metrics { recorder, handle })
    }

    /// Everything that registers within `work` is kept here.
    pub fn scope<T>(&self, work: impl FnOnce() -> T) -> T {
        with_local_recorder(&self.recorder, work)
    }

    /// Moves what histograms have gathered to where it takes no more room. Has to run now and then.
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
    }
}

/// What the calls of this port share.
pub struct Admin {
    ledger: Arc<Ledger>,
    relay: Arc<Relay>,
    log: Arc<Log>,
    metrics: Arc<Metrics>,
    ledger_metrics: LedgerMetrics,
    process: metrics_process::Collector,
    inflight: Inflight,
    inflight_bytes: Gauge,
    connections: Arc<ConnectionLimits>,
    open: Gauge,
    ready: Gauge,
    draining: AtomicBool,
}

impl Admin {
    /// Over a running ledger, its log and its relay.
    pub fn new(
        ledger: Arc<Ledger>,
        relay: Arc<Relay>,
        log: Arc<Log>,
        metrics: Arc<Metrics>,
        (inflight, connections): (Inflight, Arc<ConnectionLimits>),
    ) -> Arc<Admin> {
        let (ledger_metrics, process, ready, inflight_bytes, open) = metrics.scope(|| {
            describe_gauge!(
                "cairn_inflight_bytes",
                Unit::Bytes,
                "Memory of the bodies and answers of all connections; limits.inflight_bytes is its bound."
            );
            describe_gauge!(
                "cairn_connections",
                "Open connections that bring events or read; limits.connections is their bound."
            );
            describe_gauge!("cairn_ready", "Whether events are taken: 1 or 0.");
            describe_gauge!("cairn_build_info", Unit::Count, "Always 1; what was built is in the labels.");
            let revision = option_env!("BUILD_REVISION").unwrap_or("unknown");
            gauge!("cairn_build_info", "version" => env!("CARGO_PKG_VERSION"), "revision" => revision).set(1.0);
            let process = metrics_process::Collector::default();
            process.describe();
            let ledger_metrics = LedgerMetrics::register(ledger.committed().shards());
            let (ready, inflight_bytes) = (gauge!("cairn_ready"), gauge!("cairn_inflight_bytes"));
            (ledger_metrics, process, ready, inflight_bytes, gauge!("cairn_connections"))
        });
        Arc::new(Admin {
            ledger,
            relay,
            log,
            metrics,
            ledger_metrics,
            process,
            inflight,
            inflight_bytes,
            connections,
            open,
            ready,
            draining: AtomicBool::new(false),
        })
    }

    /// From now on the process is on its way out.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Why no events are taken, if so.
    fn not_ready(&self) -> Option<String> {
        if self.draining.load(Ordering::Relaxed) {
            return Some("shutting down".to_owned());
        }
        let space = self.ledger.space();
        if let Some(why) = space.no_room() {
            return Some(space.explain(why));
        }
        space.is_failing().then(|| "commits fail for want of space".to_owned())
    }
}

/// The calls of this port.
pub fn routes(admin: Arc<Admin>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(admin)
}

async fn metrics(State(admin): State<Arc<Admin>>) -> Response {
    admin.ready.set(if admin.not_ready().is_none() { 1.0 } else { 0.0 });
    admin.ledger_metrics.observe(&admin.ledger);
    admin.relay.observe();
    admin.log.observe();
    admin.open.set(admin.connections.open() as f64);
    admin.inflight_bytes.set(admin.inflight.used() as f64);
    admin.metrics.scope(|| admin.process.collect());
    // The library's counters are whole numbers, so seconds are in a gauge there; they are a counter all the same.
    let text = admin.metrics.handle.render().replacen(
        "# TYPE process_cpu_seconds_total gauge",
        "# TYPE process_cpu_seconds_total counter",
        1,
    );
    let mut response = text.into_response();
    let text = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, text);
    response
}

async fn ready(State(admin): State<Arc<Admin>>) -> Response {
    match admin.not_ready() {
        None => (StatusCode::OK, "ready\n").into_response(),
        Some(why) => Problem::unavailable(why).into_response(),
    }
}
