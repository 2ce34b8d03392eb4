//! The numbers of the ledger. Handles are made once; nothing is looked up on the way of an event.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

use super::Ledger;
use super::keys::ShardId;

/// What a shard counts.
pub struct ShardMetrics {
    commits_ok: Counter,
    commits_failed: Counter,
    commit_events: Histogram,
    commit_duration: Histogram,
    last_commit: Gauge,
    /// How long a submission waited between its admission and its shard.
    pub queue_wait: Histogram,
}

impl ShardMetrics {
    /// Registers with the recorder that is in force.
    pub fn register() -> ShardMetrics {
        describe_counter!("cairn_commits_total", "Commits, by outcome.");
        describe_histogram!("cairn_commit_events", "Events in a commit.");
        describe_histogram!("cairn_commit_duration_seconds", Unit::Seconds, "Time of a commit: write and sync.");
        describe_histogram!("cairn_queue_wait_seconds", Unit::Seconds, "Time between admission and shard.");
        describe_gauge!("cairn_last_commit_timestamp_seconds", Unit::Seconds, "When the last commit succeeded.");
        ShardMetrics {
            commits_ok: counter!("cairn_commits_total", "outcome" => "ok"),
            commits_failed: counter!("cairn_commits_total", "outcome" => "failed"),
            commit_events: histogram!("cairn_commit_events"),
            commit_duration: histogram!("cairn_commit_duration_seconds"),
            last_commit: gauge!("cairn_last_commit_timestamp_seconds"),
            queue_wait: histogram!("cairn_queue_wait_seconds"),
        }
    }

    /// A commit of that many events came to an end.
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

/// What is measured when somebody looks.
pub struct LedgerMetrics {
    queues: Vec<QueueGauges>,
    agents: Gauge,
    store_bytes: Gauge,
    store_limit_bytes: Gauge,
    disk_free_bytes: Gauge,
    disk_reserve_bytes: Gauge,
    index_lag: Gauge,
}

struct QueueGauges {
    events: Gauge,
    capacity_events: Gauge,
    bytes: Gauge,
}

impl LedgerMetrics {
    /// Registers with the recorder that is in force.
    pub fn register(shards: impl Iterator<Item = ShardId>) -> LedgerMetrics {
        describe_gauge!("cairn_queue_events", "Events that wait for their shard or are being committed.");
        describe_gauge!("cairn_queue_capacity_events", "The most events that may wait: queue.events.");
        describe_gauge!("cairn_queue_bytes", Unit::Bytes, "Memory of the events that wait.");
        describe_gauge!("cairn_agents", "Agents that have a chain.");
        describe_gauge!("cairn_store_bytes", Unit::Bytes, "What the ledger takes on disk.");
        describe_gauge!("cairn_store_limit_bytes", Unit::Bytes, "The most it may take: storage.max_bytes.");
        describe_gauge!("cairn_disk_free_bytes", Unit::Bytes, "What the disk has left.");
        describe_gauge!("cairn_disk_reserve_bytes", Unit::Bytes, "What it has to have left: storage.min_free_bytes.");
        describe_gauge!("cairn_consumer_lag_events", "Committed events that a consumer has not seen yet.");
        let queue = |shard: ShardId| {
            let shard = shard.0.to_string();
            QueueGauges {
                events: gauge!("cairn_queue_events", "shard" => shard.clone()),
                capacity_events: gauge!("cairn_queue_capacity_events", "shard" => shard.clone()),
                bytes: gauge!("cairn_queue_bytes", "shard" => shard),
            }
        };
        LedgerMetrics {
            queues: shards.map(queue).collect(),
            agents: gauge!("cairn_agents"),
            store_bytes: gauge!("cairn_store_bytes"),
            store_limit_bytes: gauge!("cairn_store_limit_bytes"),
            disk_free_bytes: gauge!("cairn_disk_free_bytes"),
            disk_reserve_bytes: gauge!("cairn_disk_reserve_bytes"),
            index_lag: gauge!("cairn_consumer_lag_events", "consumer" => "index"),
        }
    }

    /// Measures.
    pub fn observe(&self, ledger: &Ledger) {
        for (gauges, queue) in self.queues.iter().zip(ledger.queues()) {
            let (events, bytes) = queue.used();
            gauges.events.set(events as f64);
            gauges.capacity_events.set(queue.capacity_events() as f64);
            gauges.bytes.set(bytes as f64);
        }
        self.agents.set(ledger.committed().agents() as f64);
        self.store_bytes.set(ledger.space().store_bytes() as f64);
        self.store_limit_bytes.set(ledger.space().limit_bytes() as f64);
        self.disk_free_bytes.set(ledger.space().free_bytes() as f64);
        self.disk_reserve_bytes.set(ledger.space().min_free_bytes() as f64);
        self.index_lag.set(ledger.index().lag(ledger.committed()) as f64);
    }
}
