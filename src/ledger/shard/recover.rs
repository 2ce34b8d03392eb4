//! Recovery: reads from disk where a shard continues. A start and a failed commit use the same code.

use std::collections::HashMap;

use crate::ledger::format::floor::Floor;
use crate::ledger::format::keys::{Location, Position, ShardId, server_id, time_key, time_of};
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
    pub received_ms: u64,
    /// The id time of the last event: see [`crate::ledger::format::keys::server_id`]. Not before any time of receipt.
    pub id_ms: u64,
    /// The first position of that id time.
    pub first_of_ms: Position,
    /// The number of agents of the shard.
    pub agents: u64,
}

impl Tail {
    /// The tail for a commit of up to `events` events at `wall_ms`. The id time does not decrease when the clock was set
    /// back, and no id time has more events than its counter can count.
    pub fn at(mut self, wall_ms: u64, events: usize) -> Tail {
        self.received_ms = wall_ms;
        let is_full = self.next.0 - self.first_of_ms.0 + events as u64 > server_id::MAX_EVENTS;
        let id_ms = wall_ms.max(self.id_ms + u64::from(is_full));
        if id_ms > self.id_ms {
            self.first_of_ms = self.next;
            self.id_ms = id_ms;
        }
        self
    }
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
        return Ok(Tail { next, received_ms: 0, id_ms: 0, first_of_ms: next, agents });
    };
    let damaged = |what: &str| store.damaged(format!("shard {}: {what}; run `cairn verify --all`", shard.0));
    let received_ms = match lookup::record(store, Location { shard, position: last })? {
        Some(record) => {
            record.as_ref().received_ms().ok_or_else(|| damaged("the last event has no time of receipt"))?
        }
        // Retention has dropped it; its id time is not before its time of receipt.
        None if next == Floor::of(store, shard)? => last_id_time(store, shard)?.map_or(0, |(id_ms, _)| id_ms),
        None => return Err(damaged("the last event is missing")),
    };
    let last_row = last_id_time(store, shard)?.filter(|&(id_ms, first)| id_ms >= received_ms && first <= last);
    let (id_ms, first_of_ms) = last_row.ok_or_else(|| damaged("the last event's time has no row in `times`"))?;
    Ok(Tail { next, received_ms, id_ms, first_of_ms, agents })
}

/// The last row of a shard in `times`: an id time, and its first position.
fn last_id_time(store: &Store, shard: ShardId) -> Result<Option<(u64, Position)>, StoreError> {
    let mut rows = store.rows(Family::Times)?;
    rows.seek_for_prev(&time_key(shard, u64::MAX));
    Ok(rows.row()?.and_then(|(key, first)| Some((time_of(shard, key)?, Position::decode(first)?))))
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
    let first = Floor::of(store, shard)?.0.max(tail.next.0.saturating_sub(CHECKED_EVENTS));
    for position in first..tail.next.0 {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_time_follows_the_clock_but_never_decreases_and_advances_when_its_counter_is_full() {
        let tail = Tail { next: Position(100), received_ms: 50, id_ms: 50, first_of_ms: Position(90), agents: 1 };
        let same = tail.at(50, 10);
        assert_eq!((same.received_ms, same.id_ms, same.first_of_ms), (50, 50, Position(90)));
        let later = tail.at(51, 10);
        assert_eq!((later.received_ms, later.id_ms, later.first_of_ms), (51, 51, Position(100)));
        let back = tail.at(7, 10);
        assert_eq!((back.received_ms, back.id_ms, back.first_of_ms), (7, 50, Position(90)));
        let nearly_full = Tail { next: Position(90 + server_id::MAX_EVENTS - 10), ..tail };
        assert_eq!(nearly_full.at(7, 10).id_ms, 50);
        let full = nearly_full.at(7, 11);
        assert_eq!((full.received_ms, full.id_ms, full.first_of_ms), (7, 51, nearly_full.next));
    }
}
