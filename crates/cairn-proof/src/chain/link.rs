//! One link: the hash of an event's canonical bytes and of the hash before it.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

use crate::hex;

/// Names an agent in keys of fixed width: the first 16 bytes of SHA-256 over its id.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AgentKey(pub [u8; 16]);

impl AgentKey {
    /// The key of the agent with this id.
    pub fn of(agent_id: &str) -> AgentKey {
        let digest = Sha256::digest(agent_id.as_bytes());
        let mut key = [0; 16];
        key.copy_from_slice(&digest[..16]);
        AgentKey(key)
    }
}

impl AsRef<[u8]> for AgentKey {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// What is known of agents. Their keys are hashes already; the seed is against keys that were chosen to collide.
pub type AgentMap<V> = HashMap<AgentKey, V, foldhash::fast::RandomState>;

impl fmt::Debug for AgentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex::fmt(&self.0, f)
    }
}

/// An event's place in its agent's chain: 1, 2, 3 ... without a gap. 0 stands before the first event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Sequence(pub u64);

impl Sequence {
    /// The place after this one. A forged record may say that it has the last place there is.
    pub fn next(self) -> Sequence {
        Sequence(self.0.saturating_add(1))
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A SHA-256 hash; shown, hashed and sent as 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// What stands before the first event of every chain: 64 zeros.
    pub const GENESIS: Hash = Hash([0; 32]);

    /// The hash of the event with these canonical bytes, behind the event with the hash `prev`.
    pub fn of_event(canonical: &[u8], prev: &Hash) -> Hash {
        let mut hasher = Sha256::new();
        hasher.update(canonical);
        hasher.update(prev.hex());
        Hash(hasher.finalize().into())
    }

    /// The hash as 64 lower-case hex digits.
    pub fn hex(&self) -> [u8; 64] {
        hex::array(&self.0)
    }
}

impl FromStr for Hash {
    type Err = NotAHash;

    /// Reads 64 lower-case hex digits, the only form of a hash.
    fn from_str(text: &str) -> Result<Hash, NotAHash> {
        hex::parse(text.as_bytes()).map(Hash).ok_or(NotAHash)
    }
}

/// A text that is no hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAHash;

impl fmt::Display for NotAHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected 64 lower-case hex digits")
    }
}

impl std::error::Error for NotAHash {}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex::fmt(&self.0, f)
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
