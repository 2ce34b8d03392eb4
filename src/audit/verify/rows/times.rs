//! Checks `times`, and the steps of the clock in `meta`: both follow from the times of receipt.

use std::iter::Peekable;

use uuid::Uuid;

use super::super::dropped::Dropped;
use super::super::report::Report;
use super::fault::RowFault;
use crate::ledger::format::clock_step::ClockStep;
use crate::ledger::format::keys::{Position, ShardId, server_id, time_key, time_of};
use crate::ledger::store::{Family, Row, Rows, Store, StoreError};

/// More events than a commit has. The id time advances by 1 ms before its counter would overflow within a commit, and
/// only the commit knows how many events it has.
const MORE_THAN_A_COMMIT: u64 = 1 << 20;

/// An id time, and its first position: see [`server_id`].
#[derive(Debug, Clone, Copy)]
pub struct IdTime {
    ms: u64,
    first: Position,
}

impl IdTime {
    /// The id time before the first event.
    pub const START: IdTime = IdTime { ms: 0, first: Position(0) };

    /// The id time of the first event of a shard that retention has kept, whose position is `first`, or of the one before it.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn before(store: &Store, shard: ShardId, first: Position) -> Result<IdTime, StoreError> {
        if first == Position(0) {
            return Ok(IdTime::START);
        }
        let mut rows = store.rows(Family::Times)?;
        rows.seek(&time_key(shard, 0));
        let row = rows.row()?.and_then(|(key, value)| Some((time_of(shard, key)?, Position::decode(value)?)));
        let row = row.filter(|(_, position)| *position <= first);
        Ok(row.map_or(IdTime::START, |(ms, first)| IdTime { ms, first }))
    }

    /// Whether this is the id that the server assigns to the event at `position`, except for its random bits.
    pub fn leads_to(&self, position: Position, id: Uuid) -> bool {
        let offset = position.0.wrapping_sub(self.first.0) % server_id::MAX_EVENTS;
        server_id::parts(id) == Some((self.ms, offset))
    }

    /// The row of the id time in `times`: its key and its value.
    pub fn row(&self, shard: ShardId) -> ([u8; 10], [u8; 8]) {
        (time_key(shard, self.ms), self.first.encode())
    }

    /// The id time of the event at `position`, received at `ms`. `has_row` tells whether `times` has the row of an id
    /// time.
    pub fn at(
        self,
        position: Position,
        ms: u64,
        has_row: impl FnOnce(IdTime) -> Result<bool, StoreError>,
    ) -> Result<IdTime, StoreError> {
        if ms > self.ms {
            return Ok(IdTime { ms, first: position });
        }
        let is_nearly_full = position.0.saturating_sub(self.first.0) + MORE_THAN_A_COMMIT >= server_id::MAX_EVENTS;
        let next = IdTime { ms: self.ms + 1, first: position };
        Ok(if is_nearly_full && has_row(next)? { next } else { self })
    }
}

/// Compares the rows of one shard with its events, which it is given in the order of their positions.
pub struct ShardTimes<'s> {
    shard: ShardId,
    /// The next row of `times` that was not compared.
    rows: Rows<'s>,
    /// What the keys of the next shard begin with; `None` for the last shard.
    end: Option<[u8; 2]>,
    /// The id time of the last event.
    pub id_time: IdTime,
    /// The time of receipt of the last event; `None` if it is not known.
    previous_ms: Option<u64>,
    steps: Peekable<std::vec::IntoIter<ClockStep>>,
}

impl<'s> ShardTimes<'s> {
    /// Begins with the first event of a shard, one of `shards`.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn new(store: &'s Store, shard: ShardId, shards: u16, dropped: &Dropped) -> Result<ShardTimes<'s>, StoreError> {
        let mut rows = store.scan(Family::Times)?;
        match shard.0 {
            0 => rows.seek_first(),
            _ => rows.seek(&shard.0.to_be_bytes()),
        }
        let end = (shard.0 + 1 < shards).then(|| (shard.0 + 1).to_be_bytes());
        // Those before the first event that is kept stay, and cannot be compared.
        let steps = clock_steps(store, shard)?.into_iter().filter(|step| step.position >= dropped.first(shard));
        let steps = steps.collect::<Vec<_>>().into_iter().peekable();
        let id_time = IdTime::before(store, shard, dropped.first(shard))?;
        if id_time.ms > 0 {
            rows.next();
        }
        // The time of the event before is not known if that was dropped.
        let previous_ms = (dropped.first(shard) == Position(0)).then_some(0);
        Ok(ShardTimes { shard, rows, end, id_time, previous_ms, steps })
    }

    /// Takes the next event. Without a time of receipt the event is damaged, and its rows are accepted as they are.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn take(
        &mut self,
        position: Position,
        received_ms: Option<u64>,
        report: &mut Report<'_>,
    ) -> Result<(), StoreError> {
        self.check_step(position, received_ms, report);
        self.previous_ms = received_ms;
        let Some(ms) = received_ms else { return self.accept(position) };
        let before = self.id_time;
        self.id_time = before.at(position, ms, |next| {
            let (key, first) = next.row(self.shard);
            Ok(self.rows.row()?.is_some_and(|row| row == (&key[..], &first[..])))
        })?;
        if self.id_time.ms > before.ms { self.expect(report) } else { Ok(()) }
    }

    /// Compares the rows up to the one of the current id time.
    fn expect(&mut self, report: &mut Report<'_>) -> Result<(), StoreError> {
        let (key, first) = self.id_time.row(self.shard);
        while let Some((stored, value)) = self.row()?.filter(|(stored, _)| *stored <= &key[..]) {
            if *stored == key {
                if *value != first {
                    report.row(RowFault::expected(Family::Times, &key, true, &first));
                }
                self.rows.next();
                return Ok(());
            }
            report.row(RowFault::unexpected(Family::Times, stored));
            self.rows.next();
        }
        report.row(RowFault::expected(Family::Times, &key, false, &first));
        Ok(())
    }

    /// Takes the row of the event at `position`, if it has one, as its id time.
    fn accept(&mut self, position: Position) -> Result<(), StoreError> {
        let Some((key, value)) = self.row()? else { return Ok(()) };
        let ms = time_of(self.shard, key).filter(|ms| *ms > self.id_time.ms);
        if let Some(ms) = ms.filter(|_| *value == position.encode()) {
            self.id_time = IdTime { ms, first: position };
            self.rows.next();
        }
        Ok(())
    }

    /// The next row of the shard that was not compared.
    fn row(&self) -> Result<Option<Row<'_>>, StoreError> {
        Ok(self.rows.row()?.filter(|(key, _)| self.end.is_none_or(|end| *key < &end[..])))
    }

    /// Compares the steps of the clock up to `position`.
    fn check_step(&mut self, position: Position, received_ms: Option<u64>, report: &mut Report<'_>) {
        while let Some(step) = self.steps.next_if(|step| step.position < position) {
            report.row(RowFault::unexpected(Family::Meta, &step.key(self.shard)));
        }
        let stored = self.steps.next_if(|step| step.position == position);
        let (Some(previous_ms), Some(found_ms)) = (self.previous_ms, received_ms) else { return };
        let expected = match stored {
            Some(step) => ClockStep { previous_ms, found_ms, ..step },
            None => ClockStep { position, previous_ms, expected_ms: previous_ms, found_ms },
        };
        let fault = |is_stored| {
            let (key, value) = (expected.key(self.shard), expected.encode(self.shard));
            RowFault::expected(Family::Meta, &key, is_stored, &value)
        };
        match stored {
            Some(step) if position == Position(0) => {
                report.row(RowFault::unexpected(Family::Meta, &step.key(self.shard)));
            }
            Some(step) if step != expected => report.row(fault(true)),
            None if expected.decreases() => report.row(fault(false)),
            _ => {}
        }
    }

    /// Reports the rows that are left after the last event.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn finish(mut self, report: &mut Report<'_>) -> Result<(), StoreError> {
        while let Some((key, _)) = self.row()? {
            report.row(RowFault::unexpected(Family::Times, key));
            self.rows.next();
        }
        for step in self.steps {
            report.row(RowFault::unexpected(Family::Meta, &step.key(self.shard)));
        }
        Ok(())
    }
}

/// The steps of the clock of a shard. Rows that cannot be decoded are left out: see [`super::meta`].
fn clock_steps(store: &Store, shard: ShardId) -> Result<Vec<ClockStep>, StoreError> {
    let prefix = ClockStep::prefix(shard);
    let mut rows = store.rows(Family::Meta)?;
    rows.seek(&prefix);
    let mut steps = Vec::new();
    while let Some((key, value)) = rows.row()?.filter(|(key, _)| key.starts_with(&prefix)) {
        steps.extend(ClockStep::decode(shard, key, value));
        rows.next();
    }
    Ok(steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_time_advances_with_a_full_counter_only_where_there_is_a_row() {
        let full = IdTime { ms: 50, first: Position(10) };
        let at = |position, has_row| full.at(Position(position), 40, |_| Ok(has_row)).unwrap();
        assert_eq!(at(10 + server_id::MAX_EVENTS - 5000, true).ms, 51);
        assert_eq!(at(10 + server_id::MAX_EVENTS - 5000, false).ms, 50);
        assert_eq!(at(5_000_000, true).ms, 50, "the counter is far from full");
        assert_eq!(full.at(Position(20), 60, |_| Ok(false)).unwrap().first, Position(20));
    }
}
