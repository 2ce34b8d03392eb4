//! What verification found so far.

use std::collections::HashSet;

use cairn_proof::chain::{AgentKey, Break, BreakKind, Sequence};
use xxhash_rust::xxh3::xxh3_128_with_seed;

use crate::ledger::format::keys::Run;

/// Who is told how the verification goes.
pub trait Observer {
    /// That many more events were looked at. With more agents than fit into one pass, each is looked at several times.
    fn progress(&mut self, events: u64);
    /// A chain is broken.
    fn broken(&mut self, agent_id: &str, found: &Break);
}

/// What was found so far.
pub struct Report<'o> {
    observer: &'o mut dyn Observer,
    broken: HashSet<AgentKey>,
    events: u64,
    /// The sum of the digests of all runs in which events follow. The runs that are stored have to give the same sum: so
    /// they are compared without looking up an event for each.
    placed: u128,
    /// Nobody who wrote the rows knew it.
    seed: u64,
}

impl<'o> Report<'o> {
    /// Nothing was found yet.
    pub fn new(observer: &'o mut dyn Observer) -> Report<'o> {
        Report { observer, broken: HashSet::new(), events: 0, placed: 0, seed: fastrand::u64(..) }
    }
}

impl Report<'_> {
    /// How many events were verified.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// How many chains are broken.
    pub fn broken_chains(&self) -> u64 {
        self.broken.len() as u64
    }

    /// Whether no chain is broken.
    pub fn is_clean(&self) -> bool {
        self.broken.is_empty()
    }

    /// The sum of the digests of the runs in which events follow.
    pub fn placed(&self) -> u128 {
        self.placed
    }

    /// Tells the observer that more events were read.
    pub fn progress(&mut self, events: u64) {
        self.observer.progress(events);
    }

    /// Says in one number that a run of the agent's events stands where it does.
    pub fn digest(&self, agent: AgentKey, run: Run) -> u128 {
        let mut bytes = [0; 38];
        bytes[..24].copy_from_slice(&Run::key(agent, run.first));
        bytes[24..].copy_from_slice(&run.encode());
        xxh3_128_with_seed(&bytes, self.seed)
    }

    /// Notes an event that follows from the one before it.
    pub fn verified(&mut self) {
        self.events += 1;
    }

    /// Notes where events stood that followed.
    pub fn stood(&mut self, agent: AgentKey, run: Run) {
        self.placed = self.placed.wrapping_add(self.digest(agent, run));
    }

    /// Tells the first break of a chain.
    pub fn broken(&mut self, key: AgentKey, agent_id: &str, sequence: Sequence, kind: BreakKind) {
        if self.broken.insert(key) {
            self.observer.broken(agent_id, &Break { sequence, kind });
        }
    }
}
