//! The log on disk: the families `log` and `tiles`.
//!
//! | key in `log` | value |
//! |---|---|
//! | `s` | size u64, then a position u64 per shard: the events before these positions are leaves |
//! | `l` · leaf u64 | location: a run of leaves starts here, whose events are at consecutive positions |
//! | `p` · location | leaf u64: the same run, by location |
//! | `o` | the origin, if it is not the default: see `cairn key new-log` |
//! | `b` | a position u64 per shard: retention had dropped the events before these when the log began; absent if there were none |
//! | `c` · size u64 | nothing: a checkpoint was signed over that many leaves, which are no whole tiles |
//! | `k` | size u64: the checkpoints over more leaves than that have rows |
//! | `f` | see [`super::prune`] |
//!
//! | key in `tiles` | value |
//! |---|---|
//! | last leaf under it u64 · level u8 | a full tile: 256 hashes |
//!
//! Tiles become full in the order of these keys, on all levels, so the database never rewrites one to sort it among
//! others. In one family with the rest of the log, under a key that began with the level, it rewrote tiles whenever
//! there were some new ones: an eighth of the CPU time of events that came in batches. See
//! `docs/adr/0015-tiles-have-a-family-of-their-own.md`.
//!
//! The order of leaves cannot be derived from the events of several shards, so it is stored, as runs: with one shard
//! there is a single run. Runs and tiles are written in one batch with the size, and are on disk before a checkpoint
//! covers them.

use std::sync::Arc;

use crate::ledger::format::checks;
use crate::ledger::format::floor::Floor;
use crate::ledger::format::keys::{Location, Position, ShardId};
use crate::ledger::format::record::{Record, RecordRef};
use crate::ledger::read::events::Events;
use crate::ledger::read::lookup;
use crate::ledger::store::{Batch, Family, Rows, Store, StoreError};

use super::format::location_key;
pub use super::format::{BASE, ORIGIN, Progress, Run, SIZE, leaf_key, tile_key};
use super::leaf;
use cairn_proof::tree::{Edge, FullTile, TileBytes, Tiles, WIDTH};
use tlog_tiles::{HASH_SIZE, Tile};

/// Iterates over the runs of the log.
pub struct Runs<'s> {
    store: &'s Store,
    rows: Rows<'s>,
}

impl Runs<'_> {
    /// Returns the next run; `None` after the last one.
    ///
    /// # Errors
    /// When the database cannot be read, or the run is damaged.
    pub fn take_next(&mut self) -> Result<Option<Run>, StoreError> {
        let Some((key, value)) = self.rows.row()?.filter(|(key, _)| key.starts_with(b"l")) else { return Ok(None) };
        let run = Run::decode_by_leaf(key, value);
        let run = run.ok_or_else(|| self.store.damaged("a run of the log cannot be read"))?;
        self.rows.next();
        Ok(Some(run))
    }
}

/// Iterates over the events of consecutive leaves, with one iterator over the runs and one over the events. Looking up
/// each leaf took 15 us.
pub struct LeafEvents<'s> {
    runs: Runs<'s>,
    run: Run,
    next_run: Option<Run>,
    /// The next leaf.
    leaf: u64,
    events: Events<'s>,
}

impl LeafEvents<'_> {
    /// The event of the next leaf. The leaf must be in the log.
    ///
    /// # Errors
    /// When the database cannot be read, or the event is missing or damaged.
    pub fn take_next(&mut self) -> Result<RecordRef<'_>, StoreError> {
        let LeafEvents { runs, run, next_run, leaf, events } = self;
        while let Some(next) = next_run.filter(|next| next.leaf <= *leaf) {
            *run = next;
            *next_run = runs.take_next()?;
        }
        let offset = leaf.saturating_sub(run.leaf);
        let location = Location { position: Position(run.location.position.0.saturating_add(offset)), ..run.location };
        let number = *leaf;
        *leaf += 1;
        let record = events.at(location)?;
        let record = record.ok_or_else(|| runs.store.damaged(format!("the event of leaf {number} is missing")))?;
        lookup::parse(runs.store, location, record)
    }
}

/// The rows of the log in a database.
#[derive(Clone)]
pub struct LogRows {
    store: Arc<Store>,
}

impl LogRows {
    /// The rows of the log in `store`.
    pub fn new(store: Arc<Store>) -> LogRows {
        LogRows { store }
    }

    /// The database.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// The progress of the log; `None` if nothing was ever written.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn progress(&self) -> Result<Option<Progress>, StoreError> {
        let Some(row) = self.store.get(Family::Log, SIZE)? else { return Ok(None) };
        let progress = Progress::decode(&row).ok_or_else(|| self.store.damaged("the log's size cannot be read"))?;
        Ok(Some(progress))
    }

    /// Adds the progress of the log to a batch.
    ///
    /// # Errors
    /// When the column family is missing.
    pub fn put_progress(&self, batch: &mut Batch, progress: &Progress) -> Result<(), StoreError> {
        self.store.put(batch, Family::Log, SIZE, &progress.encode())
    }

    /// Adds a full tile to a batch.
    ///
    /// # Errors
    /// When the column family is missing.
    pub fn put_tile(&self, batch: &mut Batch, tile: &FullTile) -> Result<(), StoreError> {
        self.store.put(batch, Family::Tiles, &tile_key(tile.level, tile.index), &tile.bytes)
    }

    /// Adds a run to a batch.
    ///
    /// # Errors
    /// When the column family is missing.
    pub fn put_run(&self, batch: &mut Batch, leaf: u64, location: Location) -> Result<(), StoreError> {
        let run = Run { leaf, location };
        let ((by_leaf, location), (by_location, leaf)) = (run.by_leaf(), run.by_location());
        self.store.put(batch, Family::Log, &by_leaf, &location)?;
        self.store.put(batch, Family::Log, &by_location, &leaf)
    }

    /// The origin, if it is not the default.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn origin(&self) -> Result<Option<String>, StoreError> {
        let row = self.store.get(Family::Log, ORIGIN)?;
        Ok(row.map(|row| String::from_utf8_lossy(&row).into_owned()))
    }

    /// Removes the log and stores another origin, at once. The next start derives the log again from the events.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn reset(&self, origin: &str) -> Result<(), StoreError> {
        let mut batch = self.store.batch(origin.len() + 256);
        self.store.delete_all(&mut batch, Family::Log)?;
        self.store.delete_all(&mut batch, Family::Tiles)?;
        checks::origin().put_row(&self.store, &mut batch, ORIGIN, origin.as_bytes())?;
        if let Some(floor) = Floor::read(&self.store)? {
            let positions: Vec<u8> = floor.first.iter().flat_map(|first| first.encode()).collect();
            self.store.put(&mut batch, Family::Log, BASE, &positions)?;
        }
        self.store.write_synced(batch)
    }

    /// The location of the event of a leaf. The leaf must be in the log.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn location_of(&self, leaf: u64) -> Result<Location, StoreError> {
        let mut rows = self.store.rows(Family::Log)?;
        rows.seek_for_prev(&leaf_key(leaf));
        let run = rows.row()?.filter(|(key, _)| key.len() == 9 && key[0] == b'l');
        let run = run.and_then(|(key, value)| Some((key.last_chunk::<8>()?, Location::decode(value)?)));
        let (first, location) = run.ok_or_else(|| self.store.damaged(format!("leaf {leaf} has no event")))?;
        let offset = leaf - u64::from_be_bytes(*first);
        Ok(Location { position: Position(location.position.0 + offset), ..location })
    }

    /// The leaf of the event at `location`. The event must be in the log.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn leaf_of(&self, location: Location) -> Result<u64, StoreError> {
        let (first, leaf, _) = self.run_of(location)?;
        Ok(leaf + location.position.0 - first.position.0)
    }

    /// The run that contains the event at `location`: the location of its first event, its first leaf, and the position
    /// at which the shard's next run starts. The event must be in the log.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn run_of(&self, location: Location) -> Result<(Location, u64, u64), StoreError> {
        fn run<'r>(rows: &'r Rows<'_>) -> Result<Option<(Location, &'r [u8])>, StoreError> {
            let row = rows.row()?.filter(|(key, _)| key.len() == 11 && key[0] == b'p');
            Ok(row.and_then(|(key, value)| Some((Location::decode(&key[1..])?, value))))
        }
        let mut rows = self.store.rows(Family::Log)?;
        rows.seek_for_prev(&location_key(location));
        let found = run(&rows)?.filter(|(first, _)| first.shard == location.shard);
        let found = found.and_then(|(first, leaf)| Some((first, u64::from_be_bytes(*leaf.first_chunk()?))));
        let missing = || self.store.damaged(format!("the event at position {} has no leaf", location.position.0));
        let (first, leaf) = found.ok_or_else(missing)?;
        rows.next();
        let end = run(&rows)?.filter(|(next, _)| next.shard == location.shard);
        Ok((first, leaf, end.map_or(u64::MAX, |(next, _)| next.position.0)))
    }

    /// The position of the next event of each shard after the first `size` leaves.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn positions_at(&self, size: u64) -> Result<Vec<Position>, StoreError> {
        let progress = self.progress()?.unwrap_or(Progress { size: 0, next: Vec::new() });
        if progress.size == size {
            return Ok(progress.next);
        }
        let mut next = self.first_positions(&progress.next)?;
        let mut runs = self.runs()?;
        let mut run = runs.take_next()?;
        while let Some(Run { leaf, location }) = run.filter(|run| run.leaf < size) {
            run = runs.take_next()?;
            let end = run.map_or(size, |run| run.leaf.min(size));
            if let Some(next) = next.get_mut(usize::from(location.shard.0)) {
                *next = Position(location.position.0 + (end - leaf));
            }
        }
        Ok(next)
    }

    /// The position of each shard at which its first run begins; the one in `next` for a shard without runs.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn first_positions(&self, next: &[Position]) -> Result<Vec<Position>, StoreError> {
        let mut first = Vec::with_capacity(next.len());
        for (shard, next) in LogRows::shards(next).zip(next) {
            let mut rows = self.store.rows(Family::Log)?;
            rows.seek(&location_key(Location { shard, position: Position(0) }));
            let run = rows.row()?.and_then(|(key, value)| Run::decode_by_location(key, value));
            let run = run.filter(|run| run.location.shard == shard);
            first.push(run.map_or(*next, |run| run.location.position));
        }
        Ok(first)
    }

    /// The positions at which the log begins: retention had dropped the events before them. Empty if it had dropped none.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn base(&self) -> Result<Vec<Position>, StoreError> {
        let row = self.store.get(Family::Log, BASE)?;
        let positions =
            row.map(|row| row.as_chunks::<8>().0.iter().map(|at| Position(u64::from_be_bytes(*at))).collect());
        Ok(positions.unwrap_or_default())
    }

    /// The event of a leaf. The leaf must be in the log.
    ///
    /// # Errors
    /// When the database cannot be read, or the event is missing.
    pub fn event_of(&self, leaf: u64) -> Result<Record, StoreError> {
        let record = lookup::record(&self.store, self.location_of(leaf)?)?;
        record.ok_or_else(|| self.store.damaged(format!("the event of leaf {leaf} is missing")))
    }

    /// Iterates over the events of leaves from `first` on, which must be in the log.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn events_from(&self, first: u64) -> Result<LeafEvents<'_>, StoreError> {
        let mut rows = self.store.rows(Family::Log)?;
        rows.seek_for_prev(&leaf_key(first));
        let mut runs = Runs { store: &self.store, rows };
        let run = runs.take_next()?.filter(|run| run.leaf <= first);
        let run = run.ok_or_else(|| self.store.damaged(format!("leaf {first} has no event")))?;
        let next_run = runs.take_next()?;
        Ok(LeafEvents { runs, run, next_run, leaf: first, events: Events::new(&self.store)? })
    }

    /// The edge of the tree, computed from what is stored: from full tiles, where an earlier tree is asked for; otherwise leaves
    /// from events, and the other levels from the tiles below them.
    ///
    /// # Errors
    /// When the database cannot be read, or an event or a tile is missing.
    pub fn edge(&self, size: u64) -> Result<Edge, StoreError> {
        Edge::rebuild(size, |level, first, count| {
            let tile = first / WIDTH as u64;
            if self.store.get(Family::Tiles, &tile_key(level, tile))?.is_some() {
                let mut bytes = self.read_tile(level, tile)?;
                bytes.truncate(count * HASH_SIZE);
                return Ok(bytes);
            }
            let mut bytes = TileBytes::with_capacity(WIDTH * HASH_SIZE);
            for number in first..first + count as u64 {
                let hash = match level.checked_sub(1) {
                    None => leaf::hash(self.event_of(number)?.as_ref()),
                    Some(below) => Tile::subtree_hash(&self.read_tile(below, number)?),
                };
                bytes.extend_from_slice(&hash.0);
            }
            Ok(bytes)
        })
    }

    pub(super) fn read_tile(&self, level: u8, index: u64) -> Result<TileBytes, StoreError> {
        let row = self.store.get(Family::Tiles, &tile_key(level, index))?;
        let row = row.filter(|row| row.len() == WIDTH * HASH_SIZE);
        row.map(|row| row.to_vec())
            .ok_or_else(|| self.store.damaged(format!("tile {index} of level {level} is missing")))
    }

    /// The runs, in the order of their leaves.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn runs(&self) -> Result<Runs<'_>, StoreError> {
        let mut rows = self.store.rows(Family::Log)?;
        rows.seek(&leaf_key(0));
        Ok(Runs { store: &self.store, rows })
    }

    /// The shards that these positions belong to.
    pub fn shards(next: &[Position]) -> impl Iterator<Item = ShardId> + use<> {
        (0..next.len() as u16).map(ShardId)
    }
}

impl Tiles for LogRows {
    fn tile(&self, level: u8, index: u64) -> Result<TileBytes, String> {
        self.read_tile(level, index).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_become_full_in_the_order_of_their_keys() {
        let (mut edge, mut keys) = (Edge::default(), Vec::new());
        for n in 0..140_000u64 {
            edge.push(tlog_tiles::record_hash(&n.to_be_bytes()), |tile| keys.push(tile_key(tile.level, tile.index)));
        }
        assert_eq!(keys.len(), 140_000 / 256 + 2);
        assert!(keys.is_sorted() && keys.windows(2).all(|pair| pair[0] != pair[1]));
        assert_eq!(tile_key(7, 0), [255, 255, 255, 255, 255, 255, 255, 255, 7]);
    }
}
