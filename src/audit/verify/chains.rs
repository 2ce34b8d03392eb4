//! Verifying that each event follows from the one before it in its chain, and each chain ends at its head.

use super::every::Report;
use super::reading::Read;
use super::wrong_head;
use crate::chain::walk::Checker;
use crate::chain::{AgentKey, AgentMap, Break, BreakKind, Field, Hash, Sequence, Walk, scan};
use crate::ledger::keys::{Agent, Place, Run};
use crate::ledger::read;
use crate::ledger::record::RecordRef;
use crate::ledger::shard_of;
use crate::ledger::store::{Family, Store, StoreError};

/// The chains of one pass: those of the agents whose keys are the pass's share of all keys.
pub struct Chains<'s> {
    store: &'s Store,
    shards: u16,
    pass: u64,
    passes: u64,
    checker: Checker,
    /// How far each chain was followed; `None` if it is broken.
    chains: AgentMap<Option<Followed>>,
    /// The hashes that the rows at hand should have. Kept for its memory.
    hashes: Vec<Hash>,
}

/// How far a chain was followed, and the run that ends there; `None` before its first event.
#[derive(Default)]
struct Followed {
    walk: Walk,
    run: Option<Run>,
}

impl Followed {
    /// Takes the place of the event that was followed to. Returns the run that it does not continue, if there was one.
    fn stands_at(&mut self, place: Place) -> Option<Run> {
        match &mut self.run {
            Some(run) if run.goes_on_at(place) => {
                run.count += 1;
                None
            }
            run => run.replace(Run { first: self.walk.sequence, place, count: 1 }),
        }
    }
}

/// The break of an agent's chain.
type Found = (AgentKey, String, Break);

impl<'s> Chains<'s> {
    /// Those of pass number `pass` of `passes`, in a ledger of so many shards.
    pub fn new(store: &'s Store, shards: u16, pass: u64, passes: u64) -> Chains<'s> {
        Chains {
            store,
            shards,
            pass,
            passes,
            checker: Checker::default(),
            chains: AgentMap::default(),
            hashes: Vec::new(),
        }
    }

    fn has(&self, agent: AgentKey) -> bool {
        let [a, b, c, d, ..] = agent.0;
        u64::from(u32::from_be_bytes([a, b, c, d])) % self.passes == self.pass
    }

    /// Takes the rows that come next.
    pub fn take(&mut self, rows: &[Read<'_>], report: &mut Report<'_>) {
        let mine = rows.iter().filter_map(|row| row.record.ok()).filter(|(_, record)| self.has(record.agent()));
        let mine: Vec<_> = mine.map(|(_, record)| (record.canonical(), record.prev_hash())).collect();
        let mut hashes = std::mem::take(&mut self.hashes);
        Hash::of_events(&mine, &mut hashes);
        let mut next = hashes.iter().copied();
        for row in rows {
            let followed = match row.record {
                Ok((place, record)) => self.step(place, record, &mut next, report),
                Err(why) => self.unreadable(row.bytes, why).map_or(Ok(()), Err),
            };
            match followed {
                Ok(()) => {}
                Err((agent, agent_id, found)) => report.broken(agent, &agent_id, found.sequence, found.kind),
            }
        }
        self.hashes = hashes;
    }

    /// Takes an event, if it is one of this pass, and its chain is not broken already.
    fn step(
        &mut self,
        place: Place,
        record: RecordRef<'_>,
        hashes: &mut impl Iterator<Item = Hash>,
        report: &mut Report<'_>,
    ) -> Result<(), Found> {
        let agent = record.agent();
        if !self.has(agent) {
            return Ok(());
        }
        // There is one for each record of this pass; without one it would be a mismatch.
        let hash = hashes.next().unwrap_or_default();
        if place.shard != shard_of(agent, self.shards) {
            self.chains.insert(agent, None);
            let kind = BreakKind::Unreadable("it stands where no event of its agent can stand".to_owned());
            return Err(blame(record, Break { sequence: record.sequence(), kind }));
        }
        let Some(chain) = self.chains.entry(agent).or_insert_with(|| Some(Followed::default())) else { return Ok(()) };
        match chain.walk.step_hashed(&record.link(), hash, &mut self.checker) {
            Ok(()) => {
                report.verified();
                if let Some(run) = chain.stands_at(place) {
                    report.stood(agent, run);
                }
                Ok(())
            }
            Err(found) => {
                self.chains.insert(agent, None);
                Err(blame(record, found))
            }
        }
    }

    /// What cannot be read breaks the chain that its header names; without a header, that of nobody.
    fn unreadable(&mut self, value: &[u8], why: &str) -> Option<Found> {
        let agent = RecordRef::agent_of_damaged(value).unwrap_or(AgentKey([0; 16]));
        if !self.has(agent) {
            return None;
        }
        let chain = self.chains.entry(agent).or_insert_with(|| Some(Followed::default())).as_ref()?;
        let sequence = chain.walk.sequence.next();
        self.chains.insert(agent, None);
        let kind = BreakKind::Unreadable(why.to_owned());
        Some((agent, read::name(self.store, agent), Break { sequence, kind }))
    }

    /// Every chain has to end where its agent's row says.
    pub fn compare_heads(&mut self, report: &mut Report<'_>) -> Result<(), StoreError> {
        let mut rows = self.store.scan(Family::Agents)?;
        rows.seek_first();
        while let Some((key, row)) = rows.row()? {
            let agent = key.try_into().map(AgentKey).unwrap_or(AgentKey([0; 16]));
            if self.has(agent) {
                let chain = self.chains.remove(&agent).unwrap_or_else(|| Some(Followed::default()));
                match (Agent::decode(row), chain) {
                    (Some(head), Some(chain)) => {
                        if let Some(run) = chain.run {
                            report.stood(agent, run);
                        }
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
                report.broken(agent, &read::name(self.store, agent), chain.walk.sequence, kind);
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
