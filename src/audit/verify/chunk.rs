//! A chunk of events, passed from the reading thread to the verifying threads.

use crate::ledger::format::keys::Location;
use crate::ledger::format::record::RecordRef;

/// Events in the order in which they were read.
#[derive(Default)]
pub struct Chunk {
    /// The concatenated records.
    pub bytes: Vec<u8>,
    /// One entry per record.
    pub entries: Vec<ChunkEvent>,
}

/// An event in a chunk.
pub struct ChunkEvent {
    /// The location of the event; `None` if its row is damaged.
    pub location: Option<Location>,
    /// Whether it is the next leaf of the log.
    pub is_leaf: bool,
    /// The offset in `bytes` at which its record ends.
    pub end: usize,
}

/// An event of a chunk.
pub struct ScannedEvent<'p> {
    /// Whether it is the log's next leaf.
    pub is_leaf: bool,
    /// The bytes of its record.
    pub bytes: &'p [u8],
    /// Its location; `None` if its row is damaged.
    pub location: Option<Location>,
    /// Its location and its record, or why it cannot be read.
    pub record: Result<(Location, RecordRef<'p>), &'static str>,
}

impl Chunk {
    /// The events of the chunk.
    pub fn events(&self) -> Vec<ScannedEvent<'_>> {
        let mut start = 0;
        let read = |event: &ChunkEvent| {
            let bytes = &self.bytes[start..event.end];
            start = event.end;
            let location = event.location.ok_or("its row is damaged");
            let record = location.and_then(|location| RecordRef::parse(bytes).map(|record| (location, record)));
            ScannedEvent { is_leaf: event.is_leaf, bytes, location: event.location, record }
        };
        self.entries.iter().map(read).collect()
    }

    /// Removes the events and keeps the allocation.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
    }
}
