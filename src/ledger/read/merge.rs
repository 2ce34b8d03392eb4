//! Reads the committed events of all shards as one sequence, in the order of their receipt.

use super::committed::Committed;
use super::events::Events;
use super::lookup;
use crate::ledger::format::keys::{Location, Position, ShardId};
use crate::ledger::format::record::RecordRef;
use crate::ledger::store::{Store, StoreError};

/// Passes up to `limit` committed events from `next` on to `visit`, and advances `next` past them. Shards are merged by
/// time of receipt, so that a session whose agents are in several shards remains in order, as far as times of receipt
/// show it.
///
/// For an event that cannot be read, `visit` gets `None`. Events that retention has dropped are skipped.
///
/// # Errors
/// When the database cannot be read, or `visit` fails. `next` is then after the last event that was visited
/// successfully.
pub fn read(
    store: &Store,
    committed: &Committed,
    next: &mut [Position],
    limit: usize,
    mut visit: impl FnMut(Location, Option<RecordRef<'_>>) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut shards = Vec::new();
    for shard in committed.shards() {
        // The end is read before the iterator is opened: an iterator sees only rows that were stored when it was
        // opened.
        let (next, end) = (&mut next[usize::from(shard.0)], committed.next(shard));
        *next = (*next).max(committed.first(shard));
        if *next < end {
            shards.push(Shard { shard, end, events: Events::new(store)? });
        }
    }
    // With one shard the time of receipt is not needed.
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
        visit(location, shard.record(store, location)?)?;
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
    /// The time of receipt of the event at this position; 0 if it cannot be read.
    fn received_ms(&mut self, position: Position) -> Result<u64, StoreError> {
        let record = self.events.at(Location { shard: self.shard, position })?;
        Ok(record.and_then(|record| RecordRef::parse(record).ok()?.received_ms()).unwrap_or(0))
    }

    /// The record at this location; `None` if there is none that can be read.
    fn record<'r>(&'r mut self, store: &Store, location: Location) -> Result<Option<RecordRef<'r>>, StoreError> {
        Ok(self.events.at(location)?.and_then(|record| lookup::parse(store, location, record).ok()))
    }
}
