//! Verifying that each event follows from the one before it in its chain, and each chain ends at its head.

use super::agent::wrong_head;
use super::chunk::ScannedEvent;
use super::pool::{Facts, Share};
use super::report::Report;
use crate::ledger::format::keys::shard_of;
use crate::ledger::format::keys::{Agent, Location, Run};
use crate::ledger::format::record::RecordRef;
use crate::ledger::read::lookup;
use crate::ledger::store::{Family, Store, StoreError};
use cairn_proof::chain::{AgentKey, AgentMap, Break, BreakKind, Field, Sequence, Walk, scan};

/// The chains of one pass: those of the agents whose keys are the pass's share of all keys.
pub struct Chains<'s> {
    store: &'s Store,
    shards: u16,
    share: Share,
    /// How far each chain was followed; `None` if it is broken.
    chains: AgentMap<Option<Followed>>,
}

/// How far a chain was followed, and the run that ends there; `None` before its first event.
#[derive(Default)]
struct Followed {
    walk: Walk,
    run: Option<Run>,
}

impl Followed {
    /// Takes the place of the event that was followed to. Returns the run that it does not continue, if there was one.
    fn stands_at(&mut self, location: Location) -> Option<Run> {
        match &mut self.run {
            Some(run) if run.is_continued_at(location) => {
                run.count += 1;
                None
            }
            run => run.replace(Run { first: self.walk.sequence, location, count: 1 }),
        }
    }
}

/// The break of an agent's chain.
type Found = (AgentKey, String, Break);

impl<'s> Chains<'s> {
    /// The chains of a share of the agents, in a ledger of that many shards.
    pub fn new(store: &'s Store, shards: u16, share: Share) -> Chains<'s> {
        Chains { store, shards, share, chains: AgentMap::default() }
    }

    /// Takes the events that come next, with what was computed of each.
    pub fn take(&mut self, events: &[ScannedEvent<'_>], facts: &[Facts], report: &mut Report<'_>) {
        for (event, facts) in events.iter().zip(facts) {
            let followed = match event.record {
                Ok((location, record)) => self.step(location, record, facts, report),
                Err(why) => self.unreadable(event.bytes, why).map_or(Ok(()), Err),
            };
            if let Err((agent, agent_id, found)) = followed {
                report.broken(agent, &agent_id, found.sequence, found.kind);
            }
        }
    }

    /// Takes an event, if it is in the share, and its chain is not broken already.
    fn step(
        &mut self,
        location: Location,
        record: RecordRef<'_>,
        facts: &Facts,
        report: &mut Report<'_>,
    ) -> Result<(), Found> {
        let agent = record.agent();
        if !self.share.has(agent) {
            return Ok(());
        }
        if location.shard != shard_of(agent, self.shards) {
            self.chains.insert(agent, None);
            let kind = BreakKind::Unreadable("it stands where no event of its agent can stand".to_owned());
            return Err(blame(record, Break { sequence: record.sequence(), kind }));
        }
        let Some(chain) = self.chains.entry(agent).or_insert_with(|| Some(Followed::default())) else { return Ok(()) };
        match chain.walk.step_checked(&record.link(), facts.hash, facts.fault.as_deref()) {
            Ok(()) => {
                report.verified();
                if let Some(run) = chain.stands_at(location) {
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
        if !self.share.has(agent) {
            return None;
        }
        let chain = self.chains.entry(agent).or_insert_with(|| Some(Followed::default())).as_ref()?;
        let sequence = chain.walk.sequence.next();
        self.chains.insert(agent, None);
        let kind = BreakKind::Unreadable(why.to_owned());
        Some((agent, lookup::name(self.store, agent), Break { sequence, kind }))
    }

    /// Every chain has to end where its agent's row says.
    pub fn compare_heads(&mut self, report: &mut Report<'_>) -> Result<(), StoreError> {
        let mut rows = self.store.scan(Family::Agents)?;
        rows.seek_first();
        while let Some((key, row)) = rows.row()? {
            let agent = key.try_into().map(AgentKey).unwrap_or(AgentKey([0; 16]));
            if self.share.has(agent) {
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
                report.broken(agent, &lookup::name(self.store, agent), chain.walk.sequence, kind);
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
