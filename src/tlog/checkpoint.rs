//! Checkpoints: the tree's size and root, signed (C2SP tlog-checkpoint), and the file with the last one.

use std::io;
use std::path::Path;

use signed_note::Note;
use tlog_tiles::{Checkpoint, Hash};

use super::keys::{self, Keys};

/// What a checkpoint says.
#[derive(Debug, Clone, PartialEq)]
pub struct Head {
    /// Whose log it is.
    pub origin: String,
    /// How many leaves the tree has.
    pub size: u64,
    /// Its root.
    pub root: Hash,
}

/// A checkpoint: what it says, and the signed note that says it.
pub type SignedHead = (Head, Vec<u8>);

/// The text that is signed.
///
/// # Errors
/// When the origin makes none.
pub fn text(head: &Head) -> Result<Vec<u8>, String> {
    let checkpoint = Checkpoint::new(&head.origin, head.size, head.root, "");
    checkpoint.map(|checkpoint| checkpoint.to_bytes()).map_err(|error| error.to_string())
}

/// Reads the text of a checkpoint.
///
/// # Errors
/// When it is none.
pub fn parse(text: &[u8]) -> Result<Head, String> {
    let checkpoint = Checkpoint::from_bytes(text).map_err(|error| error.to_string())?;
    Ok(Head { origin: checkpoint.origin().to_owned(), size: checkpoint.size(), root: *checkpoint.hash() })
}

/// What a checkpoint says, whoever signed it.
///
/// # Errors
/// When it is none.
pub fn told(note: &[u8]) -> Result<Head, String> {
    let note = Note::from_bytes(note).map_err(|error| error.to_string());
    note.and_then(|note| parse(note.text())).map_err(|error| format!("this is no checkpoint: {error}"))
}

/// Opens a checkpoint that one of these verifier keys has signed, and says which. The key has to be one of this log: its
/// name is the log's.
///
/// # Errors
/// Why it is none, in words.
pub fn open<'k>(note: &[u8], verifier_keys: &'k [String]) -> Result<(Head, &'k str), String> {
    let head = told(note)?;
    let key = keys::signer(note, verifier_keys)?;
    if key.split('+').next() != Some(&head.origin) {
        return Err(format!("it is of the log {:?}, and signed with the key of another: {key}", head.origin));
    }
    Ok((head, key))
}

/// Signs a checkpoint.
///
/// # Errors
/// When the origin makes none.
pub fn sign(head: &Head, keys: &Keys) -> Result<Vec<u8>, String> {
    keys.sign(&text(head)?).map_err(|error| error.to_string())
}

/// Reads the file with the last checkpoint and checks its signature; `None` if there is no file.
///
/// # Errors
/// Why it is not this log's last checkpoint, in words for the operator.
pub fn read(path: &Path, keys: &Keys) -> Result<Option<SignedHead>, String> {
    let shown = path.display();
    let note = match std::fs::read(path) {
        Ok(note) => note,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("log.checkpoint_file: {shown}: {error}")),
    };
    let signed = keys.verify(&note).map_err(|error| {
        format!("log.checkpoint_file: {shown}: {error}: it was not signed with the keys in log.key_file")
    })?;
    let head = parse(signed.text()).map_err(|error| format!("log.checkpoint_file: {shown}: {error}"))?;
    Ok(Some((head, note)))
}

/// Keeps the last checkpoint. It is on disk when this returns.
///
/// # Errors
/// When the file cannot be written; it has the checkpoint before then.
pub fn write(path: &Path, note: &[u8]) -> io::Result<()> {
    keys::replace(path, note)
}
