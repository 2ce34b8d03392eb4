//! Verifying what is stored: one agent's chain, or all of them.
//!
//! Both read `events`, `chain` and `agents` alone, which every commit writes together, so that another process can
//! verify a ledger while it is being written.

use std::collections::HashMap;

use serde_json::json;

use crate::chain::walk::Checker;
use crate::chain::{AgentKey, Break, BreakKind, Field, Hash, Sequence, Walk, scan};
use crate::ledger::keys::{Agent, Place, Run};
use crate::ledger::read::{self, Runs};
use crate::ledger::record::RecordRef;
use crate::ledger::store::{Family, Rows, Store, StoreError};

/// How many events pass between two words of progress.
const PROGRESS_EVENTS: u64 = 1024;
/// How many agents are followed at once when all are verified: about 50 MiB. More agents take more passes.
const AGENTS_PER_PASS: u64 = 400_000;

/// What verification found out about one chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whose chain it is.
    pub agent_id: String,
    /// How many events were verified, up to the break if there is one.
    pub events_verified: u64,
    /// The hash of the last event that was verified.
    pub head_hash: Hash,
    /// The first break.
    pub broken: Option<Break>,
}

impl Verdict {
    /// As `GET /v1/verify` answers it.
    pub fn to_json(&self) -> serde_json::Value {
        match &self.broken {
            None => json!({
                "valid": true,
                "agent_id": self.agent_id,
                "events_verified": self.events_verified,
                "head_hash": self.head_hash.to_string(),
            }),
            Some(broken) => json!({
                "valid": false,
                "agent_id": self.agent_id,
                "error": broken.to_string(),
                "sequence": broken.sequence.0,
                "events_verified": self.events_verified,
            }),
        }
    }
}

/// Walks the chain of an agent as far as its head is now; `None` if there is no such agent. `goes_on` is told how
/// many events were verified since the last time, and may break off.
///
/// # Errors
/// When the database cannot be read, or `goes_on` broke off.
pub fn agent(
    store: &Store,
    key: AgentKey,
    mut goes_on: impl FnMut(u64) -> bool,
) -> Result<Option<Verdict>, StoreError> {
    let Some(head) = read::agent(store, key)? else { return Ok(None) };
    let mut walk = Walk::default();
    let mut checker = Checker::default();
    let mut broken = None;
    let mut runs = Runs::from(store, key, Sequence(1))?;
    let mut rows = store.scan(Family::Events)?;
    'runs: while walk.sequence < head.sequence {
        let Some(run) = runs.run()? else { break };
        let expected = walk.sequence.next();
        if run.first != expected {
            broken = Some(Break { sequence: expected, kind: BreakKind::SequenceGap { found: run.first } });
            break;
        }
        rows.seek(&run.place.encode());
        for offset in 0..u64::from(run.count) {
            if walk.sequence == head.sequence {
                break 'runs;
            }
            if let Err(found) = step(&rows, key, run, offset, &mut walk, &mut checker)? {
                broken = Some(found);
                break 'runs;
            }
            if walk.sequence.0 % PROGRESS_EVENTS == 0 && !goes_on(PROGRESS_EVENTS) {
                return Err(store.damaged("the verification was broken off"));
            }
            rows.next();
        }
        runs.next();
    }
    goes_on(walk.sequence.0 % PROGRESS_EVENTS);
    let broken = broken.or_else(|| wrong_head(&walk, &head));
    let agent_id = head.agent_id.into();
    Ok(Some(Verdict { agent_id, events_verified: walk.sequence.0, head_hash: walk.hash, broken }))
}

/// Takes the event of a run that `rows` stands at.
fn step(
    rows: &Rows<'_>,
    key: AgentKey,
    run: Run,
    offset: u64,
    walk: &mut Walk,
    checker: &mut Checker,
) -> Result<Result<(), Break>, StoreError> {
    let mut place = run.place;
    place.position.0 += offset;
    let sequence = walk.sequence.next();
    let unreadable = |why: &str| Ok(Err(Break { sequence, kind: BreakKind::Unreadable(why.to_owned()) }));
    let value = match rows.row()? {
        Some((found, value)) if found == place.encode() => value,
        _ => return unreadable("the event is missing"),
    };
    match RecordRef::parse(value) {
        Ok(record) if record.agent() != key => unreadable("another agent's event stands here"),
        Ok(record) => Ok(walk.step(&record.link(), checker)),
        Err(why) => unreadable(why),
    }
}

/// Compares the end of a walk with the head that is stored.
fn wrong_head(walk: &Walk, head: &Agent) -> Option<Break> {
    let sequence = walk.sequence.next();
    let wrong = |why: String| Some(Break { sequence, kind: BreakKind::WrongHead(why) });
    if walk.sequence != head.sequence {
        return wrong(format!("the chain ends at {}, its head is stored as {}", walk.sequence, head.sequence));
    }
    if walk.hash != head.hash {
        return wrong("the hash that is stored for it is another one".to_owned());
    }
    None
}

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
    let mut summary = Summary { agents, ..Summary::default() };
    for pass in 0..passes {
        let mut followed = Followed { store, pass, passes, chains: HashMap::new() };
        followed.read_events(&mut summary, observer)?;
        followed.compare_heads(&mut summary, observer)?;
    }
    check_runs(store, &mut summary, observer)?;
    Ok(summary)
}

/// The agents of one pass: those whose keys are the pass's share of all keys.
struct Followed<'s> {
    store: &'s Store,
    pass: u64,
    passes: u64,
    /// How far each chain was followed; `None` if it is broken.
    chains: HashMap<AgentKey, Option<Walk>>,
}

impl Followed<'_> {
    fn has(&self, agent: AgentKey) -> bool {
        let [a, b, c, d, ..] = agent.0;
        u64::from(u32::from_be_bytes([a, b, c, d])) % self.passes == self.pass
    }

    fn read_events(&mut self, summary: &mut Summary, observer: &mut dyn Observer) -> Result<(), StoreError> {
        let mut rows = self.store.scan(Family::Events)?;
        rows.seek_last();
        let of = rows.row()?.and_then(|(key, _)| Place::decode(key)).map_or(0, |last| last.position.0 + 1);
        let mut checker = Checker::default();
        let mut seen = 0;
        rows.seek_first();
        while let Some((_, value)) = rows.row()? {
            seen += 1;
            if seen % PROGRESS_EVENTS == 0 {
                observer.progress(PROGRESS_EVENTS, of * self.passes);
            }
            match self.step(value, &mut checker) {
                Ok(is_mine) => summary.events += u64::from(is_mine),
                Err((agent_id, found)) => {
                    summary.broken += 1;
                    observer.broken(&agent_id, &found);
                }
            }
            rows.next();
        }
        observer.progress(seen % PROGRESS_EVENTS, of * self.passes);
        Ok(())
    }

    /// Takes the next event. False if it is none of this pass, or its chain is broken already.
    fn step(&mut self, value: &[u8], checker: &mut Checker) -> Result<bool, (String, Break)> {
        let record = match RecordRef::parse(value) {
            Ok(record) => record,
            Err(why) => return self.unreadable(value, why),
        };
        let key = record.agent();
        if !self.has(key) {
            return Ok(false);
        }
        let Some(walk) = self.chains.entry(key).or_insert_with(|| Some(Walk::default())) else { return Ok(false) };
        match walk.step(&record.link(), checker) {
            Ok(()) => Ok(true),
            Err(found) => {
                self.chains.insert(key, None);
                Err(self.blame(record, found))
            }
        }
    }

    /// Names the agent of an event that does not follow.
    fn blame(&self, record: RecordRef<'_>, found: Break) -> (String, Break) {
        let told = record.value(Field::AgentId).and_then(scan::text).unwrap_or_default();
        if AgentKey::of(&told) != record.agent() {
            let why = "the record's agent key is not that of its agent_id".to_owned();
            return (told.into(), Break { sequence: record.sequence(), kind: BreakKind::Unreadable(why) });
        }
        (told.into(), found)
    }

    /// What cannot be read breaks the chain that its header names, if that can be read.
    fn unreadable(&mut self, value: &[u8], why: &str) -> Result<bool, (String, Break)> {
        let key = RecordRef::agent_of_damaged(value).filter(|&key| self.has(key));
        let Some((key, Some(walk))) = key.and_then(|key| self.chains.get_key_value(&key)) else { return Ok(false) };
        let (key, sequence) = (*key, walk.sequence.next());
        self.chains.insert(key, None);
        Err((self.name(key), Break { sequence, kind: BreakKind::Unreadable(why.to_owned()) }))
    }

    fn name(&self, key: AgentKey) -> String {
        let row = read::agent(self.store, key).ok().flatten();
        row.map_or_else(|| format!("with the key {key:?}"), |agent| agent.agent_id.into())
    }

    /// Every chain has to end where its agent's row says.
    fn compare_heads(&mut self, summary: &mut Summary, observer: &mut dyn Observer) -> Result<(), StoreError> {
        let mut report = |agent_id: &str, found: &Break| {
            summary.broken += 1;
            observer.broken(agent_id, found);
        };
        let mut rows = self.store.scan(Family::Agents)?;
        rows.seek_first();
        while let Some((key, row)) = rows.row()? {
            if let (Ok(key), Some(head)) = (key.try_into().map(AgentKey), Agent::decode(row)) {
                if self.has(key) {
                    let walk = self.chains.remove(&key).unwrap_or_else(|| Some(Walk::default()));
                    if let Some(found) = walk.and_then(|walk| wrong_head(&walk, &head)) {
                        report(&head.agent_id, &found);
                    }
                }
            } else {
                let kind = BreakKind::Unreadable("its row in `agents` is damaged".to_owned());
                report(&format!("with the key {key:02x?}"), &Break { sequence: Sequence(0), kind });
            }
            rows.next();
        }
        for (key, walk) in &self.chains {
            if let Some(walk) = walk {
                let kind = BreakKind::WrongHead("the agent has events, but no row in `agents`".to_owned());
                report(&self.name(*key), &Break { sequence: walk.sequence, kind });
            }
        }
        Ok(())
    }
}

/// The runs of every agent have to cover its sequences from 1 to its head, once each, so that reads find them.
fn check_runs(store: &Store, summary: &mut Summary, observer: &mut dyn Observer) -> Result<(), StoreError> {
    let mut agents = store.scan(Family::Agents)?;
    let mut runs = store.scan(Family::Chain)?;
    agents.seek_first();
    runs.seek_first();
    while let Some((key, row)) = agents.row()? {
        let head = Agent::decode(row);
        let mut covered = 0;
        let mut gap = None;
        while let Some((run_key, value)) = runs.row()? {
            if !run_key.starts_with(key) {
                break;
            }
            match Run::decode(run_key, value) {
                Some((_, run)) if run.first.0 == covered + 1 => covered += u64::from(run.count),
                _ => gap = gap.or(Some(covered + 1)),
            }
            runs.next();
        }
        if let Some(head) = head {
            let missing = gap.or((covered != head.sequence.0).then_some(covered + 1));
            if let Some(missing) = missing {
                let kind = BreakKind::Unreadable("its row in `chain` is missing or wrong".to_owned());
                summary.broken += 1;
                observer.broken(&head.agent_id, &Break { sequence: Sequence(missing), kind });
            }
        }
        agents.next();
    }
    Ok(())
}
