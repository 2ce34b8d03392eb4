//! Removes replaced and deleted rows from the files of the database for good: they are otherwise in the write-ahead log until
//! its memtables are written, and in tables until a compaction happens to merge these.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rocksdb::{BottommostLevelCompaction, CompactOptions, FlushOptions, LiveFile};

use super::{Family, Store, StoreError, snapshot};

/// How long to wait until the files that were replaced are deleted: readers of the database may still use them.
const DELETE_WAIT: Duration = Duration::from_secs(30);
/// The interval at which that is checked.
const DELETE_INTERVAL: Duration = Duration::from_millis(20);
/// How often tables are rewritten until none of the former ones is used. A compaction moves a table to the next level without
/// rewriting it if nothing overlaps with it there; the next one rewrites it.
const REWRITES: u32 = 4;

impl Store {
    /// Deletes the files of a family all of whose keys are from `first` to `last`. The newest files, those of level 0, stay.
    ///
    /// # Errors
    /// When the database cannot be read or written.
    pub fn delete_files(&self, family: Family, first: &[u8], last: &[u8]) -> Result<(), StoreError> {
        let handle = self.family(family)?;
        self.db.delete_file_in_range_cf(handle, first, last).map_err(|error| self.failed(error.as_ref()))
    }

    /// The size of the files that the database uses, in bytes. Files that were replaced, and are open because somebody still reads
    /// them, do not count.
    ///
    /// # Errors
    /// When the database or its directory cannot be read.
    pub fn live_bytes(&self) -> Result<u64, StoreError> {
        let tables = self.db.live_files().map_err(|error| self.failed(error.as_ref()))?;
        let tables: BTreeSet<&str> = tables.iter().map(|file| file.name.trim_start_matches('/')).collect();
        let failed = |source| StoreError::Directory { path: self.path.clone(), source };
        let mut bytes = 0;
        for entry in fs::read_dir(&self.path).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if !name.ends_with(".sst") || tables.contains(&*name) {
                // A file may have just been removed.
                bytes += entry.metadata().map_or(0, |metadata| metadata.len());
            }
        }
        Ok(bytes)
    }

    /// Compacts the files of a family with keys from `first` to `last`, or all. Blocks.
    ///
    /// # Errors
    /// When the column family is missing.
    pub fn compact(&self, family: Family, first: Option<&[u8]>, last: Option<&[u8]>) -> Result<(), StoreError> {
        let mut options = CompactOptions::default();
        options.set_exclusive_manual_compaction(false);
        self.db.compact_range_cf_opt(self.family(family)?, first, last, &options);
        Ok(())
    }

    /// Writes the memtable of a family to a table: rows that are not in the write-ahead log are on disk then.
    ///
    /// # Errors
    /// When the database cannot be written.
    pub fn flush(&self, family: Family) -> Result<(), StoreError> {
        let handle = self.family(family)?;
        self.db.flush_cf(handle).map_err(|error| self.failed(error.as_ref()))
    }

    /// Removes what rows had before they were replaced or deleted. `keys` are those of rows of `events`, sorted; of `families`,
    /// all rows are rewritten. Blocks until the files with former rows are deleted. Returns false if a reader, such as a backup,
    /// has kept one of them for longer than half a minute, or if the caller does not want to wait.
    ///
    /// # Errors
    /// When the database cannot be read or written.
    pub fn purge(
        &self,
        keys: &[[u8; 10]],
        families: &[Family],
        is_cancelled: &dyn Fn() -> bool,
    ) -> Result<bool, StoreError> {
        let mut old = self.files_with(".log")?;
        let handles = Family::ALL.iter().map(|family| self.family(*family)).collect::<Result<Vec<_>, _>>()?;
        let mut flush = FlushOptions::default();
        flush.set_wait(true);
        self.db.flush_cfs_opt(&handles, &flush).map_err(|error| self.failed(error.as_ref()))?;
        // The one that is written to now was begun by the flush.
        let current = self.files_with(".log")?.into_iter().max_by_key(|path| number_of(path));
        old.retain(|path| Some(path) != current.as_ref());

        let files = self.db.live_files().map_err(|error| self.failed(error.as_ref()))?;
        let has_key = |file: &LiveFile| file.column_family_name == Family::Events.name() && contains(file, keys);
        let is_of = |file: &LiveFile| families.iter().any(|family| family.name() == file.column_family_name);
        let former: Vec<LiveFile> = files.into_iter().filter(|file| has_key(file) || is_of(file)).collect();
        self.rewrite(&former, families)?;
        old.extend(former.iter().map(|file| self.path.join(file.name.trim_start_matches('/'))));
        self.wait_until_deleted(&old, is_cancelled)
    }

    /// Rewrites tables: those of `families` as a whole, and those of events where they are.
    fn rewrite(&self, former: &[LiveFile], families: &[Family]) -> Result<(), StoreError> {
        let mut compact = CompactOptions::default();
        // Also in the last level, and while other compactions run.
        compact.set_bottommost_level_compaction(BottommostLevelCompaction::ForceOptimized);
        compact.set_exclusive_manual_compaction(false);
        let mut left = former.to_vec();
        for _ in 0..REWRITES {
            for family in
                families.iter().filter(|family| left.iter().any(|file| file.column_family_name == family.name()))
            {
                self.db.compact_range_cf_opt(self.family(*family)?, None::<&[u8]>, None::<&[u8]>, &compact);
            }
            for (start, end) in ranges_of_events(&left) {
                self.db.compact_range_cf_opt(self.family(Family::Events)?, Some(start), Some(end), &compact);
            }
            let live = self.db.live_files().map_err(|error| self.failed(error.as_ref()))?;
            let live: BTreeSet<String> = live.into_iter().map(|file| file.name).collect();
            left.retain(|file| live.contains(&file.name));
            if left.is_empty() {
                break;
            }
        }
        Ok(())
    }

    fn wait_until_deleted(
        &self,
        files: &BTreeSet<PathBuf>,
        is_cancelled: &dyn Fn() -> bool,
    ) -> Result<bool, StoreError> {
        let deadline = Instant::now() + DELETE_WAIT;
        loop {
            if !files.iter().any(|path| path.exists()) && !snapshot::exists(&self.path) {
                // Otherwise the files may be back after a loss of power.
                let synced = File::open(&self.path).and_then(|directory| directory.sync_all());
                return synced
                    .map(|()| true)
                    .map_err(|source| StoreError::Directory { path: self.path.clone(), source });
            }
            if Instant::now() >= deadline || is_cancelled() {
                return Ok(false);
            }
            std::thread::sleep(DELETE_INTERVAL);
        }
    }

    /// The files of the database whose names have this ending.
    fn files_with(&self, ending: &str) -> Result<BTreeSet<PathBuf>, StoreError> {
        let failed = |source| StoreError::Directory { path: self.path.clone(), source };
        let entries = fs::read_dir(&self.path).map_err(failed)?;
        let paths = entries.flatten().map(|entry| entry.path());
        Ok(paths.filter(|path| path.to_string_lossy().ends_with(ending)).collect())
    }
}

/// The number in the name of a file of the database.
fn number_of(path: &Path) -> u64 {
    path.file_stem().and_then(|stem| stem.to_str()?.parse().ok()).unwrap_or(0)
}

/// Whether a file may contain a row with one of the keys, which are sorted.
fn contains(file: &LiveFile, keys: &[[u8; 10]]) -> bool {
    let (Some(start), Some(end)) = (&file.start_key, &file.end_key) else { return true };
    let first = keys.partition_point(|key| key[..] < start[..]);
    keys.get(first).is_some_and(|key| key[..] <= end[..])
}

/// The ranges of keys of the files of events, merged where they touch.
fn ranges_of_events(files: &[LiveFile]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let of_events = files.iter().filter(|file| file.column_family_name == Family::Events.name());
    let mut ranges: Vec<(Vec<u8>, Vec<u8>)> =
        of_events.filter_map(|file| file.start_key.clone().zip(file.end_key.clone())).collect();
    ranges.sort();
    ranges.dedup_by(|next, last| {
        let touches = next.0 <= last.1;
        if touches && next.1 > last.1 {
            last.1.clone_from(&next.1);
        }
        touches
    });
    ranges
}
