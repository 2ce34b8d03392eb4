//! Reads the ids of events from the events: at a start those behind the cursor, and after a failed commit those that are
//! stored nevertheless.

use std::ops::Range;

use uuid::Uuid;

use crate::ledger::format::keys::{Location, Position, ShardId, server_id, time_key};
use crate::ledger::format::record::RecordRef;
use crate::ledger::read::events::Events;
use crate::ledger::read::lookup;
use crate::ledger::store::{Family, Store, StoreError};

/// The number of events after which their ids are passed on.
const STEP_EVENTS: u64 = 8192;

/// Reads the events of a shard at these positions. Passes the ids that need a row, the position after their events, and the
/// length of their records to `take`, some thousand events at a time. Events that are damaged or missing have no id:
/// `cairn verify` reports them.
///
/// # Errors
/// When the database cannot be read, or `take` fails.
pub fn read(
    store: &Store,
    shard: ShardId,
    positions: Range<Position>,
    mut take: impl FnMut(&mut Vec<(Uuid, Location)>, Position, usize) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let (mut events, mut times) = (Events::scan(store, 1)?, IdTimes { store, shard, last: None });
    let (mut ids, mut bytes) = (Vec::new(), 0);
    let mut position = positions.start;
    while position < positions.end {
        let location = Location { shard, position };
        if let Some(record) = events.at(location)? {
            bytes += record.len();
            let id = RecordRef::parse(record).ok().and_then(lookup::id);
            if let Some(id) = id
                && !times.lead_to(id, position)?
            {
                ids.push((id, location));
            }
        }
        position = position.next();
        if position.0.is_multiple_of(STEP_EVENTS) || position == positions.end {
            take(&mut ids, position, bytes)?;
            bytes = 0;
        }
    }
    Ok(())
}

/// The rows of `times` of a shard.
struct IdTimes<'s> {
    store: &'s Store,
    shard: ShardId,
    /// The row that was read last: its time, and the first position.
    last: Option<(u64, Option<Position>)>,
}

impl IdTimes<'_> {
    /// Whether an id leads to the event at a position by itself.
    fn lead_to(&mut self, id: Uuid, position: Position) -> Result<bool, StoreError> {
        let Some((ms, offset)) = server_id::parts(id) else { return Ok(false) };
        let first = match self.last {
            Some((last_ms, first)) if last_ms == ms => first,
            _ => {
                let row = self.store.get(Family::Times, &time_key(self.shard, ms))?;
                row.and_then(|row| Position::decode(&row))
            }
        };
        self.last = Some((ms, first));
        Ok(first.and_then(|first| first.0.checked_add(offset)) == Some(position.0))
    }
}
