//! Collects what verification finds.

use std::collections::HashSet;

use cairn_proof::chain::{AgentKey, Break, BreakKind, Sequence};
use xxhash_rust::xxh3::xxh3_128_with_seed;

use crate::ledger::format::keys::Run;

/// Receives the progress and the findings of a verification.
pub trait Observer {
    /// `events` more events were read. With more agents than fit into one pass, each event is read once per pass.
    fn progress(&mut self, events: u64);
    /// A chain is broken. Called once per chain, with its first break.
    fn broken(&mut self, agent_id: &str, found: &Break);
}

/// The findings so far.
pub struct Report<'o> {
    observer: &'o mut dyn Observer,
    broken: HashSet<AgentKey>,
    events: u64,
    /// The sum of the digests of the runs that the verified events form. The stored runs must have the same sum, so
    /// they are compared without looking up each event.
    run_digests: u128,
    /// The random seed of the digests, unknown to anyone who wrote the rows.
    seed: u64,
}

impl<'o> Report<'o> {
    /// An empty report.
    pub fn new(observer: &'o mut dyn Observer) -> Report<'o> {
        Report { observer, broken: HashSet::new(), events: 0, run_digests: 0, seed: fastrand::u64(..) }
    }
}

impl Report<'_> {
    /// The number of verified events.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// The number of broken chains.
    pub fn broken_chains(&self) -> u64 {
        self.broken.len() as u64
    }

    /// Whether no chain is broken.
    pub fn is_clean(&self) -> bool {
        self.broken.is_empty()
    }

    /// The sum of the digests of the runs that the verified events form.
    pub fn run_digests(&self) -> u128 {
        self.run_digests
    }

    /// Reports to the observer that more events were read.
    pub fn progress(&mut self, events: u64) {
        self.observer.progress(events);
    }

    /// The digest of a run and its agent.
    pub fn digest(&self, agent: AgentKey, run: Run) -> u128 {
        let mut bytes = [0; 38];
        bytes[..24].copy_from_slice(&Run::key(agent, run.first));
        bytes[24..].copy_from_slice(&run.encode());
        xxh3_128_with_seed(&bytes, self.seed)
    }

    /// Counts a verified event.
    pub fn count_verified(&mut self) {
        self.events += 1;
    }

    /// Adds a run that verified events form.
    pub fn add_run(&mut self, agent: AgentKey, run: Run) {
        self.run_digests = self.run_digests.wrapping_add(self.digest(agent, run));
    }

    /// Reports a break to the observer, unless the chain is already broken.
    pub fn broken(&mut self, key: AgentKey, agent_id: &str, sequence: Sequence, kind: BreakKind) {
        if self.broken.insert(key) {
            self.observer.broken(agent_id, &Break { sequence, kind });
        }
    }
}
