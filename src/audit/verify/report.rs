//! Collects what verification finds.

use std::collections::HashSet;

use cairn_proof::chain::{AgentKey, Break, BreakKind, Sequence};
use xxhash_rust::xxh3::xxh3_128_with_seed;

use super::rows::fault::RowFault;
use crate::ledger::format::keys::Run;
use crate::ledger::store::Family;

/// The most rows that are named. Further ones are counted.
const MAX_NAMED_ROWS: usize = 10_000;

/// Receives the progress and the findings of a verification.
pub trait Observer {
    /// `events` more events were read. With more agents than fit into one pass, each event is read once per pass.
    fn progress(&mut self, events: u64);
    /// A chain is broken. Called once per chain, with its first break.
    fn broken(&mut self, agent_id: &str, found: &Break);
    /// A row differs from what the events give. Called once per row, for the first 10,000.
    fn row(&mut self, fault: &RowFault);
}

/// The findings so far.
pub struct Report<'o> {
    observer: &'o mut dyn Observer,
    broken: HashSet<AgentKey>,
    /// The rows that were named: family and key.
    rows: HashSet<(&'static str, Vec<u8>)>,
    unnamed_rows: u64,
    /// Whether rows of the index are not reported: events are being erased.
    is_index_left_out: bool,
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
        Report {
            observer,
            broken: HashSet::new(),
            rows: HashSet::new(),
            unnamed_rows: 0,
            is_index_left_out: false,
            events: 0,
            run_digests: 0,
            seed: fastrand::u64(..),
        }
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

    /// The number of rows that differ from what the events give.
    pub fn wrong_rows(&self) -> u64 {
        self.rows.len() as u64 + self.unnamed_rows
    }

    /// The number of named rows of a family that differ.
    pub fn wrong_rows_of(&self, family: Family) -> u64 {
        self.rows.iter().filter(|(name, _)| *name == family.name()).count() as u64
    }

    /// Whether no chain is broken, and no row differs.
    pub fn is_clean(&self) -> bool {
        self.broken.is_empty() && self.wrong_rows() == 0
    }

    /// The agents whose chains are broken.
    pub fn broken_agents(&self) -> &HashSet<AgentKey> {
        &self.broken
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

    /// Reports no rows of the index from now on.
    pub fn leave_index_out(&mut self) {
        self.is_index_left_out = true;
    }

    /// Counts a verified event.
    pub fn count_verified(&mut self) {
        self.events += 1;
    }

    /// Adds a run that verified events form.
    pub fn add_run(&mut self, agent: AgentKey, run: Run) {
        self.run_digests = self.run_digests.wrapping_add(self.digest(agent, run));
    }

    /// Reports a row to the observer, unless it was reported before.
    pub fn row(&mut self, fault: RowFault) {
        if self.is_index_left_out && fault.family == Family::Index {
            return;
        }
        if self.rows.len() >= MAX_NAMED_ROWS {
            self.unnamed_rows += 1;
        } else if self.rows.insert((fault.family.name(), fault.key.clone())) {
            self.observer.row(&fault);
        }
    }

    /// Reports a break to the observer, unless the chain is already broken.
    pub fn broken(&mut self, key: AgentKey, agent_id: &str, sequence: Sequence, kind: BreakKind) {
        if self.broken.insert(key) {
            self.observer.broken(agent_id, &Break { sequence, kind });
        }
    }
}
