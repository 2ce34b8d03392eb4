//! Checks `index`: it has exactly the terms of the events before its cursors.
//!
//! Which events share a row depends on when the index read them, so postings are compared, not rows.

use serde_json::{Value, json};

use super::super::dropped::Dropped;
use super::super::erasures::ErasureCheck;
use super::super::report::{Observer, Report};
use super::facts::Digests;
use super::fault::{FaultKind, Repair, RowFault};
use crate::ledger::format::floor::Floor;
use crate::ledger::format::keys::{Location, Position, ShardId, cursor_key};
use crate::ledger::format::record::RecordRef;
use crate::ledger::format::terms::{self, Term};
use crate::ledger::read::events::Events;
use crate::ledger::read::index::{IndexRow, Postings, row_key};
use crate::ledger::read::lookup;
use crate::ledger::store::{Family, Rows, Store, StoreError};
use cairn_proof::chain::walk::{Break, FieldValues};

/// The most rows that a verdict names.
const MAX_ROWS: usize = 1000;
/// The number of events between two calls of the progress callback.
const PROGRESS_EVENTS: u64 = 1024;

/// A snapshot of the index.
pub struct IndexSnapshot<'s> {
    store: &'s Store,
    rows: Rows<'s>,
    /// The cursor of each shard; the start for a shard without one.
    cursors: Vec<Position>,
    dropped: Dropped,
}

impl<'s> IndexSnapshot<'s> {
    /// Takes a snapshot of the index of a ledger of `shards` shards.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn take(store: &'s Store, shards: u16) -> Result<IndexSnapshot<'s>, StoreError> {
        let mut rows = store.scan(Family::Index)?;
        let mut cursors = Vec::new();
        for shard in (0..shards).map(ShardId) {
            let key = cursor_key(shard);
            rows.seek(&key);
            let row = rows.row()?.filter(|(found, _)| *found == key);
            cursors.push(match row.and_then(|(key, value)| IndexRow::decode(key, value)) {
                Some(IndexRow::Cursor(_, next)) => next,
                _ => Position(0),
            });
        }
        Ok(IndexSnapshot { store, rows, cursors, dropped: Dropped::read(store)? })
    }

    /// The position of the first event of each shard that is not in the index.
    pub fn cursors(&self) -> &[Position] {
        &self.cursors
    }

    /// The sum of the digests of all postings; `None` if a row is malformed.
    ///
    /// # Errors
    /// When the database cannot be read, or `is_cancelled` returned true.
    pub fn stored_sum(
        &mut self,
        digests: &Digests,
        is_cancelled: impl Fn() -> bool,
    ) -> Result<Option<u128>, StoreError> {
        let mut sum = 0u128;
        let mut order = RowOrder::default();
        if self.is_ahead()? {
            return Ok(None);
        }
        self.rows.seek_first();
        while let Some((key, value)) = self.rows.row()? {
            match IndexRow::decode(key, value) {
                Some(IndexRow::Cursor(shard, next)) if self.cursors.get(usize::from(shard.0)) == Some(&next) => {}
                Some(IndexRow::Postings(term, first, offsets)) if order.follows(term, first, offsets) => {
                    sum = sum.wrapping_add(digests.row(term, IndexRow::locations(first, offsets)));
                }
                _ => return Ok(None),
            }
            if is_cancelled() {
                return Err(StoreError::Cancelled);
            }
            self.rows.next();
        }
        Ok(Some(sum))
    }

    /// Whether a cursor is after the last event of its shard.
    fn is_ahead(&self) -> Result<bool, StoreError> {
        for (shard, &cursor) in (0..).map(ShardId).zip(&self.cursors) {
            if lookup::end_if_known(self.store, shard)?.is_some_and(|end| cursor > end) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Reports the rows that differ from the events: compares each posting with its event, and looks up each term of
    /// each event.
    ///
    /// # Errors
    /// When the database cannot be read, or `is_cancelled` returned true.
    pub fn report_faults(
        &mut self,
        report: &mut Report<'_>,
        is_cancelled: impl Fn() -> bool,
    ) -> Result<(), StoreError> {
        let fault = |key: &[u8], kind| RowFault::new(Family::Index, key, kind, Repair::RebuildIndex);
        let (mut events, mut order) = (Events::new(self.store)?, RowOrder::default());
        let mut beyond = vec![false; self.cursors.len()];
        self.rows.seek_first();
        while let Some((key, value)) = self.rows.row()? {
            let kind = match IndexRow::decode(key, value) {
                Some(IndexRow::Cursor(shard, _)) if usize::from(shard.0) < self.cursors.len() => None,
                Some(IndexRow::Cursor(..)) => Some(FaultKind::Unexpected),
                Some(IndexRow::Postings(term, first, offsets)) => {
                    let is_right = order.follows(term, first, offsets);
                    let kind = posted_wrongly(&mut events, term, first, offsets, &self.dropped)?;
                    let is_beyond = |at: Location| self.cursors.get(usize::from(first.shard.0)) <= Some(&at.position);
                    if kind.is_none() && IndexRow::locations(first, offsets).any(is_beyond) {
                        beyond.get_mut(usize::from(first.shard.0)).into_iter().for_each(|beyond| *beyond = true);
                    }
                    kind.or((!is_right).then_some(FaultKind::Wrong))
                }
                None if key.len() == 26 || key.len() == 8 => Some(FaultKind::Wrong),
                None => Some(FaultKind::Unexpected),
            };
            if let Some(kind) = kind {
                report.row(fault(key, kind));
            }
            if is_cancelled() {
                return Err(StoreError::Cancelled);
            }
            self.rows.next();
        }
        for (shard, cursor) in (0..).map(ShardId).zip(self.cursors.clone()) {
            let is_ahead = lookup::end_if_known(self.store, shard)?.is_some_and(|end| cursor > end);
            if beyond[usize::from(shard.0)] || is_ahead {
                report.row(fault(&cursor_key(shard), FaultKind::Wrong));
            }
        }
        self.report_missing(report, is_cancelled)
    }

    fn report_missing(&self, report: &mut Report<'_>, is_cancelled: impl Fn() -> bool) -> Result<(), StoreError> {
        let digests = Digests::new(&self.cursors, &self.dropped.all_first(self.cursors.len()));
        let mut events = Events::scan(self.store, 1)?;
        events.seek_first();
        while let Some(event) = events.event()? {
            let found = event.location.zip(RecordRef::parse(event.bytes).ok());
            if let Some((location, record)) = found.filter(|(location, _)| digests.is_indexed(*location)) {
                for term in terms::of_event(record.canonical()) {
                    let found = Postings::new(self.store, term, location.shard)?.at_or_after(location.position)?;
                    if found != Some(location.position) {
                        let key = row_key(term, location.shard, location.position);
                        report.row(RowFault::new(Family::Index, &key, FaultKind::Missing, Repair::RebuildIndex));
                    }
                }
            }
            if is_cancelled() {
                return Err(StoreError::Cancelled);
            }
            events.next();
        }
        Ok(())
    }
}

/// The result of the verification of the index.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IndexVerdict {
    /// The number of events that the index has.
    pub events: u64,
    /// The number of rows that differ from the events.
    pub wrong_rows: u64,
    /// The first of them.
    pub rows: Vec<RowFault>,
}

impl IndexVerdict {
    /// The verdict in the form of `GET /v1/verify`.
    pub fn to_json(&self) -> Value {
        let rows: Vec<Value> = self.rows.iter().map(RowFault::to_json).collect();
        let (events, wrong_rows) = (self.events, self.wrong_rows);
        json!({"valid": wrong_rows == 0, "events_indexed": events, "wrong_rows": wrong_rows, "rows": rows})
    }
}

/// Keeps the first rows that differ.
struct FirstRows(Vec<RowFault>);

impl Observer for FirstRows {
    fn progress(&mut self, _: u64) {}

    fn broken(&mut self, _: &str, _: &Break) {}

    fn row(&mut self, fault: &RowFault) {
        if self.0.len() < MAX_ROWS {
            self.0.push(fault.clone());
        }
    }
}

/// Verifies the index alone, of a ledger of `shards` shards, as it is when this is called. `progress` is called with the
/// number of events read since the last call, and returns whether to continue.
///
/// # Errors
/// When the database cannot be read, or `progress` returned false.
pub fn check(store: &Store, shards: u16, progress: impl Fn(u64) -> bool) -> Result<IndexVerdict, StoreError> {
    let (erasures, floor) = (ErasureCheck::read(store)?, Floor::read(store)?);
    let mut index = IndexSnapshot::take(store, shards)?;
    let digests = Digests::new(index.cursors(), &index.dropped.all_first(shards.into()));
    let (mut sum, mut events_read) = (0u128, 0u64);
    for (shard, &end) in (0..).map(ShardId).zip(index.cursors()) {
        let mut events = Events::scan(store, 1)?;
        events.seek(Location { shard, position: Position(0) });
        while let Some(event) = events.event()?.filter(|event| event.is_before(Location { shard, position: end })) {
            if let Some((location, Ok(record))) = event.location.map(|at| (at, RecordRef::parse(event.bytes))) {
                sum = sum.wrapping_add(digests.postings(location, &FieldValues::of(record.canonical())));
            }
            events_read += 1;
            if events_read.is_multiple_of(PROGRESS_EVENTS) && !progress(PROGRESS_EVENTS) {
                return Err(StoreError::Cancelled);
            }
            events.next();
        }
    }
    let mut first = FirstRows(Vec::new());
    let mut report = Report::new(&mut first);
    let is_cancelled = || !progress(0);
    if index.stored_sum(&digests, is_cancelled)? != Some(sum) {
        if Floor::read(store)? != floor {
            return Err(store.failed("events are being dropped: verify the index again"));
        }
        if ErasureCheck::read(store)?.has_changed_since(&erasures) {
            return Err(store.failed("events are being erased: verify the index when that is completed"));
        }
        index.report_faults(&mut report, is_cancelled)?;
    }
    let wrong_rows = report.wrong_rows();
    Ok(IndexVerdict { events: events_read, wrong_rows, rows: first.0 })
}

/// What is wrong with a row of postings; `None` if each of its events has the term.
fn posted_wrongly(
    events: &mut Events<'_>,
    term: Term,
    first: Location,
    offsets: &[[u8; 2]],
    dropped: &Dropped,
) -> Result<Option<FaultKind>, StoreError> {
    let (mut right, mut count) = (0, 0);
    for location in IndexRow::locations(first, offsets).filter(|location| !dropped.has(*location)) {
        count += 1;
        let record = events.at(location)?.and_then(|bytes| RecordRef::parse(bytes).ok());
        right += usize::from(record.is_some_and(|record| terms::of_event(record.canonical()).contains(&term)));
    }
    Ok(match right {
        0 if count > 0 => Some(FaultKind::Unexpected),
        right if right < count => Some(FaultKind::Wrong),
        _ => None,
    })
}

/// Readers require that the rows of a term are in order and do not overlap.
#[derive(Default)]
struct RowOrder {
    last: Option<(Term, Location)>,
}

impl RowOrder {
    /// Whether a row begins after the last event of the row before it.
    fn follows(&mut self, term: Term, first: Location, offsets: &[[u8; 2]]) -> bool {
        let last = IndexRow::locations(first, offsets).next_back().map(|last| (term, last));
        let follows = self.last.is_none_or(|(before, end)| before != term || end.shard != first.shard || end < first);
        self.last = last;
        follows
    }
}
