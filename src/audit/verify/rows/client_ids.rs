//! Checks `client_ids`: every event that came with an id has a row that leads from the id to the event.
//!
//! An event does not show whether its id came with it. An id that leads to its event through `times` was assigned by the
//! server, and needs no row; if a client sent the same id, the row does no harm.

use uuid::Uuid;

use super::super::report::Report;
use super::facts::{Digests, ReceiptTimes, facts};
use super::fault::{FaultKind, Repair, RowFault};
use super::times::IdTime;
use crate::ledger::format::keys::{Location, ShardId};
use crate::ledger::format::record::RecordRef;
use crate::ledger::read::events::Events;
use crate::ledger::read::lookup;
use crate::ledger::store::{Family, Store, StoreError};
use cairn_proof::chain::walk::FieldValues;

/// The sum of the digests of all rows; `None` if a row cannot be decoded.
///
/// # Errors
/// When the database cannot be read.
pub fn stored_sum(store: &Store, digests: &Digests) -> Result<Option<u128>, StoreError> {
    let mut rows = store.scan(Family::ClientIds)?;
    rows.seek_first();
    let mut sum = 0u128;
    while let Some((key, value)) = rows.row()? {
        let (Ok(id), Some(location)) = (Uuid::from_slice(key), Location::decode(value)) else { return Ok(None) };
        sum = sum.wrapping_add(digests.id(id, location));
        rows.next();
    }
    Ok(Some(sum))
}

/// Reports the rows that differ, of a ledger of `shards` shards: compares each row with its event, and looks up the row
/// of each event.
///
/// # Errors
/// When the database cannot be read.
pub fn report_faults(store: &Store, shards: u16, report: &mut Report<'_>) -> Result<(), StoreError> {
    report_missing(store, shards, report)?;
    let mut rows = store.scan(Family::ClientIds)?;
    let (mut events, mut times) = (Events::new(store)?, ReceiptTimes::default());
    rows.seek_first();
    while let Some((key, value)) = rows.row()? {
        let location = Location::decode(value);
        let record = match location {
            Some(location) => events.at(location)?.and_then(|bytes| RecordRef::parse(bytes).ok()),
            None => None,
        };
        let found = record.and_then(|record| facts(&FieldValues::of(record.canonical()), &mut times).id());
        // A row that has been reported as wrong is not reported again.
        if found.is_none_or(|id| id.as_bytes() != key) {
            let is_last_trace = match location {
                Some(location) => {
                    lookup::end_if_known(store, location.shard)?.is_none_or(|end| location.position >= end)
                }
                None => false,
            };
            // After the last event there may have been another one.
            let repair = if is_last_trace { Repair::Impossible } else { Repair::Delete };
            report.row(RowFault::new(Family::ClientIds, key, FaultKind::Unexpected, repair));
        }
        rows.next();
    }
    Ok(())
}

fn report_missing(store: &Store, shards: u16, report: &mut Report<'_>) -> Result<(), StoreError> {
    let mut events = Events::scan(store, 1)?;
    let mut times = ReceiptTimes::default();
    let mut id_times = vec![IdTime::START; usize::from(shards)];
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
            if let Some(id) = facts.id().filter(|id| !id_time.leads_to(location.position, *id)) {
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
