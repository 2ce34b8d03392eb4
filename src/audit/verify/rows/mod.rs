//! Checks every row that follows from the events, and every other row as far as possible.
//!
//! | file | family | |
//! |---|---|---|
//! | [`super::chains`] | `events`, `agents` | recomputed from the events, and compared row by row |
//! | [`chain`] | `chain` | compared by a sum of digests; row by row if the sum differs |
//! | [`client_ids`], [`index`] | `client_ids`, `index` | the same |
//! | [`times`] | `times`, steps of the clock in `meta` | merged with the events, which are in the same order |
//! | [`log`] | `log`, `tiles` | merged with the leaves, which are in the same order |
//! | [`meta`] | `meta` | numbers of agents are recomputed; other rows have checks |
//!
//! [`facts`] has what the families hold of an event, [`fault`] a row that differs. The family `relay` holds what the
//! relay has done, which no event gives: its rows are not checked.

pub mod chain;
pub mod client_ids;
pub mod facts;
pub mod fault;
pub mod index;
pub mod log;
pub mod meta;
pub mod times;

use client_ids::IdsSnapshot;
use facts::{Digests, Facts};
use index::IndexSnapshot;
use times::ShardTimes;

use super::dropped::Dropped;
use super::report::Report;
use crate::ledger::format::keys::{Location, Position, ShardId};
use crate::ledger::store::{Store, StoreError};

/// Compares the rows of a ledger with its events, which it is given in the order of their positions in each shard.
pub struct RowCheck<'s> {
    store: &'s Store,
    shards: Vec<ShardTimes<'s>>,
    digests: Digests,
    /// The position of the first event of each shard that has no row in `client_ids` yet.
    id_cursors: Vec<Position>,
    /// The sum of the digests of the rows of `client_ids` that the events give.
    ids: u128,
    /// The sum of the digests of their postings.
    postings: u128,
}

/// The rows that are compared by sums, as they are before the events are read: they have the events before their cursors.
pub struct Snapshots<'s> {
    /// `client_ids`
    pub ids: IdsSnapshot<'s>,
    /// `index`
    pub index: IndexSnapshot<'s>,
}

impl<'s> Snapshots<'s> {
    /// Takes the rows of a ledger of `shards` shards as they are now.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn take(store: &'s Store, shards: u16) -> Result<Snapshots<'s>, StoreError> {
        Ok(Snapshots { ids: IdsSnapshot::take(store, shards)?, index: IndexSnapshot::take(store, shards)? })
    }
}

/// The sums of the digests of the stored rows; `None` if a row cannot be decoded.
#[derive(Clone, Copy)]
pub struct StoredSums {
    ids: Option<u128>,
    postings: Option<u128>,
}

impl StoredSums {
    /// Reads all rows that are compared by sums.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn read(snapshots: Snapshots<'_>, digests: &Digests) -> Result<StoredSums, StoreError> {
        let Snapshots { ids, mut index } = snapshots;
        Ok(StoredSums { ids: ids.stored_sum(digests)?, postings: index.stored_sum(digests, || false)? })
    }
}

impl<'s> RowCheck<'s> {
    /// Begins with the first event of each of `shards` shards.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn new(
        store: &'s Store,
        shards: u16,
        digests: Digests,
        ids: &IdsSnapshot<'s>,
        dropped: &Dropped,
    ) -> Result<RowCheck<'s>, StoreError> {
        let times = (0..shards)
            .map(|shard| ShardTimes::new(store, ShardId(shard), shards, dropped))
            .collect::<Result<_, _>>()?;
        Ok(RowCheck { store, shards: times, digests, id_cursors: ids.cursors(), ids: 0, postings: 0 })
    }

    /// Takes the next event.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn take(&mut self, location: Location, facts: &Facts, report: &mut Report<'_>) -> Result<(), StoreError> {
        // An event in a shard that does not exist breaks its chain.
        let Some(times) = self.shards.get_mut(usize::from(location.shard.0)) else { return Ok(()) };
        times.take(location.position, facts.received_ms(), report)?;
        let has_row = location.position < self.id_cursors[usize::from(location.shard.0)];
        if let Some(id) = facts.id().filter(|id| has_row && !times.id_time.leads_to(location.position, *id)) {
            self.ids = self.ids.wrapping_add(self.digests.id(id, location));
        }
        Ok(())
    }

    /// Adds the sum of the digests of the postings of some events.
    pub fn add_postings(&mut self, postings: u128) {
        self.postings = self.postings.wrapping_add(postings);
    }

    /// Reports the faults that are left after the last event. `agents` has the number of agents of each shard.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn finish(self, stored: StoredSums, agents: &[u64], report: &mut Report<'_>) -> Result<(), StoreError> {
        let shards = self.shards.len() as u16;
        for times in self.shards {
            times.finish(report)?;
        }
        if stored.ids != Some(self.ids) {
            IdsSnapshot::take(self.store, shards)?.report_faults(report)?;
        }
        if stored.postings != Some(self.postings) {
            IndexSnapshot::take(self.store, shards)?.report_faults(report, || false)?;
        }
        meta::report_faults(self.store, agents, report)
    }
}
