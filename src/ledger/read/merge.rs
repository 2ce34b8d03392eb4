//! Reads the committed events of all shards as one sequence, in the order of their receipt.

use super::committed::Committed;
use super::events::Events;
use super::lookup;
use crate::ledger::format::keys::{Location, Position, ShardId};
use crate::ledger::format::record::RecordRef;
use crate::ledger::store::{Store, StoreError};

/// Tells up to `limit` committed events from `next` on, and moves `next` behind them. Shards are merged by the time of
/// receipt, so that a session whose agents are in several shards keeps its order as far as clocks go.
///
/// For an event that cannot be read, `None` is told.
///
/// # Errors
/// When the database cannot be read. `next` stands behind what was told then.
pub fn read(
    store: &Store,
    committed: &Committed,
    next: &mut [Position],
    limit: usize,
    mut tell: impl FnMut(Location, Option<RecordRef<'_>>) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut shards = Vec::new();
    for shard in committed.shards() {
        // First the end, then the rows: they show what was there when they were opened, and nothing later.
        let (from, end) = (next[usize::from(shard.0)], committed.next(shard));
        if from < end {
            shards.push(Shard { shard, end, events: Events::new(store)? });
        }
    }
    // With one shard nobody asks for the time.
    let is_merged = shards.len() > 1;
    for _ in 0..limit {
        let mut first: Option<(u64, usize)> = None;
        for (index, shard) in shards.iter_mut().enumerate() {
            let position = next[usize::from(shard.shard.0)];
            if position < shard.end {
                let ms = if is_merged { shard.received_ms(position)? } else { 0 };
                if first.is_none_or(|(least_ms, _)| ms < least_ms) {
                    first = Some((ms, index));
                }
            }
        }
        let Some((_, index)) = first else { break };
        let shard = &mut shards[index];
        let position = &mut next[usize::from(shard.shard.0)];
        let location = Location { shard: shard.shard, position: *position };
        tell(location, shard.record(store, location)?)?;
        *position = position.next();
    }
    Ok(())
}

struct Shard<'s> {
    shard: ShardId,
    end: Position,
    events: Events<'s>,
}

impl Shard<'_> {
    /// When the event at this place was received; the beginning of time if it cannot be read.
    fn received_ms(&mut self, position: Position) -> Result<u64, StoreError> {
        let record = self.events.at(Location { shard: self.shard, position })?;
        Ok(record.and_then(|record| RecordRef::parse(record).ok()?.received_ms()).unwrap_or(0))
    }

    /// The record at this place; `None` if there is none that can be read.
    fn record<'r>(&'r mut self, store: &Store, location: Location) -> Result<Option<RecordRef<'r>>, StoreError> {
        Ok(self.events.at(location)?.and_then(|record| lookup::parse(store, location, record).ok()))
    }
}
