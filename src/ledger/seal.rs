//! Sealing: links the events of a commit into their chains.
//!
//! The hash of an event needs that of the event before it in its chain, and nothing of other chains. So the next events of
//! all chains of a commit are hashed together, then those behind them. Hashes were two fifths of the shard's CPU time in
//! batches; events of 64 agents in turn take 9 % less CPU time so, all in all, and those of batches of one agent each 3 %.

use super::record::Record;
use crate::chain::Hash;

/// What stands before an event in its chain.
#[derive(Debug, Clone, Copy)]
pub enum Before {
    /// An event of an earlier commit, or none: its hash.
    Head(Hash),
    /// The record of this commit at this index, which is smaller than that of the event.
    Record(usize),
}

/// Seals records. Kept for its memory.
pub struct Sealer {
    /// Whether events that are hashed together have the hashes that each has alone.
    together: bool,
    /// How many events of its chain stand before each in the commit, and which one it is.
    order: Vec<(u32, u32)>,
    hashes: Vec<Hash>,
}

impl Sealer {
    /// Makes sure of what hashes many events at once: there is other code for each kind of processor, and chains are made
    /// of it. If it is wrong, it is not used.
    pub fn new() -> Sealer {
        let together = Hash::are_made_alike();
        if !together {
            tracing::error!("this processor hashes events wrongly when it hashes many at once: each is hashed alone");
        }
        Sealer { together, order: Vec::new(), hashes: Vec::new() }
    }

    /// Adds the hashes to all records of a commit, which have to be in the order of their chains.
    pub fn seal(&mut self, records: &mut [Record], before: &[Before]) {
        let chains = before.iter().filter(|before| matches!(before, Before::Head(_))).count();
        if !self.together || chains < 2 {
            (0..records.len()).for_each(|index| alone(records, before, index));
            return;
        }
        self.order.clear();
        for (index, before) in before.iter().enumerate() {
            let depth = match before {
                Before::Head(_) => 0,
                Before::Record(before) => self.order[*before].0 + 1,
            };
            // A commit is bounded far below 32 bits.
            self.order.push((depth, index as u32));
        }
        self.order.sort_unstable();
        for wave in self.order.chunk_by(|one, other| one.0 == other.0) {
            match wave {
                [(_, one)] => alone(records, before, *one as usize),
                _ => wave_of(records, before, wave, &mut self.hashes),
            }
        }
    }
}

/// Hashes events of different chains, whose predecessors are hashed.
fn wave_of(records: &mut [Record], before: &[Before], wave: &[(u32, u32)], hashes: &mut Vec<Hash>) {
    let indexes = || wave.iter().map(|&(_, index)| index as usize);
    let texts: Vec<(&[u8], Hash)> =
        indexes().map(|index| (records[index].as_ref().canonical(), prev_hash(records, before, index))).collect();
    Hash::of_events(&texts, hashes);
    for (index, hash) in indexes().zip(hashes) {
        let prev_hash = prev_hash(records, before, index);
        records[index].seal(&prev_hash, hash);
    }
}

fn alone(records: &mut [Record], before: &[Before], index: usize) {
    let prev_hash = prev_hash(records, before, index);
    records[index].seal_alone(&prev_hash);
}

fn prev_hash(records: &[Record], before: &[Before], index: usize) -> Hash {
    match before[index] {
        Before::Head(hash) => hash,
        Before::Record(before) => records[before].as_ref().hash(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use crate::chain::{Reader, Sequence, WayIn};
    use crate::ledger::keys::Position;
    use crate::ledger::record::{Draft, Stamp};

    fn record(agent: usize, output: &str, sequence: u64) -> Record {
        let text = format!(r#"{{"agent_id":"{agent}","action_output":"{output}"}}"#);
        let mut reader = Reader::default();
        let (content, _) = reader.read(&text, 0, WayIn::HTTP_API, usize::MAX).unwrap();
        Draft::new(&content).stamp(&Stamp {
            received_at: *b"2026-02-17T10:30:00.500Z",
            ms: 1,
            first_of_ms: Position(0),
            position: Position(0),
            random: sequence,
            sequence: Sequence(sequence),
        })
    }

    proptest! {
        /// However the events of chains stand among each other: one after the other, each would get the same hashes.
        #[test]
        fn chains_are_sealed_as_if_each_event_was_alone(
            events in prop::collection::vec((0..9usize, 0..300usize), 0..120),
            together in any::<bool>(),
        ) {
            let heads: Vec<Hash> = (0..9).map(|agent| Hash([agent; 32])).collect();
            let mut last = HashMap::new();
            let (mut records, mut before) = (Vec::new(), Vec::new());
            for (index, &(agent, len)) in events.iter().enumerate() {
                records.push(record(agent, &"x".repeat(len), index as u64 + 1));
                before.push(last.insert(agent, index).map_or(Before::Head(heads[agent]), Before::Record));
            }
            let mut sealer = Sealer { together, ..Sealer::new() };
            sealer.seal(&mut records, &before);
            let mut chains = heads;
            for ((agent, _), record) in events.iter().zip(&records) {
                let record = record.as_ref();
                prop_assert_eq!(record.prev_hash(), chains[*agent]);
                prop_assert_eq!(record.hash(), Hash::of_event(record.canonical(), &chains[*agent]));
                chains[*agent] = record.hash();
            }
        }
    }
}
