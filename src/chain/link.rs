//! One link: the hash of an event's canonical bytes and of the hash before it.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};
use tape_sha256::{Message, hash_messages};

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
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
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

/// The length of a block of SHA-256, in bytes.
const BLOCK_LEN: usize = 64;
/// What is hashed behind an event's canonical bytes: 64 hex digits, and what SHA-256 adds, 9 bytes at least; rounded up.
const END_LEN: usize = 64 + 9 + BLOCK_LEN - 1;

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

    /// Writes the hashes of events to `hashes`, in their order: of each its canonical bytes and the hash before it.
    ///
    /// One text keeps the processor's unit for SHA-256 waiting for itself half of the time, four at once do not: 1.9 times
    /// as fast, and 2.5 times where wide registers take 32 of them. They have to have the same number of blocks, so events
    /// are hashed in the order of their lengths.
    pub fn of_events(events: &[(&[u8], Hash)], hashes: &mut Vec<Hash>) {
        const AT_ONCE: usize = 32;
        hashes.clear();
        hashes.resize(events.len(), Hash::GENESIS);
        let mut order: Vec<usize> = (0..events.len()).collect();
        order.sort_unstable_by_key(|&event| (events[event].0.len() + END_LEN) / BLOCK_LEN);
        for some in order.chunks(AT_ONCE) {
            let mut prev = [[0; 64]; AT_ONCE];
            some.iter().zip(&mut prev).for_each(|(&event, hex)| *hex = events[event].1.hex());
            let messages: [_; AT_ONCE] = std::array::from_fn(|at| {
                let canonical = some.get(at).map_or(&[][..], |&event| events[event].0);
                // No prefix, but one that is somewhere: they are compared, and with wide registers the processor takes
                // hundreds of cycles to see that nothing is read where no memory is.
                Message::pair(&prev[at][..0], canonical, &prev[at])
            });
            let mut made = [[0; 32]; AT_ONCE];
            hash_messages(&messages[..some.len()], &mut made[..some.len()]);
            some.iter().zip(made).for_each(|(&event, hash)| hashes[event] = Hash(hash));
        }
    }

    /// Whether events that are hashed together have the hashes that each has alone, on this processor. What depends on it
    /// asks first.
    pub fn are_made_alike() -> bool {
        let text: Vec<u8> = (0..=u8::MAX).cycle().take(8 * BLOCK_LEN).collect();
        let mut together = Vec::new();
        (0..40).all(|count| {
            // Of many lengths, and some of as many blocks.
            let events: Vec<_> =
                (0..count).map(|n| (&text[..(n * 29 + count) % text.len()], Hash([n as u8; 32]))).collect();
            Hash::of_events(&events, &mut together);
            events.iter().map(|(canonical, prev)| Hash::of_event(canonical, prev)).eq(together.iter().copied())
        })
    }

    /// The 64 hex digits.
    pub fn hex(&self) -> [u8; 64] {
        // Reckoned rather than looked up: so the compiler does many at once.
        let digit = |nibble: u8| nibble + if nibble > 9 { b'a' - 10 } else { b'0' };
        let mut hex = [0; 64];
        for (pair, byte) in hex.as_chunks_mut::<2>().0.iter_mut().zip(self.0) {
            *pair = [digit(byte >> 4), digit(byte & 15)];
        }
        hex
    }
}

impl FromStr for Hash {
    type Err = NotAHash;

    /// Reads 64 lower-case hex digits, the only form of a hash.
    fn from_str(text: &str) -> Result<Hash, NotAHash> {
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Ok(byte - b'0'),
            b'a'..=b'f' => Ok(byte - b'a' + 10),
            _ => Err(NotAHash),
        };
        let mut hash = [0; 32];
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        if pairs.len() != hash.len() || !rest.is_empty() {
            return Err(NotAHash);
        }
        for (byte, [high, low]) in hash.iter_mut().zip(pairs) {
            *byte = digit(*high)? << 4 | digit(*low)?;
        }
        Ok(Hash(hash))
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
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hashes_are_made_alike() {
        assert!(Hash::are_made_alike());
    }

    proptest! {
        #[test]
        fn events_that_are_hashed_together_have_the_hashes_that_each_has_alone(
            events in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..300), any::<[u8; 32]>()), 0..70),
        ) {
            // Texts of all lengths about a block, and of one length side by side.
            let half = |text: &[u8]| text.len() / 2;
            let texts: Vec<_> = events.iter().flat_map(|(text, prev)| [(&text[..], Hash(*prev)), (&text[half(text)..], Hash(*prev))]).collect();
            let mut hashes = vec![Hash::GENESIS];
            Hash::of_events(&texts, &mut hashes);
            let alone: Vec<_> = texts.iter().map(|(text, prev)| Hash::of_event(text, prev)).collect();
            prop_assert_eq!(hashes, alone);
        }
    }
}
