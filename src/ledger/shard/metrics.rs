//! The metrics of a shard, registered once at construction. `docs/metrics.md` lists them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

use crate::ledger::format::clock_step::ClockStep;

/// The metrics of one shard.
pub struct ShardMetrics {
    commits_ok: Counter,
    commits_failed: Counter,
    commit_events: Histogram,
    commit_duration: Histogram,
    last_commit: Gauge,
    clock_forward: Counter,
    clock_back: Counter,
    /// The time between the admission of a submission and the start of its commit.
    pub queue_wait: Histogram,
}

impl ShardMetrics {
    /// Registers the metrics with the current recorder.
    pub fn register() -> ShardMetrics {
        describe_counter!("cairn_commits_total", "Commits, by outcome.");
        describe_histogram!("cairn_commit_events", "Events in a commit, failed ones included.");
        describe_histogram!("cairn_commit_duration_seconds", Unit::Seconds, "Time of a commit: write and sync.");
        describe_histogram!(
            "cairn_queue_wait_seconds",
            Unit::Seconds,
            "Time from admission to the start of the commit."
        );
        describe_gauge!("cairn_last_commit_timestamp_seconds", Unit::Seconds, "When the last commit succeeded.");
        describe_counter!(
            "cairn_clock_steps_total",
            "Steps of the system clock by at least 1 s, or back by any time, as each shard found them, by direction."
        );
        ShardMetrics {
            commits_ok: counter!("cairn_commits_total", "outcome" => "ok"),
            commits_failed: counter!("cairn_commits_total", "outcome" => "failed"),
            commit_events: histogram!("cairn_commit_events"),
            commit_duration: histogram!("cairn_commit_duration_seconds"),
            last_commit: gauge!("cairn_last_commit_timestamp_seconds"),
            clock_forward: counter!("cairn_clock_steps_total", "direction" => "forward"),
            clock_back: counter!("cairn_clock_steps_total", "direction" => "back"),
            queue_wait: histogram!("cairn_queue_wait_seconds"),
        }
    }

    /// Counts a step of the clock.
    pub fn clock_stepped(&self, step: ClockStep) {
        if step.by_ms() > 0 { &self.clock_forward } else { &self.clock_back }.increment(1);
    }

    /// Records a commit, successful or not. `took` is the time of write and sync.
    pub fn committed(&self, events: usize, took: Duration, is_ok: bool) {
        self.commit_events.record(events as f64);
        self.commit_duration.record(took);
        if is_ok {
            self.commits_ok.increment(1);
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            self.last_commit.set(now.as_secs_f64());
        } else {
            self.commits_failed.increment(1);
        }
    }
}
