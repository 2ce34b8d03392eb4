//! Writes segments to the family `client_ids`, each as one table with its ids in order and the cursors after its events. A
//! crash loses both or neither.

use super::memory::Segment;
use crate::ledger::format::id_cursor;
use crate::ledger::format::keys::{Position, ShardId, cursor_key};
use crate::ledger::store::{CommitError, Family, Store, StoreError};

/// The position after the last event of a shard whose id is in the database, as are all before it. `end` is the position
/// after its last event.
///
/// # Errors
/// When the database cannot be read, or the row is damaged or leads beyond the last event.
pub fn cursor(store: &Store, shard: ShardId, end: Position) -> Result<Position, StoreError> {
    let Some(row) = store.get(Family::ClientIds, &cursor_key(shard))? else { return Ok(Position(0)) };
    let cursor = id_cursor::decode(shard, &row).filter(|cursor| *cursor <= end);
    let shard = shard.0;
    cursor.ok_or_else(|| {
        store.damaged(format!("the cursor of shard {shard} in `client_ids` is wrong: run `cairn verify --all`"))
    })
}

/// Writes a segment.
///
/// # Errors
/// When the table cannot be written.
pub fn write(store: &Store, segment: &Segment) -> Result<(), CommitError> {
    // The cursors say that the events before them are stored, also if `storage.sync` is off.
    store.sync().map_err(|error| CommitError::Failed(error.to_string()))?;
    let mut rows: Vec<(u128, [u8; 10])> = segment.ids.iter().map(|(id, location)| (id.as_u128(), *location)).collect();
    rows.sort_unstable_by_key(|(id, _)| *id);
    // The number of shards has 16 bits.
    let cursors = segment.next.iter().enumerate().map(|(shard, next)| id_cursor::row(ShardId(shard as u16), *next));
    let mut cursors = cursors.peekable();
    store.add_table(Family::ClientIds, |table| {
        for (id, location) in rows {
            let key = id.to_be_bytes();
            while let Some((cursor, next)) = cursors.next_if(|(cursor, _)| cursor[..] < key[..]) {
                table.put(&cursor, &next)?;
            }
            table.put(&key, &location)?;
        }
        cursors.try_for_each(|(cursor, next)| table.put(&cursor, &next))
    })
}
