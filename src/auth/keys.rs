//! Keys: what they look like, what they may do, and how one is found without telling anything about the others.

use std::io;
use std::path::Path;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::config::AuthConfig;
use crate::text::settings::InvalidSetting;
use cairn_proof::hex;

/// What a key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scopes(u8);

impl Scopes {
    /// Nothing that needs a scope.
    pub const NONE: Scopes = Scopes(0);
    /// Bring events.
    pub const INGEST: Scopes = Scopes(1);
    /// Read what is stored.
    pub const READ: Scopes = Scopes(2);
    /// All of it.
    pub const ALL: Scopes = Scopes(3);

    /// Whether `needed` is among them.
    pub fn cover(self, needed: Scopes) -> bool {
        self.0 & needed.0 == needed.0
    }

    /// Names with commas between them, as they are written.
    pub fn names(self) -> &'static str {
        match self {
            Scopes::INGEST => "ingest",
            Scopes::READ => "read",
            Scopes::ALL => "ingest,read",
            _ => "none",
        }
    }

    fn read(text: &str) -> Option<Scopes> {
        text.split(',').try_fold(Scopes::NONE, |scopes, name| match name {
            "ingest" => Some(Scopes(scopes.0 | Scopes::INGEST.0)),
            "read" => Some(Scopes(scopes.0 | Scopes::READ.0)),
            _ => None,
        })
    }
}

/// What is wrong with a key. It has no word of the key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read.
    #[error("auth.api_keys_file: {0}")]
    File(#[source] io::Error),
    /// A key is not written as one.
    #[error(
        "{place}: expected KEY or sha256:HASH (64 hex digits), and behind a space what it may do if that is not all: ingest, read"
    )]
    Form {
        /// Where it stands.
        place: String,
    },
}

impl KeyError {
    /// The setting that is wrong.
    pub fn key(&self) -> &'static str {
        match self {
            KeyError::Form { place } if !place.starts_with(IN_FILE) => "auth.api_keys",
            _ => IN_FILE,
        }
    }
}

/// The setting that names the file.
const IN_FILE: &str = "auth.api_keys_file";

struct Known {
    hash: [u8; 32],
    scopes: Scopes,
}

/// The keys that are in force. Of each, only its hash is kept.
///
/// A key is written as itself, or as `sha256:` and the SHA-256 of it in hex; behind a space may stand what it may do.
pub struct Keys {
    known: Vec<Known>,
}

impl Keys {
    /// Reads the keys of the configuration and of the file that it names; `None` if there are none.
    ///
    /// # Errors
    /// When the file cannot be read, or a key is not written as one.
    pub fn load(config: &AuthConfig) -> Result<Option<Keys>, KeyError> {
        let mut known = Vec::new();
        for (index, line) in config.api_keys.iter().enumerate() {
            known.extend(read(line).map_err(|()| KeyError::Form { place: format!("auth.api_keys[{index}]") })?);
        }
        if let Some(path) = &config.api_keys_file {
            let at = |line: usize| format!("{IN_FILE}: {}, line {line}", path.display());
            for (index, line) in read_file(path)?.lines().enumerate() {
                known.extend(read(line).map_err(|()| KeyError::Form { place: at(index + 1) })?);
            }
        }
        // A file without keys must not open the door.
        Ok(config.has_keys().then_some(Keys { known }))
    }

    /// Whether there is none, so that nobody may call.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// What `key` may do, and a number that stands for it; `None` if it is not known. How long it takes says nothing
    /// about the keys: hashes are compared, all of them, in constant time.
    pub fn find(&self, key: &str) -> Option<(Scopes, u64)> {
        let offered = hash(key);
        let mut scopes = 0;
        let mut is_known = subtle::Choice::from(0);
        for known in &self.known {
            let is_it = known.hash.ct_eq(&offered);
            is_known |= is_it;
            scopes |= known.scopes.0 & is_it.unwrap_u8().wrapping_neg();
        }
        let [a, b, c, d, e, f, g, h, ..] = offered;
        bool::from(is_known).then(|| (Scopes(scopes), u64::from_be_bytes([a, b, c, d, e, f, g, h])))
    }
}

fn read_file(path: &Path) -> Result<String, KeyError> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    std::fs::read_to_string(path).map_err(named).map_err(KeyError::File)
}

/// The key of a line, if it is one that can be sent: of some, only the hash is written down.
pub fn plain(line: &str) -> Option<&str> {
    let key = line.split_whitespace().next().filter(|key| !key.starts_with('#'))?;
    hex_of(key).is_none().then_some(key)
}

/// What the hash of a key is written behind.
const HASHED: &str = "sha256:";

/// What stands behind `sha256:`, in letters of any case.
fn hex_of(key: &str) -> Option<&str> {
    let (prefix, hex) = key.split_at_checked(HASHED.len())?;
    prefix.eq_ignore_ascii_case(HASHED).then_some(hex)
}

/// Replaces the keys of a configuration by their hashes, which accept the same keys.
pub fn hash_keys(config: &mut AuthConfig) {
    config.api_keys.iter_mut().for_each(|line| *line = hashed(line));
}

/// The settings that cannot be used. Reads the file with keys.
pub fn check(config: &AuthConfig) -> Vec<InvalidSetting> {
    let error = Keys::load(config).err();
    error.map(|error| InvalidSetting { key: error.key().to_owned(), sentence: error.to_string() }).into_iter().collect()
}

/// A line with the hash of its key in the key's place.
fn hashed(line: &str) -> String {
    let Some(key) = plain(line) else { return line.to_owned() };
    format!("{HASHED}{}{}", hex::encode(&hash(key)), &line.trim_start()[key.len()..])
}

/// Reads a line: a key, or nothing, or a comment.
fn read(line: &str) -> Result<Option<Known>, ()> {
    let mut words = line.split_whitespace();
    let Some(key) = words.next().filter(|key| !key.starts_with('#')) else { return Ok(None) };
    let scopes = words.next().map_or(Ok(Scopes::ALL), |names| Scopes::read(names).ok_or(()))?;
    let known = match hex_of(key) {
        Some(hex) => unhex(hex).ok_or(())?,
        // No header could bring it.
        None if !key.bytes().all(|byte| byte.is_ascii_graphic()) => return Err(()),
        None => hash(key),
    };
    // The hash of no key at all is what a script makes of a variable that is not set.
    if words.next().is_some() || known == hash("") { Err(()) } else { Ok(Some(Known { hash: known, scopes })) }
}

fn hash(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    hex::parse_mixed(text.as_bytes())?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn keys(lines: &[&str]) -> Result<Option<Keys>, KeyError> {
        let api_keys = lines.iter().map(|line| (*line).to_owned()).collect();
        Keys::load(&AuthConfig { api_keys, ..AuthConfig::default() })
    }

    fn scopes(keys: &Keys, key: &str) -> Option<Scopes> {
        keys.find(key).map(|(scopes, _)| scopes)
    }

    #[test]
    fn an_empty_key_file_lets_nobody_in() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let config = AuthConfig { api_keys_file: Some(file.path().into()), ..AuthConfig::default() };
        let keys = Keys::load(&config).unwrap().unwrap();
        assert_eq!(scopes(&keys, ""), None);
    }

    #[test]
    fn a_key_may_do_what_stands_behind_it_and_be_written_as_its_hash() {
        let hashed = "sha256:2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
        let keys = keys(&["one", "two  read", " three ingest,read", "# four", "", &format!("{hashed} ingest")]);
        let keys = keys.unwrap().unwrap();
        let found = ["one", "two", "three", "secret", "four", "#", hashed, "two read"].map(|key| scopes(&keys, key));
        let (all, read, ingest) = (Some(Scopes::ALL), Some(Scopes::READ), Some(Scopes::INGEST));
        assert_eq!(found, [all, read, all, ingest, None, None, None, None]);
        assert!(
            Scopes::ALL.cover(Scopes::READ) && !Scopes::READ.cover(Scopes::ALL) && Scopes::READ.cover(Scopes::NONE)
        );
        let again: Vec<String> = ["one", " two  read", "# four"].map(super::hashed).into();
        let again = Keys::load(&AuthConfig { api_keys: again, ..AuthConfig::default() }).unwrap().unwrap();
        assert_eq!(["one", "two", "four"].map(|key| scopes(&again, key)), [all, read, None]);
        assert_ne!(keys.find("one").unwrap().1, keys.find("two").unwrap().1);
    }

    #[test]
    fn what_is_no_key_is_refused_without_a_word_of_it() {
        for wrong in [
            NOTHING,
            "hunter2\u{e9}",
            "hunter2 write",
            "hunter2 ingest read",
            "sha256:hunter2",
            "sha256:",
            "SHA256:hunter2",
            "hunter2 ingest,",
            "a hunter2",
        ] {
            let said = keys(&["fine", wrong]).err().unwrap().to_string();
            assert!(said.starts_with("auth.api_keys[1]: expected KEY") && !said.contains("hunter2"), "{said}");
        }
    }
}
