//! Checks `client_ids`: every event before the cursor of its shard that came with an id has a row that leads from the id to
//! the event, and no later event has one.
//!
//! An event does not show whether its id came with it. An id that leads to its event through `times` was assigned by the
//! server, and needs no row; if a client sent the same id, the row does no harm.

use uuid::Uuid;

use super::super::dropped::Dropped;
use super::super::report::Report;
use super::facts::{Digests, ReceiptTimes, facts};
use super::fault::{FaultKind, Repair, RowFault};
use super::times::IdTime;
use crate::ledger::format::id_cursor;
use crate::ledger::format::keys::{CURSOR, Location, Position, ShardId, cursor_key};
use crate::ledger::format::meta::Meta;
use crate::ledger::format::record::RecordRef;
use crate::ledger::read::events::Events;
use crate::ledger::read::lookup;
use crate::ledger::store::{Family, Rows, Store, StoreError};
use cairn_proof::chain::walk::FieldValues;

/// The rows at one moment. Events that are committed later have none in it.
pub struct IdsSnapshot<'s> {
    store: &'s Store,
    rows: Rows<'s>,
    /// The cursors of the shards; `None` for one that is damaged.
    cursors: Vec<Option<Position>>,
    /// Whether the ledger has format 3, in which every event has its row and there are no cursors.
    has_ids_in_commits: bool,
    dropped: Dropped,
}

impl<'s> IdsSnapshot<'s> {
    /// Takes the rows of a ledger of `shards` shards as they are now.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn take(store: &'s Store, shards: u16) -> Result<IdsSnapshot<'s>, StoreError> {
        let has_ids_in_commits = Meta::read(store).ok().flatten().is_some_and(|meta| meta.has_ids_in_commits());
        let mut rows = store.scan(Family::ClientIds)?;
        let mut cursors = Vec::new();
        for shard in (0..shards).map(ShardId) {
            let key = cursor_key(shard);
            rows.seek(&key);
            cursors.push(match rows.row()?.filter(|(found, _)| *found == key) {
                Some((_, value)) => id_cursor::decode(shard, value),
                None if has_ids_in_commits => Some(Position(u64::MAX)),
                None => Some(Position(0)),
            });
        }
        Ok(IdsSnapshot { store, rows, cursors, has_ids_in_commits, dropped: Dropped::read(store)? })
    }

    /// The position of the first event of each shard that has no row yet.
    pub fn cursors(&self) -> Vec<Position> {
        self.cursors.iter().map(|cursor| cursor.unwrap_or(Position(0))).collect()
    }

    /// The sum of the digests of all rows except for cursors; `None` if a row cannot be decoded.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn stored_sum(mut self, digests: &Digests) -> Result<Option<u128>, StoreError> {
        for (shard, cursor) in (0..).map(ShardId).zip(&self.cursors) {
            if !self.is_cursor_possible(*cursor, lookup::end_if_known(self.store, shard)?) {
                return Ok(None);
            }
        }
        let (mut sum, mut cursors) = (0u128, 0);
        self.rows.seek_first();
        while let Some((key, value)) = self.rows.row()? {
            if key.starts_with(CURSOR) && key.len() == cursor_key(ShardId(0)).len() {
                cursors += 1;
            } else {
                let (Ok(id), Some(location)) = (Uuid::from_slice(key), Location::decode(value)) else {
                    return Ok(None);
                };
                if digests.is_kept(location) {
                    sum = sum.wrapping_add(digests.id(id, location));
                }
            }
            self.rows.next();
        }
        let expected = if self.has_ids_in_commits || (cursors == 0 && sum == 0) { 0 } else { self.cursors.len() };
        Ok((cursors == expected).then_some(sum))
    }

    /// Whether the cursor of a shard that ends at `end` is whole and not after the last event.
    fn is_cursor_possible(&self, cursor: Option<Position>, end: Option<Position>) -> bool {
        cursor.is_some_and(|cursor| self.has_ids_in_commits || end.is_some_and(|end| cursor <= end))
    }

    /// Reports the rows that differ: compares each row with its event, and looks up the row of each event.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn report_faults(mut self, report: &mut Report<'_>) -> Result<(), StoreError> {
        let store = self.store;
        let is_beyond = self.report_unexpected(report)?;
        let has_rows = !self.has_ids_in_commits && {
            self.rows.seek_first();
            self.rows.row()?.is_some()
        };
        for (shard, (cursor, is_beyond)) in (0..).map(ShardId).zip(self.cursors.iter().zip(is_beyond)) {
            let end = lookup::end_if_known(store, shard)?;
            let (key, expected) = id_cursor::row(shard, end.unwrap_or(Position(0)));
            let is_stored = store.get(Family::ClientIds, &key)?.is_some();
            if cursor.is_some() && !self.is_cursor_possible(*cursor, end) {
                // After the last event there may have been others.
                report.row(RowFault::new(Family::ClientIds, &key, FaultKind::Wrong, Repair::Impossible));
            } else if cursor.is_none() || is_beyond || has_rows && !is_stored {
                report.row(RowFault::expected(Family::ClientIds, &key, is_stored, &expected));
            }
        }
        report_missing(store, &self.cursors(), &self.dropped, report)
    }

    /// Reports the rows that lead to no event with their id. Returns for each shard whether a row leads to an event behind
    /// its cursor.
    fn report_unexpected(&mut self, report: &mut Report<'_>) -> Result<Vec<bool>, StoreError> {
        let (mut events, mut times) = (Events::new(self.store)?, ReceiptTimes::default());
        let mut is_beyond = vec![false; self.cursors.len()];
        let shards = self.cursors.len() as u16;
        let is_cursor = |key: &[u8]| (0..shards).any(|shard| key == cursor_key(ShardId(shard)));
        self.rows.seek_first();
        while let Some((key, value)) = self.rows.row()? {
            if !self.has_ids_in_commits && key.len() < 16 && is_cursor(key) {
                self.rows.next();
                continue;
            }
            let location = Location::decode(value);
            if location.is_some_and(|location| self.dropped.has(location)) {
                self.rows.next();
                continue;
            }
            let record = match location {
                Some(location) => events.at(location)?.and_then(|bytes| RecordRef::parse(bytes).ok()),
                None => None,
            };
            let found = record.and_then(|record| facts(&FieldValues::of(record.canonical()), &mut times).id());
            if found.is_some_and(|id| id.as_bytes() == key) {
                // A shard that does not exist has no cursor; its events break their chains.
                let shard = location.map_or(usize::MAX, |location| usize::from(location.shard.0));
                let cursor = self.cursors.get(shard).copied().flatten();
                if location.zip(cursor).is_some_and(|(location, cursor)| location.position >= cursor) {
                    is_beyond[shard] = true;
                }
            } else {
                report.row(RowFault::new(Family::ClientIds, key, FaultKind::Unexpected, repair(self.store, location)?));
            }
            self.rows.next();
        }
        Ok(is_beyond)
    }
}

/// How a row is repaired that leads to no event with its id.
fn repair(store: &Store, location: Option<Location>) -> Result<Repair, StoreError> {
    let is_last_trace = match location {
        Some(location) => lookup::end_if_known(store, location.shard)?.is_none_or(|end| location.position >= end),
        None => false,
    };
    // After the last event there may have been another one.
    Ok(if is_last_trace { Repair::Impossible } else { Repair::Delete })
}

fn report_missing(
    store: &Store,
    cursors: &[Position],
    dropped: &Dropped,
    report: &mut Report<'_>,
) -> Result<(), StoreError> {
    let mut events = Events::scan(store, 1)?;
    let mut times = ReceiptTimes::default();
    let shards = (0..cursors.len() as u16).map(ShardId);
    let id_times: Result<Vec<IdTime>, _> =
        shards.map(|shard| IdTime::before(store, shard, dropped.first(shard))).collect();
    let mut id_times = id_times?;
    events.seek_first();
    while let Some(event) = events.event()? {
        let found = event.location.zip(RecordRef::parse(event.bytes).ok());
        if let Some((location, record)) = found
            && let Some(id_time) = id_times.get_mut(usize::from(location.shard.0))
        {
            let facts = facts(&FieldValues::of(record.canonical()), &mut times);
            if let Some(ms) = facts.received_ms() {
                *id_time = id_time.at(location.position, ms, |next| has_row(store, location.shard, next))?;
            }
            let is_before = location.position < cursors[usize::from(location.shard.0)];
            if let Some(id) = facts.id().filter(|id| is_before && !id_time.leads_to(location.position, *id)) {
                let stored = store.get(Family::ClientIds, id.as_bytes())?;
                if stored.as_deref() != Some(&location.encode()[..]) {
                    let fault =
                        RowFault::expected(Family::ClientIds, id.as_bytes(), stored.is_some(), &location.encode());
                    report.row(fault);
                }
            }
        }
        events.next();
    }
    Ok(())
}

fn has_row(store: &Store, shard: ShardId, id_time: IdTime) -> Result<bool, StoreError> {
    let (key, first) = id_time.row(shard);
    Ok(store.get(Family::Times, &key)?.is_some_and(|stored| *stored == first))
}
