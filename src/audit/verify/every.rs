//! Verifying every chain in one go.

use std::collections::{HashMap, HashSet};

use super::{PROGRESS_EVENTS, wrong_head};
use crate::chain::walk::Checker;
use crate::chain::{AgentKey, Break, BreakKind, Field, Sequence, Walk, scan};
use crate::ledger::keys::{Agent, Place, Run};
use crate::ledger::read;
use crate::ledger::record::RecordRef;
use crate::ledger::store::{Family, Store, StoreError};

/// How many agents are followed at once: about 60 MiB. More agents take more passes.
const AGENTS_PER_PASS: u64 = 300_000;

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
    /// That many more events were looked at, of about that many in all.
    fn progress(&mut self, events: u64, of: u64);
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
    let mut report = Report { observer, broken: HashSet::new(), events: 0 };
    for pass in 0..passes {
        let mut followed = Followed { store, pass, passes, chains: HashMap::new() };
        followed.read_events(&mut report)?;
        followed.compare_heads(&mut report)?;
    }
    check_runs(store, &mut report)?;
    Ok(Summary { agents, events: report.events, broken: report.broken.len() as u64 })
}

/// What was found so far.
struct Report<'o> {
    observer: &'o mut dyn Observer,
    broken: HashSet<AgentKey>,
    events: u64,
}

impl Report<'_> {
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
    chains: HashMap<AgentKey, Option<Chain>>,
}

/// A chain that has been followed so far.
#[derive(Clone, Copy, Default)]
struct Chain {
    walk: Walk,
    /// The row of `chain` that covers the last event.
    run: Option<Run>,
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
        rows.seek_last();
        let of = rows.row()?.and_then(|(key, _)| Place::decode(key)).map_or(0, |last| last.position.0 + 1);
        let mut checker = Checker::default();
        let mut seen = 0;
        rows.seek_first();
        while let Some((key, value)) = rows.row()? {
            seen += 1;
            if seen % PROGRESS_EVENTS == 0 {
                report.observer.progress(PROGRESS_EVENTS, of * self.passes);
            }
            match self.step(key, value, &mut checker)? {
                Ok(is_mine) => report.events += u64::from(is_mine),
                Err((agent, agent_id, found)) => report.broken(agent, &agent_id, found.sequence, found.kind),
            }
            rows.next();
        }
        report.observer.progress(seen % PROGRESS_EVENTS, of * self.passes);
        Ok(())
    }

    /// Takes the next event. False if it is none of this pass, or its chain is broken already.
    fn step(&mut self, key: &[u8], value: &[u8], checker: &mut Checker) -> Result<Result<bool, Found>, StoreError> {
        let record = match RecordRef::parse(value) {
            Ok(record) => record,
            Err(why) => return Ok(self.unreadable(value, why)),
        };
        let agent = record.agent();
        if !self.has(agent) {
            return Ok(Ok(false));
        }
        let Some(chain) = self.chains.entry(agent).or_insert_with(|| Some(Chain::default())) else {
            return Ok(Ok(false));
        };
        let found = match chain.walk.step(&record.link(), checker) {
            Ok(()) if chain.is_found_at(self.store, agent, key)? => return Ok(Ok(true)),
            Ok(()) => {
                let kind = BreakKind::Unreadable("its row in `chain` is missing or wrong".to_owned());
                Break { sequence: record.sequence(), kind }
            }
            Err(found) => found,
        };
        self.chains.insert(agent, None);
        Ok(Err(blame(record, found)))
    }

    /// What cannot be read breaks the chain that its header names, if that can be read.
    fn unreadable(&mut self, value: &[u8], why: &str) -> Result<bool, Found> {
        let agent = RecordRef::agent_of_damaged(value).filter(|&agent| self.has(agent));
        let Some(agent) = agent else { return Ok(false) };
        let Some(Some(chain)) = self.chains.get(&agent) else { return Ok(false) };
        let sequence = chain.walk.sequence.next();
        self.chains.insert(agent, None);
        let kind = BreakKind::Unreadable(why.to_owned());
        Err((agent, name(self.store, agent), Break { sequence, kind }))
    }

    /// Every chain has to end where its agent's row says.
    fn compare_heads(&mut self, report: &mut Report<'_>) -> Result<(), StoreError> {
        let mut rows = self.store.scan(Family::Agents)?;
        rows.seek_first();
        while let Some((key, row)) = rows.row()? {
            let agent = key.try_into().map(AgentKey).unwrap_or(AgentKey([0; 16]));
            if self.has(agent) {
                let chain = self.chains.remove(&agent).unwrap_or_else(|| Some(Chain::default()));
                match (Agent::decode(row), chain) {
                    (Some(head), Some(chain)) => {
                        if let Some(found) = wrong_head(&chain.walk, &head) {
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
                report.broken(agent, &name(self.store, agent), chain.walk.sequence, kind);
            }
        }
        Ok(())
    }
}

impl Chain {
    /// Whether reads of the chain find the event that was taken last where it stands. A row is looked up only when
    /// the last one ends.
    fn is_found_at(&mut self, store: &Store, agent: AgentKey, event_key: &[u8]) -> Result<bool, StoreError> {
        let Some(place) = Place::decode(event_key) else { return Ok(false) };
        let sequence = self.walk.sequence;
        let is_over = |run: Run| sequence.0 >= run.first.0 + u64::from(run.count);
        if self.run.is_none_or(is_over) {
            let key = Run::key(agent, sequence);
            let row = store.get(Family::Chain, &key)?;
            self.run = row.and_then(|row| Run::decode(&key, &row)).map(|(_, run)| run);
        }
        Ok(self.run.is_some_and(|run| {
            run.place.shard == place.shard && place.position.0 - run.place.position.0 == sequence.0 - run.first.0
        }))
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

/// The runs of every agent have to cover its sequences from 1 to its head, once each, and nobody else has any.
fn check_runs(store: &Store, report: &mut Report<'_>) -> Result<(), StoreError> {
    let mut runs = store.scan(Family::Chain)?;
    runs.seek_first();
    while let Some((key, _)) = runs.row()? {
        let agent = AgentKey(key.get(..16).and_then(|key| key.try_into().ok()).unwrap_or_default());
        let mut covered = 0;
        let mut gap = None;
        while let Some((key, value)) = runs.row()?.filter(|(key, _)| key.starts_with(&agent.0)) {
            match Run::decode(key, value) {
                Some((_, run)) if run.first.0 == covered + 1 => covered += u64::from(run.count),
                _ => gap = gap.or(Some(covered + 1)),
            }
            runs.next();
        }
        let head = read::agent(store, agent)?.map_or(0, |head| head.sequence.0);
        if let Some(missing) = gap.or((covered != head).then_some(covered.min(head) + 1)) {
            let kind = BreakKind::Unreadable("its rows in `chain` do not fit its head".to_owned());
            report.broken(agent, &name(store, agent), Sequence(missing), kind);
        }
    }
    Ok(())
}
