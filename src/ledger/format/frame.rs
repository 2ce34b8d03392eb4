//! The frame: how events stand in `events`.
//!
//! | bytes | what |
//! |---|---|
//! | ... | records, as [`super::record`] says, one behind the other |
//! | 4 each | where each of them ends |
//! | 4 | how many they are, at least 1 |
//!
//! The key is the place of the last one, so that whoever looks for an event finds it in the first row at or behind its
//! place. A frame has events of one commit. With a row for each event instead, the database did the work of a row for each
//! of them: sorting it in, writing it out, going over it.

use super::keys::{Location, Position};
use crate::ledger::store::{Batch, Family, Store, StoreError};

/// A frame is closed when its records have that many bytes, or more. With a second one it still fits into a block of the
/// database's.
const FRAME_BYTES: usize = 15 << 10;

/// A frame in the making. Used again and again for its memory.
#[derive(Default)]
pub struct FrameBuilder {
    bytes: Vec<u8>,
    ends: Vec<[u8; 4]>,
}

impl FrameBuilder {
    /// Adds the next event.
    pub fn add(&mut self, record: &[u8]) {
        self.bytes.extend_from_slice(record);
        // A record comes from one body, which is far below 4 GiB.
        self.ends.push((self.bytes.len() as u32).to_be_bytes());
    }

    /// Whether it is as long as it should become.
    pub fn is_full(&self) -> bool {
        self.bytes.len() >= FRAME_BYTES
    }

    /// The row's value, if there is any event.
    pub fn finish(&mut self) -> Option<&[u8]> {
        if self.ends.is_empty() {
            return None;
        }
        self.bytes.extend_from_slice(self.ends.as_flattened());
        self.bytes.extend_from_slice(&(self.ends.len() as u32).to_be_bytes());
        Some(&self.bytes)
    }

    /// Adds the row to a batch, if there is any event, of which the last one stands at `last`; and begins the next one.
    ///
    /// # Errors
    /// When the database has no such family.
    pub fn put(&mut self, store: &Store, batch: &mut Batch, last: Location) -> Result<(), StoreError> {
        if let Some(value) = self.finish() {
            store.put(batch, Family::Events, &last.encode(), value)?;
        }
        self.bytes.clear();
        self.ends.clear();
        Ok(())
    }
}

/// A frame as it was read.
#[derive(Clone, Copy)]
pub struct Frame<'r> {
    /// Where its first event stands.
    pub first: Location,
    records: &'r [u8],
    ends: &'r [[u8; 4]],
}

impl<'r> Frame<'r> {
    /// Reads a row; `None` if it is damaged.
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

    /// How many events it has: at least 1.
    pub fn count(&self) -> usize {
        self.ends.len()
    }

    /// Where the last one stands.
    pub fn last(&self) -> Location {
        self.location(self.count() - 1)
    }

    /// Where one of them stands.
    pub fn location(&self, index: usize) -> Location {
        Location { position: Position(self.first.position.0 + index as u64), ..self.first }
    }

    /// The record of one of them. Empty if there is none, or where it ends is damaged.
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
    fn of_a_damaged_frame_nothing_is_shown_that_it_has_not() {
        let (key, value) = (location(9).encode(), framed());
        for cut in 0..value.len() {
            let Some(frame) = Frame::decode(&key, &value[..cut]) else { continue };
            panic!("cut to {cut} bytes it has {} events", frame.count());
        }
        assert!(Frame::decode(&key[..9], &value).is_none(), "a key that is no location");
        assert!(Frame::decode(&location(1).encode(), &value).is_none(), "more events than locations before it");
        assert!(Frame::decode(&key, &[0; 4]).is_none(), "no events");
        for at in 8..value.len() {
            let mut changed = value.clone();
            changed[at] ^= 1;
            // Whatever it says, it is read to its end, and differs.
            if let Some(frame) = Frame::decode(&key, &changed) {
                let records: Vec<_> = (0..frame.count()).map(|index| frame.record(index)).collect();
                assert_ne!(records, RECORDS, "byte {at}");
            }
        }
    }
}
