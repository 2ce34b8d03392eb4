//! How far events may be dropped: only what a signed checkpoint covers, and what every consumer has read that needs it.

use crate::ledger::Ledger;
use crate::ledger::format::keys::{Location, Position, ShardId};
use crate::ledger::read::{lookup, received};
use crate::ledger::store::StoreError;
use crate::tlog::SignedTree;
use crate::tlog::rows::LogRows;

/// What keeps events from being dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blocked {
    /// A hold.
    Hold,
    /// A destination of the relay has not accepted them.
    Relay,
    /// They are not signed, not indexed, or needed to verify what is kept.
    Log,
    /// They are damaged.
    Damaged,
}

impl Blocked {
    /// All reasons.
    pub const ALL: [Blocked; 4] = [Blocked::Hold, Blocked::Relay, Blocked::Log, Blocked::Damaged];

    /// The name of the reason in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Blocked::Hold => "hold",
            Blocked::Relay => "relay",
            Blocked::Log => "log",
            Blocked::Damaged => "damaged",
        }
    }
}

/// The first leaf that is not before these positions, one of each shard: the leaves before it may be dropped if everything before the
/// positions may.
///
/// # Errors
/// When the database cannot be read.
pub fn first_leaf(rows: &LogRows, signed: &SignedTree, next: &[Position]) -> Result<u64, StoreError> {
    let mut first = signed.size;
    for (shard, position) in (0..).map(ShardId).zip(next) {
        // A consumer may be behind what was dropped.
        let position = (*position).max(Position(rows.store().expired().first_kept(shard.0)));
        let location = Location { shard, position };
        if signed.covers(location) && position < lookup::end(rows.store(), shard)? {
            first = first.min(rows.leaf_of(location)?);
        }
    }
    Ok(first)
}

/// The position of the first event of each shard that was received at `until_ms` or later. After a step of the clock back, events are
/// kept longer.
///
/// # Errors
/// When the database cannot be read.
pub fn received_before(ledger: &Ledger, until_ms: u64) -> Result<Vec<Position>, StoreError> {
    let (store, committed) = (ledger.store(), ledger.committed());
    let first = committed.shards().map(|shard| {
        let (start, end) = (committed.first(shard), committed.next(shard));
        let ranges = received::ranges(store, shard, end, None, Some(until_ms))?;
        Ok(ranges.first().filter(|range| range.start <= start).map_or(start, |range| range.end))
    });
    first.collect()
}
