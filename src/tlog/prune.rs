//! Drops the part of the log that leads to events which retention drops: see "Pruning" in C2SP tlog-tiles. Its minimum index is
//! the first leaf that is kept, always a multiple of 256.
//!
//! Bundles of leaves before it are gone with the events. Tiles of level 0 before it are removed where the tile above them is full,
//! except those in which a signed tree ended: so every signed tree can still be proven to be a prefix of every later one. Other
//! levels are kept.
//!
//! The row `f` of the family `log` has the first leaf that is kept u64, and the number u64 of the first tile of level 0 that has
//! not been removed or kept for good.

use std::collections::BTreeSet;

use super::rows::{LogRows, Run, leaf_key, tile_key};
use crate::ledger::store::{Batch, Family, Store, StoreError};
use cairn_proof::tree::WIDTH;

/// The key of the row.
pub const FIRST: &[u8] = b"f";
/// What the keys of sizes of signed trees begin with.
pub const SIGNED: &[u8] = b"c";
/// The key of the size from which on all sizes of signed trees have rows.
pub const KNOWN_FROM: &[u8] = b"k";

/// What was dropped from the log.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Pruned {
    /// The first leaf whose event is kept: the minimum index.
    pub first: u64,
    /// The first tile of level 0 that has not been removed or kept for good.
    next_tile: u64,
}

impl Pruned {
    /// Reads what was dropped.
    ///
    /// # Errors
    /// When the database cannot be read, or the row is damaged.
    pub fn read(store: &Store) -> Result<Pruned, StoreError> {
        let Some(row) = store.get(Family::Log, FIRST)? else { return Ok(Pruned::default()) };
        Pruned::decode(&row).ok_or_else(|| store.damaged("the first leaf of its log cannot be read"))
    }

    /// Decodes the row; `None` if it is damaged.
    pub fn decode(row: &[u8]) -> Option<Pruned> {
        let (numbers, rest) = row.as_chunks::<8>();
        let [first, next_tile] = numbers else { return None };
        let (first, next_tile) = (u64::from_be_bytes(*first), u64::from_be_bytes(*next_tile));
        (rest.is_empty() && first.is_multiple_of(WIDTH as u64)).then_some(Pruned { first, next_tile })
    }
}

/// Adds to a batch that a tree of this size is about to be signed.
///
/// # Errors
/// When the database cannot be read.
pub fn note_checkpoint(rows: &LogRows, batch: &mut Batch, size: u64) -> Result<(), StoreError> {
    let store = rows.store();
    if store.get(Family::Log, KNOWN_FROM)?.is_none() {
        // An earlier version may have signed trees up to here.
        store.put(batch, Family::Log, KNOWN_FROM, &size.to_be_bytes())?;
    }
    match size.is_multiple_of(WIDTH as u64) {
        true => Ok(()),
        false => store.put(batch, Family::Log, &signed_key(size), &[]),
    }
}

fn signed_key(size: u64) -> Vec<u8> {
    [SIGNED, &size.to_be_bytes()].concat()
}

/// Adds to a batch that the leaves before `first`, a multiple of 256, are dropped, in a log of `size` leaves that are written.
/// Returns the keys of tiles between which tiles are removed.
///
/// # Errors
/// When the database cannot be read.
pub fn prune(rows: &LogRows, batch: &mut Batch, first: u64, size: u64) -> Result<std::ops::Range<[u8; 9]>, StoreError> {
    let store = rows.store();
    let before = Pruned::read(store)?;
    drop_runs(rows, batch, first)?;
    // The tiles of level 0 below a full tile of level 1: its hashes are theirs.
    let below_full = size / (WIDTH * WIDTH) as u64 * WIDTH as u64;
    let end = (first / WIDTH as u64).min(below_full).max(before.next_tile);
    let kept = tiles_of_signed(store, batch, end)?;
    for tile in (before.next_tile..end).filter(|tile| !kept.contains(tile)) {
        store.delete(batch, Family::Tiles, &tile_key(0, tile))?;
    }
    let row = [first.to_be_bytes(), end.to_be_bytes()].concat();
    store.put(batch, Family::Log, FIRST, &row)?;
    Ok(tile_key(0, before.next_tile)..tile_key(0, end))
}

/// Removes the rows of runs whose leaves are all dropped.
fn drop_runs(rows: &LogRows, batch: &mut Batch, first: u64) -> Result<(), StoreError> {
    let store = rows.store();
    let mut stored = store.rows(Family::Log)?;
    stored.seek_for_prev(&leaf_key(first));
    let kept = stored.row()?.and_then(|(key, value)| Run::decode_by_leaf(key, value));
    let kept = kept.ok_or_else(|| store.damaged(format!("leaf {first} has no event")))?;
    let mut runs = rows.runs()?;
    while let Some(run) = runs.take_next()?.filter(|run| run.leaf < kept.leaf) {
        store.delete(batch, Family::Log, &run.by_leaf().0)?;
        store.delete(batch, Family::Log, &run.by_location().0)?;
    }
    Ok(())
}

/// The tiles before `end` in which a signed tree may have ended. Removes the rows that tell it.
fn tiles_of_signed(store: &Store, batch: &mut Batch, end: u64) -> Result<BTreeSet<u64>, StoreError> {
    let number = |bytes: &[u8]| bytes.try_into().ok().map(u64::from_be_bytes);
    let known_from = store.get(Family::Log, KNOWN_FROM)?.map_or(Some(u64::MAX), |row| number(&row));
    let unknown = known_from.unwrap_or(u64::MAX).div_ceil(WIDTH as u64).min(end);
    let mut tiles: BTreeSet<u64> = (0..unknown).collect();
    let mut rows = store.rows(Family::Log)?;
    rows.seek(SIGNED);
    while let Some((key, _)) = rows.row()?.filter(|(key, _)| key.starts_with(SIGNED)) {
        let size =
            number(&key[SIGNED.len()..]).ok_or_else(|| store.damaged("the size of a signed tree cannot be read"))?;
        if size / WIDTH as u64 >= end {
            break;
        }
        tiles.insert(size / WIDTH as u64);
        store.delete(batch, Family::Log, key)?;
        rows.next();
    }
    Ok(tiles)
}
