//! A chunk of events on its way from the reader to the threads that verify.

use crate::ledger::format::keys::Location;
use crate::ledger::format::record::RecordRef;

/// Events, in the order in which they were read.
#[derive(Default)]
pub struct Chunk {
    /// The records, one after the other.
    pub bytes: Vec<u8>,
    /// Where each of them is.
    pub entries: Vec<ChunkEvent>,
}

/// An event in a chunk.
pub struct ChunkEvent {
    /// Where the event is stored; `None` if its row is damaged.
    pub location: Option<Location>,
    /// Whether it is the next leaf of the log.
    pub is_leaf: bool,
    /// Where its bytes end.
    pub end: usize,
}

/// An event that was read.
pub struct ScannedEvent<'p> {
    /// Whether it is the log's next leaf.
    pub is_leaf: bool,
    /// What it is.
    pub bytes: &'p [u8],
    /// Where it stands, and its record; or why it has none.
    pub record: Result<(Location, RecordRef<'p>), &'static str>,
}

impl Chunk {
    /// Its events.
    pub fn events(&self) -> Vec<ScannedEvent<'_>> {
        let mut start = 0;
        let read = |event: &ChunkEvent| {
            let bytes = &self.bytes[start..event.end];
            start = event.end;
            let location = event.location.ok_or("its row is damaged");
            let record = location.and_then(|location| RecordRef::parse(bytes).map(|record| (location, record)));
            ScannedEvent { is_leaf: event.is_leaf, bytes, record }
        };
        self.entries.iter().map(read).collect()
    }

    /// Forgets them, and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
    }
}
