//! Checks `log` and `tiles`.
//!
//! The order of leaves is stored twice: by leaf and by location. So a row that is missing or wrong is known from the
//! other one, and the leaves can still be read.

use std::sync::Arc;

use super::super::report::Report;
use super::fault::{FaultKind, Repair, RowFault};
use crate::ledger::format::keys::{Location, Position, ShardId};
use crate::ledger::read::lookup;
use crate::ledger::store::{Family, Rows, Store, StoreError};
use crate::tlog::leaf;
use crate::tlog::prune::{FIRST, KNOWN_FROM};
use crate::tlog::rows::{BASE, LogRows, ORIGIN, Progress, Run, SIZE, tile_key};
use cairn_proof::tree::{FullTile, WIDTH};
use tlog_tiles::HASH_SIZE;

/// The progress of the log in a ledger of `shards` shards; `None` if there is no log. A row that is missing or wrong is
/// replaced by the progress of a log that has all events: runs, tiles and checkpoints show whether that is right.
///
/// # Errors
/// When the database cannot be read.
pub fn progress(store: &Arc<Store>, shards: u16, report: &mut Report<'_>) -> Result<Option<Progress>, StoreError> {
    let rows = LogRows::new(Arc::clone(store));
    // A log that began anew has none of the events that were dropped before.
    let base: u64 = rows.base()?.iter().map(|first| first.0).fold(0, u64::saturating_add);
    let sum = |next: &[Position]| next.iter().fold(0u64, |sum, next| sum.saturating_add(next.0)).saturating_sub(base);
    let stored = match rows.progress() {
        Err(StoreError::Damaged { .. }) => None,
        stored => stored?,
    };
    let stored = stored.filter(|progress| progress.next.len() == usize::from(shards));
    if let Some(progress) = &stored
        && progress.size == sum(&progress.next)
    {
        return Ok(stored);
    }
    let mut rows = store.rows(Family::Log)?;
    rows.seek_for_prev(b"m");
    let Some((key, _)) = rows.row()?.filter(|(key, _)| key.starts_with(b"l")) else { return Ok(None) };
    let last_run = key.get(1..9).and_then(|leaf| leaf.try_into().ok()).map_or(u64::MAX, u64::from_be_bytes);
    let ends =
        (0..shards).map(|shard| lookup::end_if_known(store, ShardId(shard))).collect::<Result<Option<Vec<_>>, _>>()?;
    let progress = match (stored, ends) {
        // Only the positions are wrong, or only the size.
        (Some(progress), Some(ends)) if progress.size == sum(&ends) => Progress { next: ends, ..progress },
        (Some(progress), _) if last_run < sum(&progress.next) => Progress { size: sum(&progress.next), ..progress },
        (_, Some(ends)) => Progress { size: sum(&ends), next: ends },
        (_, None) => return Err(store.damaged("neither its size nor the ends of its shards can be read")),
    };
    let is_stored = store.get(Family::Log, SIZE)?.is_some();
    report.row(RowFault::expected(Family::Log, SIZE, is_stored, &progress.encode()));
    Ok(Some(progress))
}

/// Reads the runs of the log in the order of leaves, and compares their rows.
pub struct LogRuns<'s> {
    store: &'s Store,
    progress: &'s Progress,
    by_leaf: Rows<'s>,
    /// The rows by location, one iterator for each shard.
    by_location: Vec<Rows<'s>>,
    /// What was found.
    pub faults: Vec<RowFault>,
}

impl<'s> LogRuns<'s> {
    /// Begins with the first leaf.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn new(store: &'s Store, progress: &'s Progress) -> Result<LogRuns<'s>, StoreError> {
        let mut by_leaf = store.rows(Family::Log)?;
        by_leaf.seek(b"l");
        let mut by_location = Vec::new();
        for shard in 0..progress.next.len() as u16 {
            let mut rows = store.rows(Family::Log)?;
            rows.seek(&shard_prefix(shard));
            by_location.push(rows);
        }
        Ok(LogRuns { store, progress, by_leaf, by_location, faults: Vec::new() })
    }

    /// Begins with the leaf `first` instead, at these positions: what is before was dropped. Returns the shard of the run that has it,
    /// if it begins before; `None` if the rows tell something else.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn begin(&mut self, first: u64, next: &[Position]) -> Result<Option<Option<ShardId>>, StoreError> {
        let run = self.by_leaf.row()?.and_then(|(key, value)| Run::decode_by_leaf(key, value));
        let Some(run) = run.filter(|run| run.leaf < first) else { return Ok(Some(None)) };
        let shard = run.location.shard;
        let position = run.location.position.0.checked_add(first - run.leaf).map(Position);
        let rows = self.by_location.get_mut(usize::from(shard.0));
        let (Some(rows), true) = (rows, position == next.get(usize::from(shard.0)).copied()) else { return Ok(None) };
        let (key, value) = run.by_location();
        if rows.row()?.is_none_or(|row| row != (&key[..], &value[..])) {
            return Ok(None);
        }
        rows.next();
        self.by_leaf.next();
        Ok(Some(Some(shard)))
    }

    /// The location of the event of `leaf`, which follows the last run or begins another one, and the leaf at which its
    /// run ends at the latest. `next` has the position of the next leaf of each shard, `current` the shard of the leaf
    /// before. `None` if no row tells where the leaf is.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn next(
        &mut self,
        leaf: u64,
        next: &[Position],
        current: Option<ShardId>,
    ) -> Result<Option<(Location, u64)>, StoreError> {
        let is_next = |location: &Location| next.get(usize::from(location.shard.0)) == Some(&location.position);
        let by_leaf = self.row_of_leaf(leaf)?;
        let is_stored = by_leaf.is_some();
        let mut told_by_leaf = by_leaf.flatten().map(|run| run.location).filter(is_next);
        if let Some(location) = told_by_leaf
            && self.agreed_leaf(location)?.is_some_and(|agreed| agreed != leaf)
        {
            told_by_leaf = None;
        }
        let told_by_location = self.shard_of_leaf(leaf, next)?;
        let location = match (told_by_leaf, told_by_location, current) {
            (Some(first), Some(second), _) if first != second => self.decide(leaf, first, second)?,
            (Some(location), ..) => location,
            (None, Some(location), _) => {
                let (key, value) = Run { leaf, location }.by_leaf();
                self.faults.push(RowFault::expected(Family::Log, &key, is_stored, &value));
                location
            }
            (None, None, Some(shard)) => {
                let location = Location { shard, position: next[usize::from(shard.0)] };
                if is_stored && let Some(location) = self.other_run(leaf, next, location)? {
                    let (key, value) = Run { leaf, location }.by_leaf();
                    self.faults.push(RowFault::expected(Family::Log, &key, true, &value));
                    self.compare_by_location(leaf, location)?;
                    return Ok(Some((location, self.end(leaf, location)?)));
                }
                // The run goes on, although a row says that another one begins here.
                let run = Run { leaf, location };
                if is_stored {
                    self.faults.push(RowFault::unexpected(Family::Log, &run.by_leaf().0));
                }
                if self.take_by_location(location)?.is_some() {
                    self.faults.push(RowFault::unexpected(Family::Log, &run.by_location().0));
                }
                return Ok(Some((location, self.end(leaf, location)?)));
            }
            (None, None, None) => return Ok(None),
        };
        self.compare_by_location(leaf, location)?;
        Ok(Some((location, self.end(leaf, location)?)))
    }

    /// Compares the row by location of a run.
    fn compare_by_location(&mut self, leaf: u64, location: Location) -> Result<(), StoreError> {
        let (key, value) = Run { leaf, location }.by_location();
        let stored = self.take_by_location(location)?;
        if stored != Some(leaf) {
            self.faults.push(RowFault::expected(Family::Log, &key, stored.is_some(), &value));
        }
        Ok(())
    }

    /// Where the run of `leaf` begins, if its two rows are wrong: at the event that was logged or, before the tile of the
    /// leaf is full, at the only row by location that no row by leaf agrees with. `None` if the run that goes on at
    /// `current` has the leaf.
    fn other_run(&self, leaf: u64, next: &[Position], current: Location) -> Result<Option<Location>, StoreError> {
        let others = (0..).map(ShardId).zip(next).map(|(shard, &position)| Location { shard, position });
        let others: Vec<Location> = others.filter(|other| *other != current).collect();
        if let Some(logged) = self.logged(leaf)? {
            if self.has_leaf(current, &logged) {
                return Ok(None);
            }
            return Ok(others.into_iter().find(|other| self.has_leaf(*other, &logged)));
        }
        let mut found = None;
        for location in others {
            let is_stored = self.store.get(Family::Log, &Run { leaf, location }.by_location().0)?.is_some();
            if is_stored && self.agreed_leaf(location)?.is_none() && found.replace(location).is_some() {
                return Ok(None);
            }
        }
        Ok(found)
    }

    /// The leaf of a location at which a run begins, if both rows of the run agree.
    fn agreed_leaf(&self, location: Location) -> Result<Option<u64>, StoreError> {
        let Some(run) = run_at(self.store, location)? else { return Ok(None) };
        let (key, value) = run.by_leaf();
        let agrees = self.store.get(Family::Log, &key)?.is_some_and(|stored| *stored == value);
        Ok(agrees.then_some(run.leaf))
    }

    /// The hash of a leaf in its tile; `None` before the tile is full.
    fn logged(&self, leaf: u64) -> Result<Option<[u8; HASH_SIZE]>, StoreError> {
        let tile = self.store.get(Family::Tiles, &tile_key(0, leaf / WIDTH as u64))?;
        let at = (leaf % WIDTH as u64) as usize;
        Ok(tile.and_then(|tile| tile.as_chunks::<HASH_SIZE>().0.get(at).copied()))
    }

    /// Whether the event at a location has this leaf hash.
    fn has_leaf(&self, location: Location, hash: &[u8; HASH_SIZE]) -> bool {
        let record = lookup::record(self.store, location).ok().flatten();
        record.is_some_and(|record| leaf::hash(record.as_ref()).0 == *hash)
    }

    /// Which of two locations has the event of `leaf`, if its rows do not agree: the one whose event has the hash in the
    /// tile of the leaf. Before the tile is full, this cannot be decided.
    fn decide(&mut self, leaf: u64, by_leaf: Location, by_location: Location) -> Result<Location, StoreError> {
        let logged = self.logged(leaf)?;
        let is_logged = |location| logged.is_some_and(|logged| self.has_leaf(location, &logged));
        let (key, value) = Run { leaf, location: by_location }.by_leaf();
        let (is_by_leaf, is_by_location) = (is_logged(by_leaf), is_logged(by_location));
        if is_by_location {
            self.faults.push(RowFault::expected(Family::Log, &key, true, &value));
            return Ok(by_location);
        }
        if !is_by_leaf {
            // The rows by leaf of two runs are exchanged, or their rows by location: all four are named.
            self.faults.push(RowFault::new(Family::Log, &key, FaultKind::Wrong, Repair::Impossible));
            let other = run_at(self.store, by_leaf)?;
            let other =
                other.map(|run| RowFault::new(Family::Log, &run.by_leaf().0, FaultKind::Wrong, Repair::Impossible));
            self.faults.extend(other);
        }
        Ok(by_leaf)
    }

    /// Takes the row of `leaf`; the inner `None` is a row that cannot be decoded. Rows of leaves before it are
    /// unexpected.
    fn row_of_leaf(&mut self, leaf: u64) -> Result<Option<Option<Run>>, StoreError> {
        let own_key = Run { leaf, location: Location { shard: ShardId(0), position: Position(0) } }.by_leaf().0;
        while let Some((key, value)) = self.by_leaf.row()?.filter(|(key, _)| *key <= &own_key[..]) {
            if *key == own_key {
                let run = Run::decode_by_leaf(key, value);
                self.by_leaf.next();
                return Ok(Some(run));
            }
            self.faults.push(RowFault::unexpected(Family::Log, key));
            self.by_leaf.next();
        }
        Ok(None)
    }

    /// The location of `leaf` as the rows by location tell it. Rows before the next position of a shard are unexpected.
    fn shard_of_leaf(&mut self, leaf: u64, next: &[Position]) -> Result<Option<Location>, StoreError> {
        let mut found = None;
        for (shard, (rows, &position)) in (0..).map(ShardId).zip(self.by_location.iter_mut().zip(next)) {
            let location = Location { shard, position };
            let own_key = Run { leaf, location }.by_location().0;
            while let Some((key, _)) = rows.row()?.filter(|(key, _)| *key < &own_key[..]) {
                self.faults.push(RowFault::unexpected(Family::Log, key));
                rows.next();
            }
            let run = rows.row()?.and_then(|(key, value)| Run::decode_by_location(key, value));
            found = found.or(run.filter(|run| run.leaf == leaf && run.location == location).map(|run| run.location));
        }
        Ok(found)
    }

    /// Takes the row of a location, if it is the next one of its shard. Returns its leaf; one that no log has for a row
    /// that cannot be decoded.
    fn take_by_location(&mut self, location: Location) -> Result<Option<u64>, StoreError> {
        let rows = &mut self.by_location[usize::from(location.shard.0)];
        let own_key = Run { leaf: 0, location }.by_location().0;
        let Some((key, value)) = rows.row()?.filter(|(key, _)| *key == own_key) else { return Ok(None) };
        let leaf = Run::decode_by_location(key, value).map_or(u64::MAX, |run| run.leaf);
        rows.next();
        Ok(Some(leaf))
    }

    /// The leaf at which the run that has `leaf` at `location` ends at the latest: where a row says that another run
    /// begins, or at the end of its shard or of the log.
    fn end(&self, leaf: u64, location: Location) -> Result<u64, StoreError> {
        let shard = usize::from(location.shard.0);
        let next_leaf = self.by_leaf.row()?.and_then(|(key, _)| key.strip_prefix(b"l")?.first_chunk::<8>().copied());
        let next_leaf = next_leaf.map_or(u64::MAX, u64::from_be_bytes);
        let row = self.by_location[shard].row()?;
        let next_run = row.and_then(|(key, _)| Location::decode(key.strip_prefix(b"p")?));
        let next_run = next_run.filter(|next| next.shard == location.shard);
        let end = next_run.map_or(Position(u64::MAX), |next| next.position).min(self.progress.next[shard]);
        let run_end = leaf.saturating_add(end.0.saturating_sub(location.position.0));
        Ok(self.progress.size.min(next_leaf).min(run_end))
    }

    /// Adds the rows that are left after the last leaf, and all rows that are no rows of a log.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn finish(mut self) -> Result<Vec<RowFault>, StoreError> {
        while let Some((key, _)) = self.by_leaf.row()?.filter(|(key, _)| key.starts_with(b"l")) {
            self.faults.push(RowFault::unexpected(Family::Log, key));
            self.by_leaf.next();
        }
        for (shard, mut rows) in (0u16..).zip(self.by_location) {
            while let Some((key, _)) = rows.row()?.filter(|(key, _)| key.starts_with(&shard_prefix(shard))) {
                self.faults.push(RowFault::unexpected(Family::Log, key));
                rows.next();
            }
        }
        let shards = self.progress.next.len();
        let mut rows = self.store.rows(Family::Log)?;
        rows.seek_first();
        while let Some((key, _)) = rows.row()? {
            match key {
                SIZE | ORIGIN | BASE | FIRST | KNOWN_FROM => rows.next(),
                [b'c', size @ ..] if size.len() == 8 => rows.next(),
                // The runs were compared one by one.
                [b'l', ..] => rows.seek(b"m"),
                [b'p', high, low, ..] if usize::from(u16::from_be_bytes([*high, *low])) < shards => {
                    rows.seek(&shard_prefix(u16::from_be_bytes([*high, *low]) + 1));
                }
                _ => {
                    self.faults.push(RowFault::unexpected(Family::Log, key));
                    rows.next();
                }
            }
        }
        Ok(self.faults)
    }
}

/// The run that begins at a location, as its row by location tells it; `None` if there is no such row, or it cannot be
/// decoded.
fn run_at(store: &Store, location: Location) -> Result<Option<Run>, StoreError> {
    let (key, _) = Run { leaf: 0, location }.by_location();
    Ok(store.get(Family::Log, &key)?.and_then(|value| Run::decode_by_location(&key, &value)))
}

/// What the keys of a shard's rows by location begin with.
fn shard_prefix(shard: u16) -> [u8; 3] {
    let [high, low] = shard.to_be_bytes();
    [b'p', high, low]
}

/// Compares the full tiles of the rebuilt tree with the stored ones, in the order of their keys, in which they become
/// full.
pub struct LogTiles<'s> {
    rows: Rows<'s>,
}

impl<'s> LogTiles<'s> {
    /// Begins with the first tile.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn new(store: &'s Store) -> Result<LogTiles<'s>, StoreError> {
        let mut rows = store.scan(Family::Tiles)?;
        rows.seek_first();
        Ok(LogTiles { rows })
    }

    /// Compares the next full tile. Returns the faults of the rows up to its own.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn take(&mut self, tile: &FullTile) -> Result<Vec<RowFault>, StoreError> {
        let own_key = tile_key(tile.level, tile.index);
        let mut faults = Vec::new();
        while let Some((key, value)) = self.rows.row()?.filter(|(key, _)| *key <= &own_key[..]) {
            let is_own = *key == own_key;
            if is_own && *value != tile.bytes {
                faults.push(RowFault::expected(Family::Tiles, &own_key, true, &tile.bytes));
            } else if !is_own {
                faults.push(RowFault::unexpected(Family::Tiles, key));
            }
            self.rows.next();
            if is_own {
                return Ok(faults);
            }
        }
        faults.push(RowFault::expected(Family::Tiles, &own_key, false, &tile.bytes));
        Ok(faults)
    }

    /// The rows that are left after the last tile.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn finish(mut self) -> Result<Vec<RowFault>, StoreError> {
        let mut faults = Vec::new();
        while let Some((key, _)) = self.rows.row()? {
            faults.push(RowFault::unexpected(Family::Tiles, key));
            self.rows.next();
        }
        Ok(faults)
    }
}
