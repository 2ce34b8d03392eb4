//! Drops the oldest events whole, for retention: raises the floor, before which readers find nothing. That is one batch, so a crash
//! leaves either all or nothing of it. Space is freed afterwards, and again after the next start: see
//! [`Expired`](super::store::Expired). `docs/retention.md` describes the rest.

use std::collections::BTreeMap;

use super::format::floor::{Anchor, Floor};
use super::format::keys::{Location, Position, ShardId, time_key, time_of};
use super::store::{Batch, Family, Store, StoreError};
use cairn_proof::chain::AgentKey;

/// Adds to a batch that all events before a floor are dropped. `anchors` are those of the agents that lose events.
///
/// # Errors
/// When the database cannot be read.
pub fn drop_events(
    store: &Store,
    batch: &mut Batch,
    floor: &Floor,
    anchors: &BTreeMap<AgentKey, Anchor>,
) -> Result<(), StoreError> {
    let shards = floor.first.len() as u16;
    for shard in (0..shards).map(ShardId) {
        let first = Location { shard, position: floor.first(shard) };
        drop_times(store, batch, first)?;
    }
    for (agent, anchor) in anchors {
        anchor.put(store, batch, *agent)?;
    }
    floor.put(store, batch)
}

/// Deletes the files that have only events before a floor. Blocks.
///
/// # Errors
/// When the database cannot be read or written.
pub fn delete_files(store: &Store, floor: &Floor) -> Result<(), StoreError> {
    for (first, last) in ranges(floor) {
        store.delete_files(Family::Events, &first.encode(), &last.encode())?;
    }
    Ok(())
}

/// Rewrites the files that have events before a floor, without them. Blocks.
///
/// # Errors
/// When the database cannot be read or written.
pub fn rewrite_files(store: &Store, floor: &Floor) -> Result<(), StoreError> {
    for (first, last) in ranges(floor) {
        store.compact(Family::Events, Some(&first.encode()), Some(&last.encode()))?;
    }
    Ok(())
}

/// The first and the last event of each shard before a floor.
fn ranges(floor: &Floor) -> impl Iterator<Item = (Location, Location)> {
    let shards = (0..floor.first.len() as u16).map(ShardId);
    shards.filter(|shard| floor.first(*shard) > Position(0)).map(|shard| {
        let last = Position(floor.first(shard).0 - 1);
        (Location { shard, position: Position(0) }, Location { shard, position: last })
    })
}

/// Removes the rows of `times` except for the last one that is not after `first`: it is the id time of that event.
fn drop_times(store: &Store, batch: &mut Batch, first: Location) -> Result<(), StoreError> {
    let mut rows = store.rows(Family::Times)?;
    rows.seek(&time_key(first.shard, 0));
    let mut kept = None;
    while let Some((key, value)) = rows.row()? {
        let row = time_of(first.shard, key).zip(Position::decode(value));
        let Some((ms, _)) = row.filter(|(_, position)| *position <= first.position) else { break };
        kept = Some(ms);
        rows.next();
    }
    match kept {
        Some(ms) => store.delete_range(batch, Family::Times, &time_key(first.shard, 0), &time_key(first.shard, ms)),
        None => Ok(()),
    }
}
