//! The write path of one shard: from the queue to the answer.
//!
//! | file | |
//! |---|---|
//! | [`queue`] | the bounded queue in front of the shard |
//! | [`thread`] | the thread: gathers, seals, commits and answers events |
//! | [`dedup`] | ids that clients sent: an event is stored once |
//! | [`heads`] | the last sequence and hash of each agent |
//! | [`wall_clock`] | the time of receipt, and steps of the clock |
//! | [`seal`] | assigns sequence, previous hash and hash |
//! | [`batch`] | the commit that is being built, and its answers |
//! | [`commit`] | the commit point: one write, one fsync |
//! | [`recover`] | where a shard continues after a start or a failed commit |
//! | [`disk_space`] | whether there is room for new events |

pub mod batch;
pub mod commit;
pub mod config;
pub mod dedup;
pub mod disk_space;
pub mod heads;
pub mod metrics;
pub mod queue;
pub mod recover;
pub mod seal;
pub mod thread;
pub mod wall_clock;
