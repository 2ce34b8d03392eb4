//! The ids that clients sent, and the events that have them.
//!
//! A commit does not write them to the database: they follow from its events. The ids of the newest events are in memory,
//! together with a filter of all ids that answers for nearly every new one: see [`memory`] and [`filter`]. A thread writes
//! older ids to the family `client_ids`, many at a time and in order, with a cursor in the same table: see
//! [`writer`]. At a start, the ids of the events behind the cursor are read from the events: see [`recovery`]. See
//! `docs/adr/0043-client-ids-are-written-behind-the-commit.md`.
//!
//! The rows of `client_ids` are the id and the location of its event. An id that leads to its event by itself has no row:
//! see [`crate::ledger::format::keys::server_id`].

mod filter;
mod memory;
mod recovery;
mod writer;

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError};
use uuid::Uuid;

use self::memory::{Known, Memory, Sizes};
use super::format::keys::{Location, Position, ShardId};
use super::format::record::Record;
use super::read::committed::Committed;
use super::read::lookup;
use super::store::{CommitError, Family, Store, StoreError};

/// The number of ids that are added to the filter at a time.
const FILTER_STEP: usize = 4096;
/// How long to wait before a segment that did not fit on the disk is written again.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// The ids that clients sent. Shared by all threads; the lock is held for the ids of one commit or one lookup.
pub struct ClientIds {
    shards: u16,
    /// Tells which events retention has dropped: their ids are not known any more.
    committed: Arc<Committed>,
    memory: Mutex<Memory>,
    /// Notified when a segment has been written.
    room: Condvar,
    /// Wakes the writer.
    filled: Sender<()>,
    /// Receives a message when a segment is full.
    is_filled: Receiver<()>,
}

impl ClientIds {
    /// The ids of a ledger whose shards end at `ends`, in the order of the shards. Reads those that are not in the
    /// database. `bytes` is the memory for ids.
    ///
    /// # Errors
    /// When the database cannot be read or written.
    pub fn open(
        store: &Store,
        bytes: u64,
        ends: &[Position],
        committed: Arc<Committed>,
    ) -> Result<ClientIds, StoreError> {
        let shards = ends.len() as u16;
        let mut next = Vec::with_capacity(ends.len());
        for shard in (0..shards).map(ShardId) {
            let cursor = writer::cursor(store, shard, ends[usize::from(shard.0)])?;
            next.push(cursor.max(committed.first(shard)));
        }
        // One pending message is enough: the writer writes all full segments when it receives it.
        let (filled, is_filled) = crossbeam_channel::bounded(1);
        let ids = ClientIds {
            shards,
            committed,
            memory: Mutex::new(Memory::new(Sizes::of(bytes), next.clone())),
            room: Condvar::new(),
            filled,
            is_filled,
        };
        for (shard, (from, end)) in (0..shards).map(ShardId).zip(next.into_iter().zip(ends)) {
            recovery::read(store, shard, from..*end, |found, next, bytes| {
                ids.insert(shard, found.drain(..), next, bytes);
                ids.write_full(store).map_err(|error| store.failed(&error.to_string()))
            })?;
        }
        Ok(ids)
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds the ids of the events of a shard before `next`, which are committed, in any order. `bytes` is the length of
    /// their records. Every event before `next` must have been added, or have come without an id.
    pub fn insert(&self, shard: ShardId, ids: impl Iterator<Item = (Uuid, Location)>, next: Position, bytes: usize) {
        if self.memory().insert(shard, ids, next, bytes) {
            // If the channel is full, a message is already pending.
            let _ = self.filled.try_send(());
        }
    }

    /// Reads the ids of the committed events of a shard from `from` to before `end`, and adds them.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn read_back(&self, store: &Store, shard: ShardId, from: Position, end: Position) -> Result<(), StoreError> {
        recovery::read(store, shard, from..end, |found, next, bytes| {
            self.insert(shard, found.drain(..), next, bytes);
            Ok(())
        })
    }

    /// The location, if retention has not dropped its event.
    fn kept(&self, location: Location) -> Option<Location> {
        let is_kept = location.shard.0 >= self.shards || location.position >= self.committed.first(location.shard);
        is_kept.then_some(location)
    }

    /// Waits until the ids of another commit fit into memory, for `timeout` at most. Returns whether they do.
    pub fn wait_for_room(&self, timeout: Duration) -> bool {
        let waited = self.room.wait_timeout_while(self.memory(), timeout, |memory| memory.is_full());
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// The memory of the ids, in bytes, and their number.
    pub fn used(&self) -> (usize, usize) {
        self.memory().used()
    }

    /// The locations of the events that have these ids, which must be sorted, in their order; `None` if there is none. An
    /// id that leads to its event by itself may have none.
    ///
    /// # Errors
    /// When the column family is missing. A row that cannot be read is an error in the place of its location.
    pub fn find_many(&self, store: &Store, ids: &[Uuid]) -> Result<Vec<FoundId>, StoreError> {
        let (mut found, mut unknown): (Vec<FoundId>, _) = (Vec::with_capacity(ids.len()), Vec::new());
        {
            let memory = self.memory();
            for (index, id) in ids.iter().enumerate() {
                found.push(Ok(match memory.find(*id) {
                    Known::At(location) => self.kept(location),
                    Known::Absent => None,
                    Known::Unknown => {
                        unknown.push((index, *id));
                        None
                    }
                }));
            }
        }
        // After memory: what has left it is in the database.
        let keys: Vec<Uuid> = unknown.iter().map(|(_, id)| *id).collect();
        if !keys.is_empty() {
            for ((index, id), row) in unknown.into_iter().zip(store.get_many(Family::ClientIds, &keys)?) {
                let location = row.and_then(|row| row.map(|row| decode(store, id, &row)).transpose());
                found[index] = location.map(|location| location.and_then(|location| self.kept(location)));
            }
        }
        Ok(found)
    }

    /// The event with this id, assigned by a client or by the server, and its location.
    ///
    /// # Errors
    /// When the database cannot be read, or the row of the id does not lead to an event with the id. It is then unknown
    /// whether there is one.
    pub fn find(&self, store: &Store, id: Uuid) -> Result<Option<(Location, Record)>, StoreError> {
        let known = self.memory().find(id);
        let location = match known {
            Known::At(location) => Some(location),
            Known::Absent => None,
            Known::Unknown => {
                store.get(Family::ClientIds, id.as_bytes())?.map(|row| decode(store, id, &row)).transpose()?
            }
        };
        match location.and_then(|location| self.kept(location)) {
            Some(location) => lookup::at(store, id, location),
            None => lookup::find_by_server_id(store, id, self.shards),
        }
    }

    /// Completes the filter. Writes segments as they fill, until the sender of `stop` is dropped, and then the last one, so
    /// that the next start has no ids to read.
    ///
    /// # Errors
    /// When a segment cannot be written for another reason than a lack of space.
    pub fn follow(&self, store: &Store, stop: &Receiver<()>) -> Result<(), CommitError> {
        if let Err(error) = self.complete_filter(store, stop) {
            tracing::error!(%error, "ids of clients cannot be read: every new id is looked up in the database");
        }
        loop {
            let is_stopped = crossbeam_channel::select! {
                recv(self.is_filled) -> _ => false,
                recv(stop) -> _ => true,
            };
            if is_stopped {
                self.memory().close_segment();
            }
            while let Err(error) = self.write_full(store) {
                if matches!(error, CommitError::Failed(_)) {
                    return Err(error);
                }
                tracing::warn!(%error, "ids of clients cannot be written");
                if !matches!(stop.recv_timeout(RETRY_DELAY), Err(RecvTimeoutError::Timeout)) {
                    return Ok(());
                }
            }
            if is_stopped {
                return Ok(());
            }
        }
    }

    /// Adds the ids in the database to the filter. Writes the segments that fill meanwhile.
    fn complete_filter(&self, store: &Store, stop: &Receiver<()>) -> Result<(), StoreError> {
        let mut rows = store.scan(Family::ClientIds)?;
        rows.seek_first();
        let mut ids = Vec::with_capacity(FILTER_STEP);
        while let Some((key, _)) = rows.row()? {
            // A cursor has a shorter key.
            ids.extend(Uuid::from_slice(key));
            rows.next();
            if ids.len() == FILTER_STEP {
                self.memory().add_stored(ids.drain(..));
                let is_stopped = stop.try_recv() == Err(TryRecvError::Disconnected);
                // A failure is repeated and reported by `follow`.
                if is_stopped || self.write_full(store).is_err() {
                    let _ = self.filled.try_send(());
                    return Ok(());
                }
            }
        }
        let mut memory = self.memory();
        memory.add_stored(ids.drain(..));
        memory.complete();
        Ok(())
    }

    /// Writes the segments that are full.
    fn write_full(&self, store: &Store) -> Result<(), CommitError> {
        loop {
            let Some(segment) = self.memory().oldest_full() else { return Ok(()) };
            writer::write(store, &segment)?;
            self.memory().remove(&segment);
            self.room.notify_all();
        }
    }
}

/// The location of the event with an id, if there is one.
pub type FoundId = Result<Option<Location>, StoreError>;

fn decode(store: &Store, id: Uuid, row: &[u8]) -> Result<Location, StoreError> {
    Location::decode(row).ok_or_else(|| lookup::wrong_id_row(store, id))
}
