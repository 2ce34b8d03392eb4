//! Reads a ledger that another process may be writing.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

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

/// The private directory of a reader, in the temporary directory, for the files that RocksDB writes: only log files. Locked
/// while the reader runs, so that others can tell that of a reader that was killed.
struct Private {
    path: PathBuf,
    _lock: File,
}

/// What the names of private directories begin with.
const PRIVATE: &str = "cairn-read-";
/// What they begin with in earlier versions, which do not lock them.
const UNLOCKED: &str = "cairn-reader-";

impl Private {
    /// Creates the directory, after removing those that killed readers have left.
    fn create() -> io::Result<Private> {
        let folder = std::env::temp_dir();
        remove_left_behind(&folder);
        let path = folder.join(format!("{PRIVATE}{}", uuid::Uuid::new_v4()));
        DirBuilder::new().mode(0o700).create(&path)?;
        let lock = File::open(&path)?;
        // On a file system without locks, no reader removes what others have left.
        let _ = lock.try_lock();
        Ok(Private { path, _lock: lock })
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        // If it cannot be removed, the next reader tries again.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// The age from which a directory that is not locked is removed: its reader has had the time to lock it.
const MIN_AGE: Duration = Duration::from_secs(5);
/// The same for readers that do not lock theirs. A verification may take hours.
const MIN_UNLOCKED_AGE: Duration = Duration::from_secs(24 * 3600);

/// Removes the private directories of readers that were killed. What cannot be removed stays.
fn remove_left_behind(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let has = |prefix: &str| name.as_encoded_bytes().starts_with(prefix.as_bytes());
        let min_age = if has(PRIVATE) {
            MIN_AGE
        } else if has(UNLOCKED) {
            MIN_UNLOCKED_AGE
        } else {
            continue;
        };
        // Not of a symbolic link.
        let Some(metadata) = entry.metadata().ok().filter(std::fs::Metadata::is_dir) else { continue };
        let is_own = metadata.uid() == rustix::process::geteuid().as_raw();
        let is_old = metadata.modified().is_ok_and(|at| at.elapsed().is_ok_and(|age| age > min_age));
        let is_locked = || File::open(entry.path()).is_ok_and(|folder| folder.try_lock().is_err());
        if is_own && is_old && !is_locked() {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

impl Reader {
    /// Opens the ledger in a data directory.
    ///
    /// # Errors
    /// When there is no ledger, or it cannot be read.
    pub fn open(data_dir: &Path) -> Result<Reader, StoreError> {
        let failed = |source| StoreError::Temporary { path: std::env::temp_dir(), source };
        let private = Private::create().map_err(failed)?;
        let store = Arc::new(Store::open_secondary(data_dir, &private.path)?);
        let meta = Meta::read(&store)?.ok_or_else(|| StoreError::Missing(data_dir.to_owned()))?;
        Ok(Reader { store, meta, _private: private })
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
