//! Verifier keys, and the verification of signed notes (C2SP signed-note).

use signed_note::{Note, NoteError, StandardVerifier, Verifier, VerifierList};

/// Verifies a note: at least one of the keys has signed it, and no signature by one of the keys is wrong.
///
/// Texts that are not verifier keys are ignored.
///
/// # Errors
/// When it is not a signed note, none of the keys has signed it, or a signature by one of the keys is wrong.
pub fn verify(note: &[u8], verifier_keys: &[String]) -> Result<Note, NoteError> {
    let verifiers = verifier_keys.iter().filter_map(|key| StandardVerifier::new(key).ok());
    let verifiers = verifiers.map(|verifier| Box::new(verifier) as Box<dyn Verifier>).collect();
    let note = Note::from_bytes(note)?;
    note.verify(&VerifierList::new(verifiers))?;
    Ok(note)
}

/// Returns the first of the verifier keys that has signed a note.
///
/// # Errors
/// When none of them has signed it, or the signature of a key that was tried is wrong.
pub fn signer<'k>(note: &[u8], verifier_keys: &'k [String]) -> Result<&'k str, String> {
    for key in verifier_keys {
        match verify(note, std::slice::from_ref(key)) {
            Ok(_) => return Ok(key),
            Err(NoteError::UnverifiedNote) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
    Err(format!("not signed with {}", verifier_keys.join(" or ")))
}

/// Whether a text is a valid verifier key.
pub fn is_verifier_key(text: &str) -> bool {
    StandardVerifier::new(text).is_ok()
}
