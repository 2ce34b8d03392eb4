//! Reading a ledger that another process may be writing.

use std::path::Path;
use std::sync::Arc;

use super::checkpoints::Kept;
use crate::ledger::format::meta::Meta;
use crate::ledger::store::{Store, StoreError};
use crate::tlog::Signed;
use crate::tlog::rows::LogRows;

/// A ledger that is only read. Its private directory goes with it.
pub struct Reader {
    /// The database, as it was when it was opened.
    pub store: Arc<Store>,
    /// What the ledger says of itself.
    pub meta: Meta,
    _private: Private,
}

/// Removes the reader's private directory when it is dropped.
struct Private(std::path::PathBuf);

impl Drop for Private {
    fn drop(&mut self) {
        // It holds nothing but RocksDB's notes; what cannot be removed is left to the system's clean-up.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Reader {
    /// Opens the ledger in a data directory.
    ///
    /// # Errors
    /// When there is none, or it cannot be read.
    pub fn open(data_dir: &Path) -> Result<Reader, StoreError> {
        let private = std::env::temp_dir().join(format!("cairn-reader-{}", uuid::Uuid::new_v4()));
        let failed = |source| StoreError::Directory { path: private.clone(), source };
        std::fs::create_dir(&private).map_err(failed)?;
        let guard = Private(private.clone());
        let store = Arc::new(Store::open_secondary(data_dir, &private)?);
        let meta = Meta::read(&store)?.ok_or_else(|| StoreError::Missing(data_dir.to_owned()))?;
        Ok(Reader { store, meta, _private: guard })
    }

    /// Takes in what was written since. Who finds something broken looks again before saying so: a writer that
    /// removes a log file at the wrong moment lets a reader see families of different moments.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub fn look_again(&self) -> Result<(), StoreError> {
        self.store.catch_up()
    }
}

/// The tree that a checkpoint signed, in a ledger that is only read.
///
/// # Errors
/// When the ledger cannot be read, or is not the one that was signed.
pub fn signed(reader: &Reader, kept: &Kept) -> Result<Signed, StoreError> {
    let open = || Signed::of(LogRows::new(Arc::clone(&reader.store)), &kept.head, kept.note.clone());
    open().or_else(|_| {
        reader.look_again()?;
        open()
    })
}
