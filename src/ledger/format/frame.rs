//! The frame: the row format of the family `events`.
//!
//! | bytes | content |
//! |---|---|
//! | ... | the contents: records as in [`super::record`], one after another, then the end offset of each as u32 |
//! | 4 | only if the contents are compressed: their length before |
//! | 1 | how they are compressed: 0 not, 1 as a block of LZ4, 2 as a frame of Zstandard |
//! | 3 | number of records, at least 1 |
//!
//! The key is the location of the last record, so a seek to the location of an event finds its row. All records of a
//! frame are from one commit. With a row per event, the database did its work per row for every event: sorting it into
//! memory, writing it out, and reading it in compactions. See
//! `docs/adr/0003-events-are-keyed-by-position-and-share-rows.md`.
//!
//! Frames are compressed before the commit, so that the write-ahead log, the memtable and all table files have the shorter
//! form. Short frames are left to the database, which compresses many of them together. See
//! `docs/adr/0042-frames-are-compressed-before-the-commit.md`. Frames of ledgers of format 3 are not compressed.

use super::keys::{Location, Position};
use super::packing::{Packer, Packing};
use crate::ledger::store::{Batch, Compression, Family, Store, StoreError};

/// Size in bytes at which a frame is closed. LZ4 finds repetitions within 64 KiB.
const FRAME_BYTES: usize = 60 << 10;
/// The shortest contents that are compressed, in bytes. The database compresses shorter ones better, in blocks of
/// 32 KiB.
const MIN_PACKED_BYTES: usize = 32 << 10;
/// The longest contents that are compressed, in bytes, so that a damaged length costs little memory.
const MAX_PACKED_BYTES: usize = 1 << 20;

/// Builds frames one after another and reuses its memory.
pub struct FrameBuilder {
    bytes: Vec<u8>,
    ends: Vec<[u8; 4]>,
    packer: Packer,
    row: Vec<u8>,
}

impl FrameBuilder {
    /// Compresses as `storage.compression` says.
    pub fn new(compression: Compression) -> FrameBuilder {
        FrameBuilder { bytes: Vec::new(), ends: Vec::new(), packer: Packer::new(compression), row: Vec::new() }
    }

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
        // A commit has far fewer than 2^24 events.
        let count = (self.ends.len() as u32).to_be_bytes();
        let packed = if (MIN_PACKED_BYTES..=MAX_PACKED_BYTES).contains(&self.bytes.len()) {
            self.packer.pack(&self.bytes)
        } else {
            None
        };
        let Some((packing, packed)) = packed else {
            self.bytes.extend_from_slice(&count);
            return Some(&self.bytes);
        };
        self.row.clear();
        self.row.extend_from_slice(packed);
        self.row.extend_from_slice(&(self.bytes.len() as u32).to_be_bytes());
        self.row.extend_from_slice(&[packing.number(), count[1], count[2], count[3]]);
        Some(&self.row)
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

/// The end of a row.
struct Trailer {
    packing: Packing,
    count: u32,
}

impl Trailer {
    /// Splits a row into its contents and its trailer.
    fn split(value: &[u8]) -> Option<(&[u8], Trailer)> {
        let (contents, [packing, count @ ..]) = value.split_last_chunk::<4>()?;
        let count = u32::from_be_bytes([0, count[0], count[1], count[2]]);
        Some((contents, Trailer { packing: Packing::from_number(*packing)?, count }))
    }
}

/// Decompresses the contents of a row into `unpacked`, unless they are not compressed. `None` if the row is damaged.
pub fn unpack(value: &[u8], unpacked: &mut Vec<u8>) -> Option<()> {
    let (contents, trailer) = Trailer::split(value)?;
    if trailer.packing == Packing::Plain {
        return Some(());
    }
    let (packed, len) = contents.split_last_chunk::<4>()?;
    let len = u32::from_be_bytes(*len) as usize;
    if len > MAX_PACKED_BYTES {
        return None;
    }
    unpacked.resize(len, 0);
    trailer.packing.unpack(packed, unpacked)
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
    /// Decodes a row; `None` if it is damaged. `unpacked` is what [`unpack`] made of it.
    pub fn decode(key: &[u8], value: &'r [u8], unpacked: &'r [u8]) -> Option<Frame<'r>> {
        let last = Location::decode(key)?;
        let (contents, Trailer { packing, count }) = Trailer::split(value)?;
        let contents = if packing == Packing::Plain { contents } else { unpacked };
        let ends_at = contents.len().checked_sub((count as usize).checked_mul(4)?)?;
        let (records, ends) = contents.split_at_checked(ends_at)?;
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

    const SHORT: [&[u8]; 3] = [b"one", b"", b"three"];

    fn location(position: u64) -> Location {
        Location { shard: ShardId(1), position: Position(position) }
    }

    /// The key and the value of a frame with these records.
    fn framed(compression: Compression, records: &[&[u8]]) -> ([u8; 10], Vec<u8>) {
        let mut frame = FrameBuilder::new(compression);
        assert_eq!(frame.finish(), None);
        records.iter().for_each(|record| frame.add(record));
        (location(records.len() as u64 + 6).encode(), frame.finish().unwrap().to_vec())
    }

    /// The records of a row; `None` if it is damaged.
    fn read(key: &[u8], value: &[u8]) -> Option<Vec<Vec<u8>>> {
        let mut unpacked = vec![7; 3];
        unpack(value, &mut unpacked)?;
        let frame = Frame::decode(key, value, &unpacked)?;
        Some((0..frame.count()).map(|index| frame.record(index).to_vec()).collect())
    }

    /// Records that compress well, as long as `len` bytes together.
    fn long(len: usize) -> Vec<Vec<u8>> {
        (0..len / 100).map(|n| format!("{n:>04}{}", "an event ".repeat(11)).into_bytes()[..100].to_vec()).collect()
    }

    #[test]
    fn frames_read_back_as_they_were_written() {
        let (key, value) = framed(Compression::Lz4, &SHORT);
        let frame = Frame::decode(&key, &value, &[]).unwrap();
        assert_eq!((frame.first, frame.count()), (location(7), 3));
        assert_eq!([0, 1, 2].map(|index| frame.record(index)), SHORT);
        assert_eq!(frame.record(3), b"");
        assert_eq!(value.len(), 8 + 3 * 4 + 4, "short frames are as they were in format 3");
        let noise: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(MIN_PACKED_BYTES).collect();
        for compression in [Compression::Lz4, Compression::Zstd] {
            for len in [MIN_PACKED_BYTES, FRAME_BYTES, 70_000, MAX_PACKED_BYTES, MAX_PACKED_BYTES + 100] {
                let records = long(len);
                let slices: Vec<&[u8]> = records.iter().map(|record| &record[..]).collect();
                let (key, value) = framed(compression, &slices);
                let is_packed = value.len() < len / 2;
                assert_eq!(is_packed, len < MAX_PACKED_BYTES, "{compression:?} {len} {}", value.len());
                assert_eq!(read(&key, &value).unwrap(), records);
            }
            let (key, value) = framed(compression, &[&noise]);
            assert_eq!(read(&key, &value).unwrap(), [&noise[..]], "what does not get shorter");
        }
    }

    #[test]
    fn a_damaged_frame_is_rejected_or_yields_other_records() {
        let (key, value) = framed(Compression::Lz4, &SHORT);
        assert!(Frame::decode(&key[..9], &value, &[]).is_none(), "a key that is not a location");
        assert!(Frame::decode(&location(1).encode(), &value, &[]).is_none(), "more events than locations before it");
        assert!(Frame::decode(&key, &[0; 4], &[]).is_none(), "no events");
        let records = long(40_000);
        let slices: Vec<&[u8]> = records.iter().map(|record| &record[..]).collect();
        let lz4 = framed(Compression::Lz4, &slices);
        let zstd = framed(Compression::Zstd, &slices);
        for (key, value) in [(key, value), lz4, zstd] {
            let (original, is_short) = (read(&key, &value).unwrap(), value.len() < 100);
            for cut in 0..value.len() {
                assert_eq!(read(&key, &value[..cut]), None, "truncated to {cut} bytes");
            }
            for (at, bit) in (0..value.len()).flat_map(|at| [(at, 1), (at, 0x80)]) {
                let mut changed = value.clone();
                changed[at] ^= bit;
                // Compressed bytes may differ and contain the same: a repetition of other bytes that are equal.
                let found = read(&key, &changed);
                assert!(!is_short || found.is_none_or(|found| found != original), "byte {at}");
            }
        }
    }

    #[test]
    fn a_damaged_length_takes_no_memory() {
        let records = long(40_000);
        let slices: Vec<&[u8]> = records.iter().map(|record| &record[..]).collect();
        let (_, mut value) = framed(Compression::Lz4, &slices);
        let len_at = value.len() - 8;
        value[len_at..len_at + 4].copy_from_slice(&u32::MAX.to_be_bytes());
        let mut unpacked = Vec::new();
        assert_eq!(unpack(&value, &mut unpacked), None);
        assert!(unpacked.capacity() <= MAX_PACKED_BYTES, "{}", unpacked.capacity());
    }
}
