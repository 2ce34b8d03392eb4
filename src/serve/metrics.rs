//! The metrics of this server. Each server has its own recorder, so that several can run in one process.

use metrics::with_local_recorder;
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

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

    /// All metrics in the text format of Prometheus.
    pub fn render(&self) -> String {
        // The library's counters are integers, so process_cpu_seconds_total is a gauge in it; it is a counter all the same.
        self.handle.render().replacen(
            "# TYPE process_cpu_seconds_total gauge",
            "# TYPE process_cpu_seconds_total counter",
            1,
        )
    }
}
