//! Adds many rows at once as a table file that is written beside the database and then becomes part of it. The rows are
//! neither in the write-ahead log nor in a memtable, and are not written a second time to get into a table.

use std::fs;
use std::path::{Path, PathBuf};

use rocksdb::{IngestExternalFileOptions, SstFileWriter};

use super::{CommitError, Family, Store};

/// The file of a table until it is part of the database.
fn path_of(data_dir: &Path, family: Family) -> PathBuf {
    data_dir.join(format!("{}.table", family.name()))
}

/// A table that is being written.
pub struct NewTable<'w> {
    file: SstFileWriter<'w>,
}

impl NewTable<'_> {
    /// Adds a row. Keys must ascend.
    ///
    /// # Errors
    /// When the file cannot be written, or the key does not ascend.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), CommitError> {
        Ok(self.file.put(key, value)?)
    }
}

impl Store {
    /// Adds the rows that `write` puts into a new table to a family, all or none of them, and returns when they are on
    /// disk. They replace rows with the same keys. Only one thread may add tables to a family.
    ///
    /// # Errors
    /// When the table cannot be written. It is then unknown whether the rows are stored.
    pub fn add_table(
        &self,
        family: Family,
        write: impl FnOnce(&mut NewTable<'_>) -> Result<(), CommitError>,
    ) -> Result<(), CommitError> {
        let path = path_of(self.path(), family);
        let result = self.write_table(&path, family, write);
        if result.is_err() {
            // A file that remains is overwritten by the next table.
            let _ = fs::remove_file(&path);
        }
        result
    }

    fn write_table(
        &self,
        path: &Path,
        family: Family,
        write: impl FnOnce(&mut NewTable<'_>) -> Result<(), CommitError>,
    ) -> Result<(), CommitError> {
        let mut table = NewTable { file: SstFileWriter::create(&self.table_options) };
        table.file.open(path)?;
        write(&mut table)?;
        table.file.finish()?;
        let mut options = IngestExternalFileOptions::default();
        // A link to the same file instead of a copy.
        options.set_move_files(true);
        let handle = self.family(family).map_err(|error| CommitError::Failed(error.to_string()))?;
        Ok(self.db.ingest_external_file_cf_opts(handle, &options, vec![path])?)
    }
}

/// Removes what a process left that ended while it wrote a table.
pub(super) fn remove_left(data_dir: &Path) {
    let _ = fs::remove_file(path_of(data_dir, Family::ClientIds));
}
