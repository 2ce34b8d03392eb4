//! The floor of a ledger: retention has dropped the events before it. Rows of `meta`.
//!
//! | key | value |
//! |---|---|
//! | `floor` | sequence u64 of its record in the chain of the recorder, then a position u64 per shard: the first event that is kept |
//! | `anchor` · agent key | sequence u64 of the agent's first event that is kept, or of its next one if none is, and the hash before it |
//!
//! An agent without an anchor has lost no event. The record in the chain of the recorder has the root of a tree of all anchors:
//! see `docs/retention.md`.

use super::checks::CheckedRows;
use super::keys::meta_keys::{ANCHOR, FLOOR};
use super::keys::{Position, ShardId, join, take, take_u64};
use crate::ledger::store::{Batch, Family, Store, StoreError};
use cairn_proof::chain::{AgentKey, Hash, Sequence};

/// The first event of each shard that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Floor {
    /// The sequence of the record, in the chain of the recorder, of the last events that were dropped.
    pub record: Sequence,
    /// The position of the first event of each shard that is kept.
    pub first: Vec<Position>,
}

/// Where the chain of an agent begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Anchor {
    /// The sequence of the first event that is kept.
    pub sequence: Sequence,
    /// The hash of the event before it.
    pub prev_hash: Hash,
}

impl Floor {
    /// Reads the floor; `None` if no event was ever dropped.
    ///
    /// # Errors
    /// When the database cannot be read, or the row is damaged.
    pub fn read(store: &Store) -> Result<Option<Floor>, StoreError> {
        let Some(row) = store.get(Family::Meta, FLOOR)? else { return Ok(None) };
        let floor = Floor::decode(&row);
        floor.map(Some).ok_or_else(|| store.damaged("the position of its first event cannot be read"))
    }

    /// The position of the first event of a shard that is kept.
    ///
    /// # Errors
    /// As for [`Floor::read`].
    pub fn of(store: &Store, shard: ShardId) -> Result<Position, StoreError> {
        Ok(Floor::read(store)?.map_or(Position(0), |floor| floor.first(shard)))
    }

    /// The position of the first event of a shard that is kept.
    pub fn first(&self, shard: ShardId) -> Position {
        self.first.get(usize::from(shard.0)).copied().unwrap_or(Position(0))
    }

    /// Decodes the row; `None` if it is damaged.
    pub fn decode(mut row: &[u8]) -> Option<Floor> {
        let record = Sequence(take_u64(&mut row)?);
        let mut first = Vec::new();
        while !row.is_empty() {
            first.push(Position(take_u64(&mut row)?));
        }
        Some(Floor { record, first })
    }

    /// Adds the row to a batch, with its check.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn put(&self, store: &Store, batch: &mut Batch) -> Result<(), StoreError> {
        let numbers = [self.record.0].into_iter().chain(self.first.iter().map(|first| first.0));
        let row: Vec<u8> = numbers.flat_map(u64::to_be_bytes).collect();
        CheckedRows::meta(FLOOR).put_row(store, batch, FLOOR, &row)
    }
}

impl Anchor {
    /// The length of a key of an anchor.
    pub const KEY_LEN: usize = ANCHOR.len() + 16;

    /// The anchor of an agent; `None` if it has lost no event.
    ///
    /// # Errors
    /// When the database cannot be read, or the row is damaged.
    pub fn read(store: &Store, agent: AgentKey) -> Result<Option<Anchor>, StoreError> {
        let Some(row) = store.get(Family::Meta, &Anchor::key(agent))? else { return Ok(None) };
        let damaged = || store.damaged(format!("the anchor of agent {agent:?} cannot be read"));
        Anchor::decode(&row).map(Some).ok_or_else(damaged)
    }

    /// Passes all anchors to `visit`, in the order of agent keys.
    ///
    /// # Errors
    /// When the database cannot be read, a row is damaged, or `visit` fails.
    pub fn for_each<E: From<StoreError>>(
        store: &Store,
        mut visit: impl FnMut(AgentKey, Anchor) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut rows = store.rows(Family::Meta)?;
        rows.seek(ANCHOR);
        while let Some((key, value)) = rows.row()?.filter(|(key, _)| key.starts_with(ANCHOR)) {
            let agent = key[ANCHOR.len()..].try_into().ok().map(AgentKey);
            let (Some(agent), Some(anchor)) = (agent, Anchor::decode(value)) else {
                return Err(store.damaged("an anchor cannot be read").into());
            };
            visit(agent, anchor)?;
            rows.next();
        }
        Ok(())
    }

    fn key(agent: AgentKey) -> [u8; Anchor::KEY_LEN] {
        join(&[ANCHOR, &agent.0])
    }

    /// Decodes a value; `None` if it is damaged.
    pub fn decode(mut value: &[u8]) -> Option<Anchor> {
        let (sequence, prev_hash) = (Sequence(take_u64(&mut value)?), Hash(take(&mut value)?));
        value.is_empty().then_some(Anchor { sequence, prev_hash })
    }

    /// Adds the row of an agent to a batch.
    ///
    /// # Errors
    /// When the column family is missing.
    pub fn put(&self, store: &Store, batch: &mut Batch, agent: AgentKey) -> Result<(), StoreError> {
        let value: [u8; 40] = join(&[&self.sequence.0.to_be_bytes(), &self.prev_hash.0]);
        store.put(batch, Family::Meta, &Anchor::key(agent), &value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_read_back_as_they_were_written() {
        let floor = Floor { record: Sequence(7), first: vec![Position(256), Position(0)] };
        assert_eq!(Floor::decode(&[[0, 0, 0, 0, 0, 0, 0, 7], [0, 0, 0, 0, 0, 0, 1, 0], [0; 8]].concat()), Some(floor));
        assert_eq!(Floor::decode(&[0; 12]), None);
        let value: [u8; 40] = join(&[&5u64.to_be_bytes(), &[3; 32]]);
        assert_eq!(Anchor::decode(&value), Some(Anchor { sequence: Sequence(5), prev_hash: Hash([3; 32]) }));
        assert_eq!(Anchor::decode(&value[..39]), None);
    }
}
