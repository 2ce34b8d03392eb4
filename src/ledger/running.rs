//! A running ledger: its shards, its index and the monitor of its disk space.

use std::sync::Arc;

use tokio::runtime::Handle;
use uuid::Uuid;

use super::config::LedgerConfig;
use super::format::checks;
use super::format::frame::FrameBuilder;
use super::format::keys::{Location, ShardId, shard_of};
use super::format::meta::{self, Meta};
use super::format::record::Record;
use super::ids::ClientIds;
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
use super::shard::thread::{OnClockStep, Shard};
use super::store::{StorageConfig, Store, StoreError};
use super::threads::Threads;
use crate::runtime::{Clock, OnFailure};
use cairn_proof::chain::{AgentKey, DefaultLabels};

/// A running ledger. [`Ledger::close`] closes it for new events; [`Threads::join`] waits for its threads.
pub struct Ledger {
    store: Arc<Store>,
    meta: Meta,
    queues: Vec<Queue>,
    committed: Arc<Committed>,
    ids: Arc<ClientIds>,
    index: Arc<Index>,
    space: Arc<DiskSpace>,
    labels: Arc<DefaultLabels>,
    config: LedgerConfig,
    metrics: LedgerMetrics,
}

/// The dependencies of a ledger that its owner provides and tests replace.
pub struct LedgerHooks {
    /// Writes batches to disk: the store itself, except in tests that make commits fail.
    pub commit: Arc<dyn Commit>,
    /// The clock: the system clock, except in tests that set it.
    pub clock: Clock,
    /// Called when a thread fails and the process has to end.
    pub on_failure: OnFailure,
    /// Called after a commit that found a step of the clock.
    pub on_clock_step: OnClockStep,
    /// The labels that the server adds to every event.
    pub labels: DefaultLabels,
    /// What is recorded of every event.
    pub config: LedgerConfig,
}

impl Ledger {
    /// Recovers the ledger in `store` and starts its threads. Must be called within the runtime in which senders wait
    /// for their answers. Registers metrics with the current recorder.
    ///
    /// # Errors
    /// When the ledger does not match the settings, cannot be read, or the last events or heads of a shard are
    /// inconsistent.
    pub fn start(
        store: Arc<Store>,
        hooks: LedgerHooks,
        shards: u16,
        storage: &StorageConfig,
        queue: &QueueConfig,
    ) -> Result<(Ledger, Threads), StoreError> {
        let labels = Arc::new(labels_with_former_names(&store, &hooks)?);
        let meta = Meta::open(&store, shards)?;
        checks::write_if_none(&store, shards)?;
        let directory = |source| StoreError::Directory { path: store.path().to_owned(), source };
        let space = Arc::new(DiskSpace::new(storage).map_err(directory)?);
        let committed = Arc::new(Committed::new(shards, Arc::clone(store.expired())));
        let in_flight = IdsInFlight::default();
        let ends = (0..shards).map(|shard| lookup::end(&store, ShardId(shard))).collect::<Result<Vec<_>, _>>()?;
        if meta.is_former() {
            meta::upgrade(&store, meta.format, &ends)?;
        }
        let ids = Arc::new(ClientIds::open(&store, storage.ids_bytes(), &ends, Arc::clone(&committed))?);
        let (mut queues, mut recovered) = (Vec::new(), Vec::new());
        let recovery = Recovery { store: &store, hooks: &hooks, space: &space, committed: &committed, shards };
        for id in (0..shards).map(ShardId) {
            let (queue, receiver) = Queue::new(queue);
            let dedup = Dedup::new(Arc::clone(&ids), in_flight.clone(), shards, Arc::clone(&labels));
            recovered.push((recovery.shard(id, dedup, FrameBuilder::new(storage.compression))?, receiver));
            queues.push(queue);
        }
        let index = Arc::new(Index::open(&store, &committed)?);
        let metrics = LedgerMetrics::register(committed.shards());
        let config = hooks.config;
        let mut threads = Threads::new(hooks.on_failure);
        for (shard, receiver) in recovered {
            threads.start_shard(shard, receiver).map_err(directory)?;
        }
        threads.start_client_ids(&ids, &store).map_err(directory)?;
        threads.start_index(&index, &store, &committed).map_err(directory)?;
        threads.start_disk_watch(&space, store.path()).map_err(directory)?;
        Ok((Ledger { store, meta, queues, committed, ids, index, space, labels, config, metrics }, threads))
    }

    /// Whether the data directory was removed or replaced while the ledger was open.
    pub fn is_data_dir_gone(&self) -> bool {
        self.space.is_data_dir_gone(self.store.path())
    }

    /// The database.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// The random id of this ledger.
    pub fn instance(&self) -> Uuid {
        self.meta.instance
    }

    /// What is recorded of every event.
    pub fn config(&self) -> LedgerConfig {
        self.config
    }

    /// The labels that the server adds to every event.
    pub fn default_labels(&self) -> &Arc<DefaultLabels> {
        &self.labels
    }

    /// The queues of the shards, in the order of the shards.
    pub fn queues(&self) -> &[Queue] {
        &self.queues
    }

    /// The progress of the shards.
    pub fn committed(&self) -> &Arc<Committed> {
        &self.committed
    }

    /// The term index.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// The last measurement of disk space.
    pub fn space(&self) -> &DiskSpace {
        &self.space
    }

    /// The shard that an agent belongs to.
    pub fn shard_of(&self, agent: AgentKey) -> ShardId {
        shard_of(agent, self.meta.shards)
    }

    /// The event with this id, assigned by a client or by the server, and its location.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn find(&self, id: Uuid) -> Result<Option<(Location, Record)>, StoreError> {
        self.ids.find(&self.store, id)
    }

    /// Closes the queues for new events. The shards commit the events that are already in them.
    pub fn close(&self) {
        self.queues.iter().for_each(Queue::close);
    }

    /// Sets the gauges of the ledger.
    pub fn observe(&self) {
        self.metrics.observe(&self.queues, &self.committed, &self.ids, &self.index, &self.space);
    }
}

/// The default labels, with the names of all former default labels of this ledger.
fn labels_with_former_names(store: &Store, hooks: &LedgerHooks) -> Result<DefaultLabels, StoreError> {
    let former = meta::label_names(store, &hooks.labels)?;
    Ok(hooks.labels.clone().with_former_names(former.iter().map(String::as_str)))
}

/// What the shards of a ledger are recovered from and share.
struct Recovery<'a> {
    store: &'a Arc<Store>,
    hooks: &'a LedgerHooks,
    space: &'a Arc<DiskSpace>,
    committed: &'a Arc<Committed>,
    shards: u16,
}

impl Recovery<'_> {
    /// Reads the position at which a shard continues, and fails if its last events or heads are inconsistent.
    fn shard(&self, id: ShardId, dedup: Dedup, frame: FrameBuilder) -> Result<Shard, StoreError> {
        let tail = recover::tail(self.store, id)?;
        recover::check(self.store, id, &tail)?;
        self.committed.publish(id, tail.next, tail.agents, None);
        Ok(Shard {
            id,
            shards: self.shards,
            store: Arc::clone(self.store),
            commit: Arc::clone(&self.hooks.commit),
            runtime: Handle::current(),
            clock: Arc::clone(&self.hooks.clock),
            on_clock_step: Arc::clone(&self.hooks.on_clock_step),
            space: Arc::clone(self.space),
            committed: Arc::clone(self.committed),
            metrics: ShardMetrics::register(),
            dedup,
            frame,
            tail,
            last_reading: None,
        })
    }
}
