//! Checkpoints: the tree's size and root, signed (C2SP tlog-checkpoint).

use signed_note::Note;
use tlog_tiles::{Checkpoint, Hash};

use super::note_keys;

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
    let key = note_keys::signer(note, verifier_keys)?;
    if key.split('+').next() != Some(&head.origin) {
        return Err(format!("it is of the log {:?}, and signed with the key of another: {key}", head.origin));
    }
    Ok((head, key))
}
