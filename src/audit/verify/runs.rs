//! Verifying the rows of `chain`, which lead from an agent's sequences to its events.

use super::report::Report;
use crate::ledger::format::keys::{Agent, Location, Position, Run};
use crate::ledger::format::record::RecordRef;
use crate::ledger::read::events::Events;
use crate::ledger::read::lookup;
use crate::ledger::store::{Family, Store, StoreError};
use cairn_proof::chain::{AgentKey, BreakKind, Sequence};

/// The runs of every agent have to cover its sequences from 1 to its head, once each, and nobody else has any. Returns
/// the sum of their digests. With `follow`, each of their events has to stand where its run says.
pub fn check(store: &Store, report: &mut Report<'_>, follow: bool) -> Result<u128, StoreError> {
    let mut agents = store.scan(Family::Agents)?;
    let mut runs = store.scan(Family::Chain)?;
    agents.seek_first();
    runs.seek_first();
    let mut placed = 0u128;
    // Both families are in the order of agent keys, so they are read side by side.
    loop {
        let next_run = runs.row()?.map(|(key, _)| agent_of(key));
        let next_head = agents.row()?.map(|(key, row)| (agent_of(key), Agent::decode(row)));
        let agent = match (next_run, &next_head) {
            (Some(run), Some((head, _))) => run.min(*head),
            (Some(run), None) => run,
            (None, Some((head, _))) => *head,
            (None, None) => return Ok(placed),
        };
        let head = next_head.filter(|(key, _)| *key == agent).map(|(_, head)| head);
        if head.is_some() {
            agents.next();
        }
        // A row of `agents` that is damaged was reported before.
        let head = head.flatten();
        let head_sequence = head.as_ref().map_or(0, |head| head.sequence.0);
        let mut cover =
            Cover { store, report, agent, follow, head: head_sequence, covered: 0, wrong: None, open: None, placed: 0 };
        while let Some((key, value)) = runs.row()?.filter(|(key, _)| agent_of(key) == agent) {
            cover.take(Run::decode(key, value).map(|(_, run)| run))?;
            runs.next();
        }
        if let Some(head) = &head {
            cover.take(Some(head.run))?;
        }
        cover.close();
        placed = placed.wrapping_add(cover.placed);
        let wrong = cover.wrong.or((cover.covered != cover.head).then_some(cover.covered + 1));
        if let Some(sequence) = wrong {
            let kind = BreakKind::Unreadable("its row in `chain` is missing or wrong".to_owned());
            report.broken(agent, &lookup::name(store, agent), Sequence(sequence), kind);
        }
    }
}

fn agent_of(key: &[u8]) -> AgentKey {
    AgentKey(key.get(..16).and_then(|key| key.try_into().ok()).unwrap_or_default())
}

/// How far the runs of one agent cover its chain.
struct Cover<'a, 'o> {
    store: &'a Store,
    report: &'a Report<'o>,
    agent: AgentKey,
    follow: bool,
    /// The sequence of its head; 0 without one.
    head: u64,
    /// How many sequences are covered.
    covered: u64,
    /// The first one that is not.
    wrong: Option<u64>,
    /// The run that may go on.
    open: Option<Run>,
    /// The sum of the digests of the runs before it.
    placed: u128,
}

impl Cover<'_, '_> {
    /// Takes the next run; `None` if it cannot be read.
    fn take(&mut self, run: Option<Run>) -> Result<(), StoreError> {
        // Longer than the chain can be, it is wrong, and would take long to add up.
        let follows = |run: &Run| {
            run.first.0 == self.covered + 1 && u64::from(run.count) <= self.head.saturating_sub(self.covered)
        };
        let Some(run) = run.filter(follows) else {
            self.wrong = self.wrong.or(Some(self.covered + 1));
            return Ok(());
        };
        if self.follow
            && let Some(sequence) = leads_astray(self.store, self.agent, run)?
        {
            self.wrong = self.wrong.or(Some(sequence));
        }
        self.covered += u64::from(run.count);
        match &mut self.open {
            // It could have been one run.
            Some(open) if open.is_continued_at(run.location) && open.count.checked_add(run.count).is_some() => {
                open.count += run.count;
            }
            _ => {
                self.close();
                self.open = Some(run);
            }
        }
        Ok(())
    }

    /// Adds the digest of a run that is whole.
    fn close(&mut self) {
        if let Some(run) = self.open.take() {
            self.placed = self.placed.wrapping_add(self.report.digest(self.agent, run));
        }
    }
}

/// The first sequence of a run whose event does not stand where the run says.
fn leads_astray(store: &Store, agent: AgentKey, run: Run) -> Result<Option<u64>, StoreError> {
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
