//! Reads checkpoints and keys from files and arguments.

use std::io;
use std::path::Path;

use cairn_proof::files;
use cairn_proof::tree::{Head, checkpoint};

use super::exit::Failure;
use crate::tlog::LogConfig;
use crate::tlog::keys::Keys;

/// A checkpoint with a valid signature.
pub struct VerifiedCheckpoint {
    /// Origin, size and root.
    pub head: Head,
    /// The signed note.
    pub note: Vec<u8>,
    /// The verifier keys in the key file of the log.
    pub keys: Vec<String>,
}

/// A checkpoint, or why it is invalid.
pub type Checked = Result<VerifiedCheckpoint, String>;

/// The last checkpoint that the server of this ledger signed; `None` if there is none. The inner error says why it is
/// invalid.
///
/// # Errors
/// When a file cannot be read.
pub fn own(config: &LogConfig, data_dir: &Path) -> Result<Result<Option<VerifiedCheckpoint>, String>, Failure> {
    let path = config.checkpoint_path(data_dir);
    match std::fs::read(&path) {
        Ok(note) => Ok(check(config, data_dir, &path, note)?.map(Some)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Ok(None)),
        Err(error) => Err(format!("{}: {error}", path.display()).into()),
    }
}

/// A checkpoint of the log of this ledger that was stored outside the server, in the file `path`.
///
/// # Errors
/// When a file cannot be read.
pub fn external(config: &LogConfig, data_dir: &Path, path: &Path) -> Result<Checked, Failure> {
    let note = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let checked = check(config, data_dir, path, note.clone())?;
    if checked.is_err()
        && let (Ok(head), Ok(Some(own))) = (checkpoint::parse_unverified(&note), own(config, data_dir)?)
        && head.origin != own.head.origin
    {
        return Err(Failure::not_proven(format!(
            "{} is a checkpoint of the log {}, and this ledger has the log {}: nothing that was proven with it is proven by \
             this ledger",
            path.display(),
            head.origin,
            own.head.origin
        )));
    }
    Ok(checked)
}

fn check(config: &LogConfig, data_dir: &Path, path: &Path, note: Vec<u8>) -> Result<Checked, Failure> {
    let key_path = config.key_path(data_dir);
    let Some(keys) = Keys::read_any(&key_path)? else {
        return Ok(Err(format!("the key file of the log is missing (log.key_file: {})", key_path.display())));
    };
    let keys = keys.verifiers().to_vec();
    Ok(match checkpoint::open(&note, &keys) {
        Ok((head, _)) => Ok(VerifiedCheckpoint { head, note, keys }),
        Err(why) => Err(format!("{}: {why}", path.display())),
    })
}

/// The verifier keys that arguments contain: each argument is a key, or a file with keys.
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
