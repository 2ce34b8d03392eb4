//! A consistent copy of the database's files, made while others write. Files of tables are links, so it takes no space; what is
//! in memory is written to disk first.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Instant;

use rocksdb::checkpoint::Checkpoint;
use uuid::Uuid;

use super::directory::{CURRENT, has_database, lock_directory};
use super::{Store, StoreError};

/// What the names of the directories of snapshots begin with. They are in the data directory, because links lead to files of
/// the same file system only.
const PREFIX: &str = "snapshot-";

/// The files of the database as they were at one moment.
pub struct Snapshot {
    path: PathBuf,
    source: Source,
}

enum Source {
    /// Links, which are removed when this is dropped.
    Links,
    /// The files of the database itself, which nobody changes while the directory is locked.
    Stopped { _lock: File },
}

impl Snapshot {
    /// The directory of the files.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The names and lengths in bytes of the files. The one without which there is no database is the last.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn files(&self) -> std::io::Result<Vec<(String, u64)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if is_of_database(&name) {
                files.push((name, entry.metadata()?.len()));
            }
        }
        files.sort_by_key(|(name, _)| (name == CURRENT, name.clone()));
        Ok(files)
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        if let Source::Links = self.source {
            // What remains is removed by the next start.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// Whether a file in the directory of a database is one that it needs.
fn is_of_database(name: &str) -> bool {
    let is_numbered =
        |ending: &str| name.strip_suffix(ending).is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()));
    let has_prefix = ["MANIFEST-", "OPTIONS-"].iter().any(|prefix| name.starts_with(prefix));
    has_prefix || [CURRENT, "IDENTITY"].contains(&name) || is_numbered(".sst") || is_numbered(".log")
}

impl Snapshot {
    /// The files of a database that no process has open. None can open it until this is dropped.
    ///
    /// # Errors
    /// When there is no database, or it is in use.
    pub fn of_stopped(data_dir: &Path) -> Result<Snapshot, StoreError> {
        if !has_database(data_dir)? {
            return Err(StoreError::Missing(data_dir.to_owned()));
        }
        let lock = lock_directory(data_dir, Instant::now())?;
        // On a file system that cannot lock directories, it is unknown whether the database is in use.
        let lock = lock.ok_or_else(|| StoreError::InUse(data_dir.to_owned()))?;
        Ok(Snapshot { path: data_dir.to_owned(), source: Source::Stopped { _lock: lock } })
    }
}

impl Store {
    /// Makes a snapshot of everything that is committed.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn snapshot(&self) -> Result<Snapshot, StoreError> {
        let path = self.path.join(format!("{PREFIX}{}", Uuid::new_v4().simple()));
        let snapshot = Snapshot { path, source: Source::Links };
        let failed = |error: rocksdb::Error| self.failed(error.as_ref());
        Checkpoint::new(&self.db).and_then(|made| made.create_checkpoint(&snapshot.path)).map_err(failed)?;
        Ok(snapshot)
    }
}

/// The snapshots in a data directory.
fn all(data_dir: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(data_dir).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX)).map(|entry| entry.path())
}

/// Whether there is a snapshot in a data directory, whose files are those of a former state.
pub(super) fn exists(data_dir: &Path) -> bool {
    all(data_dir).next().is_some()
}

/// Removes the snapshots of a process that was killed.
pub(super) fn remove_left(data_dir: &Path) {
    for path in all(data_dir) {
        let _ = fs::remove_dir_all(path);
    }
}
