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
    rows.seek_back(&Place { shard, position: Position(u64::MAX) }.encode());
    let Some((key, _)) = rows.row()? else { return Ok(Position(0)) };
    let damaged = || store.damaged(format!("a row of events stands at no place: {key:02x?}"));
    let last = Place::decode(key).ok_or_else(damaged)?;
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

/// The runs of one agent's chain.
pub struct Runs<'s> {
    /// The rows of `chain`.
    rows: Rows<'s>,
    agent: AgentKey,
    /// The last run, which is in the row of the agent; `None` if there is no such agent.
    last: Option<Run>,
    at: At,
}

/// Where that is.
#[derive(PartialEq, Eq)]
enum At {
    /// At a row of `chain`, or before the first run.
    Row,
    Last,
    Behind,
}

impl<'s> Runs<'s> {
    /// The runs from the one that has `from` on.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn from(store: &'s Store, agent: AgentKey, from: Sequence) -> Result<Runs<'s>, StoreError> {
        // First the row of the agent: a run that ends in the meantime is in both, instead of in none.
        let last = self::agent(store, agent)?.map(|agent| agent.run);
        let mut runs = Runs { rows: store.rows(Family::Chain)?, agent, last, at: At::Last };
        if last.is_some_and(|last| from < last.first) {
            let key = Run::key(agent, from);
            runs.at = At::Row;
            runs.rows.seek_back(&key);
            if runs.row()?.is_none() {
                runs.rows.seek(&key);
                runs.arrive()?;
            }
        }
        Ok(runs)
    }

    /// The run at this place.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn run(&self) -> Result<Option<Run>, StoreError> {
        match self.at {
            At::Row => self.row(),
            At::Last => Ok(self.last),
            At::Behind => Ok(None),
        }
    }

    /// The row of `chain` here, if it is of this agent and before the last run.
    fn row(&self) -> Result<Option<Run>, StoreError> {
        let row = self.rows.row()?.and_then(|(key, value)| Run::decode(key, value));
        let is_before_last = |run: &Run| self.last.is_some_and(|last| run.first < last.first);
        Ok(row.filter(|(agent, _)| *agent == self.agent).map(|(_, run)| run).filter(is_before_last))
    }

    /// Behind the rows of `chain` is the last run.
    fn arrive(&mut self) -> Result<(), StoreError> {
        if self.row()?.is_none() {
            self.at = At::Last;
        }
        Ok(())
    }

    /// Goes one run on.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn forward(&mut self) -> Result<(), StoreError> {
        match self.at {
            At::Row => {
                self.rows.next();
                self.arrive()
            }
            At::Last | At::Behind => {
                self.at = At::Behind;
                Ok(())
            }
        }
    }

    /// Goes one run back.
    pub fn back(&mut self) {
        match (&self.at, self.last) {
            (At::Row, _) => self.rows.back(),
            (At::Last, Some(last)) => {
                self.at = At::Row;
                self.rows.seek_back(&Run::key(self.agent, Sequence(last.first.0.saturating_sub(1))));
            }
            (At::Last, None) => {}
            (At::Behind, _) => self.at = At::Last,
        }
    }
}
