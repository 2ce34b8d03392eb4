//! The frame: the row format of the family `events`.
//!
//! | bytes | content |
//! |---|---|
//! | ... | records as in [`super::record`], one after another |
//! | 4 each | end offset of each record |
//! | 4 | number of records, at least 1 |
//!
//! The key is the location of the last record, so a seek to the location of an event finds its row. All records of a
//! frame are from one commit. With a row per event, the database did its work per row for every event: sorting it into
//! memory, writing it out, and reading it in compactions. See
//! `docs/adr/0003-events-are-keyed-by-position-and-share-rows.md`.

use super::keys::{Location, Position};
use crate::ledger::store::{Batch, Family, Store, StoreError};

/// Size in bytes at which a frame is closed. Even with a further record it fits into a block of the database.
const FRAME_BYTES: usize = 15 << 10;

/// Builds frames one after another and reuses its memory.
#[derive(Default)]
pub struct FrameBuilder {
    bytes: Vec<u8>,
    ends: Vec<[u8; 4]>,
}

impl FrameBuilder {
    /// Appends a record.
    pub fn add(&mut self, record: &[u8]) {
        self.bytes.extend_from_slice(record);
        // A record comes from one request body, which is far below 4 GiB.
        self.ends.push((self.bytes.len() as u32).to_be_bytes());
    }

    /// Whether the frame has reached its size and has to be closed.
    pub fn is_full(&self) -> bool {
        self.bytes.len() >= FRAME_BYTES
    }

    /// The value of the row; `None` if the frame is empty.
    pub fn finish(&mut self) -> Option<&[u8]> {
        if self.ends.is_empty() {
            return None;
        }
        self.bytes.extend_from_slice(self.ends.as_flattened());
        self.bytes.extend_from_slice(&(self.ends.len() as u32).to_be_bytes());
        Some(&self.bytes)
    }

    /// Adds the frame to a batch, unless it is empty, and begins the next one. `last` is the location of its last
    /// event.
    ///
    /// # Errors
    /// When the column family is missing.
    pub fn put(&mut self, store: &Store, batch: &mut Batch, last: Location) -> Result<(), StoreError> {
        if let Some(value) = self.finish() {
            store.put(batch, Family::Events, &last.encode(), value)?;
        }
        self.bytes.clear();
        self.ends.clear();
        Ok(())
    }
}

/// A frame that was read from the database.
#[derive(Clone, Copy)]
pub struct Frame<'r> {
    /// The location of the first event.
    pub first: Location,
    records: &'r [u8],
    ends: &'r [[u8; 4]],
}

impl<'r> Frame<'r> {
    /// Decodes a row; `None` if it is damaged.
    pub fn decode(key: &[u8], value: &'r [u8]) -> Option<Frame<'r>> {
        let last = Location::decode(key)?;
        let (value, count) = value.split_last_chunk::<4>()?;
        let count = u32::from_be_bytes(*count);
        let (records, ends) = value.split_at_checked(value.len().checked_sub((count as usize).checked_mul(4)?)?)?;
        let ends = ends.as_chunks::<4>().0;
        let is_whole = u32::from_be_bytes(*ends.last()?) as usize == records.len();
        let first = Position((last.position.0.checked_sub(u64::from(count) - 1))?);
        is_whole.then_some(Frame { first: Location { position: first, ..last }, records, ends })
    }

    /// The number of events, at least 1.
    pub fn count(&self) -> usize {
        self.ends.len()
    }

    /// The location of the last event.
    pub fn last(&self) -> Location {
        self.location(self.count() - 1)
    }

    /// The location of the event at `index`.
    pub fn location(&self, index: usize) -> Location {
        Location { position: Position(self.first.position.0 + index as u64), ..self.first }
    }

    /// The record at `index`; empty if there is none, or if its end offset is damaged.
    pub fn record(&self, index: usize) -> &'r [u8] {
        let end = |index: usize| self.ends.get(index).map(|end| u32::from_be_bytes(*end) as usize);
        let start = index.checked_sub(1).map_or(Some(0), end);
        let record = start.zip(end(index)).and_then(|(start, end)| self.records.get(start..end));
        record.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::format::keys::ShardId;

    const RECORDS: [&[u8]; 3] = [b"one", b"", b"three"];

    fn location(position: u64) -> Location {
        Location { shard: ShardId(1), position: Position(position) }
    }

    fn framed() -> Vec<u8> {
        let mut frame = FrameBuilder::default();
        assert_eq!(frame.finish(), None);
        RECORDS.iter().for_each(|record| frame.add(record));
        frame.finish().unwrap().to_vec()
    }

    #[test]
    fn a_frame_reads_back_as_it_was_written() {
        let (key, value) = (location(9).encode(), framed());
        let frame = Frame::decode(&key, &value).unwrap();
        assert_eq!((frame.first, frame.count()), (location(7), 3));
        assert_eq!([0, 1, 2].map(|index| frame.record(index)), RECORDS);
        assert_eq!(frame.record(3), b"");
    }

    #[test]
    fn a_damaged_frame_is_rejected_or_yields_other_records() {
        let (key, value) = (location(9).encode(), framed());
        for cut in 0..value.len() {
            let Some(frame) = Frame::decode(&key, &value[..cut]) else { continue };
            panic!("truncated to {cut} bytes it has {} events", frame.count());
        }
        assert!(Frame::decode(&key[..9], &value).is_none(), "a key that is not a location");
        assert!(Frame::decode(&location(1).encode(), &value).is_none(), "more events than locations before it");
        assert!(Frame::decode(&key, &[0; 4]).is_none(), "no events");
        for at in 8..value.len() {
            let mut changed = value.clone();
            changed[at] ^= 1;
            // A changed frame that decodes can be read to its end, and differs.
            if let Some(frame) = Frame::decode(&key, &changed) {
                let records: Vec<_> = (0..frame.count()).map(|index| frame.record(index)).collect();
                assert_ne!(records, RECORDS, "byte {at}");
            }
        }
    }
}
