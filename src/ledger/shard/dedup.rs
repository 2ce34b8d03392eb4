//! Ids that clients sent: a second event with an id that is stored, or about to be, is not stored again.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use foldhash::fast::RandomState;
use uuid::Uuid;

use crate::ledger::format::record::{Draft, Record, RecordRef};
use crate::ledger::read::lookup;
use crate::ledger::store::{Family, Store, StoreError};
use cairn_proof::chain::DefaultLabels;

/// The ids that shards are storing right now. Shared by all shards: two agents may claim one id at once.
///
/// Each lock is held for one look-up, or for the ids of one commit. Nobody gains by ids that collide in these maps: they hold what is being committed.
#[derive(Clone, Default)]
pub struct IdsInFlight {
    ids: Arc<Mutex<HashSet<Uuid, RandomState>>>,
}

impl IdsInFlight {
    /// Claims an id; false if another shard has it.
    fn claim(&self, id: Uuid) -> bool {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner).insert(id)
    }

    /// Claims ids, and keeps those that no other shard has.
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

/// What is known of the id of an event.
pub enum IdLookup {
    /// Nothing: the event is new.
    New,
    /// It belongs to this stored event, which is the same.
    SameEvent(Record),
    /// It belongs to a stored event that is another one.
    OtherEvent,
    /// It belongs to the event of this commit that stands here, as an index into its records.
    InThisCommit(usize),
    /// Another shard is storing an event with it.
    InFlightOnOtherShard,
}

/// The ids of one shard's commit.
pub struct Dedup {
    in_flight: IdsInFlight,
    shards: u16,
    /// What the server puts on events, which makes no other events of them.
    labels: Arc<DefaultLabels>,
    /// The ids of this commit, and which of its records they belong to.
    mine: HashMap<Uuid, usize, RandomState>,
    /// Ids of the commit that are claimed, and have no row.
    without_row: HashSet<Uuid, RandomState>,
    /// The last stored event that was found in this commit: many copies of one event are looked up once.
    found: Option<(Uuid, Record)>,
}

impl Dedup {
    /// For one of `shards` shards.
    pub fn new(in_flight: IdsInFlight, shards: u16, labels: Arc<DefaultLabels>) -> Dedup {
        Dedup { in_flight, shards, labels, mine: HashMap::default(), without_row: HashSet::default(), found: None }
    }

    /// Whether an event with the id of a stored one is that one.
    pub fn is_same(&self, draft: &Draft, stored: RecordRef<'_>) -> bool {
        draft.is_same_event(stored, &self.labels)
    }

    /// Looks up the ids of events that are about to be checked, in one go. What cannot be read is left to [`Ids::check`].
    ///
    /// # Errors
    /// When the database has no such family.
    pub fn prepare<'d>(&mut self, store: &Store, drafts: impl Iterator<Item = &'d Draft>) -> Result<(), StoreError> {
        let mut ids: Vec<Uuid> = drafts.filter_map(|draft| draft.client_id).collect();
        if ids.len() < 2 {
            return Ok(());
        }
        ids.sort_unstable();
        ids.dedup();
        // Claimed first, looked up then: another shard that stored one in between has let it go by now.
        self.in_flight.claim_all(&mut ids);
        let rows = store.get_many(Family::ClientIds, &ids)?;
        let mut has_row = rows.iter().map(|row| !matches!(row, Ok(None)));
        ids.retain(|id| {
            let is_left = has_row.next().unwrap_or(true);
            if !is_left {
                self.without_row.insert(*id);
            }
            is_left
        });
        self.in_flight.release(ids.into_iter());
        Ok(())
    }

    /// Looks the id of an event up. If it is new, it is held until [`Ids::release`], as that of record `index`, or
    /// until [`Ids::forget`] if there will be no such record.
    ///
    /// # Errors
    /// When the database cannot be read. The id is not held then.
    pub fn check(&mut self, store: &Store, draft: &Draft, index: usize) -> Result<IdLookup, StoreError> {
        let Some(id) = draft.client_id else { return Ok(IdLookup::New) };
        if let Some(&index) = self.mine.get(&id) {
            return Ok(IdLookup::InThisCommit(index));
        }
        if self.found.as_ref().is_none_or(|(found, _)| *found != id) {
            let has_no_row = self.without_row.remove(&id);
            // Claimed first, looked up then, here as well.
            if !has_no_row && !self.in_flight.claim(id) {
                return Ok(IdLookup::InFlightOnOtherShard);
            }
            self.mine.insert(id, index);
            let found = if has_no_row {
                lookup::find_given(store, id, self.shards)
            } else {
                lookup::find(store, id, self.shards)
            };
            match found {
                Ok(None) => return Ok(IdLookup::New),
                Ok(Some((_, record))) => self.found = Some((id, record)),
                Err(error) => {
                    self.forget(id);
                    return Err(error);
                }
            }
            self.forget(id);
        }
        match &self.found {
            Some((_, record)) if self.is_same(draft, record.as_ref()) => Ok(IdLookup::SameEvent(record.clone())),
            _ => Ok(IdLookup::OtherEvent),
        }
    }

    /// The event with this id does not come into the commit.
    pub fn forget(&mut self, id: Uuid) {
        self.mine.remove(&id);
        self.in_flight.release([id].into_iter());
    }

    /// The commit is over, one way or the other.
    pub fn release(&mut self) {
        self.found = None;
        if !self.mine.is_empty() || !self.without_row.is_empty() {
            self.in_flight.release(self.mine.drain().map(|(id, _)| id).chain(self.without_row.drain()));
        }
    }
}
