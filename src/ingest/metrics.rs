//! The numbers of the way in. Handles are made once; nothing is looked up on the way of an event.

use std::time::Duration;

use axum::http::StatusCode;
use metrics::{Counter, Histogram, Unit, counter, describe_counter, describe_histogram, histogram};

use crate::runtime::LogThrottle;

/// How often refusals of one route are logged at most.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// The statuses that a call can answer.
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
    /// It is no event.
    Invalid,
    /// It is too long.
    TooLarge,
    /// Its id belongs to another event.
    IdTaken,
    /// No place became free in time, or too much was in flight.
    Busy,
    /// The process is shutting down.
    Draining,
    /// The disk or the ledger is full.
    NoSpace,
    /// The commit failed, or the ledger could not be read.
    StoreFailed,
    /// The client sends more than it may.
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

/// What one route counts.
pub struct RouteMetrics {
    requests: [Counter; CODES.len()],
    refused: [Counter; Reason::ALL.len()],
    duration: Histogram,
    /// Throttles the log lines about refusals.
    refusal_log: LogThrottle,
    /// Events that are on disk and were not before.
    pub accepted: Counter,
    /// Bytes of bodies, as they were sent.
    pub bytes: Counter,
}

impl RouteMetrics {
    /// Registers with the recorder that is in force.
    pub fn register(route: &'static str) -> RouteMetrics {
        describe_counter!("cairn_ingest_requests_total", "Requests that bring events, by route and status.");
        describe_counter!("cairn_ingest_accepted_events_total", "Events that were stored.");
        describe_counter!("cairn_ingest_refused_events_total", "Events that were refused, by reason.");
        describe_counter!("cairn_ingest_bytes_total", Unit::Bytes, "Bytes of the bodies that brought events.");
        describe_histogram!(
            "cairn_ingest_request_duration_seconds",
            Unit::Seconds,
            "Time of a request from its head to its answer."
        );
        RouteMetrics {
            requests: CODES.map(
                |code| counter!("cairn_ingest_requests_total", "route" => route, "code" => code.as_str().to_owned()),
            ),
            refused: Reason::ALL.map(|(_, reason)| counter!("cairn_ingest_refused_events_total", "reason" => reason)),
            duration: histogram!("cairn_ingest_request_duration_seconds", "route" => route),
            refusal_log: LogThrottle::new(LOG_INTERVAL),
            accepted: counter!("cairn_ingest_accepted_events_total"),
            bytes: counter!("cairn_ingest_bytes_total"),
        }
    }

    /// A request was answered.
    pub fn answered(&self, code: StatusCode, took: Duration) {
        debug_assert!(CODES.contains(&code), "a status without a counter: {code}");
        if let Some(index) = CODES.iter().position(|known| *known == code) {
            self.requests[index].increment(1);
        }
        self.duration.record(took);
    }

    /// Logs why something was refused, at most once in an interval.
    pub fn log_refusal(&self, route: &str, why: &str) {
        if let Some(suppressed) = self.refusal_log.allow() {
            tracing::warn!(route, why, suppressed, "events refused; cairn_ingest_refused_events_total counts them");
        }
    }

    /// An event was refused.
    pub fn refused(&self, reason: Reason) {
        self.refused[reason as usize].increment(1);
    }
}

/// Spans that are not wanted.
pub fn unselected() -> Counter {
    describe_counter!("cairn_ingest_unselected_events_total", "Spans that ingest.otlp.select left out.");
    counter!("cairn_ingest_unselected_events_total")
}
