//! The latest commits of a shard in memory, as those need them who follow behind. Whoever keeps up reads nothing back
//! from the database; whoever falls behind does.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use crate::ledger::format::keys::Position;
use crate::ledger::format::terms::Term;
use cairn_proof::chain::string::write_string;
use cairn_proof::chain::{AgentKey, Hash, Sequence};

/// The most memory that a shard's commits take, in bytes, but for the latest one, which is kept whatever it takes: some
/// 25,000 events.
const BYTES: usize = 4 << 20;

/// What is told of one event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommittedEvent<'s> {
    /// The agent's id, as a canonical value.
    pub agent_id: &'s [u8],
    /// Its place in its chain.
    pub sequence: Sequence,
    /// Its hash.
    pub hash: Hash,
    /// What it can be found by.
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
    /// Where the agent's id begins and ends in `agent_ids`.
    agent_id: (u32, u32),
    /// Where its terms end. They begin where those of the event before end.
    terms_end: u32,
}

impl CommittedBatch {
    /// No event yet.
    pub fn new(first: Position, events: usize) -> CommittedBatch {
        let (terms, hashes) = (Vec::with_capacity(events * 4), Vec::with_capacity(events));
        CommittedBatch { first, events: Vec::with_capacity(events), hashes, agent: None, agent_ids: Vec::new(), terms }
    }

    /// Adds the next event. The terms and the bytes of a commit are bounded: both counts fit into 32 bits.
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

    /// The position behind the last event.
    fn end(&self) -> Position {
        Position(self.first.0 + self.events.len() as u64)
    }

    fn bytes(&self) -> usize {
        self.events.capacity() * size_of::<Event>()
            + self.hashes.capacity() * size_of::<Hash>()
            + self.agent_ids.capacity()
            + self.terms.capacity() * size_of::<Term>()
    }

    /// The events from a position on, which has to be one of them.
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

/// Where a committed event is to be read.
pub enum Source {
    /// It is one of these.
    Memory(Arc<CommittedBatch>),
    /// In the database, and so are those up to this position, if there is one from which on they are in memory.
    Disk(Option<Position>),
}

/// The latest commits of one shard. Its lock is held for one look-up.
#[derive(Default)]
pub struct Recent {
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    commits: VecDeque<Arc<CommittedBatch>>,
    bytes: usize,
}

impl Recent {
    /// Adds a commit; the oldest ones go.
    pub fn push(&self, stretch: CommittedBatch) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.bytes += stretch.bytes();
        kept.commits.push_back(Arc::new(stretch));
        while kept.bytes > BYTES && kept.commits.len() > 1 {
            let oldest = kept.commits.pop_front();
            kept.bytes -= oldest.map_or(0, |oldest| oldest.bytes());
        }
    }

    /// Where the event at a position is to be read.
    pub fn source(&self, position: Position) -> Source {
        let commits = &self.kept.lock().unwrap_or_else(PoisonError::into_inner).commits;
        let at = commits.partition_point(|stretch| stretch.end() <= position);
        match commits.get(at) {
            Some(stretch) if stretch.first <= position => Source::Memory(Arc::clone(stretch)),
            later => Source::Disk(later.map(|stretch| stretch.first)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stretch(first: u64, events: u64, terms: usize) -> CommittedBatch {
        let mut stretch = CommittedBatch::new(Position(first), 1);
        for n in first..first + events {
            let id = format!("agent \"{}\"", n / 2);
            stretch.push(AgentKey::of(&id), &id, Sequence(n), Hash([n as u8; 32]), &vec![Term(n.into()); terms]);
        }
        stretch
    }

    #[test]
    fn events_are_told_from_any_position_of_a_commit() {
        let recent = Recent::default();
        recent.push(stretch(10, 5, 2));
        // After a failed commit there may be events that nobody handed over.
        recent.push(stretch(20, 5, 0));
        for position in 10..15 {
            let Source::Memory(found) = recent.source(Position(position)) else { panic!("{position}") };
            let told: Vec<_> = found.from(Position(position)).collect();
            assert_eq!(told.len() as u64, 15 - position);
            let id = format!(r#""agent \"{}\"""#, position / 2);
            assert_eq!((told[0].agent_id, told[0].sequence), (id.as_bytes(), Sequence(position)));
            assert_eq!((told[0].hash, told[0].terms), (Hash([position as u8; 32]), &[Term(position.into()); 2][..]));
        }
        let disk = |position| match recent.source(Position(position)) {
            Source::Disk(until) => until.map(|until| until.0),
            Source::Memory(_) => panic!("{position}"),
        };
        assert_eq!([disk(0), disk(15), disk(19), disk(25)], [Some(10), Some(20), Some(20), None]);
    }

    #[test]
    fn what_is_kept_is_bounded_in_bytes_but_for_the_latest_commit() {
        let recent = Recent::default();
        for n in 0..100 {
            recent.push(stretch(n, 1, 65_536));
        }
        let kept: usize = recent.kept.lock().unwrap().commits.iter().map(|stretch| stretch.bytes()).sum();
        assert!(kept <= BYTES, "{kept}");
        recent.push(stretch(100, 1, 1 << 20));
        assert_eq!(recent.kept.lock().unwrap().commits.len(), 1);
        assert!(matches!(recent.source(Position(100)), Source::Memory(_)));
    }
}
