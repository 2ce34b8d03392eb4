//! Events on their way in: accept, validate, dispatch. One file per wire format.
//!
//! Nothing here knows how events are stored: a validated event goes to the queue of its shard, and the answer is
//! made when its outcome comes back.

mod accept;
pub mod agnost;
mod body;
mod config;
mod dispatch;
mod metrics;
mod native;
pub mod otlp;
mod redact;
mod shortcut;

use std::sync::Arc;

use ::metrics::Counter;
use arc_swap::ArcSwap;
use axum::extract::{Request, State};
use axum::routing::post;
use axum::{Extension, Router};

pub use config::{AgnostConfig, IngestConfig, LimitsConfig, OtlpConfig, Select};
pub use otlp::with_status as otlp_status;
pub use shortcut::IngestShortcut;

use crate::access::{Client, Rates};
use crate::chain::DefaultLabels;
use crate::http::Inflight;
use crate::ledger::{Ledger, QueueConfig};
use dispatch::Dispatch;
use metrics::RouteMetrics;

/// What the calls of this stage share.
pub struct Ingest {
    ledger: Arc<Ledger>,
    limits: ArcSwap<LimitsConfig>,
    rates: Rates,
    labels: Arc<DefaultLabels>,
    dispatch: Dispatch,
    inflight: Inflight,
    events_metrics: RouteMetrics,
    batch_metrics: RouteMetrics,
    agnost: AgnostConfig,
    agnost_session_metrics: RouteMetrics,
    agnost_event_metrics: RouteMetrics,
    otlp: OtlpConfig,
    traces_metrics: RouteMetrics,
    logs_metrics: RouteMetrics,
    unselected: Counter,
}

impl Ingest {
    /// Registers its metrics with the recorder that is in force.
    pub fn new(
        ledger: Arc<Ledger>,
        config: IngestConfig,
        limits: LimitsConfig,
        queue: &QueueConfig,
        inflight: Inflight,
    ) -> Arc<Ingest> {
        Arc::new(Ingest {
            labels: Arc::clone(ledger.default_labels()),
            dispatch: Dispatch::new(&ledger, queue.max_wait),
            inflight,
            events_metrics: RouteMetrics::register("/v1/events"),
            batch_metrics: RouteMetrics::register("/v1/batch"),
            agnost: config.agnost,
            agnost_session_metrics: RouteMetrics::register("/api/v1/capture-session"),
            agnost_event_metrics: RouteMetrics::register("/api/v1/capture-event"),
            otlp: config.otlp,
            traces_metrics: RouteMetrics::register("/v1/traces"),
            logs_metrics: RouteMetrics::register("/v1/logs"),
            unselected: metrics::unselected(),
            ledger,
            rates: Rates::new(limits.events_per_second),
            limits: ArcSwap::from_pointee(limits),
        })
    }

    /// What a request may take now.
    fn limits(&self) -> LimitsConfig {
        **self.limits.load()
    }

    /// These limits, for requests from now on.
    pub fn change(&self, limits: LimitsConfig) {
        self.rates.change(limits.events_per_second);
        self.inflight.change(limits.inflight_bytes.as_u64());
        self.limits.store(Arc::new(limits));
    }
}

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
