//! Begins a new log: `cairn key new-log`.
//!
//! What is true if the process ends after each step:
//!
//! 1. rows: the old log's rows are gone and the new origin is stored, in one synced batch. The key file still has the key
//!    of the old log, which does not sign for the new origin: nothing is signed until the command is run again.
//! 2. key: the key file has its new name. The checkpoint of the old log is still there, so no key is created: nothing is
//!    signed until the command is run again.
//! 3. checkpoint: both files have their new names. The next start of the server creates a key for the new origin.
//!
//! The old origin is never signed again: a second log under its name would contradict the first.

use std::io;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::config::LogConfig;
use super::rows::LogRows;
use crate::ledger::store::StoreError;
use cairn_proof::files;

/// The reason why no new log can begin.
#[derive(Debug, thiserror::Error)]
pub enum NewLogError {
    /// The configured origin is that of the old log.
    #[error("log.origin: {0:?} is the name of the old log; set another name first")]
    SameOrigin(String),
    /// A file cannot be renamed.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The database cannot be written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// One step.
pub type Step = fn(&NewLog) -> Result<(), NewLogError>;

/// The steps to a new log, in their order. Each is atomic and on disk when it returns.
pub struct NewLog {
    rows: LogRows,
    /// The name of the new log.
    pub origin: String,
    key: PathBuf,
    checkpoint: PathBuf,
    /// Ends the new names of the files of the old log.
    suffix: String,
}

impl NewLog {
    /// Prepares a new log over the events of the database in `rows`.
    ///
    /// # Errors
    /// When the configured origin is that of the old log.
    pub fn new(rows: LogRows, config: &LogConfig, data_dir: &Path) -> Result<NewLog, NewLogError> {
        let (key, checkpoint) = (config.key_path(data_dir), config.checkpoint_path(data_dir));
        let old = std::fs::read_to_string(&checkpoint).unwrap_or_default();
        let old = old.lines().next().unwrap_or_default();
        let origin = config.origin.clone().unwrap_or_else(|| format!("cairn/{}", Uuid::new_v4()));
        if origin == old {
            return Err(NewLogError::SameOrigin(origin));
        }
        Ok(NewLog { rows, origin, key, checkpoint, suffix: format!("old-{}", Uuid::new_v4().simple()) })
    }

    /// Takes all steps.
    ///
    /// # Errors
    /// When one of them fails. Those before it are taken then.
    pub fn begin(&self) -> Result<(), NewLogError> {
        NewLog::STEPS.into_iter().try_for_each(|step| step(self))
    }

    /// The steps.
    pub const STEPS: [Step; 3] = [NewLog::reset_rows, NewLog::rename_key, NewLog::rename_checkpoint];

    fn reset_rows(&self) -> Result<(), NewLogError> {
        Ok(self.rows.reset(&self.origin)?)
    }

    fn rename_key(&self) -> Result<(), NewLogError> {
        self.rename(&self.key)
    }

    fn rename_checkpoint(&self) -> Result<(), NewLogError> {
        self.rename(&self.checkpoint)
    }

    /// Renames a file of the old log. A missing file is not an error.
    fn rename(&self, path: &Path) -> Result<(), NewLogError> {
        match files::rename_to(path, &self.suffix) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            renamed => renamed.map_err(|source| NewLogError::File { path: path.to_owned(), source }),
        }
    }
}
