//! The database: the only module that imports RocksDB.
//!
//! It provides rows by column family and key, and batches that are written atomically. It does not interpret rows.

pub mod config;
pub mod directory;
mod expired;
mod open;
mod purge;
pub mod snapshot;
pub mod tables;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rocksdb::{ColumnFamily, DB, DBPinnableSlice, DBRawIterator, Options, ReadOptions, WriteBatch, WriteOptions};

pub use config::{Compression, StorageConfig, open_files};
pub use expired::{Expired, FLOOR};

/// A column family. The table of their contents is in [`crate::ledger`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
#[expect(missing_docs, reason = "the table in `ledger` documents them")]
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

    /// The name of the family in the database, and in messages.
    pub const fn name(self) -> &'static str {
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

/// An error of the database. Operators have to act on it, senders cannot.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// RocksDB returned an error.
    #[error("the database in {path} failed: {message}")]
    Database {
        /// The data directory.
        path: PathBuf,
        /// The message of RocksDB.
        message: String,
    },
    /// Another process has the database open for writing.
    #[error("the data directory {0} is in use by another process: stop it, or set storage.data_dir to another one")]
    InUse(PathBuf),
    /// The data directory cannot be used.
    #[error("the data directory {path} cannot be used (storage.data_dir): {source}")]
    Directory {
        /// The data directory.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// The directory for the temporary files of a reader cannot be used.
    #[error("the directory for temporary files {path} cannot be used (environment variable TMPDIR): {source}")]
    Temporary {
        /// The directory.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// The directory contains no ledger.
    #[error(
        "there is no ledger in {0}: has `cairn serve` run with this storage.data_dir? The configuration of the packaged service is /etc/cairn/cairn.yaml"
    )]
    Missing(PathBuf),
    /// The directory is neither empty nor that of a ledger.
    #[error(
        "{path} contains {file:?} and no ledger: set storage.data_dir to an empty directory, or to that of a ledger"
    )]
    NotALedger {
        /// The data directory.
        path: PathBuf,
        /// A file in it that is not one of a ledger.
        file: String,
    },
    /// Stored data are damaged or missing.
    #[error("the ledger in {path} is damaged: {message}")]
    Damaged {
        /// The data directory.
        path: PathBuf,
        /// What is damaged or missing.
        message: String,
    },
    /// The caller no longer needs the result.
    #[error("cancelled")]
    Cancelled,
    /// The ledger has another format, or was created with other settings.
    #[error("the ledger in {path} cannot be opened: {message}")]
    Mismatch {
        /// The data directory.
        path: PathBuf,
        /// What differs.
        message: String,
    },
}

/// Why a commit failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// There is no space. The database resumes by itself some seconds after there is space again.
    #[error("no space left for the ledger: {0}")]
    NoSpace(String),
    /// Any other error. The database accepts no more writes; a restart recovers. See
    /// `docs/adr/0020-write-errors-end-the-process.md`.
    #[error("the ledger could not be written: {0}")]
    Failed(String),
}

/// An open database. Shared by all threads; RocksDB does its own locking.
pub struct Store {
    db: DB,
    /// Locks the data directory for writing, until the store is closed.
    _lock: Option<File>,
    path: PathBuf,
    /// Whether a commit waits until it is on disk: `storage.sync`.
    sync: bool,
    /// The options of the tables of `client_ids`, the only family to which tables are added.
    table_options: Options,
    /// Which rows compactions leave out.
    expired: Arc<Expired>,
}

/// No key is that long.
const AFTER_EVERY_KEY: [u8; 64] = [0xFF; 64];

/// Rows that are written atomically.
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

    /// An error of the database with this message.
    pub fn failed(&self, message: &str) -> StoreError {
        StoreError::Database { path: self.path.clone(), message: message.to_owned() }
    }

    /// An error about damaged or missing data with this message.
    pub fn damaged(&self, message: impl Into<String>) -> StoreError {
        StoreError::Damaged { path: self.path.clone(), message: message.into() }
    }

    /// Reads the value of a row, borrowed from the database's memory.
    pub fn get(&self, family: Family, key: &[u8]) -> Found<'_> {
        self.db.get_pinned_cf(self.family(family)?, key).map_err(|error| self.failed(error.as_ref()))
    }

    /// Reads the values of rows, in the order of their keys, which must be sorted. Faster than one lookup after
    /// another.
    pub fn get_many<K: AsRef<[u8]>>(&self, family: Family, keys: &[K]) -> Result<Vec<Found<'_>>, StoreError> {
        let values = self.db.batched_multi_get_cf(self.family(family)?, keys, true);
        Ok(values.into_iter().map(|value| value.map_err(|error| self.failed(error.as_ref()))).collect())
    }

    /// Iterates over a snapshot of a family, in key order.
    pub fn rows(&self, family: Family) -> Result<Rows<'_>, StoreError> {
        let rows = self.db.raw_iterator_cf(self.family(family)?);
        Ok(Rows { rows, store: self })
    }

    /// Iterates once over a snapshot of a family: blocks are read ahead and not cached.
    pub fn scan(&self, family: Family) -> Result<Rows<'_>, StoreError> {
        self.scan_shared(family, 1)
    }

    /// Iterates once over a snapshot of a family as one of `readers` parallel readers, which share the amount of
    /// read-ahead.
    pub fn scan_shared(&self, family: Family, readers: usize) -> Result<Rows<'_>, StoreError> {
        const READ_AHEAD_BYTES: usize = 1 << 20;
        const MIN_READ_AHEAD_BYTES: usize = 64 << 10;
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        options.set_readahead_size((READ_AHEAD_BYTES / readers.max(1)).max(MIN_READ_AHEAD_BYTES));
        let rows = self.db.raw_iterator_cf_opt(self.family(family)?, options);
        Ok(Rows { rows, store: self })
    }

    /// Creates an empty batch with this capacity.
    pub fn batch(&self, capacity_bytes: usize) -> Batch {
        Batch { rows: WriteBatch::with_capacity_bytes(capacity_bytes) }
    }

    /// Adds the insertion or replacement of a row to a batch.
    pub fn put(&self, batch: &mut Batch, family: Family, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        batch.rows.put_cf(self.family(family)?, key, value);
        Ok(())
    }

    /// Adds the removal of a row to a batch.
    pub fn delete(&self, batch: &mut Batch, family: Family, key: &[u8]) -> Result<(), StoreError> {
        batch.rows.delete_cf(self.family(family)?, key);
        Ok(())
    }

    /// Adds the removal of the rows with keys from `start` to before `end` to a batch.
    pub fn delete_range(&self, batch: &mut Batch, family: Family, start: &[u8], end: &[u8]) -> Result<(), StoreError> {
        batch.rows.delete_range_cf(self.family(family)?, start, end);
        Ok(())
    }

    /// Adds the removal of every row of a family to a batch.
    pub fn delete_all(&self, batch: &mut Batch, family: Family) -> Result<(), StoreError> {
        batch.rows.delete_range_cf(self.family(family)?, &[][..], &AFTER_EVERY_KEY[..]);
        Ok(())
    }

    /// Writes a batch atomically, and waits until it is on disk if `storage.sync` is set.
    ///
    /// # Errors
    /// When the write fails. It is then unknown whether the rows are stored.
    pub fn write_durable(&self, batch: Batch) -> Result<(), CommitError> {
        let mut options = WriteOptions::default();
        options.set_sync(self.sync);
        Ok(self.db.write_opt(batch.rows, &options)?)
    }

    /// Writes a batch and waits until it and everything written before it is on disk, whatever `storage.sync` is.
    pub fn write_synced(&self, batch: Batch) -> Result<(), StoreError> {
        let mut options = WriteOptions::default();
        options.set_sync(true);
        self.db.write_opt(batch.rows, &options).map_err(|error| self.failed(error.as_ref()))
    }

    /// Waits until everything that was written is on disk. With `storage.sync` it is already.
    pub fn sync(&self) -> Result<(), StoreError> {
        match self.sync {
            true => Ok(()),
            false => self.db.flush_wal(true).map_err(|error| self.failed(error.as_ref())),
        }
    }

    /// Writes a batch without waiting for the disk: its rows survive a crash of the process, but a power loss may lose
    /// the latest ones.
    pub fn write(&self, batch: Batch) -> Result<(), StoreError> {
        self.db.write(batch.rows).map_err(|error| self.failed(error.as_ref()))
    }

    /// Writes rows that can be derived again, without the write-ahead log: a crash may lose the latest ones.
    pub fn write_derived(&self, batch: Batch) -> Result<(), StoreError> {
        self.db.write_without_wal(batch.rows).map_err(|error| self.failed(error.as_ref()))
    }

    /// Removes every row of a family.
    pub fn clear(&self, family: Family) -> Result<(), StoreError> {
        let handle = self.family(family)?;
        self.db.delete_range_cf(handle, &[][..], &AFTER_EVERY_KEY[..]).map_err(|error| self.failed(error.as_ref()))
    }

    /// Stops flushes and compactions, so that closing does not wait for them.
    pub fn stop_background_work(&self) {
        self.db.cancel_all_background_work(true);
    }

    /// What retention has dropped.
    pub fn expired(&self) -> &Arc<Expired> {
        &self.expired
    }

    /// Reads what retention has dropped.
    fn read_floors(&self) -> Result<(), StoreError> {
        let Some(row) = self.get(Family::Meta, FLOOR)? else { return Ok(()) };
        // The first number is not a position.
        let numbers = row.as_chunks::<8>().0.iter().skip(1);
        self.expired.raise(&numbers.map(|floor| u64::from_be_bytes(*floor)).collect::<Vec<_>>());
        Ok(())
    }

    /// Reads what the primary has written since. For secondaries only.
    pub fn catch_up(&self) -> Result<(), StoreError> {
        self.db.try_catch_up_with_primary().map_err(|error| self.failed(error.as_ref()))?;
        self.read_floors()
    }
}

/// Distinguishes a lack of space. The binding has no sub-codes: the message is all there is.
impl From<rocksdb::Error> for CommitError {
    fn from(error: rocksdb::Error) -> CommitError {
        let message = String::from(error);
        if message.contains("No space left") || message.contains("Disk quota exceeded") {
            CommitError::NoSpace(message)
        } else {
            CommitError::Failed(message)
        }
    }
}

/// The value of a row, borrowed from the database's memory; `None` if there is no such row.
pub type Found<'s> = Result<Option<DBPinnableSlice<'s>>, StoreError>;

/// A key and its value.
pub type Row<'a> = (&'a [u8], &'a [u8]);

/// An iterator over the rows of a family.
pub struct Rows<'s> {
    rows: DBRawIterator<'s>,
    store: &'s Store,
}

impl Rows<'_> {
    /// Moves to the first row whose key is at or after `key`.
    pub fn seek(&mut self, key: &[u8]) {
        self.rows.seek(key);
    }

    /// Moves to the last row whose key is at or before `key`.
    pub fn seek_for_prev(&mut self, key: &[u8]) {
        self.rows.seek_for_prev(key);
    }

    /// Moves to the first row.
    pub fn seek_first(&mut self) {
        self.rows.seek_to_first();
    }

    /// Moves to the last row.
    pub fn seek_last(&mut self) {
        self.rows.seek_to_last();
    }

    /// Moves to the next row.
    pub fn next(&mut self) {
        if self.rows.valid() {
            self.rows.next();
        }
    }

    /// Moves to the previous row.
    pub fn prev(&mut self) {
        if self.rows.valid() {
            self.rows.prev();
        }
    }

    /// The current row; `None` beyond the ends.
    ///
    /// # Errors
    /// When the database cannot be read, which is not the same as an end.
    pub fn row(&self) -> Result<Option<Row<'_>>, StoreError> {
        match self.rows.item() {
            Some(row) => Ok(Some(row)),
            None => self.rows.status().map(|()| None).map_err(|error| self.store.failed(error.as_ref())),
        }
    }
}
