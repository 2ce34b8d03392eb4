//! The ledger: seals events into their chains, puts them on disk, and reads them back.
//!
//! # On disk
//!
//! One RocksDB database. All integers are big-endian, so that keys sort in order; an agent key is the first 16
//! bytes of SHA-256 over the agent's id; a place is shard u16 · position u64.
//!
//! | family | key | value | written by |
//! |---|---|---|---|
//! | `events` | place of the last of them | a frame of events that stand together: see [`format::frame`] and [`format::record`] | commit |
//! | `agents` | agent key | head sequence u64, head hash, first and last time in ms u64, first place and count u32 of the run that ends at the head, agent id | commit, a row per agent touched |
//! | `chain` | agent key · first sequence u64 | first place, count u32: a run of the agent's events that stand together, before the last one | commit, when another agent's event has ended the run and this agent goes on |
//! | `times` | shard u16 · received ms u64 | position u64 of the first event of that millisecond | commit, at most one row |
//! | `client_ids` | UUID that a client sent | place | commit, for events that came with an id |
//! | `index` | term, 16 bytes · first place | offsets u16 of the events that have the term: see [`read::index`] | index, not in the write-ahead log |
//! | `log` | kind · ... | how far the log is, and the order of leaves: see `tlog::rows` | log |
//! | `tiles` | last leaf u64 · level u8 | a whole tile of the log: 256 hashes | log |
//! | `relay` | destination · kind · ... | what each destination has and has not: see `relay::backlog` | relay |
//! | `meta` | name | format, shards, instance, names that default labels ever had, number of agents per shard | start, and commit for new agents |
//!
//! Keys ascend and puts are few: the events of a commit are a few large ascending puts, beside small rows per run, per
//! agent and per commit. Server-given ids need no row, because they lead to their event through `times`: see
//! [`format::keys::server_id`].
//!
//! # Who owns what
//!
//! Each [shard thread](shard::thread) owns its agents' heads; the [queue](shard::queue) in front of it is bounded. [`read::committed`] tells
//! everybody how far the shards are. Whatever can be derived is written behind that, off the way of an answer.

//!
//! # Rooms
//!
//! | folder | | may import |
//! |---|---|---|
//! | [`store`] | RocksDB: the only files that name it | |
//! | [`format`] | keys, records, frames, terms, meta: the format on disk | `store` |
//! | [`read`] | lookups, the index, and what consumers follow | `format` |
//! | [`shard`] | the write path: queue, seal, commit, recovery | `read` |

pub mod format;
mod metrics;
pub mod read;
mod running;
pub mod shard;
pub mod store;
mod threads;

pub use running::{Ledger, LedgerHooks};
pub use threads::Threads;
