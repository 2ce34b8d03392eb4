//! The gauges of the ledger, which are set when metrics are scraped. `docs/metrics.md` lists them.

use metrics::{Gauge, Unit, describe_gauge, gauge};

use super::format::keys::ShardId;
use super::ids::ClientIds;
use super::read::committed::Committed;
use super::read::follower::LagGauge;
use super::read::index::Index;
use super::shard::disk_space::DiskSpace;
use super::shard::queue::Queue;

/// The gauges of a running ledger.
pub struct LedgerMetrics {
    queues: Vec<QueueGauges>,
    agents: Gauge,
    store_bytes: Gauge,
    store_limit_bytes: Gauge,
    disk_free_bytes: Gauge,
    disk_reserve_bytes: Gauge,
    recent_ids: Gauge,
    recent_ids_bytes: Gauge,
    index_lag: LagGauge,
}

struct QueueGauges {
    events: Gauge,
    capacity_events: Gauge,
    bytes: Gauge,
}

impl LedgerMetrics {
    /// Registers the gauges with the current recorder.
    pub fn register(shards: impl Iterator<Item = ShardId>) -> LedgerMetrics {
        describe_gauge!("cairn_queue_events", "Events that wait for their shard or are being committed.");
        describe_gauge!("cairn_queue_capacity_events", "The most events that a queue may contain: queue.events.");
        describe_gauge!("cairn_queue_bytes", Unit::Bytes, "Memory of the events in a queue.");
        describe_gauge!("cairn_agents", "Agents that have a chain.");
        describe_gauge!("cairn_store_bytes", Unit::Bytes, "Size of the ledger on disk, write-ahead log included.");
        describe_gauge!("cairn_store_limit_bytes", Unit::Bytes, "Largest size of the ledger: storage.max_bytes.");
        describe_gauge!("cairn_disk_free_bytes", Unit::Bytes, "Free space on the disk.");
        describe_gauge!("cairn_disk_reserve_bytes", Unit::Bytes, "Least free space: storage.min_free_bytes.");
        describe_gauge!("cairn_recent_ids", "Ids of clients that are only in memory and in the events.");
        describe_gauge!("cairn_recent_ids_bytes", Unit::Bytes, "Memory of these ids.");
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
            recent_ids: gauge!("cairn_recent_ids"),
            recent_ids_bytes: gauge!("cairn_recent_ids_bytes"),
            index_lag: LagGauge::register("index"),
        }
    }

    /// Sets the gauges from the state of a running ledger.
    pub fn observe(&self, queues: &[Queue], committed: &Committed, ids: &ClientIds, index: &Index, space: &DiskSpace) {
        for (gauges, queue) in self.queues.iter().zip(queues) {
            let (events, bytes) = queue.used();
            gauges.events.set(events as f64);
            gauges.capacity_events.set(queue.capacity_events() as f64);
            gauges.bytes.set(bytes as f64);
        }
        self.agents.set(committed.agents() as f64);
        self.store_bytes.set(space.store_bytes() as f64);
        self.store_limit_bytes.set(space.limit_bytes() as f64);
        self.disk_free_bytes.set(space.free_bytes() as f64);
        self.disk_reserve_bytes.set(space.min_free_bytes() as f64);
        let (bytes, recent) = ids.used();
        self.recent_ids.set(recent as f64);
        self.recent_ids_bytes.set(bytes as f64);
        self.index_lag.set(index.lag(committed));
    }
}
