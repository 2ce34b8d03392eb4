//! Looks up single rows: events by location or id, agents, and the ends of shards.

use uuid::Uuid;

use super::events::Events;
use crate::ledger::format::floor::Floor;
use crate::ledger::format::keys::{Agent, Location, Position, ShardId, server_id, time_key};
use crate::ledger::format::record::{Record, RecordRef};
use crate::ledger::store::{Family, Store, StoreError};
use cairn_proof::chain::{AgentKey, Field, scan};

/// What the operator does about a row that can be derived again.
const REPAIR: &str = "stop the server and run `cairn repair`";

/// The record at `location`; `None` if there is none.
///
/// # Errors
/// When the database cannot be read, or the record is malformed.
pub fn record(store: &Store, location: Location) -> Result<Option<Record>, StoreError> {
    let mut events = Events::new(store)?;
    let Some(bytes) = events.at(location)? else { return Ok(None) };
    parse(store, location, bytes).map(|record| Some(Record::copy(record)))
}

/// Parses the record at `location`.
///
/// # Errors
/// When the record is malformed.
pub fn parse<'b>(store: &Store, location: Location, bytes: &'b [u8]) -> Result<RecordRef<'b>, StoreError> {
    RecordRef::parse(bytes).map_err(|why| {
        store.damaged(format!("the event at position {} of shard {}: {why}", location.position.0, location.shard.0))
    })
}

/// The id of an event; `None` if it is not a UUID.
pub fn id(record: RecordRef<'_>) -> Option<Uuid> {
    let text = record.value(Field::Id).and_then(scan::text)?;
    Uuid::try_parse(&text).ok()
}

/// The event with this id at the location that the ids of clients lead to; `None` if retention has dropped it.
///
/// # Errors
/// When the database cannot be read, or there is no event with the id.
pub fn at(store: &Store, id: Uuid, location: Location) -> Result<Option<(Location, Record)>, StoreError> {
    match record(store, location)?.filter(|record| self::id(record.as_ref()) == Some(id)) {
        Some(record) => Ok(Some((location, record))),
        None if location.position < Floor::of(store, location.shard)? => Ok(None),
        None => Err(wrong_id_row(store, id)),
    }
}

/// The error about a row of `client_ids` that cannot be decoded, or leads to another event.
pub fn wrong_id_row(store: &Store, id: Uuid) -> StoreError {
    store.damaged(format!("the row of the id {id} in `client_ids` is wrong: {REPAIR}"))
}

/// The event with this id, if the server assigned it, and its location.
///
/// # Errors
/// When the database cannot be read.
pub fn find_by_server_id(store: &Store, id: Uuid, shards: u16) -> Result<Option<(Location, Record)>, StoreError> {
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

/// The row of an agent; `None` if it has no event.
///
/// # Errors
/// When the database cannot be read, or the row is damaged.
pub fn agent(store: &Store, key: AgentKey) -> Result<Option<Agent>, StoreError> {
    store.get(Family::Agents, &key.0)?.map(|row| decode_agent(store, key, &row)).transpose()
}

/// The rows of these agents, whose keys must be sorted, in the order of the keys.
///
/// # Errors
/// When the column family is missing. A row that cannot be read is an error at its index of the result.
pub fn agents(store: &Store, keys: &[AgentKey]) -> Result<Vec<Result<Option<Agent>, StoreError>>, StoreError> {
    let rows = store.get_many(Family::Agents, keys)?.into_iter().zip(keys);
    Ok(rows.map(|(row, &key)| row?.map(|row| decode_agent(store, key, &row)).transpose()).collect())
}

/// Decodes the row of an agent, and checks that it belongs to its key: the next event would otherwise become a leaf of
/// another agent.
fn decode_agent(store: &Store, key: AgentKey, row: &[u8]) -> Result<Agent, StoreError> {
    let agent = Agent::decode_of(&key.0, row);
    agent.ok_or_else(|| store.damaged(format!("the row of agent {key:?} in `agents` is wrong: {REPAIR}")))
}

/// The name of an agent in reports of damage: its id, or its key if its row cannot be read.
pub fn agent_name(store: &Store, key: AgentKey) -> String {
    let row = agent(store, key).ok().flatten();
    row.map_or_else(|| format!("with the key {key:?}"), |row| row.agent_id.into())
}

/// The number of events of a ledger with this number of shards.
///
/// # Errors
/// When the database cannot be read.
pub fn count(store: &Store, shards: u16) -> Result<u64, StoreError> {
    (0..shards).map(|shard| Ok(end(store, ShardId(shard))?.0)).sum()
}

/// The position after the last event of a shard.
///
/// # Errors
/// When the database cannot be read, or the key of the last row is not a location: it is then unknown where new events
/// belong.
pub fn end(store: &Store, shard: ShardId) -> Result<Position, StoreError> {
    let mut rows = store.rows(Family::Events)?;
    rows.seek_for_prev(&Location { shard, position: Position(u64::MAX) }.encode());
    // Retention may have dropped all events of a shard.
    let floor = Floor::of(store, shard)?;
    let Some((key, _)) = rows.row()? else { return Ok(floor) };
    let damaged = || store.damaged(format!("the key of a row in `events` is not a location: {key:02x?}"));
    let last = Location::decode(key).ok_or_else(damaged)?;
    Ok(if last.shard == shard { last.position.next().max(floor) } else { floor })
}

/// The position after the last event of a shard; `None` if the key of its last row is damaged.
///
/// # Errors
/// When the database cannot be read.
pub fn end_if_known(store: &Store, shard: ShardId) -> Result<Option<Position>, StoreError> {
    match end(store, shard) {
        Ok(end) => Ok(Some(end)),
        Err(StoreError::Damaged { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
