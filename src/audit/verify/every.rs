//! Verifying every chain in one go.

use std::collections::{HashMap, HashSet};

use xxhash_rust::xxh3::xxh3_128_with_seed;

use super::{PROGRESS_EVENTS, wrong_head};
use crate::chain::walk::Checker;
use crate::chain::{AgentKey, Break, BreakKind, Field, Sequence, Walk, scan};
use crate::ledger::keys::{Agent, Place, Position, Run, ShardId};
use crate::ledger::read;
use crate::ledger::record::RecordRef;
use crate::ledger::store::{Family, Rows, Store, StoreError};

/// How many agents are followed at once: about 50 MiB. More agents take more passes.
const AGENTS_PER_PASS: u64 = 400_000;

/// What verification of all chains found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// How many agents there are.
    pub agents: u64,
    /// How many events were verified.
    pub events: u64,
    /// How many chains are broken.
    pub broken: u64,
}

/// Who is told how the verification of all chains goes.
pub trait Observer {
    /// That many more events were looked at. With more agents than fit into one pass, each is looked at several times.
    fn progress(&mut self, events: u64);
    /// A chain is broken.
    fn broken(&mut self, agent_id: &str, found: &Break);
}

/// Verifies every chain, in the order of positions, so that each event is read once per pass and memory is bounded
/// by the number of agents of a pass. For a ledger that does not change meanwhile: a secondary.
///
/// # Errors
/// When the database cannot be read.
pub fn all(store: &Store, observer: &mut dyn Observer) -> Result<Summary, StoreError> {
    let mut agents = 0u64;
    let mut rows = store.scan(Family::Agents)?;
    rows.seek_first();
    while rows.row()?.is_some() {
        agents += 1;
        rows.next();
    }
    let passes = agents.div_ceil(AGENTS_PER_PASS).max(1);
    let mut report = Report { observer, broken: HashSet::new(), events: 0, placed: 0, seed: fastrand::u64(..) };
    for pass in 0..passes {
        let mut followed = Followed { store, pass, passes, chains: HashMap::new() };
        followed.read_events(&mut report)?;
        followed.compare_heads(&mut report)?;
    }
    if check_runs(store, &mut report, false)? != report.placed {
        // A chain is broken, or a run leads elsewhere: only now each of them is followed.
        check_runs(store, &mut report, true)?;
        if report.broken.is_empty() {
            return Err(store.damaged("the rows of `chain` do not lead to the events, and it cannot be said which"));
        }
    }
    Ok(Summary { agents, events: report.events, broken: report.broken.len() as u64 })
}

/// What was found so far.
struct Report<'o> {
    observer: &'o mut dyn Observer,
    broken: HashSet<AgentKey>,
    events: u64,
    /// The sum of the digests of all events that follow, with where they stand. The rows of `chain` have to give the
    /// same sum: so they are compared without looking up an event for each.
    placed: u128,
    /// Nobody who wrote the rows knew it.
    seed: u64,
}

/// What stands for the place of a row whose key cannot be read.
const NOWHERE: Place = Place { shard: ShardId(u16::MAX), position: Position(u64::MAX) };

impl Report<'_> {
    /// Says in one number that an event stands in a place.
    fn digest(&self, agent: AgentKey, sequence: Sequence, place: Place) -> u128 {
        let mut bytes = [0; 34];
        bytes[..24].copy_from_slice(&Run::key(agent, sequence));
        bytes[24..].copy_from_slice(&place.encode());
        xxh3_128_with_seed(&bytes, self.seed)
    }

    /// Tells the first break of a chain.
    fn broken(&mut self, key: AgentKey, agent_id: &str, sequence: Sequence, kind: BreakKind) {
        if self.broken.insert(key) {
            self.observer.broken(agent_id, &Break { sequence, kind });
        }
    }
}

/// The agents of one pass: those whose keys are the pass's share of all keys.
struct Followed<'s> {
    store: &'s Store,
    pass: u64,
    passes: u64,
    /// How far each chain was followed; `None` if it is broken.
    chains: HashMap<AgentKey, Option<Walk>>,
}

/// The break of an agent's chain.
type Found = (AgentKey, String, Break);

impl Followed<'_> {
    fn has(&self, agent: AgentKey) -> bool {
        let [a, b, c, d, ..] = agent.0;
        u64::from(u32::from_be_bytes([a, b, c, d])) % self.passes == self.pass
    }

    fn read_events(&mut self, report: &mut Report<'_>) -> Result<(), StoreError> {
        let mut rows = self.store.scan(Family::Events)?;
        let mut checker = Checker::default();
        let mut seen = 0;
        rows.seek_first();
        while let Some((key, value)) = rows.row()? {
            seen += 1;
            if seen % PROGRESS_EVENTS == 0 {
                report.observer.progress(PROGRESS_EVENTS);
            }
            match self.step(value, &mut checker) {
                Ok(None) => {}
                Ok(Some((agent, sequence))) => {
                    report.events += 1;
                    let place = Place::decode(key).unwrap_or(NOWHERE);
                    report.placed = report.placed.wrapping_add(report.digest(agent, sequence, place));
                }
                Err((agent, agent_id, found)) => report.broken(agent, &agent_id, found.sequence, found.kind),
            }
            rows.next();
        }
        report.observer.progress(seen % PROGRESS_EVENTS);
        Ok(())
    }

    /// Takes the next event, and says which it is. `None` if it is none of this pass, or its chain is broken already.
    fn step(&mut self, value: &[u8], checker: &mut Checker) -> Result<Option<(AgentKey, Sequence)>, Found> {
        let record = match RecordRef::parse(value) {
            Ok(record) => record,
            Err(why) => return self.unreadable(value, why).map_or(Ok(None), Err),
        };
        let agent = record.agent();
        if !self.has(agent) {
            return Ok(None);
        }
        let Some(walk) = self.chains.entry(agent).or_insert_with(|| Some(Walk::default())) else { return Ok(None) };
        match walk.step(&record.link(), checker) {
            Ok(()) => Ok(Some((agent, walk.sequence))),
            Err(found) => {
                self.chains.insert(agent, None);
                Err(blame(record, found))
            }
        }
    }

    /// What cannot be read breaks the chain that its header names, if that can be read.
    fn unreadable(&mut self, value: &[u8], why: &str) -> Option<Found> {
        let agent = RecordRef::agent_of_damaged(value).filter(|&agent| self.has(agent))?;
        let Some(Some(chain)) = self.chains.get(&agent) else { return None };
        let sequence = chain.sequence.next();
        self.chains.insert(agent, None);
        let kind = BreakKind::Unreadable(why.to_owned());
        Some((agent, name(self.store, agent), Break { sequence, kind }))
    }

    /// Every chain has to end where its agent's row says.
    fn compare_heads(&mut self, report: &mut Report<'_>) -> Result<(), StoreError> {
        let mut rows = self.store.scan(Family::Agents)?;
        rows.seek_first();
        while let Some((key, row)) = rows.row()? {
            let agent = key.try_into().map(AgentKey).unwrap_or(AgentKey([0; 16]));
            if self.has(agent) {
                let chain = self.chains.remove(&agent).unwrap_or_else(|| Some(Walk::default()));
                match (Agent::decode(row), chain) {
                    (Some(head), Some(chain)) => {
                        if let Some(found) = wrong_head(&chain, &head) {
                            report.broken(agent, &head.agent_id, found.sequence, found.kind);
                        }
                    }
                    (None, _) => {
                        let kind = BreakKind::Unreadable("its row in `agents` is damaged".to_owned());
                        report.broken(agent, &format!("with the key {agent:?}"), Sequence(0), kind);
                    }
                    (Some(_), None) => {}
                }
            }
            rows.next();
        }
        for (&agent, chain) in &self.chains {
            if let Some(chain) = chain {
                let kind = BreakKind::WrongHead("the agent has events, but no row in `agents`".to_owned());
                report.broken(agent, &name(self.store, agent), chain.sequence, kind);
            }
        }
        Ok(())
    }
}

/// Names the agent of an event that does not follow.
fn blame(record: RecordRef<'_>, found: Break) -> Found {
    let told = record.value(Field::AgentId).and_then(scan::text).unwrap_or_default();
    let agent = AgentKey::of(&told);
    if agent != record.agent() {
        let why = "the record's agent key is not that of its agent_id".to_owned();
        return (agent, told.into(), Break { sequence: record.sequence(), kind: BreakKind::Unreadable(why) });
    }
    (agent, told.into(), found)
}

fn name(store: &Store, agent: AgentKey) -> String {
    let row = read::agent(store, agent).ok().flatten();
    row.map_or_else(|| format!("with the key {agent:?}"), |row| row.agent_id.into())
}

/// The runs of every agent have to cover its sequences from 1 to its head, once each, and nobody else has any. Returns
/// the sum of the digests of what they lead to. With `follow`, each run has to lead to its first event.
fn check_runs(store: &Store, report: &mut Report<'_>, follow: bool) -> Result<u128, StoreError> {
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
        let head = head.flatten().map_or(0, |head| head.sequence.0);
        let (covered, mut wrong) = cover(store, report, &mut runs, agent, head, follow, &mut placed)?;
        if covered != head {
            wrong = wrong.or(Some(covered + 1));
        }
        if let Some(sequence) = wrong {
            let kind = BreakKind::Unreadable("its row in `chain` is missing or wrong".to_owned());
            report.broken(agent, &name(store, agent), Sequence(sequence), kind);
        }
    }
}

fn agent_of(key: &[u8]) -> AgentKey {
    AgentKey(key.get(..16).and_then(|key| key.try_into().ok()).unwrap_or_default())
}

/// Reads the runs of one agent: how many sequences they cover, and the first that they do not.
fn cover(
    store: &Store,
    report: &Report<'_>,
    runs: &mut Rows<'_>,
    agent: AgentKey,
    head: u64,
    follow: bool,
    placed: &mut u128,
) -> Result<(u64, Option<u64>), StoreError> {
    let (mut covered, mut wrong) = (0, None);
    while let Some((key, value)) = runs.row()?.filter(|(key, _)| agent_of(key) == agent) {
        match Run::decode(key, value).map(|(_, run)| run) {
            // Longer than the chain can be, it is wrong, and would take long to add up.
            Some(run) if run.first.0 == covered + 1 && u64::from(run.count) <= head.saturating_sub(covered) => {
                if follow && let Some(sequence) = leads_astray(store, agent, run)? {
                    wrong = wrong.or(Some(sequence));
                }
                for offset in 0..u64::from(run.count) {
                    let Place { shard, position } = run.place;
                    let place = Place { shard, position: Position(position.0.wrapping_add(offset)) };
                    *placed = placed.wrapping_add(report.digest(agent, Sequence(run.first.0 + offset), place));
                }
                covered += u64::from(run.count);
            }
            _ => wrong = wrong.or(Some(covered + 1)),
        }
        runs.next();
    }
    Ok((covered, wrong))
}

/// The first sequence of a run whose event does not stand where the run says.
fn leads_astray(store: &Store, agent: AgentKey, run: Run) -> Result<Option<u64>, StoreError> {
    for offset in 0..u64::from(run.count) {
        let Place { shard, position } = run.place;
        let place = Place { shard, position: Position(position.0.wrapping_add(offset)) };
        let event = store.get(Family::Events, &place.encode())?;
        let record = event.as_deref().and_then(|event| RecordRef::parse(event).ok());
        let sequence = Sequence(run.first.0 + offset);
        if record.is_none_or(|record| record.agent() != agent || record.sequence() != sequence) {
            return Ok(Some(sequence.0));
        }
    }
    Ok(None)
}
