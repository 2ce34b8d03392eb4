//! Checkpoints: signed notes with the origin, size and root of a tree (C2SP tlog-checkpoint).

use signed_note::Note;
use tlog_tiles::{Checkpoint, Hash};

use super::note_keys;

/// The content of a checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct Head {
    /// The origin: the name of the log.
    pub origin: String,
    /// The number of leaves.
    pub size: u64,
    /// The root of the tree.
    pub root: Hash,
}

/// Encodes the text that is signed.
///
/// # Errors
/// When the origin is not valid in a checkpoint.
pub fn text(head: &Head) -> Result<Vec<u8>, String> {
    let checkpoint = Checkpoint::new(&head.origin, head.size, head.root, "");
    checkpoint.map(|checkpoint| checkpoint.to_bytes()).map_err(|error| error.to_string())
}

/// Parses the text of a checkpoint, without signatures.
///
/// # Errors
/// When the text is not that of a checkpoint.
pub fn parse(text: &[u8]) -> Result<Head, String> {
    let checkpoint = Checkpoint::from_bytes(text).map_err(|error| error.to_string())?;
    Ok(Head { origin: checkpoint.origin().to_owned(), size: checkpoint.size(), root: *checkpoint.hash() })
}

/// Parses a signed checkpoint without verifying its signatures.
///
/// # Errors
/// When it is not a signed note, or its text is not that of a checkpoint.
pub fn parse_unverified(note: &[u8]) -> Result<Head, String> {
    let note = Note::from_bytes(note).map_err(|error| error.to_string());
    note.and_then(|note| parse(note.text())).map_err(|error| format!("not a checkpoint: {error}"))
}

/// Verifies a checkpoint with verifier keys; returns its content and the key that verified its signature.
///
/// The name of that key must be the origin of the checkpoint.
///
/// # Errors
/// When it is not a checkpoint, none of the keys has signed it, the signature of one of the keys is wrong, or the name
/// of the key is not the origin.
pub fn open<'k>(note: &[u8], verifier_keys: &'k [String]) -> Result<(Head, &'k str), String> {
    let head = parse_unverified(note)?;
    let key = note_keys::signer(note, verifier_keys)?;
    if key.split('+').next() != Some(&head.origin) {
        return Err(format!("its origin is {:?}, but it is signed with a key of another log: {key}", head.origin));
    }
    Ok((head, key))
}
