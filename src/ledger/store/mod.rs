//! The database: the only place that knows RocksDB.
//!
//! It offers rows by family and key, a batch that is written as one, and nothing that knows what rows mean.

pub mod config;
mod open;

use std::path::{Path, PathBuf};

use rocksdb::{ColumnFamily, DB, DBPinnableSlice, DBRawIterator, ReadOptions, WriteBatch, WriteOptions};

pub use config::{Compression, StorageConfig};

/// A column family. The table of what is in them is in [`crate::ledger`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
#[expect(missing_docs, reason = "the table in `ledger` says what is in them")]
pub enum Family {
    Events,
    Chain,
    Agents,
    Times,
    ClientIds,
    Index,
    Log,
    Tiles,
    Relay,
    Meta,
}

impl Family {
    const ALL: [Family; 10] = [
        Family::Events,
        Family::Chain,
        Family::Agents,
        Family::Times,
        Family::ClientIds,
        Family::Index,
        Family::Log,
        Family::Tiles,
        Family::Relay,
        Family::Meta,
    ];

    /// The families that a secondary opens: those that it can verify. Rows written without the write-ahead log are
    /// missing there.
    pub const VERIFIABLE: [Family; 8] = [
        Family::Events,
        Family::Chain,
        Family::Agents,
        Family::Times,
        Family::ClientIds,
        Family::Log,
        Family::Tiles,
        Family::Meta,
    ];

    const fn name(self) -> &'static str {
        match self {
            Family::Events => "events",
            Family::Chain => "chain",
            Family::Agents => "agents",
            Family::Times => "times",
            Family::ClientIds => "client_ids",
            Family::Index => "index",
            Family::Log => "log",
            Family::Tiles => "tiles",
            Family::Relay => "relay",
            Family::Meta => "meta",
        }
    }
}

/// Why the database could not do something. For the operator; the sender learns that it is not their fault.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database said so.
    #[error("the database in {path} failed: {message}")]
    Database {
        /// The data directory.
        path: PathBuf,
        /// RocksDB's own words.
        message: String,
    },
    /// Another process has it open for writing.
    #[error("the data directory {0} is in use by another process: stop it, or set storage.data_dir to another one")]
    InUse(PathBuf),
    /// The directory cannot be used.
    #[error("the data directory {path} cannot be used (storage.data_dir): {source}")]
    Directory {
        /// The data directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// There is no ledger there.
    #[error("there is no ledger in {0}: has `cairn serve` run with this storage.data_dir?")]
    Missing(PathBuf),
    /// What is stored is not what the program wrote.
    #[error("the ledger in {path} is damaged: {message}")]
    Damaged {
        /// The data directory.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// Whoever wanted it has gone.
    #[error("broken off")]
    BrokenOff,
    /// The ledger is of another version, or was made with other settings.
    #[error("the ledger in {path} does not fit: {message}")]
    Mismatch {
        /// The data directory.
        path: PathBuf,
        /// What is different.
        message: String,
    },
}

/// Why a commit failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// There is no room. The database goes on by itself some seconds after there is room again.
    #[error("no space left for the ledger: {0}")]
    NoSpace(String),
    /// Anything else. The database takes no more writes; a restart recovers.
    #[error("the ledger could not be written: {0}")]
    Failed(String),
}

/// An open database. Shared by all threads; RocksDB does its own locking.
pub struct Store {
    db: DB,
    path: PathBuf,
    /// Whether a commit waits for the disk: `storage.sync`.
    sync: bool,
}

/// Rows that are written together or not at all.
pub struct Batch {
    rows: WriteBatch,
}

impl Store {
    /// The data directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn family(&self, family: Family) -> Result<&ColumnFamily, StoreError> {
        let missing = || self.failed(&format!("column family {} is missing", family.name()));
        self.db.cf_handle(family.name()).ok_or_else(missing)
    }

    /// Says that the database failed, in its own words.
    pub fn failed(&self, message: &str) -> StoreError {
        StoreError::Database { path: self.path.clone(), message: message.to_owned() }
    }

    /// Says that what is stored is not what the program wrote.
    pub fn damaged(&self, message: impl Into<String>) -> StoreError {
        StoreError::Damaged { path: self.path.clone(), message: message.into() }
    }

    /// The value of a row, borrowed from the database's memory.
    pub fn get(&self, family: Family, key: &[u8]) -> Found<'_> {
        self.db.get_pinned_cf(self.family(family)?, key).map_err(|error| self.failed(error.as_ref()))
    }

    /// The values of rows whose keys are in order, each in the place of its key: faster than one after the other.
    pub fn get_many<K: AsRef<[u8]>>(&self, family: Family, keys: &[K]) -> Result<Vec<Found<'_>>, StoreError> {
        let values = self.db.batched_multi_get_cf(self.family(family)?, keys, true);
        Ok(values.into_iter().map(|value| value.map_err(|error| self.failed(error.as_ref()))).collect())
    }

    /// The rows of a family, in the order of their keys, as they are now.
    pub fn rows(&self, family: Family) -> Result<Rows<'_>, StoreError> {
        let rows = self.db.raw_iterator_cf(self.family(family)?);
        Ok(Rows { rows, store: self })
    }

    /// The rows of a family for a reader that passes over them once: blocks are read ahead and not kept in memory.
    pub fn scan(&self, family: Family) -> Result<Rows<'_>, StoreError> {
        self.scan_beside(family, 1)
    }

    /// The same for one of so many readers, which share what is read ahead.
    pub fn scan_beside(&self, family: Family, readers: usize) -> Result<Rows<'_>, StoreError> {
        const READ_AHEAD_BYTES: usize = 1 << 20;
        const LEAST_BYTES: usize = 64 << 10;
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        options.set_readahead_size((READ_AHEAD_BYTES / readers.max(1)).max(LEAST_BYTES));
        let rows = self.db.raw_iterator_cf_opt(self.family(family)?, options);
        Ok(Rows { rows, store: self })
    }

    /// An empty batch with room for that many bytes.
    pub fn batch(&self, capacity_bytes: usize) -> Batch {
        Batch { rows: WriteBatch::with_capacity_bytes(capacity_bytes) }
    }

    /// Adds a row to a batch, or replaces it.
    pub fn put(&self, batch: &mut Batch, family: Family, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        batch.rows.put_cf(self.family(family)?, key, value);
        Ok(())
    }

    /// Adds the removal of a row to a batch.
    pub fn delete(&self, batch: &mut Batch, family: Family, key: &[u8]) -> Result<(), StoreError> {
        batch.rows.delete_cf(self.family(family)?, key);
        Ok(())
    }

    /// Writes the rows of a commit, and waits until they are on disk if `storage.sync` says so.
    ///
    /// # Errors
    /// When the write fails. The outcome is unknown then: the rows may be stored after all.
    pub fn write_durable(&self, batch: Batch) -> Result<(), CommitError> {
        let mut options = WriteOptions::default();
        options.set_sync(self.sync);
        self.db.write_opt(batch.rows, &options).map_err(|error| {
            // The binding has no sub-codes: the message is all there is.
            let message = String::from(error);
            if message.contains("No space left") || message.contains("Disk quota exceeded") {
                CommitError::NoSpace(message)
            } else {
                CommitError::Failed(message)
            }
        })
    }

    /// Writes rows and waits until they are on disk, and everything that was written before them, whatever
    /// `storage.sync` says.
    pub fn write_synced(&self, batch: Batch) -> Result<(), StoreError> {
        let mut options = WriteOptions::default();
        options.set_sync(true);
        self.db.write_opt(batch.rows, &options).map_err(|error| self.failed(error.as_ref()))
    }

    /// Writes rows without waiting for the disk: they outlive the process, and a power loss may take the latest of
    /// them.
    pub fn write(&self, batch: Batch) -> Result<(), StoreError> {
        self.db.write(batch.rows).map_err(|error| self.failed(error.as_ref()))
    }

    /// Writes rows that can be derived again, without the write-ahead log: a crash may lose the latest of them.
    pub fn write_derived(&self, batch: Batch) -> Result<(), StoreError> {
        self.db.write_without_wal(batch.rows).map_err(|error| self.failed(error.as_ref()))
    }

    /// Removes every row of a family.
    pub fn clear(&self, family: Family) -> Result<(), StoreError> {
        let handle = self.family(family)?;
        let beyond_every_key = [0xFF; 64];
        self.db.delete_range_cf(handle, &[][..], &beyond_every_key[..]).map_err(|error| self.failed(error.as_ref()))
    }

    /// Stops flushes and compactions, so that closing does not wait for them.
    pub fn stop_background_work(&self) {
        self.db.cancel_all_background_work(true);
    }

    /// For a secondary: takes in what the primary has written since.
    pub fn catch_up(&self) -> Result<(), StoreError> {
        self.db.try_catch_up_with_primary().map_err(|error| self.failed(error.as_ref()))
    }
}

/// The value of a row, if there is one, borrowed from the database's memory.
pub type Found<'s> = Result<Option<DBPinnableSlice<'s>>, StoreError>;

/// A key and its value.
pub type Row<'a> = (&'a [u8], &'a [u8]);

/// A place among the rows of a family.
pub struct Rows<'s> {
    rows: DBRawIterator<'s>,
    store: &'s Store,
}

impl Rows<'_> {
    /// Goes to the first row whose key is `key` or comes after it.
    pub fn seek(&mut self, key: &[u8]) {
        self.rows.seek(key);
    }

    /// Goes to the last row whose key is `key` or comes before it.
    pub fn seek_back(&mut self, key: &[u8]) {
        self.rows.seek_for_prev(key);
    }

    /// Goes to the first row.
    pub fn seek_first(&mut self) {
        self.rows.seek_to_first();
    }

    /// Goes to the last row.
    pub fn seek_last(&mut self) {
        self.rows.seek_to_last();
    }

    /// Goes one row on.
    pub fn next(&mut self) {
        if self.rows.valid() {
            self.rows.next();
        }
    }

    /// Goes one row back.
    pub fn back(&mut self) {
        if self.rows.valid() {
            self.rows.prev();
        }
    }

    /// The row at this place; `None` beyond the ends.
    ///
    /// # Errors
    /// When the database could not read on: not the same as an end.
    pub fn row(&self) -> Result<Option<Row<'_>>, StoreError> {
        match self.rows.item() {
            Some(row) => Ok(Some(row)),
            None => self.rows.status().map(|()| None).map_err(|error| self.store.failed(error.as_ref())),
        }
    }
}
