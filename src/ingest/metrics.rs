//! The metrics of ingest. Handles are registered once, at start; none is looked up per request. `docs/metrics.md` lists
//! them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Once};
use std::time::Duration;

use axum::body::Body;
use axum::http::{Response, StatusCode};
use axum::response::IntoResponse;
use metrics::{Counter, Histogram, Unit, counter, describe_counter, describe_histogram, histogram};

use crate::http::{ApiError, Logged};
use crate::runtime::LogThrottle;

/// The minimum interval between log lines about refusals of one route.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// The statuses with which a call can answer.
const CODES: [StatusCode; 11] = [
    StatusCode::OK,
    StatusCode::CREATED,
    StatusCode::MULTI_STATUS,
    StatusCode::BAD_REQUEST,
    StatusCode::REQUEST_TIMEOUT,
    StatusCode::CONFLICT,
    StatusCode::PAYLOAD_TOO_LARGE,
    StatusCode::UNSUPPORTED_MEDIA_TYPE,
    StatusCode::TOO_MANY_REQUESTS,
    StatusCode::INTERNAL_SERVER_ERROR,
    StatusCode::SERVICE_UNAVAILABLE,
];

/// Why an event was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Reason {
    /// The event or the request is malformed.
    Invalid,
    /// The event or the request is too large.
    TooLarge,
    /// The id belongs to a different event.
    IdTaken,
    /// The queue or the memory for requests is full.
    Busy,
    /// The process is shutting down.
    Draining,
    /// The disk or the ledger is full.
    NoSpace,
    /// The commit failed, or the ledger could not be read.
    StoreFailed,
    /// The client exceeds its rate limit.
    RateLimited,
}

impl Reason {
    const ALL: [(Reason, &str); 8] = [
        (Reason::Invalid, "invalid"),
        (Reason::TooLarge, "too_large"),
        (Reason::IdTaken, "id_taken"),
        (Reason::Busy, "busy"),
        (Reason::Draining, "draining"),
        (Reason::NoSpace, "no_space"),
        (Reason::StoreFailed, "store_failed"),
        (Reason::RateLimited, "rate_limited"),
    ];
}

/// Requests that carry events and were refused before this stage saw them, each counted as one event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Unseen {
    /// The API key is missing or unknown.
    Unauthorized,
    /// The key or the host of the caller does not permit the request.
    Forbidden,
    /// Any other reason.
    Rejected,
}

impl Unseen {
    const ALL: [(Unseen, &str); 3] =
        [(Unseen::Unauthorized, "unauthorized"), (Unseen::Forbidden, "forbidden"), (Unseen::Rejected, "rejected")];
}

/// The refused events by reason, for the chain of the recorder.
#[derive(Default)]
pub struct RefusalCounts {
    refused: [AtomicU64; Reason::ALL.len()],
    unseen: [AtomicU64; Unseen::ALL.len()],
}

impl RefusalCounts {
    /// Counts a request that was refused before this stage saw it.
    pub fn add_unseen(&self, status: StatusCode) {
        let reason = match status {
            StatusCode::UNAUTHORIZED => Unseen::Unauthorized,
            StatusCode::FORBIDDEN => Unseen::Forbidden,
            _ => Unseen::Rejected,
        };
        self.unseen[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// The counts since the last call that are not 0.
    pub fn take(&self) -> Vec<(&'static str, u64)> {
        let refused = self.refused.iter().zip(Reason::ALL.map(|(_, name)| name));
        let all = refused.chain(self.unseen.iter().zip(Unseen::ALL.map(|(_, name)| name)));
        all.map(|(count, name)| (name, count.swap(0, Ordering::Relaxed))).filter(|(_, count)| *count > 0).collect()
    }
}

/// The metrics of one route.
pub struct RouteMetrics {
    route: &'static str,
    requests: [Counter; CODES.len()],
    refused: [Counter; Reason::ALL.len()],
    counts: Arc<RefusalCounts>,
    duration: Histogram,
    refusal_log: LogThrottle,
    warning_log: LogThrottle,
    /// Events that were stored, without those that were stored before.
    pub accepted: Counter,
    /// Bytes of decompressed bodies.
    pub bytes: Counter,
}

impl RouteMetrics {
    /// Registers the metrics of `route` with the current recorder. `counts` are those of all routes.
    pub fn register(route: &'static str, counts: &Arc<RefusalCounts>) -> RouteMetrics {
        describe_counter!("cairn_ingest_requests_total", "Requests that carry events, by route and status.");
        describe_counter!("cairn_ingest_accepted_events_total", "Events stored.");
        describe_counter!(
            "cairn_ingest_refused_events_total",
            Unit::Count,
            "Events refused, by reason; 1 for a request that is refused before its events are counted."
        );
        describe_counter!("cairn_ingest_bytes_total", Unit::Bytes, "Bytes of request bodies that carry events.");
        describe_histogram!(
            "cairn_ingest_request_duration_seconds",
            Unit::Seconds,
            "Time from the head of a request to its response."
        );
        RouteMetrics {
            route,
            requests: CODES.map(
                |code| counter!("cairn_ingest_requests_total", "route" => route, "code" => code.as_str().to_owned()),
            ),
            refused: Reason::ALL.map(|(_, reason)| counter!("cairn_ingest_refused_events_total", "reason" => reason)),
            counts: Arc::clone(counts),
            duration: histogram!("cairn_ingest_request_duration_seconds", "route" => route),
            refusal_log: LogThrottle::new(LOG_INTERVAL),
            warning_log: LogThrottle::new(LOG_INTERVAL),
            accepted: counter!("cairn_ingest_accepted_events_total"),
            bytes: counter!("cairn_ingest_bytes_total"),
        }
    }

    /// Counts a response, and records the duration of its request.
    pub fn answered(&self, code: StatusCode, duration: Duration) {
        debug_assert!(CODES.contains(&code), "a status without a counter: {code}");
        if let Some(index) = CODES.iter().position(|counted| *counted == code) {
            self.requests[index].increment(1);
        }
        self.duration.record(duration);
    }

    /// Counts and logs a refused request with this number of events, and returns its response.
    pub fn refuse(&self, (error, reason): (ApiError, Reason), events: u64) -> Response<Body> {
        self.refused_many(reason, events);
        // Most exporters do not print the response.
        self.log_refusal(&error.message);
        let mut response = error.into_response();
        response.extensions_mut().insert(Logged);
        response
    }

    /// Logs why events were refused, at most once every ten seconds.
    pub fn log_refusal(&self, reason: &str) {
        let route = self.route;
        if let Some(suppressed) = self.refusal_log.allow() {
            tracing::warn!(route, reason, suppressed, "events refused, see cairn_ingest_refused_events_total");
        }
    }

    /// Logs the first warning about events of a request that were stored, at most once every ten seconds.
    pub fn log_warning(&self, warning: &str) {
        let route = self.route;
        if let Some(suppressed) = self.warning_log.allow() {
            tracing::warn!(route, warning, suppressed, "events stored with a warning, see their validation_warnings");
        }
    }

    /// Counts a refused event.
    pub fn refused(&self, reason: Reason) {
        self.refused_many(reason, 1);
    }

    /// Counts refused events.
    pub fn refused_many(&self, reason: Reason, events: u64) {
        self.refused[reason as usize].increment(events);
        self.counts.refused[reason as usize].fetch_add(events, Ordering::Relaxed);
    }
}

/// Registers the counter of spans that `ingest.otlp.select` excludes.
pub fn unselected() -> Counter {
    describe_counter!("cairn_ingest_unselected_events_total", "Spans that ingest.otlp.select excludes.");
    counter!("cairn_ingest_unselected_events_total")
}

/// Counts the exports of metrics that were dropped.
pub struct DiscardedMetrics {
    exports: Counter,
    first: Once,
}

impl DiscardedMetrics {
    /// Registers the counter with the current recorder.
    pub fn register() -> DiscardedMetrics {
        describe_counter!("cairn_ingest_discarded_metrics_exports_total", "OTLP exports of metrics that were dropped.");
        DiscardedMetrics { exports: counter!("cairn_ingest_discarded_metrics_exports_total"), first: Once::new() }
    }

    /// Counts an export, and logs the first one.
    pub fn increment(&self) {
        self.exports.increment(1);
        self.first.call_once(|| {
            tracing::info!("an exporter sends metrics, which are acknowledged and dropped (ingest.otlp.metrics)");
        });
    }
}
