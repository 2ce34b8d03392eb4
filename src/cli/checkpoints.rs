//! Checkpoints and keys, as commands find them on disk and in arguments.

use std::io;
use std::path::Path;

use super::Error;
use crate::tlog::LogConfig;
use crate::tlog::checkpoint::{self, Head};
use crate::tlog::keys::{self, Keys};

/// A checkpoint whose signature is right.
pub struct Kept {
    /// What it says.
    pub head: Head,
    /// The signed note.
    pub note: Vec<u8>,
    /// The verifier keys of the log's own key file.
    pub keys: Vec<String>,
}

/// The last checkpoint that this ledger's server signed; `None` if there is none.
///
/// # Errors
/// When it cannot be read, or was not signed with the log's own keys.
pub fn own(config: &LogConfig, data_dir: &Path) -> Result<Option<Kept>, Error> {
    let path = config.checkpoint_path(data_dir);
    match std::fs::read(&path) {
        Ok(note) => kept(config, data_dir, &path, note).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("{}: {error}", path.display()).into()),
    }
}

/// A checkpoint of this ledger's log that was kept elsewhere.
///
/// # Errors
/// When it cannot be read, or was not signed with the log's own keys.
pub fn elsewhere(config: &LogConfig, data_dir: &Path, path: &Path) -> Result<Kept, Error> {
    let note = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    kept(config, data_dir, path, note)
}

fn kept(config: &LogConfig, data_dir: &Path, path: &Path, note: Vec<u8>) -> Result<Kept, Error> {
    let key_path = config.key_path(data_dir);
    let origin = String::from_utf8_lossy(&note).lines().next().unwrap_or_default().to_owned();
    let keys = Keys::read(&key_path, &origin)?;
    let keys = keys.ok_or_else(|| format!("log.key_file: {} is gone", key_path.display()))?;
    let (head, _) =
        checkpoint::open(&note, keys.verifiers()).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(Kept { head, note, keys: keys.verifiers().to_vec() })
}

/// The verifier keys of an argument: the key itself, or a file that has one a line.
///
/// # Errors
/// When it is neither.
pub fn verifier_keys(argument: &str) -> Result<Vec<String>, String> {
    if keys::is_verifier(argument) {
        return Ok(vec![argument.to_owned()]);
    }
    let text = std::fs::read_to_string(argument)
        .map_err(|error| format!("--key: {argument:?} is no verifier key, and as the name of a file: {error}"))?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let found: Vec<String> = lines.filter(|line| keys::is_verifier(line)).map(str::to_owned).collect();
    if found.is_empty() { Err(format!("--key: there is no verifier key in {argument}")) } else { Ok(found) }
}
