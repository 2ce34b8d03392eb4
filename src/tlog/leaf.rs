//! A leaf: one event, as the tree has it.

use tape_sha256::hash_many_prefixed;
use tlog_tiles::{HASH_SIZE, Hash, record_hash};

use crate::chain::{AgentMap, Field, Hash as EventHash, Sequence};
use crate::ledger::recent::Told;
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

/// Hashes the leaves of many events. An agent's id stands behind its inputs and outputs, however long they are, and is
/// not looked for again in each of its events.
#[derive(Default)]
pub struct Leaves {
    ids: AgentMap<Box<[u8]>>,
    /// Of the leaves that are hashed together, one behind the other.
    data: Vec<u8>,
}

/// So many leaves are hashed together.
const AT_ONCE: usize = 64;
/// What the hash of a leaf begins with.
const PREFIX: &[u8] = &[0];

impl Leaves {
    /// Tells the hash of each record's leaf, in their order: the same as [`hash`].
    pub fn hash_records<'r>(&mut self, records: impl Iterator<Item = RecordRef<'r>>, tell: impl FnMut(Hash)) {
        let Leaves { ids, data } = self;
        let write_next = |record: RecordRef<'r>, data: &mut Vec<u8>| {
            if ids.len() >= AGENTS {
                ids.clear();
            }
            let id = ids.entry(record.agent()).or_insert_with(|| agent_id(record).into());
            write(id, record.hash(), record.sequence(), data);
        };
        hash_all(records, data, write_next, tell);
    }

    /// The same for events that are told of.
    pub fn hash_told<'t>(&mut self, events: impl Iterator<Item = Told<'t>>, tell: impl FnMut(Hash)) {
        let write_next = |told: Told<'t>, data: &mut Vec<u8>| write(told.agent_id, told.hash, told.sequence, data);
        hash_all(events, &mut self.data, write_next, tell);
    }
}

/// Whether leaves that are hashed together have the hashes that each has alone. What is signed depends on it, and there is
/// other code for each kind of processor: it is made sure of before anything is signed.
pub fn are_hashed_alike() -> bool {
    let id = "\"a long id of an agent, as long as a block of SHA-256 and then some\"".as_bytes();
    (0..=AT_ONCE + 1).all(|count| {
        // Ids of many lengths.
        let told = |n: usize| Told {
            agent_id: &id[n % id.len()..],
            hash: EventHash([n as u8; 32]),
            sequence: Sequence(n as u64),
            terms: &[],
        };
        let mut alone = (0..count).map(told).map(|told| record_hash(&data_of(told.agent_id, told.hash, told.sequence)));
        let mut is_alike = true;
        Leaves::default().hash_told((0..count).map(told), |hash| is_alike &= alone.next() == Some(hash));
        is_alike && alone.next().is_none()
    })
}

/// Tells the hash of the leaf of each item, whose data `write_next` appends.
fn hash_all<T>(
    items: impl Iterator<Item = T>,
    data: &mut Vec<u8>,
    mut write_next: impl FnMut(T, &mut Vec<u8>),
    mut tell: impl FnMut(Hash),
) {
    // An iterator that ended is not asked again.
    let mut items = items.fuse().peekable();
    while items.peek().is_some() {
        data.clear();
        let (mut ends, mut count) = ([0; AT_ONCE], 0);
        for item in items.by_ref().take(AT_ONCE) {
            write_next(item, data);
            ends[count] = data.len();
            count += 1;
        }
        let start = |at: usize| at.checked_sub(1).map_or(0, |before| ends[before]);
        let leaves: [&[u8]; AT_ONCE] = std::array::from_fn(|at| data.get(start(at)..ends[at]).unwrap_or_default());
        let mut hashes = [[0; HASH_SIZE]; AT_ONCE];
        hash_many_prefixed(PREFIX, &leaves[..count], &mut hashes[..count]);
        hashes[..count].iter().for_each(|hash| tell(Hash(*hash)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_that_are_hashed_together_have_the_hashes_that_each_has_alone() {
        assert!(are_hashed_alike());
    }
}
