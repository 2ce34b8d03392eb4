//! The metrics of a destination, listed in `docs/metrics.md`. Handles are created once.

use std::time::Duration;

use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

use super::destination::Reason;

/// The response statuses that have a label value of their own.
const CODES: [u16; 14] = [200, 201, 202, 204, 400, 401, 403, 404, 408, 413, 422, 429, 500, 503];

/// The metrics of one destination.
pub struct DestinationMetrics {
    sent: Counter,
    failures: [Counter; Reason::ALL.len()],
    dead_letters: Counter,
    duration: [Histogram; CODES.len()],
    duration_other: Histogram,
    duration_none: Histogram,
    dead_letters_now: Gauge,
    backlog: Gauge,
    oldest_unsent: Gauge,
    lag: Gauge,
}

impl DestinationMetrics {
    /// Registers the metrics with the current recorder.
    pub fn register(destination: &str) -> DestinationMetrics {
        describe_counter!("cairn_relay_sent_events_total", "Events that the upstream acknowledged.");
        describe_counter!("cairn_relay_failures_total", "Requests to the upstream that failed, by reason.");
        describe_counter!(
            "cairn_relay_dead_letters_total",
            "Events that the upstream refused permanently; an event that is retried and refused again counts again."
        );
        describe_gauge!("cairn_relay_dead_letters", "Dead letters on disk.");
        describe_gauge!("cairn_relay_backlog_events", "Committed events that the upstream has not acknowledged.");
        describe_gauge!(
            "cairn_relay_oldest_unsent_timestamp_seconds",
            Unit::Seconds,
            "When the oldest event of the backlog was received; now, if there is none."
        );
        describe_histogram!(
            "cairn_relay_request_duration_seconds",
            Unit::Seconds,
            "Time of a request to the upstream, by the status of its response, other, or none."
        );
        let name = || destination.to_owned();
        let duration =
            |code: String| histogram!("cairn_relay_request_duration_seconds", "destination" => name(), "code" => code);
        DestinationMetrics {
            sent: counter!("cairn_relay_sent_events_total", "destination" => name()),
            failures: Reason::ALL
                .map(|(_, reason)| counter!("cairn_relay_failures_total", "destination" => name(), "reason" => reason)),
            dead_letters: counter!("cairn_relay_dead_letters_total", "destination" => name()),
            duration: CODES.map(|code| duration(code.to_string())),
            duration_other: duration("other".to_owned()),
            duration_none: duration("none".to_owned()),
            dead_letters_now: gauge!("cairn_relay_dead_letters", "destination" => name()),
            backlog: gauge!("cairn_relay_backlog_events", "destination" => name()),
            oldest_unsent: gauge!("cairn_relay_oldest_unsent_timestamp_seconds", "destination" => name()),
            lag: gauge!("cairn_consumer_lag_events", "consumer" => format!("relay/{destination}")),
        }
    }

    /// Records a request that has ended.
    pub fn record_request(&self, status: Option<u16>, duration: Duration) {
        let index = status.and_then(|status| CODES.iter().position(|code| *code == status));
        match (status, index) {
            (_, Some(index)) => self.duration[index].record(duration),
            (Some(_), None) => self.duration_other.record(duration),
            (None, None) => self.duration_none.record(duration),
        }
    }

    /// Counts acknowledged events.
    pub fn sent(&self, events: u64) {
        self.sent.increment(events);
    }

    /// Counts a failed request.
    pub fn failed(&self, reason: Reason) {
        self.failures[reason as usize].increment(1);
    }

    /// Counts events that retention dropped before they were accepted.
    pub fn dropped(&self, events: u64) {
        self.failures[Reason::Dropped as usize].increment(events);
    }

    /// Counts an event that became a dead letter.
    pub fn dead_lettered(&self) {
        self.dead_letters.increment(1);
    }

    /// Sets the gauges: dead letters, committed events that are not acknowledged, committed events that are not read,
    /// and when the oldest event that is not acknowledged was received, in ms since 1970.
    pub fn observe(&self, dead_letters: u64, backlog: u64, lag: u64, oldest_ms: u64) {
        self.dead_letters_now.set(dead_letters as f64);
        self.backlog.set(backlog as f64);
        self.lag.set(lag as f64);
        self.oldest_unsent.set(oldest_ms as f64 / 1000.0);
    }
}
