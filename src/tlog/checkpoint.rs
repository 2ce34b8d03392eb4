//! Signs checkpoints (C2SP tlog-checkpoint), and reads and writes the file with the last one.

use std::io;
use std::path::Path;

use cairn_proof::tree::Head;
use cairn_proof::tree::checkpoint::{parse, parse_unverified, text};

use super::keys::Keys;

/// A checkpoint: the tree head, and the signed note that contains it.
pub type SignedHead = (Head, Vec<u8>);

/// Signs a checkpoint.
///
/// # Errors
/// When the origin is not valid in a checkpoint.
pub fn sign(head: &Head, keys: &Keys) -> Result<Vec<u8>, String> {
    keys.sign(&text(head)?).map_err(|error| error.to_string())
}

/// Reads the file with the last checkpoint and checks its signature; `None` if there is no file.
///
/// # Errors
/// When the file cannot be read, is not a checkpoint, or was not signed with these keys. The message is for the
/// operator.
pub fn read(path: &Path, keys: &Keys) -> Result<Option<SignedHead>, String> {
    let file = path.display();
    let note = match std::fs::read(path) {
        Ok(note) => note,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("log.checkpoint_file: {file}: {error}")),
    };
    let signed = keys.verify(&note).map_err(|error| {
        format!("log.checkpoint_file: {file}: {error}: it was not signed with the keys in log.key_file")
    })?;
    let head = parse(signed.text()).map_err(|error| format!("log.checkpoint_file: {file}: {error}"))?;
    Ok(Some((head, note)))
}

/// The number of events under the checkpoint in a file, for messages; its signature is not verified.
pub fn signed_size(path: &Path) -> String {
    let head = std::fs::read(path).ok().and_then(|note| parse_unverified(&note).ok());
    head.map_or("unknown".to_owned(), |head| head.size.to_string())
}

/// Replaces the file with the last checkpoint. It is on disk when this returns.
///
/// # Errors
/// When the file cannot be written. It then contains the previous checkpoint.
pub fn write(path: &Path, note: &[u8]) -> io::Result<()> {
    cairn_proof::files::replace(path, note)
}
