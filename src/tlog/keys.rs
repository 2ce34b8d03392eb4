//! The keys of the log: Ed25519, in the forms of C2SP signed-note.
//!
//! The key file has one signer key per line, `PRIVATE+KEY+<name>+<id>+<base64>`; lines that start with `#` are
//! comments. The name is the origin of the log. Every checkpoint is signed with each key, so that a key can be replaced
//! while auditors who only have the old verifier key can still verify: see `cairn key rotate`.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use cairn_proof::files;
use cairn_proof::tree::note_keys;
use rand_core::OsRng;
use signed_note::{Note, NoteError, Signer, StandardSigner, generate_key};

/// The reason why the keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read or written.
    #[error("log.key_file: {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// A line is not a key of this log. The message does not contain the line.
    #[error("log.key_file: {path}, line {line}: {why}")]
    Line {
        /// The file.
        path: PathBuf,
        /// The number of the line.
        line: usize,
        /// What is wrong.
        why: String,
    },
    /// The file contains no key.
    #[error("log.key_file: {0}: the file contains no key")]
    Empty(PathBuf),
    /// The file does not have the key that is to be removed.
    #[error("log.key_file: {0} does not have the key {1}: `cairn key show` prints those that it has")]
    Unknown(PathBuf, String),
    /// The key that is to be removed is the only one.
    #[error("log.key_file: {0} has no other key: add one with `cairn key rotate` first")]
    Last(PathBuf),
}

/// The keys of one log.
pub struct Keys {
    signers: Vec<StandardSigner>,
    verifiers: Vec<String>,
}

impl Keys {
    /// Reads the key file of the log `origin`; `None` if there is no file.
    ///
    /// # Errors
    /// When the file cannot be read, contains no key, or contains a key of another log.
    pub fn read(path: &Path, origin: &str) -> Result<Option<Keys>, KeyError> {
        Keys::read_file(path, Some(origin))
    }

    /// Reads the key file of the log that its first key names; `None` if there is no file.
    ///
    /// # Errors
    /// When the file cannot be read, contains no key, or contains keys of several logs.
    pub fn read_any(path: &Path) -> Result<Option<Keys>, KeyError> {
        Keys::read_file(path, None)
    }

    fn read_file(path: &Path, origin: Option<&str>) -> Result<Option<Keys>, KeyError> {
        let failed = |source| KeyError::File { path: path.to_owned(), source };
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let mode = std::fs::metadata(path).map_err(failed)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            // Only a warning: a mounted secret often has mode 0440, which cannot be changed.
            let mode = format!("{mode:o}");
            tracing::warn!(path = %path.display(), mode, "log.key_file is accessible to other users");
        }
        let mut keys = Keys { signers: Vec::new(), verifiers: Vec::new() };
        let mut origin = origin.map(str::to_owned);
        for (number, line) in text.lines().enumerate().map(|(index, line)| (index + 1, line.trim())) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let invalid = |why: String| KeyError::Line { path: path.to_owned(), line: number, why };
            let signer = StandardSigner::new(line).map_err(|error| invalid(error.to_string()))?;
            let origin = origin.get_or_insert_with(|| signer.name().to_owned());
            if signer.name() != origin {
                let name = signer.name();
                return Err(invalid(format!(
                    "the key belongs to the log {name:?}, and this log is {origin:?}; if `cairn key new-log` did not \
                     finish, run it again"
                )));
            }
            keys.verifiers.push(verifier_key(line, &signer).ok_or_else(|| invalid("malformed signer key".to_owned()))?);
            keys.signers.push(signer);
        }
        if keys.signers.is_empty() { Err(KeyError::Empty(path.to_owned())) } else { Ok(Some(keys)) }
    }

    /// Creates the key file with a new key. It is on disk when this returns.
    ///
    /// # Errors
    /// When the file exists already, or cannot be written.
    pub fn create(path: &Path, origin: &str) -> Result<Keys, KeyError> {
        let failed = |source| KeyError::File { path: path.to_owned(), source };
        let (signer_key, _) = generate_key(&mut OsRng, origin);
        files::create(path, format!("{signer_key}\n").as_bytes()).map_err(failed)?;
        Keys::read(path, origin)?.ok_or_else(|| failed(io::ErrorKind::NotFound.into()))
    }

    /// Adds a new key to the key file, to those that it has then, and returns its verifier key.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub fn add(&self, path: &Path) -> Result<String, KeyError> {
        let failed = |source| KeyError::File { path: path.to_owned(), source };
        let name = self.signers.first().map_or("", |signer| signer.name());
        let (signer_key, verifier_key) = generate_key(&mut OsRng, name);
        files::change(path, |existing| format!("{}\n{signer_key}\n", existing.trim_end())).map_err(failed)?;
        Ok(verifier_key)
    }

    /// Removes the key with this verifier key from the key file. The others have to have signed the last checkpoint, or the
    /// next start could not verify it.
    ///
    /// # Errors
    /// When the file cannot be read or written, does not have the key, or would have no other key.
    pub fn remove(path: &Path, verifier: &str) -> Result<(), KeyError> {
        let failed = |source| KeyError::File { path: path.to_owned(), source };
        let is_other = |line: &str| {
            let signer = StandardSigner::new(line.trim()).ok();
            signer.and_then(|signer| verifier_key(line.trim(), &signer)).is_none_or(|key| key != verifier)
        };
        let is_key = |line: &str| StandardSigner::new(line.trim()).is_ok();
        let mut outcome = Ok(());
        let change = |existing: String| {
            let others: Vec<&str> = existing.lines().filter(|line| is_other(line)).collect();
            outcome = match others.len() {
                left if left == existing.lines().count() => {
                    Err(KeyError::Unknown(path.to_owned(), verifier.to_owned()))
                }
                _ if !others.iter().any(|line| is_key(line)) => Err(KeyError::Last(path.to_owned())),
                _ => Ok(()),
            };
            if outcome.is_ok() { format!("{}\n", others.join("\n")) } else { existing }
        };
        files::change(path, change).map_err(failed)?;
        outcome
    }

    /// The verifier keys, which auditors need to verify signatures, in the form of C2SP signed-note.
    pub fn verifiers(&self) -> &[String] {
        &self.verifiers
    }

    /// Signs a text with every key, and returns the note.
    ///
    /// # Errors
    /// When the text cannot be the text of a note.
    pub fn sign(&self, text: &[u8]) -> Result<Vec<u8>, NoteError> {
        let mut note = Note::new(text, &[])?;
        let signers: Vec<&dyn Signer> = self.signers.iter().map(|signer| signer as &dyn Signer).collect();
        note.add_sigs(&signers)?;
        Ok(note.to_bytes())
    }

    /// Whether every key has signed a note.
    pub fn have_all_signed(&self, note: &[u8]) -> bool {
        self.verifiers.iter().all(|key| note_keys::verify(note, std::slice::from_ref(key)).is_ok())
    }

    /// Verifies that a note has a valid signature of one of the keys.
    ///
    /// # Errors
    /// When the note is malformed, or no signature is valid.
    pub fn verify(&self, note: &[u8]) -> Result<Note, NoteError> {
        note_keys::verify(note, &self.verifiers)
    }
}

/// The verifier key of a signer key.
fn verifier_key(signer_key: &str, signer: &StandardSigner) -> Option<String> {
    use base64::Engine;
    use base64::prelude::BASE64_STANDARD;
    // PRIVATE+KEY+name+id+base64: the base64 may contain plus signs, too.
    let secret = BASE64_STANDARD.decode(signer_key.splitn(5, '+').nth(4)?).ok()?;
    let secret: [u8; 32] = secret.get(1..)?.try_into().ok()?;
    let public = ed25519_dalek::SigningKey::from_bytes(&secret).verifying_key();
    Some(signed_note::new_ed25519_verifier_key(signer.name(), &public))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_created_key_is_read_back_and_verifies_what_it_signed() {
        let folder = tempfile::TempDir::new().unwrap();
        for round in 0..40 {
            let path = folder.path().join(format!("{round}.key"));
            let keys = Keys::create(&path, "an/origin").unwrap();
            let note = keys.sign(b"an/origin\n0\nhash\n").unwrap();
            let read_back = Keys::read(&path, "an/origin").unwrap().unwrap();
            assert_eq!(read_back.verifiers(), keys.verifiers());
            assert_eq!(note_keys::verify(&note, read_back.verifiers()).unwrap().text(), b"an/origin\n0\nhash\n");
            let mut forged = note.clone();
            forged[10] ^= 1;
            assert!(note_keys::verify(&forged, read_back.verifiers()).is_err());
            assert!(Keys::create(&path, "an/origin").is_err(), "never overwritten");
            assert!(Keys::read(&path, "another").is_err());
        }
        std::fs::write(folder.path().join("empty"), "# nothing\n").unwrap();
        assert!(Keys::read(&folder.path().join("empty"), "x").is_err());
        assert!(Keys::read(&folder.path().join("missing"), "x").unwrap().is_none());
    }
}
