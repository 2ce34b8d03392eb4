//! The leaf of a stored event.

use cairn_proof::chain::{AgentMap, Field};
use cairn_proof::tree::{LeafHasher, NodeHash, leaf};

use crate::ledger::format::record::RecordRef;

/// How many agents' ids are remembered.
const AGENTS: usize = 4096;

/// The data of the leaf of an event.
pub fn data(record: RecordRef<'_>) -> Vec<u8> {
    leaf::data(agent_id(record), record.hash(), record.sequence())
}

/// The hash of the leaf of an event.
pub fn hash(record: RecordRef<'_>) -> NodeHash {
    LeafHasher::default().hash(agent_id(record), record.hash(), record.sequence())
}

/// The id of the agent, as a canonical value.
fn agent_id(record: RecordRef<'_>) -> &[u8] {
    record.value(Field::AgentId).unwrap_or(b"\"\"")
}

/// Hashes the leaves of many events. In canonical bytes, the id of an agent comes after the inputs and outputs of the event, however long
/// they are; it is looked up once for each agent.
#[derive(Default)]
pub struct RecordHasher {
    ids: AgentMap<Box<[u8]>>,
    hasher: LeafHasher,
}

impl RecordHasher {
    /// The hash of the leaf of an event: the same as [`hash`].
    pub fn hash(&mut self, record: RecordRef<'_>) -> NodeHash {
        if self.ids.len() >= AGENTS {
            self.ids.clear();
        }
        let id = self.ids.entry(record.agent()).or_insert_with(|| agent_id(record).into());
        self.hasher.hash(id, record.hash(), record.sequence())
    }
}
