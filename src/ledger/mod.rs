//! The ledger: seals events into their chains, puts them on disk, and reads them back.
//!
//! # On disk
//!
//! One RocksDB database. All integers are big-endian, so that keys sort in order; an agent key is the first 16
//! bytes of SHA-256 over the agent's id; a place is shard u16 · position u64.
//!
//! | family | key | value | written by |
//! |---|---|---|---|
//! | `events` | place of the last of them | a frame of events that stand together: see [`frame`] and [`record`] | commit |
//! | `agents` | agent key | head sequence u64, head hash, first and last time in ms u64, first place and count u32 of the run that ends at the head, agent id | commit, a row per agent touched |
//! | `chain` | agent key · first sequence u64 | first place, count u32: a run of the agent's events that stand together, before the last one | commit, when another agent's event has ended the run and this agent goes on |
//! | `times` | shard u16 · received ms u64 | position u64 of the first event of that millisecond | commit, at most one row |
//! | `client_ids` | UUID that a client sent | place | commit, for events that came with an id |
//! | `index` | term, 16 bytes · first place | offsets u16 of the events that have the term: see [`index`] | index, not in the write-ahead log |
//! | `log` | kind · ... | how far the log is, and the order of leaves: see `tlog::rows` | log |
//! | `tiles` | last leaf u64 · level u8 | a whole tile of the log: 256 hashes | log |
//! | `relay` | destination · kind · ... | what each destination has and has not: see `relay::backlog` | relay |
//! | `meta` | name | format, shards, instance, names that default labels ever had, number of agents per shard | start, and commit for new agents |
//!
//! Keys ascend and puts are few: the events of a commit are a few large ascending puts, beside small rows per run, per
//! agent and per commit. Server-given ids need no row, because they lead to their event through `times`: see
//! [`keys::server_id`].
//!
//! # Who owns what
//!
//! Each [`shard`] thread owns its agents' heads; the [`queue`] in front of it is bounded. [`committed`] tells
//! everybody how far the shards are. Whatever can be derived is written behind that, off the way of an answer.

pub mod commit;
pub mod committed;
mod config;
pub mod events;
pub mod frame;
mod heads;
mod ids;
pub mod index;
pub mod keys;
mod meta;
mod metrics;
pub mod queue;
pub mod read;
pub mod recent;
pub mod record;
mod recover;
mod round;
mod seal;
mod shard;
pub mod space;
pub mod store;
pub mod terms;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};

use crossbeam_channel::Sender;
use tokio::runtime::Handle;
use uuid::Uuid;

use crate::chain::{AgentKey, DefaultLabels};
use commit::Commit;
use committed::Committed;
pub use config::{Compression, QueueConfig, StorageConfig};
use ids::{Ids, InFlight};
use index::Index;
use keys::{Place, ShardId};
pub use meta::Meta;
pub use metrics::LedgerMetrics;
use queue::Queue;
use record::Record;
use shard::Shard;
use space::Space;
use store::{Store, StoreError};

/// A running ledger. Cheap to share; closing it takes [`Ledger::close`].
pub struct Ledger {
    store: Arc<Store>,
    meta: Meta,
    queues: Vec<Queue>,
    committed: Arc<Committed>,
    index: Arc<Index>,
    space: Arc<Space>,
    labels: Arc<DefaultLabels>,
}

/// The threads of a ledger, for who started it.
pub struct Threads {
    shards: Vec<JoinHandle<()>>,
    followers: Vec<JoinHandle<()>>,
    stop: Vec<Sender<()>>,
}

/// Called once, from a thread that cannot go on, with the reason. The process has to end then.
pub type OnFailure = Arc<dyn Fn(String) + Send + Sync>;

/// Tells the time, in ms since 1970.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// What a ledger has from outside, and a test replaces.
pub struct Outside {
    /// How batches are put on disk: the store itself, but for tests that make it fail.
    pub commit: Arc<dyn Commit>,
    /// The system's clock, but for tests that turn it back.
    pub clock: Clock,
    /// Who hears that the process has to end.
    pub on_failure: OnFailure,
    /// What the server puts on every event.
    pub labels: DefaultLabels,
}

/// The system's clock.
pub fn system_clock() -> Clock {
    Arc::new(now_ms)
}

/// The system's time, in ms since 1970.
pub fn now_ms() -> u64 {
    // Before 1970 the clock is wrong, and any time will do.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

impl Ledger {
    /// Recovers the ledger in `store` and starts its threads. Has to be called within the runtime in which senders
    /// wait for their answers.
    ///
    /// # Errors
    /// When the ledger does not fit the settings, cannot be read, or is broken at its end.
    pub fn start(
        store: Arc<Store>,
        outside: Outside,
        shards: u16,
        storage: &StorageConfig,
        queue: &QueueConfig,
    ) -> Result<(Ledger, Threads), StoreError> {
        let Outside { commit, clock, on_failure, labels } = outside;
        let former = meta::label_names(&store, &labels)?;
        let labels = Arc::new(labels.and_formerly(former.iter().map(String::as_str)));
        let meta = Meta::open(&store, shards)?;
        let directory = |source| StoreError::Directory { path: store.path().to_owned(), source };
        let space = Arc::new(Space::new(storage).map_err(directory)?);
        let committed = Arc::new(Committed::new(shards));
        let in_flight = InFlight::default();
        let mut ledger_queues = Vec::new();
        let mut threads = Threads { shards: Vec::new(), followers: Vec::new(), stop: Vec::new() };
        let mut ready = Vec::new();
        for id in (0..shards).map(ShardId) {
            let tail = recover::tail(&store, id)?;
            recover::check(&store, id, &tail)?;
            committed.publish(id, tail.next, tail.agents, None);
            let (queue, receiver) = Queue::new(queue);
            ledger_queues.push(queue);
            let shard = Shard {
                id,
                shards,
                store: Arc::clone(&store),
                commit: Arc::clone(&commit),
                runtime: Handle::current(),
                clock: Arc::clone(&clock),
                space: Arc::clone(&space),
                committed: Arc::clone(&committed),
                metrics: metrics::ShardMetrics::register(),
                ids: Ids::new(in_flight.clone(), shards, Arc::clone(&labels)),
                frame: frame::Draft::default(),
                sealer: seal::Sealer::new(),
                tail,
            };
            ready.push((shard, receiver));
        }
        let index = Arc::new(Index::open(&store, &committed)?);
        for (shard, receiver) in ready {
            let name = format!("cairn-shard-{}", shard.id.0);
            let run = move || shard.run(&receiver).map_err(|error| error.to_string());
            threads.shards.push(spawn(name, run, &on_failure).map_err(directory)?);
        }
        let (stop_index, stopped) = crossbeam_channel::bounded(0);
        let follow = {
            let (index, store, committed) = (Arc::clone(&index), Arc::clone(&store), Arc::clone(&committed));
            let woken = committed.subscribe();
            move || {
                index.follow(&store, &committed, &woken, &stopped);
                Ok(())
            }
        };
        threads.followers.push(spawn("cairn-index".to_owned(), follow, &on_failure).map_err(directory)?);
        let (stop_space, stopped) = crossbeam_channel::bounded::<()>(0);
        let watch = {
            let (space, path) = (Arc::clone(&space), store.path().to_owned());
            move || {
                while stopped.recv_timeout(space::INTERVAL) == Err(crossbeam_channel::RecvTimeoutError::Timeout) {
                    if space.is_gone(&path) {
                        let path = path.display();
                        return Err(format!("the data directory {path} was removed or replaced while it was in use"));
                    }
                    if let Err(error) = space.measure(&path) {
                        tracing::warn!(%error, path = %path.display(), "the data directory cannot be measured");
                    }
                }
                Ok(())
            }
        };
        threads.followers.push(spawn("cairn-space".to_owned(), watch, &on_failure).map_err(directory)?);
        threads.stop = vec![stop_index, stop_space];
        let ledger = Ledger { store, meta, queues: ledger_queues, committed, index, space, labels };
        Ok((ledger, threads))
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
    pub fn space(&self) -> &Space {
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
    pub fn find(&self, id: Uuid) -> Result<Option<(Place, Record)>, StoreError> {
        ids::find(&self.store, id, self.meta.shards)
    }

    /// Takes no more events.
    pub fn close(&self) {
        self.queues.iter().for_each(Queue::close);
    }
}

/// The shard that an agent belongs to, of that many.
pub fn shard_of(agent: AgentKey, shards: u16) -> ShardId {
    let [a, b, c, d, ..] = agent.0;
    // Below `shards`, so it fits.
    ShardId((u32::from_be_bytes([a, b, c, d]) % u32::from(shards.max(1))) as u16)
}

impl Threads {
    /// Waits until the shards of a closed ledger have committed what they have, then ends the rest.
    pub fn join(self) {
        for shard in self.shards {
            // A panic was reported when it happened.
            let _ = shard.join();
        }
        drop(self.stop);
        for follower in self.followers {
            let _ = follower.join();
        }
    }
}

/// Starts a thread whose failure, or panic, is reported.
fn spawn(
    name: String,
    run: impl FnOnce() -> Result<(), String> + Send + 'static,
    on_failure: &OnFailure,
) -> std::io::Result<JoinHandle<()>> {
    let on_failure = Arc::clone(on_failure);
    std::thread::Builder::new().name(name.clone()).spawn(move || {
        // The thread's state is gone either way; nothing that it shares is left half-changed but what the restart
        // reads from disk.
        match std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)) {
            Ok(Ok(())) => {}
            Ok(Err(reason)) => on_failure(format!("{name}: {reason}")),
            Err(_) => on_failure(format!("{name} panicked; this is a bug")),
        }
    })
}
