//! The latest commits of a shard in memory, with what consumers need of each event. A consumer that does not lag reads
//! nothing from the database. See `docs/adr/0009-consumers-read-recent-commits-from-memory.md`.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use crate::ledger::format::keys::Position;
use crate::ledger::format::terms::Term;
use cairn_proof::chain::string::write_string;
use cairn_proof::chain::{AgentKey, Hash, Sequence};

/// The most memory of the commits of a shard, in bytes: some 25,000 events. The latest commit stays, whatever its size.
const MAX_BYTES: usize = 4 << 20;

/// What a consumer reads of one event from memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommittedEvent<'s> {
    /// The agent's id, as a canonical value.
    pub agent_id: &'s [u8],
    /// The sequence.
    pub sequence: Sequence,
    /// The hash.
    pub hash: Hash,
    /// The terms.
    pub terms: &'s [Term],
}

/// The events of one commit, in the order of their positions.
pub struct CommittedBatch {
    first: Position,
    events: Vec<Event>,
    hashes: Vec<Hash>,
    agent: Option<AgentKey>,
    agent_ids: Vec<u8>,
    terms: Vec<Term>,
}

struct Event {
    sequence: Sequence,
    /// The start and the end of the agent's id in `agent_ids`.
    agent_id: (u32, u32),
    /// The end of the event's terms in `terms`. They start at the end of those of the preceding event.
    terms_end: u32,
}

impl CommittedBatch {
    /// An empty batch with capacity for `events` events from position `first` on.
    pub fn new(first: Position, events: usize) -> CommittedBatch {
        let (terms, hashes) = (Vec::with_capacity(events * 4), Vec::with_capacity(events));
        CommittedBatch { first, events: Vec::with_capacity(events), hashes, agent: None, agent_ids: Vec::new(), terms }
    }

    /// Appends an event. The terms and the bytes of a commit are bounded, so both offsets fit into 32 bits.
    pub fn push(&mut self, agent: AgentKey, agent_id: &str, sequence: Sequence, hash: Hash, terms: &[Term]) {
        self.terms.extend_from_slice(terms);
        let agent_id = match self.events.last() {
            Some(last) if self.agent == Some(agent) => last.agent_id,
            _ => {
                let start = self.agent_ids.len();
                write_string(agent_id, &mut self.agent_ids);
                self.agent = Some(agent);
                (start as u32, self.agent_ids.len() as u32)
            }
        };
        self.hashes.push(hash);
        self.events.push(Event { sequence, agent_id, terms_end: self.terms.len() as u32 });
    }

    /// The position after the last event.
    fn end(&self) -> Position {
        Position(self.first.0 + self.events.len() as u64)
    }

    fn bytes(&self) -> usize {
        self.events.capacity() * size_of::<Event>()
            + self.hashes.capacity() * size_of::<Hash>()
            + self.agent_ids.capacity()
            + self.terms.capacity() * size_of::<Term>()
    }

    /// The events from a position on, which must be in the batch.
    pub fn from(&self, position: Position) -> impl Iterator<Item = CommittedEvent<'_>> {
        let skip = (position.0 - self.first.0) as usize;
        let mut terms_from = skip.checked_sub(1).map_or(0, |before| self.events[before].terms_end as usize);
        self.events[skip..].iter().zip(&self.hashes[skip..]).map(move |(event, &hash)| {
            let terms = &self.terms[terms_from..event.terms_end as usize];
            terms_from = event.terms_end as usize;
            let agent_id = &self.agent_ids[event.agent_id.0 as usize..event.agent_id.1 as usize];
            CommittedEvent { agent_id, sequence: event.sequence, hash, terms }
        })
    }
}

/// Where to read a committed event.
pub enum Source {
    /// In memory, in this batch.
    Memory(Arc<CommittedBatch>),
    /// In the database, as are all events before the given position. `None` if no later event is in memory.
    Disk(Option<Position>),
}

/// The latest commits of one shard. The lock is held for one lookup or one insertion.
#[derive(Default)]
pub struct Recent {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    commits: VecDeque<Arc<CommittedBatch>>,
    bytes: usize,
}

impl Recent {
    /// Adds a commit, and removes the oldest ones above the bound.
    pub fn push(&self, batch: CommittedBatch) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.bytes += batch.bytes();
        state.commits.push_back(Arc::new(batch));
        while state.bytes > MAX_BYTES && state.commits.len() > 1 {
            let oldest = state.commits.pop_front();
            state.bytes -= oldest.map_or(0, |oldest| oldest.bytes());
        }
    }

    /// Where to read the event at a position.
    pub fn source(&self, position: Position) -> Source {
        let commits = &self.state.lock().unwrap_or_else(PoisonError::into_inner).commits;
        let at = commits.partition_point(|batch| batch.end() <= position);
        match commits.get(at) {
            Some(batch) if batch.first <= position => Source::Memory(Arc::clone(batch)),
            later => Source::Disk(later.map(|batch| batch.first)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(first: u64, events: u64, terms: usize) -> CommittedBatch {
        let mut batch = CommittedBatch::new(Position(first), 1);
        for n in first..first + events {
            let id = format!("agent \"{}\"", n / 2);
            batch.push(AgentKey::of(&id), &id, Sequence(n), Hash([n as u8; 32]), &vec![Term(n.into()); terms]);
        }
        batch
    }

    #[test]
    fn events_are_read_from_any_position_of_a_commit() {
        let recent = Recent::default();
        recent.push(batch(10, 5, 2));
        // After a failed commit there may be events that were never published from memory.
        recent.push(batch(20, 5, 0));
        for position in 10..15 {
            let Source::Memory(found) = recent.source(Position(position)) else { panic!("{position}") };
            let read: Vec<_> = found.from(Position(position)).collect();
            assert_eq!(read.len() as u64, 15 - position);
            let id = format!(r#""agent \"{}\"""#, position / 2);
            assert_eq!((read[0].agent_id, read[0].sequence), (id.as_bytes(), Sequence(position)));
            assert_eq!((read[0].hash, read[0].terms), (Hash([position as u8; 32]), &[Term(position.into()); 2][..]));
        }
        let disk = |position| match recent.source(Position(position)) {
            Source::Disk(until) => until.map(|until| until.0),
            Source::Memory(_) => panic!("{position}"),
        };
        assert_eq!([disk(0), disk(15), disk(19), disk(25)], [Some(10), Some(20), Some(20), None]);
    }

    #[test]
    fn memory_is_bounded_except_for_the_latest_commit() {
        let recent = Recent::default();
        for n in 0..100 {
            recent.push(batch(n, 1, 65_536));
        }
        let bytes: usize = recent.state.lock().unwrap().commits.iter().map(|batch| batch.bytes()).sum();
        assert!(bytes <= MAX_BYTES, "{bytes}");
        recent.push(batch(100, 1, 1 << 20));
        assert_eq!(recent.state.lock().unwrap().commits.len(), 1);
        assert!(matches!(recent.source(Position(100)), Source::Memory(_)));
    }
}
