//! Verifies the rows of `chain`, which map the sequences of an agent to the locations of its events.

use std::collections::{HashMap, HashSet};

use super::super::report::Report;
use super::fault::RowFault;
use crate::ledger::format::floor::{Anchor, Floor};
use crate::ledger::format::keys::{Agent, Location, Position, Run, shard_of};
use crate::ledger::format::record::RecordRef;
use crate::ledger::read::events::Events;
use crate::ledger::read::lookup;
use crate::ledger::store::{Family, Store, StoreError};
use cairn_proof::chain::{AgentKey, BreakKind, Sequence};

/// The most agents whose rows are compared one by one.
const MAX_AFFECTED: usize = 10_000;

/// Reports the rows that differ from the runs that the verified events form.
///
/// # Errors
/// When the database cannot be read.
pub fn report_faults(store: &Store, report: &mut Report<'_>) -> Result<(), StoreError> {
    // The events of these do not show which runs there should be.
    let broken = report.broken_agents().clone();
    let mut affected = HashSet::new();
    if check(store, report, false, &mut affected)? == report.run_digests() && affected.is_empty() {
        return Ok(());
    }
    // A chain is broken or a run has a wrong location. Only now is every event of every run looked up.
    check(store, report, true, &mut affected)?;
    affected.retain(|agent| !broken.contains(agent));
    for (agent, expected) in expected_runs(store, &affected)? {
        report_agent(store, agent, &expected, report)?;
    }
    if report.is_clean() {
        return Err(
            store.damaged("rows of `chain` do not match the events, but the affected chain could not be determined")
        );
    }
    Ok(())
}

/// The runs that the events of these agents form, except for each agent's last one.
fn expected_runs(store: &Store, agents: &HashSet<AgentKey>) -> Result<HashMap<AgentKey, Vec<Run>>, StoreError> {
    let mut runs: HashMap<AgentKey, Vec<Run>> = agents.iter().map(|agent| (*agent, Vec::new())).collect();
    if agents.is_empty() {
        return Ok(runs);
    }
    let mut events = Events::scan(store, 1)?;
    events.seek_first();
    while let Some(event) = events.event()? {
        let found = event.location.zip(RecordRef::parse(event.bytes).ok());
        if let Some((location, record)) = found
            && let Some(runs) = runs.get_mut(&record.agent())
        {
            match runs.last_mut() {
                Some(last) if last.is_continued_at(location) => last.count += 1,
                _ => runs.push(Run { first: record.sequence(), location, count: 1 }),
            }
        }
        events.next();
    }
    runs.values_mut().for_each(|runs| {
        runs.pop();
    });
    Ok(runs)
}

/// Compares the rows of one agent with its runs.
fn report_agent(store: &Store, agent: AgentKey, expected: &[Run], report: &mut Report<'_>) -> Result<(), StoreError> {
    let mut expected = expected.iter().map(|run| (Run::key(agent, run.first), run.encode())).peekable();
    let mut rows = store.rows(Family::Chain)?;
    let floor = Floor::read(store).ok().flatten();
    let first = floor.map_or(Position(0), |floor| floor.first(shard_of(agent, floor.first.len() as u16)));
    rows.seek(&agent.0);
    while let Some((stored_key, value)) = rows.row()?.filter(|(key, _)| key.starts_with(&agent.0)) {
        let run = Run::decode(stored_key, value).map(|(_, run)| run);
        if run.is_some_and(|run| is_dropped(run, first)) {
            rows.next();
            continue;
        }
        // Of a run that begins with dropped events, the rest is compared.
        let kept = run.and_then(|run| run.kept(first));
        let (key, value) = kept.map_or_else(
            || (stored_key.to_vec(), value.to_vec()),
            |run| (Run::key(agent, run.first).to_vec(), run.encode().to_vec()),
        );
        let (key, value) = (&key[..], &value[..]);
        while let Some((key, value)) = expected.next_if(|(expected, _)| expected[..] < *key) {
            report.row(RowFault::expected(Family::Chain, &key, false, &value));
        }
        match expected.next_if(|(expected, _)| expected[..] == *key) {
            Some((_, expected)) if expected[..] == *value => {}
            Some((key, value)) => report.row(RowFault::expected(Family::Chain, &key, true, &value)),
            None => report.row(RowFault::unexpected(Family::Chain, key)),
        }
        rows.next();
    }
    expected.for_each(|(key, value)| report.row(RowFault::expected(Family::Chain, &key, false, &value)));
    Ok(())
}

/// Verifies that the runs of every agent cover its sequences from 1 to its head exactly once, and that there are no
/// other runs. With `read_events`, also reads every event at the location that its run gives. Adds the agents whose rows
/// are wrong to `affected`. Returns the sum of the digests of the runs.
fn check(
    store: &Store,
    report: &mut Report<'_>,
    read_events: bool,
    affected: &mut HashSet<AgentKey>,
) -> Result<u128, StoreError> {
    let mut agents = store.scan(Family::Agents)?;
    let mut runs = store.scan(Family::Chain)?;
    agents.seek_first();
    runs.seek_first();
    let mut run_digests = 0u128;
    let floor = Floor::read(store).ok().flatten();
    // Both families are in the order of agent keys, so one pass merges them.
    loop {
        let next_run = runs.row()?.map(|(key, _)| agent_of(key));
        let next_head = agents.row()?.map(|(key, row)| (agent_of(key), Agent::decode(row)));
        let agent = match (next_run, &next_head) {
            (Some(run), Some((head, _))) => run.min(*head),
            (Some(run), None) => run,
            (None, Some((head, _))) => *head,
            (None, None) => return Ok(run_digests),
        };
        let head = next_head.filter(|(key, _)| *key == agent).map(|(_, head)| head);
        if head.is_some() {
            agents.next();
        }
        // A damaged row of `agents` was already reported.
        let head = head.flatten();
        let head_sequence = head.as_ref().map_or(0, |head| head.sequence.0);
        // The chain of an agent that has lost events begins at its anchor.
        let (covered, first) = match &floor {
            None => (0, Position(0)),
            Some(floor) => {
                let anchor = Anchor::read(store, agent).ok().flatten();
                let shard = shard_of(agent, floor.first.len() as u16);
                (anchor.map_or(0, |anchor| anchor.sequence.0.saturating_sub(1)), floor.first(shard))
            }
        };
        let mut coverage = Coverage {
            store,
            report,
            agent,
            read_events,
            head: head_sequence,
            covered,
            first_wrong: None,
            last: None,
            run_digests: 0,
        };
        while let Some((key, value)) = runs.row()?.filter(|(key, _)| agent_of(key) == agent) {
            let run = Run::decode(key, value).map(|(_, run)| run);
            if run.is_none_or(|run| !is_dropped(run, first)) {
                coverage.take(run.and_then(|run| run.kept(first)))?;
            }
            runs.next();
        }
        if let Some(run) = head.as_ref().and_then(|head| head.run.kept(first)) {
            coverage.take(Some(run))?;
        }
        coverage.close_last();
        run_digests = run_digests.wrapping_add(coverage.run_digests);
        let wrong = coverage.first_wrong.or((coverage.covered != coverage.head).then_some(coverage.covered + 1));
        if wrong.is_some() && affected.len() < MAX_AFFECTED {
            affected.insert(agent);
        }
        if let Some(sequence) = wrong {
            let kind = BreakKind::Unreadable("its row in `chain` is missing or wrong".to_owned());
            report.broken(agent, &lookup::agent_name(store, agent), Sequence(sequence), kind);
        }
    }
}

/// Whether all events of a run were dropped: its row is left out some time later.
fn is_dropped(run: Run, first: Position) -> bool {
    run.count > 0 && run.location.position.0.saturating_add(run.count.into()) <= first.0
}

fn agent_of(key: &[u8]) -> AgentKey {
    AgentKey(key.get(..16).and_then(|key| key.try_into().ok()).unwrap_or_default())
}

/// How far the runs of one agent cover its chain.
struct Coverage<'a, 'o> {
    store: &'a Store,
    report: &'a Report<'o>,
    agent: AgentKey,
    read_events: bool,
    /// The sequence of the head; 0 without a head.
    head: u64,
    /// The number of covered sequences.
    covered: u64,
    /// The first sequence that is not covered or whose event is not at its location.
    first_wrong: Option<u64>,
    /// The last run, which the next one may extend.
    last: Option<Run>,
    /// The sum of the digests of the runs before it.
    run_digests: u128,
}

impl Coverage<'_, '_> {
    /// Adds the next run; `None` for a run that cannot be decoded.
    fn take(&mut self, run: Option<Run>) -> Result<(), StoreError> {
        // A run longer than the rest of the chain is wrong, and would take long to check.
        let follows = |run: &Run| {
            run.first.0 == self.covered + 1 && u64::from(run.count) <= self.head.saturating_sub(self.covered)
        };
        let Some(run) = run.filter(follows) else {
            self.first_wrong = self.first_wrong.or(Some(self.covered + 1));
            return Ok(());
        };
        if self.read_events
            && let Some(sequence) = find_misplaced(self.store, self.agent, run)?
        {
            self.first_wrong = self.first_wrong.or(Some(sequence));
        }
        self.covered += u64::from(run.count);
        match &mut self.last {
            // Adjacent runs count as one run.
            Some(last) if last.is_continued_at(run.location) && last.count.checked_add(run.count).is_some() => {
                last.count += run.count;
            }
            _ => {
                self.close_last();
                self.last = Some(run);
            }
        }
        Ok(())
    }

    /// Adds the digest of the last run, which is complete.
    fn close_last(&mut self) {
        if let Some(run) = self.last.take() {
            self.run_digests = self.run_digests.wrapping_add(self.report.digest(self.agent, run));
        }
    }
}

/// The first sequence of a run whose event is not at the location that the run gives.
fn find_misplaced(store: &Store, agent: AgentKey, run: Run) -> Result<Option<u64>, StoreError> {
    let mut events = Events::new(store)?;
    for offset in 0..u64::from(run.count) {
        let Location { shard, position } = run.location;
        let location = Location { shard, position: Position(position.0.wrapping_add(offset)) };
        let record = events.at(location)?.and_then(|event| RecordRef::parse(event).ok());
        let sequence = Sequence(run.first.0 + offset);
        if record.is_none_or(|record| record.agent() != agent || record.sequence() != sequence) {
            return Ok(Some(sequence.0));
        }
    }
    Ok(None)
}
