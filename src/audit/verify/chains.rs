//! Verifies that each event follows the one before it in its chain, and that each chain ends at its head.

use super::agent::check_head;
use super::chunk::ScannedEvent;
use super::dropped::Anchors;
use super::erasures::ErasureCheck;
use super::pool::{EventCheck, Share};
use super::report::Report;
use super::rows::fault::{FaultKind, Repair, RowFault};
use crate::ledger::format::keys::shard_of;
use crate::ledger::format::keys::{Agent, Location, Position, Run};
use crate::ledger::format::record::RecordRef;
use crate::ledger::read::lookup;
use crate::ledger::store::{Family, Store, StoreError};
use cairn_proof::chain::{AgentKey, AgentMap, Break, BreakKind, Field, Sequence, Walk, scan};

/// The chains that one pass verifies: those of the agents in its share.
pub struct Chains<'s> {
    store: &'s Store,
    shards: u16,
    share: Share,
    erasures: &'s ErasureCheck,
    anchors: Anchors,
    /// The state of each chain; `None` if it is broken.
    chains: AgentMap<Option<ChainState>>,
    /// The number of agents with events in each shard. Set by [`Chains::compare_heads`].
    pub agents: Vec<u64>,
    /// Whether no event broke its chain, and no head shows that events are missing. Heads are read by
    /// [`Chains::compare_heads`].
    pub are_events_whole: bool,
}

/// How far a chain is verified.
#[derive(Default)]
struct ChainState {
    walk: Walk,
    /// The run of its last events; `None` before the first event.
    run: Option<Run>,
    /// The times of receipt of its first and of its last event, in ms since 1970.
    first_ms: u64,
    last_ms: u64,
}

impl ChainState {
    /// A chain of which nothing after this is verified.
    fn after(walk: Walk) -> ChainState {
        ChainState { walk, ..ChainState::default() }
    }

    /// Adds the location of the last verified event. Returns the previous run, if the event starts a new one.
    fn add_location(&mut self, location: Location) -> Option<Run> {
        match &mut self.run {
            Some(run) if run.is_continued_at(location) => {
                run.count += 1;
                None
            }
            run => run.replace(Run { first: self.walk.sequence, location, count: 1 }),
        }
    }
}

/// A break, with the agent key and the agent id of its chain.
type ChainBreak = (AgentKey, String, Break);

impl<'s> Chains<'s> {
    /// The chains of a share of the agents, in a ledger of `shards` shards.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn new(
        store: &'s Store,
        shards: u16,
        share: Share,
        erasures: &'s ErasureCheck,
    ) -> Result<Chains<'s>, StoreError> {
        Ok(Chains {
            store,
            shards,
            share,
            erasures,
            anchors: Anchors::read(store, share)?,
            chains: AgentMap::default(),
            agents: vec![0; usize::from(shards)],
            are_events_whole: true,
        })
    }

    /// Verifies the next events, given what the pool computed of each.
    pub fn take(&mut self, events: &[ScannedEvent<'_>], checks: &[EventCheck], report: &mut Report<'_>) {
        for (event, check) in events.iter().zip(checks) {
            let verified = match event.record {
                Ok((location, record)) => self.step(location, record, check, report),
                Err(reason) => self.unreadable(event.bytes, reason).map_or(Ok(()), Err),
            };
            if let Err((agent, agent_id, found)) = verified {
                self.are_events_whole = false;
                report.broken(agent, &agent_id, found.sequence, found.kind);
            }
        }
    }

    /// Verifies one event, unless it is outside the share or its chain is already broken.
    fn step(
        &mut self,
        location: Location,
        record: RecordRef<'_>,
        check: &EventCheck,
        report: &mut Report<'_>,
    ) -> Result<(), ChainBreak> {
        let agent = record.agent();
        if !self.share.contains(agent) {
            return Ok(());
        }
        if location.shard != shard_of(agent, self.shards) {
            self.chains.insert(agent, None);
            let kind = BreakKind::Unreadable("it is stored in a shard to which its agent does not belong".to_owned());
            return Err(attribute(record, Break { sequence: record.sequence(), kind }));
        }
        let anchors = &self.anchors;
        let Some(chain) = self.chains.entry(agent).or_insert_with(|| Some(ChainState::after(anchors.start(agent))))
        else {
            return Ok(());
        };
        let step = chain.walk.step_checked(&record.link(), check.hash, check.fault.as_deref());
        match step.and_then(|()| self.erasures.check(record)) {
            Ok(()) => {
                report.count_verified();
                let received_ms = check.facts.received_ms;
                if chain.run.is_none() {
                    chain.first_ms = received_ms;
                }
                chain.last_ms = received_ms;
                if let Some(run) = chain.add_location(location) {
                    report.add_run(agent, run);
                }
                Ok(())
            }
            Err(found) => {
                self.chains.insert(agent, None);
                Err(attribute(record, found))
            }
        }
    }

    /// Records an unreadable event: it breaks the chain that its header names or, without a readable header, one with
    /// the key 0.
    fn unreadable(&mut self, value: &[u8], reason: &str) -> Option<ChainBreak> {
        let agent = RecordRef::agent_of_damaged(value).unwrap_or(AgentKey([0; 16]));
        if !self.share.contains(agent) {
            return None;
        }
        let start = self.anchors.start(agent);
        let chain = self.chains.entry(agent).or_insert_with(|| Some(ChainState::after(start))).as_ref()?;
        let sequence = chain.walk.sequence.next();
        self.chains.insert(agent, None);
        let kind = BreakKind::Unreadable(reason.to_owned());
        Some((agent, lookup::agent_name(self.store, agent), Break { sequence, kind }))
    }

    /// Verifies that every chain ends at the head in its row of `agents`, and that the row has no other value than the
    /// events give it.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn compare_heads(&mut self, report: &mut Report<'_>) -> Result<(), StoreError> {
        let mut rows = self.store.scan(Family::Agents)?;
        rows.seek_first();
        while let Some((key, row)) = rows.row()? {
            let agent = key.try_into().map(AgentKey).unwrap_or(AgentKey([0; 16]));
            if self.share.contains(agent) {
                let chain = self.chains.remove(&agent);
                let is_known = chain.is_some() || self.anchors.has(agent);
                self.agents[usize::from(shard_of(agent, self.shards).0)] += u64::from(is_known);
                let chain = chain.unwrap_or_else(|| Some(ChainState::after(self.anchors.start(agent))));
                self.compare_row(key, row, chain.as_ref(), report)?;
                match (Agent::decode(row), chain) {
                    (Some(head), Some(chain)) => {
                        if let Some(run) = chain.run {
                            report.add_run(agent, run);
                        }
                        if let Some(found) = check_head(&chain.walk, &head) {
                            report.broken(agent, &head.agent_id, found.sequence, found.kind);
                        }
                    }
                    (None, _) => {
                        let kind = BreakKind::Unreadable("its row in `agents` is damaged".to_owned());
                        report.broken(agent, &format!("with the key {agent:?}"), Sequence(0), kind);
                    }
                    (Some(_), None) => {}
                }
                self.anchors.remove(agent);
            }
            rows.next();
        }
        for (&agent, chain) in &self.chains {
            if let Some(chain) = chain {
                self.agents[usize::from(shard_of(agent, self.shards).0)] += 1;
                if let Some(expected) = self.expected_row(chain)? {
                    report.row(RowFault::expected(Family::Agents, &agent.0, false, &expected));
                }
                let kind = BreakKind::WrongHead("the agent has events, but no row in `agents`".to_owned());
                report.broken(agent, &lookup::agent_name(self.store, agent), chain.walk.sequence, kind);
            }
        }
        for agent in self.anchors.agents().filter(|agent| !self.chains.contains_key(agent)) {
            let kind = BreakKind::WrongHead("the agent has lost events, and has no row in `agents`".to_owned());
            let sequence = self.anchors.start(agent).sequence;
            report.broken(agent, &lookup::agent_name(self.store, agent), sequence, kind);
        }
        Ok(())
    }

    /// Compares a row of `agents` with the events, unless the chain is broken.
    fn compare_row(
        &mut self,
        key: &[u8],
        row: &[u8],
        chain: Option<&ChainState>,
        report: &mut Report<'_>,
    ) -> Result<(), StoreError> {
        let Some(chain) = chain else { return Ok(()) };
        let stored = Agent::decode_of(key, row);
        if chain.run.is_none() && chain.walk.sequence > Sequence(0) && stored.is_some() {
            // All events of the agent were dropped; its head is compared with its anchor.
            return Ok(());
        }
        let (Some(run), true) = (chain.run, key.len() == 16) else {
            // The row of an agent may be the last trace of its events; one with the key of another agent is not.
            self.are_events_whole &= Agent::decode_of(key, row).is_none();
            report.row(RowFault::unexpected(Family::Agents, key));
            return Ok(());
        };
        // The time of an event that was dropped is not known.
        let agent = AgentKey(key.try_into().unwrap_or_default());
        let is_cut = self.anchors.has(agent);
        let is_right = stored.as_ref().is_some_and(|agent| {
            (agent.sequence, agent.hash) == (chain.walk.sequence, chain.walk.hash)
                && agent.run.kept(if is_cut { run.location.position } else { Position(0) }) == Some(run)
                && (is_cut || agent.first_ms == chain.first_ms)
                && agent.last_ms == chain.last_ms
        });
        // Later events than the stored ones may have existed, so the row is all that shows it.
        let was_longer =
            stored.is_some_and(|agent| agent.sequence > chain.walk.sequence && agent.hash != chain.walk.hash);
        if was_longer {
            self.are_events_whole = false;
            report.row(RowFault::new(Family::Agents, key, FaultKind::Wrong, Repair::Impossible));
        } else if !is_right && let Some(expected) = self.expected_row(chain)? {
            report.row(RowFault::expected(Family::Agents, key, true, &expected));
        }
        Ok(())
    }

    /// The row of `agents` that the events of a chain give; `None` if its last event cannot be read.
    fn expected_row(&self, chain: &ChainState) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(run) = chain.run else { return Ok(None) };
        let Some(record) = lookup::record(self.store, run.location)? else { return Ok(None) };
        let Some(agent_id) = record.as_ref().value(Field::AgentId).and_then(scan::text) else { return Ok(None) };
        let (sequence, hash) = (chain.walk.sequence, chain.walk.hash);
        let (first_ms, last_ms) = (chain.first_ms, chain.last_ms);
        Ok(Some(Agent { sequence, hash, first_ms, last_ms, run, agent_id: agent_id.into() }.encode()))
    }
}

/// Attributes a break to the agent that the event names.
fn attribute(record: RecordRef<'_>, found: Break) -> ChainBreak {
    let agent_id = record.value(Field::AgentId).and_then(scan::text).unwrap_or_default();
    let agent = AgentKey::of(&agent_id);
    if agent != record.agent() {
        let reason = "the record's agent key does not match its agent_id".to_owned();
        return (agent, agent_id.into(), Break { sequence: record.sequence(), kind: BreakKind::Unreadable(reason) });
    }
    (agent, agent_id.into(), found)
}
