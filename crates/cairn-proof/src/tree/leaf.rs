//! A leaf of the log's tree: one event, by its agent, sequence and hash.

use tlog_tiles::{Hash, record_hash};

use crate::chain::{Hash as EventHash, Sequence};

/// The data of a leaf, `canonical({"agent_id":..., "hash":..., "sequence":...})`, appended to `data`.
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

/// The data of a leaf; see [`write`].
pub fn data(agent_id: &[u8], hash: EventHash, sequence: Sequence) -> Vec<u8> {
    let mut data = Vec::with_capacity(192);
    write(agent_id, hash, sequence, &mut data);
    data
}

/// Hashes leaves, with memory that is reused from one to the next.
#[derive(Default)]
pub struct LeafHasher {
    data: Vec<u8>,
}

impl LeafHasher {
    /// The hash of a leaf: SHA-256 of a zero byte and its data (RFC 6962, section 2.1).
    pub fn hash(&mut self, agent_id: &[u8], hash: EventHash, sequence: Sequence) -> Hash {
        self.data.clear();
        write(agent_id, hash, sequence, &mut self.data);
        record_hash(&self.data)
    }
}
