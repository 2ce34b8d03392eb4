//! Verifier keys of signed notes (C2SP signed-note), and what they verify.

use signed_note::{Note, NoteError, StandardVerifier, Verifier, VerifierList};

/// Checks a note with verifier keys: at least one of them has signed it, and no signature of theirs is wrong.
///
/// # Errors
/// When it is no note, none of them has signed it, or a signature is wrong.
pub fn verify(note: &[u8], verifier_keys: &[String]) -> Result<Note, NoteError> {
    let known = verifier_keys.iter().filter_map(|key| StandardVerifier::new(key).ok());
    let known = known.map(|verifier| Box::new(verifier) as Box<dyn Verifier>).collect();
    let note = Note::from_bytes(note)?;
    note.verify(&VerifierList::new(known))?;
    Ok(note)
}

/// Which of these verifier keys has signed a note.
///
/// # Errors
/// When none has, or a signature is wrong.
pub fn signer<'k>(note: &[u8], verifier_keys: &'k [String]) -> Result<&'k str, String> {
    for key in verifier_keys {
        match verify(note, std::slice::from_ref(key)) {
            Ok(_) => return Ok(key),
            Err(NoteError::UnverifiedNote) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    Err(format!("it was not signed with {}", verifier_keys.join(", nor with ")))
}

/// Whether a text is a verifier key.
pub fn is_verifier(text: &str) -> bool {
    StandardVerifier::new(text).is_ok()
}
