//! Iterates over stored events, across the frames that contain them. Events that retention has dropped are passed over, also while
//! their rows are still there.

use crate::ledger::format::frame::{self, Frame};
use crate::ledger::format::keys::{Location, Position};
use crate::ledger::store::{Family, Rows, Store, StoreError};

/// An event as it was read.
#[derive(Clone, Copy)]
pub struct Event<'r> {
    /// The key of the row.
    key: &'r [u8],
    /// The location; `None` if the row is damaged.
    pub location: Option<Location>,
    /// The record. If the row is damaged, the whole row, because the first agent in it can still be identified.
    pub bytes: &'r [u8],
}

impl<'r> Event<'r> {
    /// Whether the event sorts before `location`; if its row is damaged, whether the row does.
    pub fn is_before(&self, location: Location) -> bool {
        self.location.map_or_else(|| *self.key < location.encode()[..], |own| own < location)
    }
}

/// An iterator over stored events.
pub struct Events<'s> {
    store: &'s Store,
    rows: Rows<'s>,
    at: At,
    /// The contents of the current row, if they are compressed there.
    unpacked: Vec<u8>,
}

/// The position of the iterator within the current row.
#[derive(Clone, Copy)]
enum At {
    /// Before the first seek, or beyond the ends.
    Unpositioned,
    /// At the event with this index of a frame from `first` to `last`.
    Frame { first: Location, last: Location, index: usize },
    /// At a damaged row, which counts as one event. With the last location of the preceding row, if that was read.
    Damaged(Option<Location>),
}

impl<'s> Events<'s> {
    /// Iterates over a snapshot of the events. Must be positioned with a seek first.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn new(store: &'s Store) -> Result<Events<'s>, StoreError> {
        Ok(Events { store, rows: store.rows(Family::Events)?, at: At::Unpositioned, unpacked: Vec::new() })
    }

    /// Iterates once over a snapshot of the events, as one of `readers` parallel readers. Must be positioned with a
    /// seek first.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn scan(store: &'s Store, readers: usize) -> Result<Events<'s>, StoreError> {
        Ok(Events {
            store,
            rows: store.scan_shared(Family::Events, readers)?,
            at: At::Unpositioned,
            unpacked: Vec::new(),
        })
    }

    /// Moves to the event at `location`, or to the first event after it. Moving within a frame, or to an adjacent one,
    /// is cheap.
    pub fn seek(&mut self, location: Location) {
        let location = Location { position: location.position.max(self.first_kept(location)), ..location };
        if !self.has(location) {
            match self.at {
                At::Frame { last, .. } if last.is_followed_by(location) => self.next_frame(),
                At::Frame { first, .. } if location.is_followed_by(first) => {
                    self.rows.prev();
                    self.load_frame(None);
                }
                _ => {}
            }
        }
        if !self.has(location) {
            self.rows.seek(&location.encode());
            self.load_frame(None);
        }
        if self.has(location)
            && let At::Frame { first, index, .. } = &mut self.at
        {
            *index = (location.position.0 - first.position.0) as usize;
        }
    }

    /// The position of the first event of the shard of `location` that is kept.
    fn first_kept(&self, location: Location) -> Position {
        Position(self.store.expired().first_kept(location.shard.0))
    }

    /// Moves past the rows all of whose events were dropped.
    fn skip_dropped(&mut self) {
        while let Ok(Some((key, _))) = self.rows.row()
            && let Some(last) = Location::decode(key)
            && last.position < self.first_kept(last)
        {
            self.rows.seek(&Location { position: self.first_kept(last), ..last }.encode());
        }
    }

    /// Whether the current row has the event at `location`.
    fn has(&self, location: Location) -> bool {
        matches!(self.at, At::Frame { first, last, .. } if first <= location && location <= last)
    }

    /// Moves to the first event.
    pub fn seek_first(&mut self) {
        self.rows.seek_first();
        self.load_frame(None);
    }

    /// Moves to the next event.
    pub fn next(&mut self) {
        match &mut self.at {
            At::Frame { first, last, index } if last.position.0 - first.position.0 > *index as u64 => *index += 1,
            _ => self.next_frame(),
        }
    }

    fn next_frame(&mut self) {
        let previous_last = match self.at {
            At::Frame { last, .. } => Some(last),
            At::Damaged(previous_last) => previous_last,
            At::Unpositioned => None,
        };
        self.rows.next();
        self.load_frame(previous_last);
    }

    /// Decompresses and decodes the current row. A frame that begins at or before `previous_last`, the last location of the row that was
    /// read before it, is damaged, because an event is stored in one frame only.
    fn load_frame(&mut self, previous_last: Option<Location>) {
        self.skip_dropped();
        // A read error is reported by `event`.
        self.at = match self.rows.row() {
            Ok(Some((key, value))) => match frame::unpack(value, &mut self.unpacked)
                .and_then(|()| Frame::decode(key, value, &self.unpacked))
            {
                Some(frame) if previous_last.is_none_or(|previous_last| previous_last < frame.first) => {
                    let dropped = self.first_kept(frame.first).0.saturating_sub(frame.first.position.0);
                    // The floor may have risen just now.
                    let index = (dropped as usize).min(frame.count() - 1);
                    At::Frame { first: frame.first, last: frame.last(), index }
                }
                _ => At::Damaged(previous_last),
            },
            _ => At::Unpositioned,
        };
    }

    /// The current event; `None` beyond the ends.
    ///
    /// # Errors
    /// When the database cannot be read, which is not the same as an end.
    pub fn event(&self) -> Result<Option<Event<'_>>, StoreError> {
        let Some((key, value)) = self.rows.row()? else { return Ok(None) };
        let decoded = match self.at {
            At::Frame { index, .. } => Frame::decode(key, value, &self.unpacked).map(|frame| (frame, index)),
            At::Damaged(_) | At::Unpositioned => None,
        };
        Ok(Some(match decoded {
            Some((frame, index)) => Event { key, location: Some(frame.location(index)), bytes: frame.record(index) },
            None => Event { key, location: None, bytes: value },
        }))
    }

    /// Passes up to `max_events` events of the current row to `visit`, beginning with the current event, and moves past
    /// them. Returns their number, which is 0 if the row is damaged.
    ///
    /// # Errors
    /// When the database cannot be read, or `visit` fails.
    pub fn visit_row(
        &mut self,
        max_events: usize,
        mut visit: impl FnMut(Event<'_>) -> Result<(), StoreError>,
    ) -> Result<usize, StoreError> {
        let (At::Frame { index, .. }, Some((key, value))) = (self.at, self.rows.row()?) else { return Ok(0) };
        let Some(frame) = Frame::decode(key, value, &self.unpacked) else { return Ok(0) };
        let (count, end) = (frame.count(), frame.count().min(index.saturating_add(max_events)));
        for index in index..end {
            visit(Event { key, location: Some(frame.location(index)), bytes: frame.record(index) })?;
        }
        match &mut self.at {
            At::Frame { index, .. } if end < count => *index = end,
            _ => self.next_frame(),
        }
        Ok(end - index)
    }

    /// The record at `location`; `None` if there is no event.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn at(&mut self, location: Location) -> Result<Option<&[u8]>, StoreError> {
        self.seek(location);
        // After a dropped event, it is at another one.
        Ok(self.event()?.filter(|event| event.location == Some(location)).map(|event| event.bytes))
    }
}
