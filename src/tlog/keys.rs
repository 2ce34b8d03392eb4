//! The log's keys: Ed25519, in the forms of C2SP signed-note.
//!
//! The key file has one signer key a line, `PRIVATE+KEY+<name>+<id>+<base64>`; lines that start with `#` are comments.
//! The name is the log's origin. Every checkpoint bears a signature of each key, so that a key can be replaced while
//! those who know only the old one can still check: see `cairn key rotate`.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use cairn_proof::files::replace;
use cairn_proof::tree::note_keys;
use rand_core::OsRng;
use signed_note::{Note, NoteError, Signer, StandardSigner, generate_key};

/// Why the keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read or written.
    #[error("log.key_file: {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A line is no key. What stands there is not told.
    #[error("log.key_file: {path}, line {line}: {why}")]
    Line {
        /// The file.
        path: PathBuf,
        /// The line's number.
        line: usize,
        /// What is wrong.
        why: String,
    },
    /// There is none in it.
    #[error("log.key_file: {0}: no key in it")]
    Empty(PathBuf),
}

/// The keys of one log.
pub struct Keys {
    signers: Vec<StandardSigner>,
    verifiers: Vec<String>,
}

impl Keys {
    /// Reads the key file of the log with that origin; `None` if there is no file.
    ///
    /// # Errors
    /// When it cannot be read, or a key in it is none of this log.
    pub fn read(path: &Path, origin: &str) -> Result<Option<Keys>, KeyError> {
        Keys::read_of(path, Some(origin))
    }

    /// The same for whatever log the first key in the file is of.
    ///
    /// # Errors
    /// When it cannot be read, or its keys are of several logs.
    pub fn read_any(path: &Path) -> Result<Option<Keys>, KeyError> {
        Keys::read_of(path, None)
    }

    fn read_of(path: &Path, origin: Option<&str>) -> Result<Option<Keys>, KeyError> {
        let failed = |source| KeyError::File { path: path.to_owned(), source };
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let mode = std::fs::metadata(path).map_err(failed)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            // A mounted secret is often 0440, and nobody can change that.
            tracing::warn!(path = %path.display(), mode = format!("{mode:o}"), "the log's key can be read by others");
        }
        let mut keys = Keys { signers: Vec::new(), verifiers: Vec::new() };
        let mut origin = origin.map(str::to_owned);
        for (number, line) in text.lines().enumerate().map(|(index, line)| (index + 1, line.trim())) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |why: String| KeyError::Line { path: path.to_owned(), line: number, why };
            let signer = StandardSigner::new(line).map_err(|error| wrong(error.to_string()))?;
            let origin = origin.get_or_insert_with(|| signer.name().to_owned());
            if signer.name() != origin {
                return Err(wrong(format!("the key is of {:?}, and this log is {origin:?}", signer.name())));
            }
            keys.verifiers.push(verifier_key(line, &signer).ok_or_else(|| wrong("malformed signer key".to_owned()))?);
            keys.signers.push(signer);
        }
        if keys.signers.is_empty() { Err(KeyError::Empty(path.to_owned())) } else { Ok(Some(keys)) }
    }

    /// Makes a key file with a new key. It is on disk when this returns.
    ///
    /// # Errors
    /// When the file is there already, or cannot be written.
    pub fn make(path: &Path, origin: &str) -> Result<Keys, KeyError> {
        let failed = |source| KeyError::File { path: path.to_owned(), source };
        if path.try_exists().map_err(failed)? {
            return Err(failed(io::ErrorKind::AlreadyExists.into()));
        }
        let (signer_key, _) = generate_key(&mut OsRng, origin);
        replace(path, format!("{signer_key}\n").as_bytes()).map_err(failed)?;
        Keys::read(path, origin)?.ok_or_else(|| failed(io::ErrorKind::NotFound.into()))
    }

    /// Adds a new key to the file that these were read from; tells its verifier key.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn add(&self, path: &Path) -> Result<String, KeyError> {
        let failed = |source| KeyError::File { path: path.to_owned(), source };
        let name = self.signers.first().map_or("", |signer| signer.name());
        let (signer_key, verifier_key) = generate_key(&mut OsRng, name);
        let before = std::fs::read_to_string(path).map_err(failed)?;
        replace(path, format!("{}\n{signer_key}\n", before.trim_end()).as_bytes()).map_err(failed)?;
        Ok(verifier_key)
    }

    /// What auditors need to check signatures: the verifier keys, as C2SP signed-note writes them.
    pub fn verifiers(&self) -> &[String] {
        &self.verifiers
    }

    /// Signs a text with every key.
    ///
    /// # Errors
    /// When the text is no note's.
    pub fn sign(&self, text: &[u8]) -> Result<Vec<u8>, NoteError> {
        let mut note = Note::new(text, &[])?;
        let signers: Vec<&dyn Signer> = self.signers.iter().map(|signer| signer as &dyn Signer).collect();
        note.add_sigs(&signers)?;
        Ok(note.to_bytes())
    }

    /// Checks that one of the keys signed this note.
    ///
    /// # Errors
    /// When it is not a note, or none of its signatures is valid.
    pub fn verify(&self, note: &[u8]) -> Result<Note, NoteError> {
        note_keys::verify(note, &self.verifiers)
    }
}

/// The verifier key of a signer key.
fn verifier_key(signer_key: &str, signer: &StandardSigner) -> Option<String> {
    use base64::Engine;
    use base64::prelude::BASE64_STANDARD;
    // PRIVATE+KEY+name+id+base64, and base64 has plus signs of its own.
    let secret = BASE64_STANDARD.decode(signer_key.splitn(5, '+').nth(4)?).ok()?;
    let secret: [u8; 32] = secret.get(1..)?.try_into().ok()?;
    let public = ed25519_dalek::SigningKey::from_bytes(&secret).verifying_key();
    Some(signed_note::new_ed25519_verifier_key(signer.name(), &public))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_key_looks_like_it_is_read_again_and_checks_what_it_signed() {
        let folder = tempfile::TempDir::new().unwrap();
        for round in 0..40 {
            let path = folder.path().join(format!("{round}.key"));
            let keys = Keys::make(&path, "an/origin").unwrap();
            let note = keys.sign(b"an/origin\n0\nhash\n").unwrap();
            let again = Keys::read(&path, "an/origin").unwrap().unwrap();
            assert_eq!(again.verifiers(), keys.verifiers());
            assert_eq!(note_keys::verify(&note, again.verifiers()).unwrap().text(), b"an/origin\n0\nhash\n");
            let mut forged = note.clone();
            forged[10] ^= 1;
            assert!(note_keys::verify(&forged, again.verifiers()).is_err());
            assert!(Keys::make(&path, "an/origin").is_err(), "never overwritten");
            assert!(Keys::read(&path, "another").is_err());
        }
        std::fs::write(folder.path().join("empty"), "# nothing\n").unwrap();
        assert!(Keys::read(&folder.path().join("empty"), "x").is_err());
        assert!(Keys::read(&folder.path().join("missing"), "x").unwrap().is_none());
    }
}
