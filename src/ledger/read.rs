//! Reading what was committed.

use uuid::Uuid;

use super::events::Events;
use super::keys::{Agent, Place, Position, Run, ShardId, time_key};
use super::record::{Record, RecordRef};
use super::store::{Family, Rows, Store, StoreError};
use crate::chain::{AgentKey, Field, Sequence, scan};

/// The event at `place`.
///
/// # Errors
/// When the database cannot be read, or what is there is no record.
pub fn record(store: &Store, place: Place) -> Result<Option<Record>, StoreError> {
    let mut events = Events::new(store)?;
    let Some(bytes) = events.at(place)? else { return Ok(None) };
    parse(store, place, bytes).map(|record| Some(Record::copy(record)))
}

/// Reads the record that stands at `place`.
///
/// # Errors
/// When it is no record.
pub fn parse<'b>(store: &Store, place: Place, bytes: &'b [u8]) -> Result<RecordRef<'b>, StoreError> {
    RecordRef::parse(bytes).map_err(|why| {
        store.damaged(format!("the event at position {} of shard {}: {why}", place.position.0, place.shard.0))
    })
}

/// The id of an event.
pub fn id(record: RecordRef<'_>) -> Option<Uuid> {
    let text = record.value(Field::Id).and_then(scan::text)?;
    Uuid::try_parse(&text).ok()
}

/// What is known of an agent.
///
/// # Errors
/// When the database cannot be read, or the row is damaged.
pub fn agent(store: &Store, key: AgentKey) -> Result<Option<Agent>, StoreError> {
    let Some(row) = store.get(Family::Agents, &key.0)? else { return Ok(None) };
    let damaged = || store.damaged(format!("the row of agent {key:?} cannot be read"));
    Agent::decode(&row).map(Some).ok_or_else(damaged)
}

/// What an agent is called where something is wrong with its chain: by its id, if its row can be read.
pub fn name(store: &Store, key: AgentKey) -> String {
    let row = agent(store, key).ok().flatten();
    row.map_or_else(|| format!("with the key {key:?}"), |row| row.agent_id.into())
}

/// The position behind the last event of a shard.
///
/// # Errors
/// When the database cannot be read.
pub fn end(store: &Store, shard: ShardId) -> Result<Position, StoreError> {
    let mut rows = store.rows(Family::Events)?;
    rows.seek_back(&Place { shard, position: Position(u64::MAX) }.encode());
    match rows.row()?.and_then(|(key, _)| Place::decode(key)) {
        Some(last) if last.shard == shard => Ok(last.position.next()),
        _ => Ok(Position(0)),
    }
}

/// The position of the first event that a shard received at or after `ms`; `None` if there is none.
///
/// # Errors
/// When the database cannot be read.
pub fn first_since(store: &Store, shard: ShardId, ms: u64) -> Result<Option<Position>, StoreError> {
    let mut rows = store.rows(Family::Times)?;
    rows.seek(&time_key(shard, ms));
    let found = rows.row()?.filter(|(key, _)| key.starts_with(&shard.0.to_be_bytes()));
    Ok(found.and_then(|(_, value)| Position::decode(value)))
}

/// The runs of one agent's chain.
pub struct Runs<'s> {
    rows: Rows<'s>,
    agent: AgentKey,
}

impl<'s> Runs<'s> {
    /// The runs from the one that has `from` on.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn from(store: &'s Store, agent: AgentKey, from: Sequence) -> Result<Runs<'s>, StoreError> {
        let mut rows = store.rows(Family::Chain)?;
        let key = Run::key(agent, from);
        rows.seek_back(&key);
        let has_from = rows.row()?.is_some_and(|(key, _)| key.starts_with(&agent.0));
        if !has_from {
            rows.seek(&key);
        }
        Ok(Runs { rows, agent })
    }

    /// The run at this place.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn run(&self) -> Result<Option<Run>, StoreError> {
        let run = self.rows.row()?.and_then(|(key, value)| Run::decode(key, value));
        Ok(run.filter(|(agent, _)| *agent == self.agent).map(|(_, run)| run))
    }

    /// Goes one run on.
    pub fn next(&mut self) {
        self.rows.next();
    }

    /// Goes one run back.
    pub fn back(&mut self) {
        self.rows.back();
    }
}
