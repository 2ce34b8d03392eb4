//! The hash that links an event to the one before it, and the newtypes for agents, sequences and hashes.
//!
//! The rules are specified in `docs/verification.md`, "Hash and chain".

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

use crate::hex;

/// Identifies an agent in keys of fixed width: the first 16 bytes of SHA-256 over its id.
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

/// A map by agent. Its hash function is fast because the keys are hashes already; it is seeded against keys that were
/// chosen to collide.
pub type AgentMap<V> = HashMap<AgentKey, V, foldhash::fast::RandomState>;

impl fmt::Debug for AgentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex::fmt(&self.0, f)
    }
}

/// The number of an event in the chain of its agent: 1, 2, 3 ... without gaps. 0 means that there is no event yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Sequence(pub u64);

impl Sequence {
    /// The next sequence. Saturates, because a forged record can state the maximum.
    pub fn next(self) -> Sequence {
        Sequence(self.0.saturating_add(1))
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A SHA-256 hash, written as 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// The previous hash of the first event of every chain: 64 zeros.
    pub const GENESIS: Hash = Hash([0; 32]);

    /// The hash of an event: SHA-256 over its canonical bytes, followed by the previous hash `prev` as 64 hex digits.
    pub fn of_event(canonical: &[u8], prev: &Hash) -> Hash {
        let mut hasher = Sha256::new();
        hasher.update(canonical);
        hasher.update(prev.hex());
        Hash(hasher.finalize().into())
    }

    /// The hash as 64 lower-case hex digits.
    pub fn hex(&self) -> [u8; 64] {
        hex::encode_array(&self.0)
    }
}

impl FromStr for Hash {
    type Err = ParseHashError;

    /// Parses 64 lower-case hex digits, the only form of a hash.
    fn from_str(text: &str) -> Result<Hash, ParseHashError> {
        hex::parse(text.as_bytes()).map(Hash).ok_or(ParseHashError)
    }
}

/// The error of a text that is not a hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParseHashError;

impl fmt::Display for ParseHashError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected 64 lower-case hex digits")
    }
}

impl std::error::Error for ParseHashError {}

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
