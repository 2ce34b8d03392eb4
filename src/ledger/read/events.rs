//! Going over stored events, whichever frames they stand in.

use crate::ledger::format::frame::Frame;
use crate::ledger::format::keys::Location;
use crate::ledger::store::{Family, Rows, Store, StoreError};

/// An event that was read.
#[derive(Clone, Copy)]
pub struct Event<'r> {
    /// The key of its row.
    key: &'r [u8],
    /// Where it stands; `None` if its row is damaged.
    pub location: Option<Location>,
    /// Its record; of a damaged row everything, because the first agent in it can still be named.
    pub bytes: &'r [u8],
}

impl<'r> Event<'r> {
    /// Whether its row sorts before that of an event which stands at `place`.
    pub fn is_before(&self, location: Location) -> bool {
        self.location.map_or_else(|| *self.key < location.encode()[..], |own| own < location)
    }
}

/// A place among the events.
pub struct Events<'s> {
    rows: Rows<'s>,
    at: At,
}

/// Where that is in the row at hand.
#[derive(Clone, Copy)]
enum At {
    /// Nowhere: before the first seek, or beyond the ends.
    Nowhere,
    /// In a frame that starts at `first` and has events up to `last`: at this index.
    Frame { first: Location, last: Location, index: usize },
    /// At a damaged row: it counts as one event. What was read before it ended at this place, if it was read.
    Damaged(Option<Location>),
}

impl<'s> Events<'s> {
    /// The events as they are now. Stands nowhere: seek first.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn new(store: &'s Store) -> Result<Events<'s>, StoreError> {
        Ok(Events { rows: store.rows(Family::Events)?, at: At::Nowhere })
    }

    /// The same for one of so many readers that pass over them once.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn scan(store: &'s Store, readers: usize) -> Result<Events<'s>, StoreError> {
        Ok(Events { rows: store.scan_beside(Family::Events, readers)?, at: At::Nowhere })
    }

    /// Goes to the event at `place`, or to the first one behind it. The neighbours of where it stands are only a step away.
    pub fn seek(&mut self, location: Location) {
        if !self.has(location) {
            match self.at {
                At::Frame { last, .. } if last.is_followed_by(location) => self.next_frame(),
                At::Frame { first, .. } if location.is_followed_by(first) => {
                    self.rows.back();
                    self.arrive(None);
                }
                _ => {}
            }
        }
        if !self.has(location) {
            self.rows.seek(&location.encode());
            self.arrive(None);
        }
        if self.has(location)
            && let At::Frame { first, index, .. } = &mut self.at
        {
            *index = (location.position.0 - first.position.0) as usize;
        }
    }

    /// Whether the row at hand has the event at `place`.
    fn has(&self, location: Location) -> bool {
        matches!(self.at, At::Frame { first, last, .. } if first <= location && location <= last)
    }

    /// Goes to the first one.
    pub fn seek_first(&mut self) {
        self.rows.seek_first();
        self.arrive(None);
    }

    /// Goes one on.
    pub fn next(&mut self) {
        match &mut self.at {
            At::Frame { first, last, index } if last.position.0 - first.position.0 > *index as u64 => *index += 1,
            _ => self.next_frame(),
        }
    }

    fn next_frame(&mut self) {
        let behind = match self.at {
            At::Frame { last, .. } => Some(last),
            At::Damaged(behind) => behind,
            At::Nowhere => None,
        };
        self.rows.next();
        self.arrive(behind);
    }

    /// Looks at the row that was gone to. A frame that reaches back to `behind`, which was read before it, is damaged: an
    /// event can stand in one frame only.
    fn arrive(&mut self, behind: Option<Location>) {
        // What the database could not read is told by whoever asks for the event.
        self.at = match self.rows.row() {
            Ok(Some((key, value))) => match Frame::decode(key, value) {
                Some(frame) if behind.is_none_or(|behind| behind < frame.first) => {
                    At::Frame { first: frame.first, last: frame.last(), index: 0 }
                }
                _ => At::Damaged(behind),
            },
            _ => At::Nowhere,
        };
    }

    /// The event here; `None` beyond the ends.
    ///
    /// # Errors
    /// When the database could not read on: not the same as an end.
    pub fn event(&self) -> Result<Option<Event<'_>>, StoreError> {
        let Some((key, value)) = self.rows.row()? else { return Ok(None) };
        let whole = match self.at {
            At::Frame { index, .. } => Frame::decode(key, value).map(|frame| (frame, index)),
            At::Damaged(_) | At::Nowhere => None,
        };
        Ok(Some(match whole {
            Some((frame, index)) => Event { key, location: Some(frame.location(index)), bytes: frame.record(index) },
            None => Event { key, location: None, bytes: value },
        }))
    }

    /// Tells up to `most` events of the row at hand, from here on, and goes behind them; says how many they were. None, if
    /// the row is damaged.
    ///
    /// # Errors
    /// When the database cannot be read, and what `tell` fails with.
    pub fn take_row(
        &mut self,
        most: usize,
        mut tell: impl FnMut(Event<'_>) -> Result<(), StoreError>,
    ) -> Result<usize, StoreError> {
        let (At::Frame { index, .. }, Some((key, value))) = (self.at, self.rows.row()?) else { return Ok(0) };
        let Some(frame) = Frame::decode(key, value) else { return Ok(0) };
        let (count, end) = (frame.count(), frame.count().min(index.saturating_add(most)));
        for index in index..end {
            tell(Event { key, location: Some(frame.location(index)), bytes: frame.record(index) })?;
        }
        match &mut self.at {
            At::Frame { index, .. } if end < count => *index = end,
            _ => self.next_frame(),
        }
        Ok(end - index)
    }

    /// The record of the event at `place`; `None` if there is none.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn at(&mut self, location: Location) -> Result<Option<&[u8]>, StoreError> {
        self.seek(location);
        Ok(self.event()?.filter(|event| event.location == Some(location)).map(|event| event.bytes))
    }
}
