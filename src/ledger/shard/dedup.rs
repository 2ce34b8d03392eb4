//! Deduplication by the ids that clients sent: an event whose id is stored, or is being stored, is not stored again.
//! See `docs/adr/0007-client-ids-are-claimed-then-looked-up.md`.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use foldhash::fast::RandomState;
use uuid::Uuid;

use crate::ledger::format::keys::{Location, Position, ShardId};
use crate::ledger::format::record::{Draft, Record, RecordRef};
use crate::ledger::ids::{ClientIds, FoundId};
use crate::ledger::read::lookup;
use crate::ledger::store::{Store, StoreError};
use cairn_proof::chain::DefaultLabels;

/// How long a commit waits until the ids of earlier ones are written, which takes a tenth of a second, unless the disk is
/// full.
const ROOM_WAIT: Duration = Duration::from_secs(5);

/// The ids that shards are storing now. Shared by all shards, because two agents may use one id at the same time.
///
/// The lock is held for the ids of one commit. Colliding ids are no attack on the set, which only contains the ids of
/// events that are being committed.
#[derive(Clone, Default)]
pub struct IdsInFlight {
    ids: Arc<Mutex<HashSet<Uuid, RandomState>>>,
}

impl IdsInFlight {
    /// Claims ids. Calls `taken` with the index of each that another shard has claimed.
    fn claim(&self, ids: &[Uuid], mut taken: impl FnMut(usize)) {
        let mut held = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        for (index, id) in ids.iter().enumerate() {
            if !held.insert(*id) {
                taken(index);
            }
        }
    }

    fn release(&self, ids: impl Iterator<Item = Uuid>) {
        let mut held = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        for id in ids {
            held.remove(&id);
        }
    }
}

/// The result of looking up the id of an event.
pub enum IdLookup {
    /// No event has the id.
    New,
    /// The id belongs to this stored event, which is the same event.
    SameEvent(Record),
    /// The id belongs to a stored event that is different.
    OtherEvent,
    /// The id belongs to the event of this commit at this index of its records.
    InThisCommit(usize),
    /// Another shard is storing an event with the id.
    InFlightOnOtherShard,
}

/// An id of the current commit.
struct CommitId {
    id: Uuid,
    found: Found,
    /// The index of the record that has the id, once there is one.
    record: Option<usize>,
}

/// What is known about an id before its events are added to the commit.
enum Found {
    /// No event is stored under the id, unless the server assigned it.
    Nothing,
    /// The event at this location has the id.
    At(Location),
    /// Another shard has claimed the id.
    OnOtherShard,
    /// The row cannot be read together with others.
    Unreadable,
}

/// The client ids of a shard's current commit.
pub struct Dedup {
    stored: Arc<ClientIds>,
    /// `None` if there is only one shard.
    in_flight: Option<IdsInFlight>,
    shards: u16,
    /// The labels that the server adds, which do not make an event a different one.
    labels: Arc<DefaultLabels>,
    /// The ids of the commit, sorted.
    ids: Vec<CommitId>,
    /// For each event with an id, in their order, the index of the id in `ids`.
    order: Vec<u32>,
    /// The number of events with an id that have been checked.
    checked: usize,
    /// The stored event that was found last, so that many copies of one event are looked up once.
    last_found: Option<(Uuid, Record)>,
}

impl Dedup {
    /// The deduplication of one of `shards` shards.
    pub fn new(stored: Arc<ClientIds>, in_flight: IdsInFlight, shards: u16, labels: Arc<DefaultLabels>) -> Dedup {
        Dedup {
            stored,
            in_flight: (shards > 1).then_some(in_flight),
            shards,
            labels,
            ids: Vec::new(),
            order: Vec::new(),
            checked: 0,
            last_found: None,
        }
    }

    /// The ids of all stored events.
    pub fn stored(&self) -> &ClientIds {
        &self.stored
    }

    /// Whether an event is the same as the stored event with its id.
    pub fn is_same(&self, draft: &Draft, stored: RecordRef<'_>) -> bool {
        draft.is_same_event(stored, &self.labels)
    }

    /// Claims the ids of all events of a commit and looks them up together. Errors of single rows are left to
    /// [`Dedup::check`].
    ///
    /// # Errors
    /// When the column family is missing.
    pub fn begin<'d>(&mut self, store: &Store, drafts: impl Iterator<Item = &'d Draft>) -> Result<(), StoreError> {
        let mut sent: Vec<(Uuid, u32)> = drafts.filter_map(|draft| draft.client_id).zip(0..).collect();
        if sent.is_empty() {
            return Ok(());
        }
        sent.sort_unstable();
        self.order.resize(sent.len(), 0);
        for (id, event) in sent {
            if self.ids.last().is_none_or(|last| last.id != id) {
                self.ids.push(CommitId { id, found: Found::Nothing, record: None });
            }
            self.order[event as usize] = self.ids.len() as u32 - 1;
        }
        // Claimed before the lookup: a shard that has stored one of these ids in between has released it by now.
        let keys: Vec<Uuid> = self.ids.iter().map(|id| id.id).collect();
        if let Some(in_flight) = &self.in_flight {
            in_flight.claim(&keys, |index| self.ids[index].found = Found::OnOtherShard);
        }
        for (id, found) in self.ids.iter_mut().zip(self.stored.find_many(store, &keys)?) {
            id.take(found);
        }
        if let Some(in_flight) = &self.in_flight {
            let is_stored = |id: &&CommitId| matches!(id.found, Found::At(_));
            in_flight.release(self.ids.iter().filter(is_stored).map(|id| id.id));
        }
        Ok(())
    }

    /// Looks up the id of the next event of the commit, which becomes record `index` if the id is new.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn check(&mut self, store: &Store, draft: &Draft, index: usize) -> Result<IdLookup, StoreError> {
        let Some(id) = draft.client_id else { return Ok(IdLookup::New) };
        let at = self.order.get(self.checked).map_or(0, |at| *at as usize);
        self.checked += 1;
        let Some(entry) = self.ids.get_mut(at) else { return Ok(IdLookup::New) };
        if let Some(index) = entry.record {
            return Ok(IdLookup::InThisCommit(index));
        }
        if self.last_found.as_ref().is_none_or(|(found, _)| *found != id) {
            let found = match &entry.found {
                Found::OnOtherShard => return Ok(IdLookup::InFlightOnOtherShard),
                Found::Unreadable => self.stored.find(store, id)?,
                Found::At(location) => lookup::at(store, id, *location)?,
                Found::Nothing => lookup::find_by_server_id(store, id, self.shards)?,
            };
            match found {
                Some((_, record)) => self.last_found = Some((id, record)),
                None => {
                    entry.record = Some(index);
                    return Ok(IdLookup::New);
                }
            }
        }
        match &self.last_found {
            Some((_, record)) if self.is_same(draft, record.as_ref()) => Ok(IdLookup::SameEvent(record.clone())),
            _ => Ok(IdLookup::OtherEvent),
        }
    }

    /// Takes back that the id of the event that was checked last belongs to a record: the event does not become part of the
    /// commit.
    pub fn forget_last(&mut self) {
        let last = self.checked.checked_sub(1).and_then(|last| self.order.get(last));
        if let Some(id) = last.and_then(|at| self.ids.get_mut(*at as usize)) {
            id.record = None;
        }
    }

    /// Waits until there is room in memory for the ids of a commit. Returns false if there was none for too long.
    pub fn wait_for_room(&self) -> bool {
        self.ids.is_empty() || self.stored.wait_for_room(ROOM_WAIT)
    }

    /// Records that the events of the commit from `first` to before `next` are stored. `bytes` is the length of their
    /// records.
    pub fn committed(&self, shard: ShardId, first: Position, next: Position, bytes: usize) {
        let location = |record: usize| Location { shard, position: Position(first.0 + record as u64) };
        let ids = self.ids.iter().filter_map(|id| Some((id.id, location(id.record?))));
        self.stored.insert(shard, ids, next, bytes);
    }

    /// Releases all ids after the commit has succeeded or failed.
    pub fn release(&mut self) {
        if let Some(in_flight) = &self.in_flight {
            let is_claimed = |id: &&CommitId| matches!(id.found, Found::Nothing | Found::Unreadable);
            in_flight.release(self.ids.iter().filter(is_claimed).map(|id| id.id));
        }
        self.ids.clear();
        self.order.clear();
        self.checked = 0;
        self.last_found = None;
    }
}

impl CommitId {
    /// Keeps what was found, unless another shard has claimed the id.
    fn take(&mut self, found: FoundId) {
        if matches!(self.found, Found::Nothing) {
            self.found = match found {
                Ok(None) => Found::Nothing,
                Ok(Some(location)) => Found::At(location),
                Err(_) => Found::Unreadable,
            };
        }
    }
}
