//! Leaves of the tree: one per event, with its agent, hash and sequence (`docs/verification.md`, "Leaf").

use tlog_tiles::{Hash, record_hash};

use crate::chain::{Hash as EventHash, Sequence};

/// Appends the data of a leaf to `data`: the canonical form of `{"agent_id":..., "hash":..., "sequence":...}`.
///
/// `agent_id` is a canonical value: a JSON string with its quotes.
pub fn write(agent_id: &[u8], hash: EventHash, sequence: Sequence, data: &mut Vec<u8>) {
    data.extend_from_slice(br#"{"agent_id":"#);
    data.extend_from_slice(agent_id);
    data.extend_from_slice(br#","hash":""#);
    data.extend_from_slice(&hash.hex());
    data.extend_from_slice(br#"","sequence":"#);
    data.extend_from_slice(itoa::Buffer::new().format(sequence.0).as_bytes());
    data.push(b'}');
}

/// Returns the data of a leaf; see [`write`].
pub fn data(agent_id: &[u8], hash: EventHash, sequence: Sequence) -> Vec<u8> {
    let mut data = Vec::with_capacity(192);
    write(agent_id, hash, sequence, &mut data);
    data
}

/// Hashes leaves. The buffer is reused from leaf to leaf.
#[derive(Default)]
pub struct LeafHasher {
    data: Vec<u8>,
}

impl LeafHasher {
    /// Returns the hash of a leaf: SHA-256 over a zero byte and the data of the leaf (RFC 6962, section 2.1).
    pub fn hash(&mut self, agent_id: &[u8], hash: EventHash, sequence: Sequence) -> Hash {
        self.data.clear();
        write(agent_id, hash, sequence, &mut self.data);
        record_hash(&self.data)
    }
}
