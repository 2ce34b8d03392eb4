//! Finds events by time of receipt.
//!
//! Times of receipt do not decrease with positions, except where the clock was set back. So each stretch between two
//! such steps is searched on its own.

use std::ops::Range;

use super::lookup;
use crate::ledger::format::clock_step::ClockStep;
use crate::ledger::format::keys::{Location, Position, ShardId, time_key};
use crate::ledger::store::{Family, Store, StoreError};

/// The steps of the clock that a shard has found, the oldest first.
///
/// # Errors
/// When the database cannot be read, or a row is damaged.
pub fn clock_steps(store: &Store, shard: ShardId) -> Result<Vec<ClockStep>, StoreError> {
    let prefix = ClockStep::prefix(shard);
    let mut steps = Vec::new();
    let mut rows = store.rows(Family::Meta)?;
    rows.seek(&prefix);
    while let Some((key, value)) = rows.row()?.filter(|(key, _)| key.starts_with(&prefix)) {
        let step = ClockStep::decode(shard, key, value);
        steps.push(step.ok_or_else(|| store.damaged(format!("a clock step of shard {} cannot be read", shard.0)))?);
        rows.next();
    }
    Ok(steps)
}

/// The positions before `end`, and from the floor on, of the events of a shard that were received at `since_ms` or later and before `until_ms`,
/// as ranges in ascending order. None of them is empty.
///
/// # Errors
/// When the database cannot be read.
pub fn ranges(
    store: &Store,
    shard: ShardId,
    end: Position,
    since_ms: Option<u64>,
    until_ms: Option<u64>,
) -> Result<Vec<Range<Position>>, StoreError> {
    let floor = Position(store.expired().first_kept(shard.0));
    if since_ms.is_none() && until_ms.is_none() {
        return Ok(if end > floor { vec![floor..end] } else { Vec::new() });
    }
    let steps = clock_steps(store, shard)?;
    // After a step that retention has dropped, id times are ahead of the times of receipt.
    let is_cut = floor > Position(0);
    let mut starts = vec![floor];
    let steps = steps.iter().filter(|step| step.decreases()).map(|step| step.position);
    starts.extend(steps.filter(|position| *position > floor && *position < end));
    let mut ranges = Vec::new();
    for (index, &start) in starts.iter().enumerate() {
        let stop = starts.get(index + 1).map_or(end, |&next| next.min(end));
        let first = |ms: u64| match starts.len() {
            1 if !is_cut => Ok(first_in_times(store, shard, ms)?.unwrap_or(end).clamp(floor, end.max(floor))),
            _ => first_in_stretch(store, shard, start..stop, ms),
        };
        let low = since_ms.map_or(Ok(start), first)?;
        let high = until_ms.map_or(Ok(stop), first)?;
        if low < high {
            ranges.push(low..high);
        }
    }
    Ok(ranges)
}

/// The position of the first event that a shard received at or after `ms`, if its clock was never set back; `None` if
/// there is none.
fn first_in_times(store: &Store, shard: ShardId, ms: u64) -> Result<Option<Position>, StoreError> {
    let mut rows = store.rows(Family::Times)?;
    rows.seek(&time_key(shard, ms));
    let found = rows.row()?.filter(|(key, _)| key.starts_with(&shard.0.to_be_bytes()));
    Ok(found.and_then(|(_, value)| Position::decode(value)))
}

/// The position of the first event of a stretch, in which times of receipt do not decrease, received at or after `ms`;
/// the end of the stretch if there is none. `times` does not help after a step: its times never decrease.
fn first_in_stretch(store: &Store, shard: ShardId, stretch: Range<Position>, ms: u64) -> Result<Position, StoreError> {
    let (mut low, mut high) = (stretch.start.0, stretch.end.0);
    while low < high {
        let middle = low + (high - low) / 2;
        if received_ms(store, shard, middle..stretch.end.0)?.is_some_and(|found| found < ms) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(Position(low))
}

/// The time of receipt of the first event of the range that can be read; `None` if there is none.
fn received_ms(store: &Store, shard: ShardId, range: Range<u64>) -> Result<Option<u64>, StoreError> {
    for position in range.map(Position) {
        let record = match lookup::record(store, Location { shard, position }) {
            Ok(record) => record,
            Err(StoreError::Damaged { .. }) => None,
            Err(error) => return Err(error),
        };
        if let Some(ms) = record.and_then(|record| record.as_ref().received_ms()) {
            return Ok(Some(ms));
        }
    }
    Ok(None)
}
