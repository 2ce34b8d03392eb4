//! Reads a ledger that another process may be writing.

use std::path::Path;
use std::sync::Arc;

use super::checkpoints::VerifiedCheckpoint;
use crate::ledger::format::meta::Meta;
use crate::ledger::store::{Store, StoreError};
use crate::tlog::SignedTree;
use crate::tlog::rows::LogRows;

/// A ledger opened for reading, as a RocksDB secondary.
pub struct Reader {
    /// The database, as of the last [`Reader::refresh`].
    pub store: Arc<Store>,
    /// The metadata of the ledger.
    pub meta: Meta,
    _private: Private,
}

/// Removes the private directory of the reader when it is dropped.
struct Private(std::path::PathBuf);

impl Drop for Private {
    fn drop(&mut self) {
        // It contains only RocksDB's log files. If it cannot be removed, it stays in the temporary directory.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Reader {
    /// Opens the ledger in a data directory.
    ///
    /// # Errors
    /// When there is no ledger, or it cannot be read.
    pub fn open(data_dir: &Path) -> Result<Reader, StoreError> {
        let private = std::env::temp_dir().join(format!("cairn-reader-{}", uuid::Uuid::new_v4()));
        let failed = |source| StoreError::Directory { path: private.clone(), source };
        std::fs::create_dir(&private).map_err(failed)?;
        let guard = Private(private.clone());
        let store = Arc::new(Store::open_secondary(data_dir, &private)?);
        let meta = Meta::read(&store)?.ok_or_else(|| StoreError::Missing(data_dir.to_owned()))?;
        Ok(Reader { store, meta, _private: guard })
    }

    /// Catches up with what was written since. A command that finds the ledger broken must refresh and verify once more
    /// before it reports that: if the writer removes a write-ahead log at the wrong moment, a reader sees column
    /// families of different moments.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub fn refresh(&self) -> Result<(), StoreError> {
        self.store.catch_up()
    }
}

/// The tree of a checkpoint, in a ledger opened for reading.
///
/// # Errors
/// When the ledger cannot be read, or does not contain the signed tree.
pub fn signed(reader: &Reader, checkpoint: &VerifiedCheckpoint) -> Result<SignedTree, StoreError> {
    let open = || SignedTree::of(LogRows::new(Arc::clone(&reader.store)), &checkpoint.head, checkpoint.note.clone());
    open().or_else(|_| {
        reader.refresh()?;
        open()
    })
}
