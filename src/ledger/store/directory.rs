//! The data directory: what is in it before the database is opened, its creation, and its lock.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{Access, access};

use super::StoreError;

/// How long to wait for the lock of a data directory, which a process that is shutting down may still hold.
pub(super) const LOCK_WAIT: Duration = Duration::from_secs(5);
/// The file with which RocksDB completes the creation of a database.
pub const CURRENT: &str = "CURRENT";

/// Whether there is a database in a directory.
///
/// # Errors
/// When the directory cannot be read.
pub fn has_database(path: &Path) -> Result<bool, StoreError> {
    match fs::metadata(path.join(CURRENT)) {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(false),
        Err(source) => Err(StoreError::Directory { path: path.to_owned(), source }),
    }
}

/// Refuses a directory that is neither empty nor that of a ledger: a mistyped path would fill somebody's home directory with
/// the files of a database. `own` are files of the configuration, which may be in it.
///
/// # Errors
/// When the directory contains anything else, or cannot be read.
pub fn require_ledger_or_empty(path: &Path, own: &[PathBuf]) -> Result<(), StoreError> {
    if has_database(path)? {
        return Ok(());
    }
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        // A path that is no directory is reported when it is opened.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(()),
        Err(source) => return Err(StoreError::Directory { path: path.to_owned(), source }),
    };
    let own: Vec<PathBuf> = own.iter().filter_map(|path| std::path::absolute(path).ok()).collect();
    let directory = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    for name in entries.filter_map(|entry| Some(entry.ok()?.file_name())) {
        let entry = directory.join(&name);
        let name = name.to_string_lossy();
        if !is_left_by_creation(&name) && !own.iter().any(|own| own.starts_with(&entry)) {
            return Err(StoreError::NotALedger { path: path.to_owned(), file: name.into_owned() });
        }
    }
    Ok(())
}

/// Whether a file in a directory without a database may be one of a ledger: hidden files and `lost+found` belong to the
/// volume, `log.` are the keys and checkpoints of a log, and the others are those of a database whose creation was
/// interrupted. Tables and write-ahead logs are not: a database that has any has lost its file [`CURRENT`].
fn is_left_by_creation(name: &str) -> bool {
    const EXACT: [&str; 4] = ["lost+found", "LOCK", "LOG", "IDENTITY"];
    const PREFIXES: [&str; 6] = [".", "log.key", "log.checkpoint", "LOG.old.", "MANIFEST-", "OPTIONS-"];
    EXACT.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix)) || name.ends_with(".dbtmp")
}

/// Locks the data directory itself, in addition to the database's lock on its file LOCK: a lock on a file protects nothing
/// once somebody has removed that file. `None` if the file system cannot lock directories, as network file systems may.
pub(super) fn lock_directory(path: &Path, deadline: Instant) -> Result<Option<File>, StoreError> {
    let failed = |source| StoreError::Directory { path: path.to_owned(), source };
    let directory = File::open(path).map_err(failed)?;
    loop {
        match directory.try_lock() {
            Ok(()) => return Ok(Some(directory)),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(LOCK_WAIT / 50),
            Err(TryLockError::WouldBlock) => return Err(StoreError::InUse(path.to_owned())),
            Err(TryLockError::Error(_)) => return Ok(None),
        }
    }
}

/// Checks the data directory, or creates it with access for its owner only, because it contains events in clear text.
pub(super) fn create_directory(path: &Path) -> Result<(), StoreError> {
    let failed = |source| StoreError::Directory { path: path.to_owned(), source };
    if path.exists() {
        if !path.is_dir() {
            return Err(failed(io::ErrorKind::NotADirectory.into()));
        }
        let mode = fs::metadata(path).map_err(failed)?.permissions().mode();
        if mode & 0o007 != 0 {
            let mode = format!("{:o}", mode & 0o777);
            tracing::warn!(path = %path.display(), mode, "the data directory is accessible to other users");
        }
        // The database's error would not name the setting that is wrong.
        return access(path, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK)
            .map_err(|error| failed(error.into()));
    }
    let absolute = std::path::absolute(path).map_err(failed)?;
    let existing = absolute.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("/")).to_owned();
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
    // A new directory survives a power loss only if its entry in the parent is on disk, too.
    for parent in absolute.ancestors().skip(1).take_while(|ancestor| ancestor.starts_with(&existing)) {
        File::open(parent).and_then(|parent| parent.sync_all()).map_err(failed)?;
    }
    Ok(())
}
