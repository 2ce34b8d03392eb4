//! Deduplication by the ids that clients sent: an event whose id is stored, or is being stored, is not stored again.
//! See `docs/adr/0007-client-ids-are-claimed-then-looked-up.md`.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use foldhash::fast::RandomState;
use uuid::Uuid;

use crate::ledger::format::record::{Draft, Record, RecordRef};
use crate::ledger::read::lookup;
use crate::ledger::store::{Family, Store, StoreError};
use cairn_proof::chain::DefaultLabels;

/// The ids that shards are storing now. Shared by all shards, because two agents may use one id at the same time.
///
/// The lock is held for one lookup, or for the ids of one commit. Colliding ids are no attack on these maps, which only
/// contain the ids of events that are being committed.
#[derive(Clone, Default)]
pub struct IdsInFlight {
    ids: Arc<Mutex<HashSet<Uuid, RandomState>>>,
}

impl IdsInFlight {
    /// Claims an id; returns false if another shard has claimed it.
    fn claim(&self, id: Uuid) -> bool {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner).insert(id)
    }

    /// Claims ids, and removes those from `ids` that another shard has claimed.
    fn claim_all(&self, ids: &mut Vec<Uuid>) {
        let mut held = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        ids.retain(|id| held.insert(*id));
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

/// The client ids of a shard's current commit.
pub struct Dedup {
    in_flight: IdsInFlight,
    shards: u16,
    /// The labels that the server adds, which do not make an event a different one.
    labels: Arc<DefaultLabels>,
    /// The ids that this commit has claimed, with the index of their record.
    record_indexes: HashMap<Uuid, usize, RandomState>,
    /// Ids that this commit has claimed and that have no row in `client_ids`.
    claimed_without_row: HashSet<Uuid, RandomState>,
    /// The stored event that was found last, so that many copies of one event are looked up once.
    last_found: Option<(Uuid, Record)>,
}

impl Dedup {
    /// The deduplication of one of `shards` shards.
    pub fn new(in_flight: IdsInFlight, shards: u16, labels: Arc<DefaultLabels>) -> Dedup {
        Dedup {
            in_flight,
            shards,
            labels,
            record_indexes: HashMap::default(),
            claimed_without_row: HashSet::default(),
            last_found: None,
        }
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
    pub fn prefetch<'d>(&mut self, store: &Store, drafts: impl Iterator<Item = &'d Draft>) -> Result<(), StoreError> {
        let mut ids: Vec<Uuid> = drafts.filter_map(|draft| draft.client_id).collect();
        if ids.len() < 2 {
            return Ok(());
        }
        ids.sort_unstable();
        ids.dedup();
        // Claimed before the lookup: a shard that has stored one of these ids in between has released it by now.
        self.in_flight.claim_all(&mut ids);
        let rows = store.get_many(Family::ClientIds, &ids)?;
        let mut has_row = rows.iter().map(|row| !matches!(row, Ok(None)));
        ids.retain(|id| {
            let may_be_stored = has_row.next().unwrap_or(true);
            if !may_be_stored {
                self.claimed_without_row.insert(*id);
            }
            may_be_stored
        });
        self.in_flight.release(ids.into_iter());
        Ok(())
    }

    /// Looks up the id of an event. A new id remains claimed for record `index` until [`Dedup::release`], or until
    /// [`Dedup::forget`] if the event does not become part of the commit.
    ///
    /// # Errors
    /// When the database cannot be read. The id is not claimed then.
    pub fn check(&mut self, store: &Store, draft: &Draft, index: usize) -> Result<IdLookup, StoreError> {
        let Some(id) = draft.client_id else { return Ok(IdLookup::New) };
        if let Some(&index) = self.record_indexes.get(&id) {
            return Ok(IdLookup::InThisCommit(index));
        }
        if self.last_found.as_ref().is_none_or(|(found, _)| *found != id) {
            let has_no_row = self.claimed_without_row.remove(&id);
            // Claimed before the lookup, as in `prefetch`.
            if !has_no_row && !self.in_flight.claim(id) {
                return Ok(IdLookup::InFlightOnOtherShard);
            }
            self.record_indexes.insert(id, index);
            let found = if has_no_row {
                lookup::find_by_server_id(store, id, self.shards)
            } else {
                lookup::find(store, id, self.shards)
            };
            match found {
                Ok(None) => return Ok(IdLookup::New),
                Ok(Some((_, record))) => self.last_found = Some((id, record)),
                Err(error) => {
                    self.forget(id);
                    return Err(error);
                }
            }
            self.forget(id);
        }
        match &self.last_found {
            Some((_, record)) if self.is_same(draft, record.as_ref()) => Ok(IdLookup::SameEvent(record.clone())),
            _ => Ok(IdLookup::OtherEvent),
        }
    }

    /// Releases the id of an event that does not become part of the commit.
    pub fn forget(&mut self, id: Uuid) {
        self.record_indexes.remove(&id);
        self.in_flight.release([id].into_iter());
    }

    /// Releases all ids after the commit has succeeded or failed.
    pub fn release(&mut self) {
        self.last_found = None;
        if !self.record_indexes.is_empty() || !self.claimed_without_row.is_empty() {
            self.in_flight
                .release(self.record_indexes.drain().map(|(id, _)| id).chain(self.claimed_without_row.drain()));
        }
    }
}
