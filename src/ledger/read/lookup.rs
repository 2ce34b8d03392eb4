//! Reading what was committed.

use uuid::Uuid;

use super::events::Events;
use crate::ledger::format::keys::{Agent, Location, Position, ShardId, server_id, time_key};
use crate::ledger::format::record::{Record, RecordRef};
use crate::ledger::store::{Family, Store, StoreError};
use cairn_proof::chain::{AgentKey, Field, scan};

/// The event at `place`.
///
/// # Errors
/// When the database cannot be read, or what is there is no record.
pub fn record(store: &Store, location: Location) -> Result<Option<Record>, StoreError> {
    let mut events = Events::new(store)?;
    let Some(bytes) = events.at(location)? else { return Ok(None) };
    parse(store, location, bytes).map(|record| Some(Record::copy(record)))
}

/// Reads the record that stands at `place`.
///
/// # Errors
/// When it is no record.
pub fn parse<'b>(store: &Store, location: Location, bytes: &'b [u8]) -> Result<RecordRef<'b>, StoreError> {
    RecordRef::parse(bytes).map_err(|why| {
        store.damaged(format!("the event at position {} of shard {}: {why}", location.position.0, location.shard.0))
    })
}

/// The id of an event.
pub fn id(record: RecordRef<'_>) -> Option<Uuid> {
    let text = record.value(Field::Id).and_then(scan::text)?;
    Uuid::try_parse(&text).ok()
}

/// The event with that id, whoever gave it, and where it stands.
///
/// # Errors
/// When the database cannot be read.
pub fn find(store: &Store, id: Uuid, shards: u16) -> Result<Option<(Location, Record)>, StoreError> {
    if let Some(location) = store.get(Family::ClientIds, id.as_bytes())? {
        let location =
            Location::decode(&location).ok_or_else(|| store.damaged(format!("the row of id {id} cannot be read")))?;
        return Ok(record(store, location)?.map(|record| (location, record)));
    }
    find_given(store, id, shards)
}

/// The event with that id, if a server gave it.
///
/// # Errors
/// When the database cannot be read.
pub fn find_given(store: &Store, id: Uuid, shards: u16) -> Result<Option<(Location, Record)>, StoreError> {
    let Some((ms, offset)) = server_id::parts(id) else { return Ok(None) };
    for shard in (0..shards).map(ShardId) {
        let Some(first) = store.get(Family::Times, &time_key(shard, ms))? else { continue };
        let Some(first) = Position::decode(&first) else { continue };
        let Some(position) = first.0.checked_add(offset).map(Position) else { continue };
        let location = Location { shard, position };
        let found = record(store, location)?;
        if let Some(record) = found.filter(|record| self::id(record.as_ref()) == Some(id)) {
            return Ok(Some((location, record)));
        }
    }
    Ok(None)
}

/// What is known of an agent.
///
/// # Errors
/// When the database cannot be read, or the row is damaged.
pub fn agent(store: &Store, key: AgentKey) -> Result<Option<Agent>, StoreError> {
    store.get(Family::Agents, &key.0)?.map(|row| decode(store, key, &row)).transpose()
}

/// What is known of each of these agents, whose keys are in order.
///
/// # Errors
/// When the database has no such family. What is wrong with one of the agents is said in its place.
pub fn agents(store: &Store, keys: &[AgentKey]) -> Result<Vec<Result<Option<Agent>, StoreError>>, StoreError> {
    let rows = store.get_many(Family::Agents, keys)?.into_iter().zip(keys);
    Ok(rows.map(|(row, &key)| row?.map(|row| decode(store, key, &row)).transpose()).collect())
}

fn decode(store: &Store, key: AgentKey, row: &[u8]) -> Result<Agent, StoreError> {
    Agent::decode(row).ok_or_else(|| store.damaged(format!("the row of agent {key:?} cannot be read")))
}

/// What an agent is called where something is wrong with its chain: by its id, if its row can be read.
pub fn name(store: &Store, key: AgentKey) -> String {
    let row = agent(store, key).ok().flatten();
    row.map_or_else(|| format!("with the key {key:?}"), |row| row.agent_id.into())
}

/// The position behind the last event of a shard.
///
/// # Errors
/// When the database cannot be read, or the last row stands at no place: what is behind it is not for new events.
pub fn end(store: &Store, shard: ShardId) -> Result<Position, StoreError> {
    let mut rows = store.rows(Family::Events)?;
    rows.seek_back(&Location { shard, position: Position(u64::MAX) }.encode());
    let Some((key, _)) = rows.row()? else { return Ok(Position(0)) };
    let damaged = || store.damaged(format!("a row of events stands at no location: {key:02x?}"));
    let last = Location::decode(key).ok_or_else(damaged)?;
    Ok(if last.shard == shard { last.position.next() } else { Position(0) })
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
