//! The leaf of a stored event.

use cairn_proof::chain::{AgentMap, Field};
use cairn_proof::tree::{LeafHasher, NodeHash, leaf};

use crate::ledger::format::record::RecordRef;

/// The most agents whose ids are cached.
const MAX_CACHED_IDS: usize = 4096;

/// The data of an event's leaf.
pub fn data(record: RecordRef<'_>) -> Vec<u8> {
    leaf::data(agent_id(record), record.hash(), record.sequence())
}

/// The hash of an event's leaf.
pub fn hash(record: RecordRef<'_>) -> NodeHash {
    LeafHasher::default().hash(agent_id(record), record.hash(), record.sequence())
}

/// The agent's id as a canonical value.
fn agent_id(record: RecordRef<'_>) -> &[u8] {
    record.value(Field::AgentId).unwrap_or(b"\"\"")
}

/// Hashes the leaves of many events. In canonical bytes the agent's id comes after the inputs and outputs of the event,
/// which can be long, so the id is looked up once per agent.
#[derive(Default)]
pub struct RecordHasher {
    ids: AgentMap<Box<[u8]>>,
    hasher: LeafHasher,
}

impl RecordHasher {
    /// The hash of an event's leaf. The same as [`hash`].
    pub fn hash(&mut self, record: RecordRef<'_>) -> NodeHash {
        if self.ids.len() >= MAX_CACHED_IDS {
            self.ids.clear();
        }
        let id = self.ids.entry(record.agent()).or_insert_with(|| agent_id(record).into());
        self.hasher.hash(id, record.hash(), record.sequence())
    }
}
