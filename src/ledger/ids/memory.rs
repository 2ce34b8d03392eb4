//! The ids of the newest events in memory, in segments. The open segment takes new ids; a full one is written to the
//! database and then removed.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use foldhash::fast::RandomState;
use uuid::Uuid;

use crate::ledger::format::keys::{Location, Position, ShardId};

/// The number of ids at which a segment is full. With the ids of one more commit, its hash table has 131,072 places.
const SEGMENT_IDS: usize = 104_000;
/// The length of records at which a segment is full, in bytes: a start reads them again.
const SEGMENT_RECORD_BYTES: usize = 256 << 20;
/// The most full segments: one that is being written, and one that waits.
const MAX_FULL: usize = 2;
/// The memory of an id: its place in a hash table of which at least 7 of 16 places are taken, in bytes.
const ID_BYTES: usize = 32;
/// The most memory of the ids, in bytes: all segments, and the sorted rows of the one that is being written.
pub const MAX_BYTES: u64 = ((MAX_FULL + 2) * SEGMENT_IDS * ID_BYTES * 5 / 4) as u64;

/// The ids of some events, which follow each other in each shard.
pub struct Segment {
    /// The location of the event of each id, as [`Location::encode`] writes it.
    pub ids: HashMap<Uuid, [u8; 10], RandomState>,
    /// The position after the last of the events of each shard, in the order of the shards.
    pub next: Vec<Position>,
    record_bytes: usize,
}

impl Segment {
    fn new(capacity: usize, next: Vec<Position>) -> Segment {
        Segment { ids: HashMap::with_capacity_and_hasher(capacity, RandomState::default()), next, record_bytes: 0 }
    }

    fn is_full(&self) -> bool {
        self.ids.len() >= SEGMENT_IDS || self.record_bytes >= SEGMENT_RECORD_BYTES
    }
}

/// All segments.
pub struct Memory {
    open: Segment,
    /// The oldest first.
    full: VecDeque<Arc<Segment>>,
}

impl Memory {
    /// No ids. `next` is the position of each shard after the events whose ids are in the database.
    pub fn new(next: Vec<Position>) -> Memory {
        // The first segment grows: most ledgers of one agent never fill it.
        Memory { open: Segment::new(0, next), full: VecDeque::new() }
    }

    /// Adds the ids of the events of a shard before `next`. Returns true if a segment is full now.
    pub fn insert(
        &mut self,
        shard: ShardId,
        ids: impl Iterator<Item = (Uuid, Location)>,
        next: Position,
        record_bytes: usize,
    ) -> bool {
        self.open.ids.extend(ids.map(|(id, location)| (id, location.encode())));
        self.open.record_bytes += record_bytes;
        if let Some(shard_next) = self.open.next.get_mut(usize::from(shard.0)) {
            *shard_next = next;
        }
        let is_full = self.open.is_full();
        if is_full {
            self.close_segment();
        }
        is_full
    }

    /// Begins a new segment, unless no event was added to the open one.
    pub fn close_segment(&mut self) {
        if self.open.record_bytes > 0 {
            let empty = Segment::new(self.open.ids.len(), self.open.next.clone());
            self.full.push_back(Arc::new(std::mem::replace(&mut self.open, empty)));
        }
    }

    /// The location of the event with an id.
    pub fn find(&self, id: Uuid) -> Option<Location> {
        let mut segments = self.full.iter().rev().map(|segment| &**segment);
        let found = self.open.ids.get(&id).or_else(|| segments.find_map(|segment| segment.ids.get(&id)));
        found.and_then(|location| Location::decode(location))
    }

    /// The full segment that is to be written next.
    pub fn oldest_full(&self) -> Option<Arc<Segment>> {
        self.full.front().cloned()
    }

    /// Removes a segment that is in the database.
    pub fn remove(&mut self, segment: &Arc<Segment>) {
        self.full.retain(|full| !Arc::ptr_eq(full, segment));
    }

    /// Whether there are as many full segments as there may be.
    pub fn is_full(&self) -> bool {
        self.full.len() >= MAX_FULL
    }

    /// The memory of the ids, in bytes, and their number.
    pub fn used(&self) -> (usize, usize) {
        let segments = || self.full.iter().map(|segment| &**segment).chain([&self.open]);
        let capacity: usize = segments().map(|segment| segment.ids.capacity()).sum();
        (capacity * ID_BYTES, segments().map(|segment| segment.ids.len()).sum())
    }
}
