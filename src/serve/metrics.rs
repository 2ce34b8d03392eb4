//! The metrics recorder of a server.

use std::sync::OnceLock;

use axum::http::StatusCode;
use metrics::{counter, describe_counter, with_local_recorder};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

/// The bucket bounds of durations, in seconds.
const SECONDS: [f64; 16] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// The bucket bounds of numbers of events.
const EVENTS: [f64; 10] = [1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 500.0, 2000.0, 10_000.0];

/// The metrics of a server. Each server has its own recorder, so that several can run in one process.
pub struct Metrics {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    dropped_lines: OnceLock<DroppedLines>,
}

/// Returns how many lines of the process log were dropped.
type DroppedLines = Box<dyn Fn() -> u64 + Send + Sync>;

impl Metrics {
    /// Creates a recorder without metrics.
    ///
    /// # Errors
    /// When a histogram has no bucket bounds. The bounds are constants, so this does not happen.
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
        with_local_recorder(&recorder, || {
            describe_counter!(
                "cairn_http_responses_total",
                "Responses of 400 and above on the public addresses, by status and route."
            );
            describe_counter!(
                "cairn_log_lines_dropped_total",
                "Lines of the process log that were dropped because it was not read fast enough."
            );
        });
        Ok(Metrics { recorder, handle, dropped_lines: OnceLock::new() })
    }

    /// Runs `work` with this recorder as the current one, so that metrics that `work` registers belong to this server.
    pub fn scope<T>(&self, work: impl FnOnce() -> T) -> T {
        with_local_recorder(&self.recorder, work)
    }

    /// Makes the number of dropped lines of the process log a metric.
    pub fn count_dropped_lines(&self, dropped: DroppedLines) {
        // Set once, at the start.
        let _ = self.dropped_lines.set(dropped);
    }

    /// The number of dropped lines of the process log.
    pub fn dropped_lines(&self) -> u64 {
        self.dropped_lines.get().map_or(0, |dropped| dropped())
    }

    /// Counts a response of 400 and above.
    pub fn count_refusal(&self, status: StatusCode, route: &'static str) {
        self.scope(|| {
            let code = status.as_u16().to_string();
            counter!("cairn_http_responses_total", "code" => code, "route" => route).increment(1);
        });
    }

    /// Aggregates the samples that histograms have collected. Must be called periodically, because samples take memory
    /// until then.
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
    }

    /// All metrics in the text format of Prometheus.
    pub fn render(&self) -> String {
        self.scope(|| counter!("cairn_log_lines_dropped_total").absolute(self.dropped_lines()));
        // The crate exports `process_cpu_seconds_total` as a gauge, because its counters are integers. By its meaning
        // it is a counter.
        self.handle.render().replacen(
            "# TYPE process_cpu_seconds_total gauge",
            "# TYPE process_cpu_seconds_total counter",
            1,
        )
    }
}
