//! The ledger: seals events into their chains, commits them to disk, and reads them back.
//!
//! # On disk
//!
//! One RocksDB database. All integers are big-endian, so that keys sort in numeric order. An agent key is the first 16
//! bytes of SHA-256 over the agent's id; a location is shard u16 · position u64.
//!
//! | family | key | value | written by |
//! |---|---|---|---|
//! | `events` | location of the last event in the frame | a frame, consecutive events of one commit: see [`format::frame`] and [`format::record`] | commit |
//! | `agents` | agent key | head sequence u64, head hash, first and last time in ms u64, first location and count u32 of the run that ends at the head, agent id | commit, a row per agent touched |
//! | `chain` | agent key · first sequence u64 | first location, count u32: a run of the agent's events, except its last run | commit, when a new event of the agent does not continue the run |
//! | `times` | shard u16 · id time ms u64 | position u64 of the first event with that id time | commit, at most one row |
//! | `client_ids` | UUID that a client sent | location | [`ids`], for events that came with an id, some time after their commit |
//! | | cursor of a shard: see [`format::id_cursor`] | position u64 of the first event without a row, check | [`ids`], with the rows |
//! | `index` | term, 16 bytes · first location | offsets u16 of the events that have the term: see [`read::index`] | index, not in the write-ahead log |
//! | `log` | kind · ... | the progress of the log, and the order of leaves: see `tlog::rows` | log |
//! | `tiles` | last leaf u64 · level u8 | a full tile of the log: 256 hashes | log |
//! | `relay` | destination · kind · ... | the progress of each destination and its dead letters: see `relay::backlog` | relay |
//! | `meta` | name | format, number of shards, instance, names of all current and former default labels, number of agents per shard, steps of the clock: see [`format::clock_step`], and what retention has dropped: see [`format::floor`] | start, and commit for new agents and steps |
//!
//! The events of a commit are a few large puts with ascending keys. In addition a commit has small rows per run, per
//! agent and per commit. Ids that the server assigns need no row, because they lead to their event through `times`: see
//! [`format::keys::server_id`]. `docs/adr/0003-events-are-keyed-by-position-and-share-rows.md`
//! gives the reasons.
//!
//! # Ownership
//!
//! Each [shard thread](shard::thread) owns the heads of its agents and reads from a bounded [queue](shard::queue).
//! [`read::committed`] publishes the progress of all shards. Everything that can be derived from events is written by
//! consumers after the commit, which does not wait for them.
//!
//! # Folders
//!
//! | folder | | may import |
//! |---|---|---|
//! | [`store`] | RocksDB: the only files that import it | |
//! | [`format`] | the on-disk format: keys, records, frames, terms, meta | `store` |
//! | [`read`] | lookups, the index, and the follower that consumers use | `format` |
//! | [`ids`] | the ids of clients: in memory, in tables, and the writer of these | `read` |
//! | [`erase`] | removes the content of events, and what follows from it | `read` |
//! | [`mod@drop`] | removes the oldest events whole | `format` |
//! | [`shard`] | the write path: queue, seal, commit, recovery | `ids` |

mod config;
pub mod drop;
pub mod erase;
pub mod format;
pub mod ids;
mod metrics;
pub mod read;
mod running;
pub mod shard;
pub mod store;
mod threads;

pub use config::{EventRetention, LedgerConfig, RetentionConfig, RetentionConsumer};
pub use running::{Ledger, LedgerHooks};
pub use threads::Threads;
