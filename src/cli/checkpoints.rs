//! Checkpoints and keys, as commands find them on disk and in arguments.

use std::io;
use std::path::Path;

use cairn_proof::files;
use cairn_proof::tree::{Head, checkpoint};

use super::exit::Failure;
use crate::tlog::LogConfig;
use crate::tlog::keys::Keys;

/// A checkpoint whose signature is right.
pub struct Kept {
    /// What it says.
    pub head: Head,
    /// The signed note.
    pub note: Vec<u8>,
    /// The verifier keys of the log's own key file.
    pub keys: Vec<String>,
}

/// A checkpoint, or what is wrong with it.
pub type Found = Result<Kept, String>;

/// The last checkpoint that this ledger's server signed; `None` if there is none.
///
/// # Errors
/// When files cannot be read.
pub fn own(config: &LogConfig, data_dir: &Path) -> Result<Result<Option<Kept>, String>, Failure> {
    let path = config.checkpoint_path(data_dir);
    match std::fs::read(&path) {
        Ok(note) => Ok(kept(config, data_dir, &path, note)?.map(Some)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Ok(None)),
        Err(error) => Err(format!("{}: {error}", path.display()).into()),
    }
}

/// A checkpoint of this ledger's log that was kept elsewhere.
///
/// # Errors
/// When files cannot be read.
pub fn elsewhere(config: &LogConfig, data_dir: &Path, path: &Path) -> Result<Found, Failure> {
    let note = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    kept(config, data_dir, path, note)
}

fn kept(config: &LogConfig, data_dir: &Path, path: &Path, note: Vec<u8>) -> Result<Found, Failure> {
    let key_path = config.key_path(data_dir);
    let Some(keys) = Keys::read_any(&key_path)? else {
        return Ok(Err(format!("the log's key is gone (log.key_file: {})", key_path.display())));
    };
    let keys = keys.verifiers().to_vec();
    Ok(match checkpoint::open(&note, &keys) {
        Ok((head, _)) => Ok(Kept { head, note, keys }),
        Err(why) => Err(format!("{}: {why}", path.display())),
    })
}

/// The verifier keys that arguments name: keys themselves, or files that contain keys.
///
/// # Errors
/// When an argument is neither.
pub fn trusted_keys(arguments: &[String]) -> Result<Vec<String>, Failure> {
    let mut keys = Vec::new();
    for argument in arguments {
        keys.extend(files::verifier_keys(argument).map_err(Failure::usage)?);
    }
    Ok(keys)
}
