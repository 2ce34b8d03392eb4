//! A leaf: one event, as the tree has it.

use sha2::{Digest, Sha256};
use tlog_tiles::{Hash, record_hash};

use crate::chain::{AgentMap, Field, Hash as EventHash, Sequence};
use crate::ledger::record::RecordRef;

/// How many agents' ids are remembered.
const AGENTS: usize = 4096;

/// The leaf's data: `canonical({"agent_id":..., "hash":..., "sequence":...})`.
pub fn data(record: RecordRef<'_>) -> Vec<u8> {
    data_of(agent_id(record), record.hash(), record.sequence())
}

/// The same for an event that is told of. The agent's id is a canonical value, quotes and all.
pub fn data_of(agent_id: &[u8], hash: EventHash, sequence: Sequence) -> Vec<u8> {
    let mut data = Vec::with_capacity(192);
    write(agent_id, hash, sequence, &mut data);
    data
}

/// The leaf's hash: SHA-256 of a zero byte and the data (RFC 6962, section 2.1).
pub fn hash(record: RecordRef<'_>) -> Hash {
    record_hash(&data(record))
}

/// The canonical value, quotes and all.
fn agent_id(record: RecordRef<'_>) -> &[u8] {
    record.value(Field::AgentId).unwrap_or(b"\"\"")
}

fn write(agent_id: &[u8], hash: EventHash, sequence: Sequence, data: &mut Vec<u8>) {
    data.extend_from_slice(br#"{"agent_id":"#);
    data.extend_from_slice(agent_id);
    data.extend_from_slice(br#","hash":""#);
    data.extend_from_slice(&hash.hex());
    data.extend_from_slice(br#"","sequence":"#);
    data.extend_from_slice(itoa::Buffer::new().format(sequence.0).as_bytes());
    data.push(b'}');
}

fn hash_with(data: &mut Vec<u8>, agent_id: &[u8], hash: EventHash, sequence: Sequence) -> Hash {
    data.clear();
    // What the leaf's hash begins with, so that it is hashed in one piece.
    data.push(0);
    write(agent_id, hash, sequence, data);
    Hash(Sha256::digest(data).into())
}

/// Hashes the leaves of many events. An agent's id stands behind its inputs and outputs, however long they are, and is
/// not looked for again in each of its events.
#[derive(Default)]
pub struct Leaves {
    ids: AgentMap<Box<[u8]>>,
    data: Vec<u8>,
}

impl Leaves {
    /// The same as [`hash`].
    pub fn hash(&mut self, record: RecordRef<'_>) -> Hash {
        if self.ids.len() >= AGENTS {
            self.ids.clear();
        }
        let id = self.ids.entry(record.agent()).or_insert_with(|| agent_id(record).into());
        hash_with(&mut self.data, id, record.hash(), record.sequence())
    }

    /// The same for an event that is told of. The agent's id is a canonical value, quotes and all.
    pub fn hash_of(&mut self, agent_id: &[u8], hash: EventHash, sequence: Sequence) -> Hash {
        hash_with(&mut self.data, agent_id, hash, sequence)
    }
}
