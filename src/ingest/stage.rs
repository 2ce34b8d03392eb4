//! The shared state of all calls that receive events.

use std::sync::Arc;

use ::metrics::Counter;
use arc_swap::ArcSwap;

use super::config::{AgnostConfig, IngestConfig, LimitsConfig, OtlpConfig};
use super::dispatch::Dispatch;
use super::metrics::{self, DiscardedMetrics, RefusalCounts, RouteMetrics};
use super::otlp::{Mapping, mapping};
use super::redact::{RedactionConfig, Redactor};
use super::request_memory::RequestMemory;
use crate::auth::RateLimiter;
use crate::ledger::Ledger;
use crate::ledger::shard::config::QueueConfig;
use crate::text::settings::InvalidSetting;
use cairn_proof::chain::{DefaultLabels, EventSource};

/// The ingest stage: the state that its calls share.
pub struct Ingest {
    pub(super) ledger: Arc<Ledger>,
    pub(super) limits: ArcSwap<LimitsConfig>,
    pub(super) rates: RateLimiter,
    pub(super) labels: Arc<DefaultLabels>,
    /// For requests of the Agnost SDKs, and for all others.
    pub(super) redactors: [Redactor; 2],
    pub(super) dispatch: Dispatch,
    pub(super) memory: Arc<RequestMemory>,
    pub(super) events_metrics: RouteMetrics,
    pub(super) batch_metrics: RouteMetrics,
    pub(super) agnost: AgnostConfig,
    pub(super) agnost_session_metrics: RouteMetrics,
    pub(super) agnost_event_metrics: RouteMetrics,
    pub(super) otlp: OtlpConfig,
    pub(super) otlp_mapping: Mapping,
    pub(super) traces_metrics: RouteMetrics,
    pub(super) logs_metrics: RouteMetrics,
    pub(super) unselected: Counter,
    pub(super) discarded_metrics: DiscardedMetrics,
    refusals: Arc<RefusalCounts>,
}

impl Ingest {
    /// Creates the stage and registers its metrics with the current recorder.
    ///
    /// # Errors
    /// When a rule of the redaction is invalid.
    pub fn new(
        ledger: Arc<Ledger>,
        config: IngestConfig,
        redaction: &RedactionConfig,
        limits: LimitsConfig,
        queue: &QueueConfig,
    ) -> Result<Arc<Ingest>, InvalidSetting> {
        let redactor = Redactor::new(redaction)?;
        let refusals = Arc::default();
        let route = |route| RouteMetrics::register(route, &refusals);
        Ok(Arc::new(Ingest {
            redactors: [redactor.for_agnost(), redactor],
            labels: Arc::clone(ledger.default_labels()),
            dispatch: Dispatch::new(&ledger, queue.max_wait),
            memory: Arc::new(RequestMemory::new(limits.inflight_bytes.as_u64(), queue.max_wait)),
            events_metrics: route("/v1/events"),
            batch_metrics: route("/v1/batch"),
            agnost: config.agnost,
            agnost_session_metrics: route("/api/v1/capture-session"),
            agnost_event_metrics: route("/api/v1/capture-event"),
            otlp_mapping: mapping::build(&config.otlp.mapping),
            otlp: config.otlp,
            traces_metrics: route("/v1/traces"),
            logs_metrics: route("/v1/logs"),
            unselected: metrics::unselected(),
            discarded_metrics: DiscardedMetrics::register(),
            refusals: Arc::clone(&refusals),
            ledger,
            rates: RateLimiter::new(limits.events_per_second),
            limits: ArcSwap::from_pointee(limits),
        }))
    }

    /// What the server adds to the events of an API, and removes from them.
    pub(super) fn source(&self, api: EventSource<'static>) -> EventSource<'_> {
        let [agnost, others] = &self.redactors;
        let redactor = if api.source == EventSource::AGNOST_API.source { agnost } else { others };
        api.with_labels(&self.labels).with_salt(self.ledger.config().salt).with_redactor(redactor)
    }

    /// The memory of all requests.
    pub fn memory(&self) -> &Arc<RequestMemory> {
        &self.memory
    }

    /// The refused events by reason.
    pub fn refusals(&self) -> &Arc<RefusalCounts> {
        &self.refusals
    }

    /// The current limits.
    pub fn limits(&self) -> LimitsConfig {
        **self.limits.load()
    }

    /// Replaces the limits. Requests that have started keep the old ones.
    pub fn set_limits(&self, limits: LimitsConfig) {
        self.rates.set_rate(limits.events_per_second);
        self.memory.set_limit(limits.inflight_bytes.as_u64());
        self.limits.store(Arc::new(limits));
    }
}
