//! A running ledger: its shards, its index, and the watch over its disk.

use std::sync::Arc;

use tokio::runtime::Handle;
use uuid::Uuid;

use super::format::frame::FrameBuilder;
use super::format::keys::{Location, ShardId, shard_of};
use super::format::meta::{self, Meta};
use super::format::record::Record;
use super::metrics::LedgerMetrics;
use super::read::committed::Committed;
use super::read::index::Index;
use super::read::lookup;
use super::shard::commit::Commit;
use super::shard::config::QueueConfig;
use super::shard::dedup::{Dedup, IdsInFlight};
use super::shard::disk_space::DiskSpace;
use super::shard::metrics::ShardMetrics;
use super::shard::queue::Queue;
use super::shard::recover;
use super::shard::thread::Shard;
use super::store::{StorageConfig, Store, StoreError};
use super::threads::Threads;
use crate::runtime::{Clock, OnFailure};
use cairn_proof::chain::{AgentKey, DefaultLabels};

/// A running ledger. Cheap to share; closing it takes [`Ledger::close`].
pub struct Ledger {
    store: Arc<Store>,
    meta: Meta,
    queues: Vec<Queue>,
    committed: Arc<Committed>,
    index: Arc<Index>,
    space: Arc<DiskSpace>,
    labels: Arc<DefaultLabels>,
    metrics: LedgerMetrics,
}

/// What a ledger gets from its owner, and a test replaces.
pub struct LedgerHooks {
    /// How batches are put on disk: the store itself, except in tests that make it fail.
    pub commit: Arc<dyn Commit>,
    /// The clock: the system's, except in tests that set it back.
    pub clock: Clock,
    /// Called when the process has to end.
    pub on_failure: OnFailure,
    /// The labels that the server adds to every event.
    pub labels: DefaultLabels,
}

impl Ledger {
    /// Recovers the ledger in `store` and starts its threads. Has to be called within the runtime in which senders wait for their
    /// answers; metrics register with the current recorder.
    ///
    /// # Errors
    /// When the ledger does not match the settings, cannot be read, or is broken at its end.
    pub fn start(
        store: Arc<Store>,
        hooks: LedgerHooks,
        shards: u16,
        storage: &StorageConfig,
        queue: &QueueConfig,
    ) -> Result<(Ledger, Threads), StoreError> {
        let labels = Arc::new(known_labels(&store, &hooks)?);
        let meta = Meta::open(&store, shards)?;
        let directory = |source| StoreError::Directory { path: store.path().to_owned(), source };
        let space = Arc::new(DiskSpace::new(storage).map_err(directory)?);
        let committed = Arc::new(Committed::new(shards));
        let in_flight = IdsInFlight::default();
        let (mut queues, mut ready) = (Vec::new(), Vec::new());
        for id in (0..shards).map(ShardId) {
            let (queue, receiver) = Queue::new(queue);
            let dedup = Dedup::new(in_flight.clone(), shards, Arc::clone(&labels));
            ready.push((recover_shard(id, shards, &store, &hooks, &space, &committed, dedup)?, receiver));
            queues.push(queue);
        }
        let index = Arc::new(Index::open(&store, &committed)?);
        let metrics = LedgerMetrics::register(committed.shards());
        let mut threads = Threads::new(hooks.on_failure);
        for (shard, receiver) in ready {
            threads.start_shard(shard, receiver).map_err(directory)?;
        }
        threads.start_index(&index, &store, &committed).map_err(directory)?;
        threads.start_disk_watch(&space, store.path()).map_err(directory)?;
        Ok((Ledger { store, meta, queues, committed, index, space, labels, metrics }, threads))
    }

    /// Whether the data directory was removed or replaced.
    pub fn is_gone(&self) -> bool {
        self.space.is_gone(self.store.path())
    }

    /// The database.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// The random id of this ledger.
    pub fn instance(&self) -> Uuid {
        self.meta.instance
    }

    /// The labels that the server puts on every event.
    pub fn default_labels(&self) -> &Arc<DefaultLabels> {
        &self.labels
    }

    /// The queues of the shards, in their order.
    pub fn queues(&self) -> &[Queue] {
        &self.queues
    }

    /// How far the shards are.
    pub fn committed(&self) -> &Arc<Committed> {
        &self.committed
    }

    /// The term index.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// Whether there is room.
    pub fn space(&self) -> &DiskSpace {
        &self.space
    }

    /// The shard that an agent belongs to.
    pub fn shard_of(&self, agent: AgentKey) -> ShardId {
        shard_of(agent, self.meta.shards)
    }

    /// The event with that id, whoever gave it, and where it stands.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn find(&self, id: Uuid) -> Result<Option<(Location, Record)>, StoreError> {
        lookup::find(&self.store, id, self.meta.shards)
    }

    /// Takes no more events.
    pub fn close(&self) {
        self.queues.iter().for_each(Queue::close);
    }

    /// Sets the gauges of the ledger.
    pub fn observe(&self) {
        self.metrics.observe(&self.queues, &self.committed, &self.index, &self.space);
    }
}

/// The default labels, with the names that default labels ever had in this ledger.
fn known_labels(store: &Store, hooks: &LedgerHooks) -> Result<DefaultLabels, StoreError> {
    let former = meta::label_names(store, &hooks.labels)?;
    Ok(hooks.labels.clone().and_formerly(former.iter().map(String::as_str)))
}

/// Reads where a shard continues, and refuses to continue over a break.
fn recover_shard(
    id: ShardId,
    shards: u16,
    store: &Arc<Store>,
    hooks: &LedgerHooks,
    space: &Arc<DiskSpace>,
    committed: &Arc<Committed>,
    dedup: Dedup,
) -> Result<Shard, StoreError> {
    let tail = recover::tail(store, id)?;
    recover::check(store, id, &tail)?;
    committed.publish(id, tail.next, tail.agents, None);
    Ok(Shard {
        id,
        shards,
        store: Arc::clone(store),
        commit: Arc::clone(&hooks.commit),
        runtime: Handle::current(),
        clock: Arc::clone(&hooks.clock),
        space: Arc::clone(space),
        committed: Arc::clone(committed),
        metrics: ShardMetrics::register(),
        dedup,
        frame: FrameBuilder::default(),
        tail,
    })
}
