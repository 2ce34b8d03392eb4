//! API keys: their form, their scopes, and a lookup in constant time.
//!
//! The form is specified in `docs/security.md`, section "API keys". Only the SHA-256 of each key is kept in memory.

use std::io;
use std::path::Path;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::config::AuthConfig;
use crate::text::settings::InvalidSetting;
use cairn_proof::hex;

/// The set of scopes of an API key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scopes(u8);

impl Scopes {
    /// No scope.
    pub const NONE: Scopes = Scopes(0);
    /// Store events.
    pub const INGEST: Scopes = Scopes(1);
    /// Read stored events and everything derived from them.
    pub const READ: Scopes = Scopes(2);
    /// The scopes of a key without a list of scopes.
    pub const ALL: Scopes = Scopes(3);
    /// Erase the content of events, and change holds. Only keys that name it have it.
    pub const ERASE: Scopes = Scopes(4);
    /// Read, and erase.
    pub const ERASE_AND_READ: Scopes = Scopes(6);

    /// Whether the set contains all scopes of `needed`.
    pub fn contains(self, needed: Scopes) -> bool {
        self.0 & needed.0 == needed.0
    }

    /// The names of the scopes, separated by commas, as in the configuration.
    pub fn names(self) -> &'static str {
        match self {
            Scopes::INGEST => "ingest",
            Scopes::READ => "read",
            Scopes::ALL => "ingest,read",
            Scopes::ERASE => "erase",
            Scopes(5) => "ingest,erase",
            Scopes(6) => "read,erase",
            Scopes(7) => "ingest,read,erase",
            _ => "none",
        }
    }

    fn parse(text: &str) -> Option<Scopes> {
        text.split(',').try_fold(Scopes::NONE, |scopes, name| match name {
            "ingest" => Some(Scopes(scopes.0 | Scopes::INGEST.0)),
            "read" => Some(Scopes(scopes.0 | Scopes::READ.0)),
            "erase" => Some(Scopes(scopes.0 | Scopes::ERASE.0)),
            _ => None,
        })
    }
}

/// Why API keys cannot be used. The message never contains a part of a key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The key file cannot be read.
    #[error("auth.api_keys_file: {0}")]
    File(#[source] io::Error),
    /// A key is malformed.
    #[error(
        "{entry}: expected KEY or sha256:HEX (64 hex digits), optionally followed by a space and its scopes: one or \
         more of ingest, read and erase, separated by commas"
    )]
    Malformed {
        /// The setting with its index, or the file with its line.
        entry: String,
    },
}

impl KeyError {
    /// The setting that cannot be used.
    pub fn key(&self) -> &'static str {
        match self {
            KeyError::Malformed { entry } if !entry.starts_with(FILE_SETTING) => "auth.api_keys",
            _ => FILE_SETTING,
        }
    }
}

/// The setting with the path of the key file.
const FILE_SETTING: &str = "auth.api_keys_file";

struct StoredKey {
    hash: [u8; 32],
    scopes: Scopes,
}

/// The accepted API keys. Only the hash of each is kept.
///
/// An entry is a key, or `sha256:` followed by the SHA-256 of a key in hex; a space and a list of scopes may follow.
/// Without such a list the key has the scopes ingest and read.
pub struct Keys {
    keys: Vec<StoredKey>,
}

impl Keys {
    /// Reads the keys of the configuration and of its key file; `None` if neither is configured.
    ///
    /// # Errors
    /// When the key file cannot be read, or a key is malformed.
    pub fn load(config: &AuthConfig) -> Result<Option<Keys>, KeyError> {
        let mut keys = Vec::new();
        for (index, line) in config.api_keys.iter().enumerate() {
            keys.extend(parse(line).map_err(|()| KeyError::Malformed { entry: format!("auth.api_keys[{index}]") })?);
        }
        if let Some(path) = &config.api_keys_file {
            let entry = |line: usize| format!("{FILE_SETTING}: {}, line {line}", path.display());
            for (index, line) in read_file(path)?.lines().enumerate() {
                keys.extend(parse(line).map_err(|()| KeyError::Malformed { entry: entry(index + 1) })?);
            }
        }
        // A key file without keys must reject all requests, not accept them.
        Ok(config.has_keys().then_some(Keys { keys }))
    }

    /// The fingerprints of the keys: see [`fingerprint`].
    pub fn fingerprints(&self) -> Vec<String> {
        let fingerprint_of = |stored: &StoredKey| {
            let [a, b, c, d, e, f, g, h, ..] = stored.hash;
            fingerprint(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
        };
        self.keys.iter().map(fingerprint_of).collect()
    }

    /// Whether there is no key, so that all requests are rejected.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The scopes of `key` and a number that identifies it; `None` if it is unknown. The time taken does not depend on
    /// the stored keys: the hash is compared with every stored hash in constant time.
    pub fn find(&self, key: &str) -> Option<(Scopes, u64)> {
        let offered = sha256(key);
        let mut scopes = 0;
        let mut is_found = subtle::Choice::from(0);
        for stored in &self.keys {
            let is_match = stored.hash.ct_eq(&offered);
            is_found |= is_match;
            scopes |= stored.scopes.0 & is_match.unwrap_u8().wrapping_neg();
        }
        let [a, b, c, d, e, f, g, h, ..] = offered;
        bool::from(is_found).then(|| (Scopes(scopes), u64::from_be_bytes([a, b, c, d, e, f, g, h])))
    }
}

/// What names a key in records: the first 8 hex digits of its SHA-256. `number` is that of [`Keys::find`].
pub fn fingerprint(number: u64) -> String {
    format!("{:08x}", number >> 32)
}

fn read_file(path: &Path) -> Result<String, KeyError> {
    let with_path = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    std::fs::read_to_string(path).map_err(with_path).map_err(KeyError::File)
}

/// The key of an entry in clear text; `None` for a comment, an empty line and an entry that has only the hash of a key.
pub fn plain_key(line: &str) -> Option<&str> {
    let key = line.split_whitespace().next().filter(|key| !key.starts_with('#'))?;
    hex_of(key).is_none().then_some(key)
}

/// The scopes of an entry; `None` if they are malformed.
pub fn scopes_of(line: &str) -> Option<Scopes> {
    line.split_whitespace().nth(1).map_or(Some(Scopes::ALL), Scopes::parse)
}

/// The prefix of an entry with the hash of a key. Its case does not matter.
const HASHED: &str = "sha256:";

/// The text after `sha256:`, if the entry has this prefix.
fn hex_of(key: &str) -> Option<&str> {
    let (prefix, hex) = key.split_at_checked(HASHED.len())?;
    prefix.eq_ignore_ascii_case(HASHED).then_some(hex)
}

/// Replaces the clear-text keys of a configuration with their hashes. The result accepts the same keys.
pub fn hash_keys(config: &mut AuthConfig) {
    config.api_keys.iter_mut().for_each(|line| *line = hashed(line));
}

/// The settings of the section that cannot be used. Reads the key file.
pub fn check(config: &AuthConfig) -> Vec<InvalidSetting> {
    let error = Keys::load(config).err();
    error
        .map(|error| InvalidSetting { key: error.key().to_owned(), message: error.to_string(), limited_by: None })
        .into_iter()
        .collect()
}

/// The entry with the key replaced by its hash.
fn hashed(line: &str) -> String {
    let Some(key) = plain_key(line) else { return line.to_owned() };
    format!("{HASHED}{}{}", hex::encode(&sha256(key)), &line.trim_start()[key.len()..])
}

/// Parses an entry; `None` for a comment and an empty line.
fn parse(line: &str) -> Result<Option<StoredKey>, ()> {
    let mut words = line.split_whitespace();
    let Some(key) = words.next().filter(|key| !key.starts_with('#')) else { return Ok(None) };
    let scopes = words.next().map_or(Ok(Scopes::ALL), |names| Scopes::parse(names).ok_or(()))?;
    let hash = match hex_of(key) {
        Some(hex) => unhex(hex).ok_or(())?,
        // No header value can contain it.
        None if !key.bytes().all(|byte| byte.is_ascii_graphic()) => return Err(()),
        None => sha256(key),
    };
    // A script produces the hash of the empty text from a variable that is not set.
    if words.next().is_some() || hash == sha256("") { Err(()) } else { Ok(Some(StoredKey { hash, scopes })) }
}

fn sha256(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    hex::parse_mixed(text.as_bytes())?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY_KEY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn keys(lines: &[&str]) -> Result<Option<Keys>, KeyError> {
        let api_keys = lines.iter().map(|line| (*line).to_owned()).collect();
        Keys::load(&AuthConfig { api_keys, ..AuthConfig::default() })
    }

    fn scopes(keys: &Keys, key: &str) -> Option<Scopes> {
        keys.find(key).map(|(scopes, _)| scopes)
    }

    #[test]
    fn an_empty_key_file_accepts_no_key() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let config = AuthConfig { api_keys_file: Some(file.path().into()), ..AuthConfig::default() };
        let keys = Keys::load(&config).unwrap().unwrap();
        assert_eq!(scopes(&keys, ""), None);
    }

    #[test]
    fn a_key_has_the_scopes_that_follow_it_and_may_be_given_as_its_hash() {
        let hashed = "sha256:2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
        let keys = keys(&["one", "two  read", " three ingest,read", "# four", "", &format!("{hashed} ingest")]);
        let keys = keys.unwrap().unwrap();
        let found = ["one", "two", "three", "secret", "four", "#", hashed, "two read"].map(|key| scopes(&keys, key));
        let (all, read, ingest) = (Some(Scopes::ALL), Some(Scopes::READ), Some(Scopes::INGEST));
        assert_eq!(found, [all, read, all, ingest, None, None, None, None]);
        assert!(
            Scopes::ALL.contains(Scopes::READ)
                && !Scopes::READ.contains(Scopes::ALL)
                && Scopes::READ.contains(Scopes::NONE)
        );
        let hashed_lines: Vec<String> = ["one", " two  read", "# four"].map(super::hashed).into();
        let from_hashes = Keys::load(&AuthConfig { api_keys: hashed_lines, ..AuthConfig::default() }).unwrap().unwrap();
        assert_eq!(["one", "two", "four"].map(|key| scopes(&from_hashes, key)), [all, read, None]);
        assert_ne!(keys.find("one").unwrap().1, keys.find("two").unwrap().1);
    }

    #[test]
    fn malformed_keys_are_refused_and_the_message_contains_no_part_of_them() {
        for wrong in [
            EMPTY_KEY,
            "hunter2\u{e9}",
            "hunter2 write",
            "hunter2 ingest read",
            "sha256:hunter2",
            "sha256:",
            "SHA256:hunter2",
            "hunter2 ingest,",
            "a hunter2",
        ] {
            let message = keys(&["fine", wrong]).err().unwrap().to_string();
            assert!(message.starts_with("auth.api_keys[1]: expected KEY") && !message.contains("hunter2"), "{message}");
        }
    }
}
