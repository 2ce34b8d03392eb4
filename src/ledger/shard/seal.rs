//! Seals events: assigns the sequence, links the event to its predecessor by the previous hash, computes its hash, and
//! makes it the head of its chain.
//!
//! Only the shard thread seals, in the order in which it receives events, so every hash is computed exactly once.

use rand::Rng;
use rand::rngs::StdRng;

use super::heads::Head;
use crate::ledger::format::keys::{Location, Position, Run};
use crate::ledger::format::record::{Draft, Record, Stamp};
use cairn_proof::chain::time;

/// The time of receipt of the events of a commit.
#[derive(Clone, Copy)]
pub struct ReceiptTime {
    /// In the format of RFC 3339.
    pub text: [u8; time::LEN],
    /// In ms since 1970.
    pub ms: u64,
    /// The id time in ms since 1970: see [`crate::ledger::format::keys::server_id`].
    pub id_ms: u64,
    /// The first position of that id time in the shard.
    pub first_of_ms: Position,
}

/// A sealed event.
pub struct Sealed {
    /// The record to store.
    pub record: Record,
    /// The previous run of the agent, if the event does not continue it.
    pub finished_run: Option<Run>,
}

/// Seals an event that will be stored at `location`. `random` provides its salt, and the random bits of an id that the
/// server assigns.
pub fn seal(
    draft: Draft,
    head: &mut Head,
    receipt_time: &ReceiptTime,
    location: Location,
    random: &mut StdRng,
) -> Sealed {
    let mut salt = [0; 16];
    random.fill_bytes(&mut salt);
    let stamp = Stamp {
        received_at: receipt_time.text,
        id_ms: receipt_time.id_ms,
        first_of_ms: receipt_time.first_of_ms,
        position: location.position,
        random: random.next_u64(),
        salt,
        sequence: head.agent.sequence.next(),
    };
    let mut record = draft.stamp(&stamp);
    let hash = record.seal(&head.agent.hash);
    let finished_run = head.advance(location, receipt_time.ms, hash);
    Sealed { record, finished_run }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;
    use rand::SeedableRng;

    use super::*;
    use crate::ledger::format::keys::ShardId;
    use cairn_proof::chain::{EventReader, EventSource, Hash, Sequence};

    fn draft(agent: usize, output: &str) -> Draft {
        let text = format!(r#"{{"agent_id":"{agent}","action_output":"{output}"}}"#);
        let mut reader = EventReader::default();
        let (content, _) = reader.read(&text, 0, EventSource::HTTP_API, usize::MAX).unwrap();
        Draft::new(&content)
    }

    proptest! {
        #[test]
        fn each_event_follows_the_last_one_of_its_agent_in_any_interleaving(
            events in prop::collection::vec((0..9usize, 0..300usize), 0..120),
        ) {
            let receipt_time = ReceiptTime { text: *b"2026-02-17T10:30:00.500Z", ms: 1, id_ms: 1, first_of_ms: Position(0) };
            let mut random = StdRng::seed_from_u64(7);
            let mut heads: HashMap<usize, Head> = HashMap::new();
            let mut chains: HashMap<usize, (u64, Hash)> = HashMap::new();
            for (position, &(agent, len)) in events.iter().enumerate() {
                let head = heads.entry(agent).or_insert_with(|| Head::new(agent.to_string().into()));
                let location = Location { shard: ShardId(0), position: Position(position as u64) };
                let sealed = seal(draft(agent, &"x".repeat(len)), head, &receipt_time, location, &mut random);
                let record = sealed.record.as_ref();
                let (sequence, hash) = chains.entry(agent).or_insert((0, Hash::GENESIS));
                prop_assert_eq!(record.sequence(), Sequence(*sequence + 1));
                prop_assert_eq!(record.prev_hash(), *hash);
                prop_assert_eq!(record.hash(), Hash::of_event(record.canonical(), hash));
                (*sequence, *hash) = (*sequence + 1, record.hash());
            }
        }
    }
}
