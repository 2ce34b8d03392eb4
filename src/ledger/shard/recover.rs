//! Recovery: reads from disk where a shard continues. A start and a failed commit use the same code.

use std::collections::HashMap;

use crate::ledger::format::keys::{Location, Position, ShardId, time_key};
use crate::ledger::format::meta;
use crate::ledger::read::lookup;
use crate::ledger::store::{Family, Store, StoreError};
use cairn_proof::chain::{AgentKey, Hash, Sequence, walk};

/// The number of a shard's last events that are checked at start.
const CHECKED_EVENTS: u64 = 128;

/// The state of a shard after its last event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tail {
    /// The position of the next event.
    pub next: Position,
    /// The time of receipt of the last event, in ms since 1970; 0 if there is none.
    pub last_ms: u64,
    /// The first position of that millisecond.
    pub first_of_ms: Position,
    /// The number of agents of the shard.
    pub agents: u64,
}

/// Reads the tail of a shard.
///
/// # Errors
/// When the database cannot be read, or the last event or its row in `times` is missing or damaged.
pub fn tail(store: &Store, shard: ShardId) -> Result<Tail, StoreError> {
    let next = lookup::end(store, shard)?;
    let agents = match store.get(Family::Meta, &meta::agents_key(shard))? {
        Some(count) => Position::decode(&count).map_or(0, |count| count.0),
        None => 0,
    };
    let Some(last) = next.0.checked_sub(1).map(Position) else {
        return Ok(Tail { next, last_ms: 0, first_of_ms: next, agents });
    };
    let damaged = |what: &str| store.damaged(format!("shard {}: {what}; run `cairn verify --all`", shard.0));
    let record = lookup::record(store, Location { shard, position: last })?
        .ok_or_else(|| damaged("the last event is missing"))?;
    let last_ms = record.as_ref().received_ms().ok_or_else(|| damaged("the last event has no time of receipt"))?;
    let first = store.get(Family::Times, &time_key(shard, last_ms))?;
    let first_of_ms = first.and_then(|first| Position::decode(&first));
    let first_of_ms = first_of_ms.ok_or_else(|| damaged("the last event's time of receipt has no row in `times`"))?;
    Ok(Tail { next, last_ms, first_of_ms, agents })
}

/// Checks the last events of a shard and the heads of their agents. A ledger with an inconsistency does not start.
///
/// # Errors
/// When an event is missing or does not continue its chain, or a head does not match its last event. The message names
/// the first inconsistency.
pub fn check(store: &Store, shard: ShardId, tail: &Tail) -> Result<(), StoreError> {
    let damaged = |what: String| store.damaged(format!("shard {}: {what}; run `cairn verify --all`", shard.0));
    let mut checker = walk::Checker::default();
    let mut last: HashMap<AgentKey, (Sequence, Hash)> = HashMap::new();
    for position in tail.next.0.saturating_sub(CHECKED_EVENTS)..tail.next.0 {
        let location = Location { shard, position: Position(position) };
        let record =
            lookup::record(store, location)?.ok_or_else(|| damaged(format!("no event at position {position}")))?;
        let link = record.as_ref().link();
        let mut chain = match last.get(&link.agent) {
            Some(&(sequence, hash)) => walk::Walk { sequence, hash },
            None => walk::Walk { sequence: Sequence(link.sequence.0.saturating_sub(1)), hash: link.prev_hash },
        };
        chain.step(&link, &mut checker).map_err(|broken| damaged(format!("agent {:?}: {broken}", link.agent)))?;
        last.insert(link.agent, (chain.sequence, chain.hash));
    }
    for (key, (sequence, hash)) in last {
        let agent = lookup::agent(store, key)?.ok_or_else(|| damaged(format!("agent {key:?} has no row")))?;
        if (agent.sequence, agent.hash) != (sequence, hash) {
            let stored = agent.sequence;
            return Err(damaged(format!(
                "the head of agent {:?} has sequence {stored}, and its last event has sequence {sequence}",
                agent.agent_id
            )));
        }
    }
    Ok(())
}
