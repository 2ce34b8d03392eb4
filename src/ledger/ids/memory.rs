//! The ids of the newest events in memory, in segments, and the filter of all ids. The open segment takes new ids; a full
//! one is written to the database and then removed.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use foldhash::fast::RandomState;
use uuid::Uuid;

use super::filter::Filter;
use crate::ledger::format::keys::{Location, Position, ShardId};

/// The length of records at which a segment is full, in bytes: a start reads them again.
const SEGMENT_RECORD_BYTES: usize = 256 << 20;
/// The most full segments: one that is being written, and one that waits.
const MAX_FULL: usize = 2;
/// The memory of an id in a segment, in bytes: its place in a hash table, of which 7 of 8 places are taken at most and 7 of
/// 16 at least.
const ID_BYTES: usize = 32;
/// The memory of an id while its segment is being written, in bytes.
const ROW_BYTES: usize = 32;

/// The division of the memory for ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// The size of the filter, in bytes.
    filter_bytes: usize,
    /// The number of ids at which a segment is full.
    segment_ids: usize,
}

impl Sizes {
    /// The sizes for `bytes` bytes in total: three quarters for the filter, one quarter for the open segment, a full
    /// one, and the rows of that.
    pub fn of(bytes: u64) -> Sizes {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        Sizes { filter_bytes: bytes / 4 * 3, segment_ids: bytes / 4 / (2 * ID_BYTES + ROW_BYTES) }
    }
}

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
}

/// What memory knows of an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// The event at this location has it.
    At(Location),
    /// No event has it.
    Absent,
    /// The database has to be asked.
    Unknown,
}

/// All segments, and the filter.
pub struct Memory {
    sizes: Sizes,
    open: Segment,
    /// The oldest first.
    full: VecDeque<Arc<Segment>>,
    filter: Filter,
    /// Whether the filter has the ids in the database as well.
    is_complete: bool,
}

impl Memory {
    /// No ids. `next` is the position of each shard after the events whose ids are in the database.
    pub fn new(sizes: Sizes, next: Vec<Position>) -> Memory {
        // The first segment grows: most ledgers of one agent never fill it.
        let (open, filter) = (Segment::new(0, next), Filter::new(sizes.filter_bytes));
        Memory { sizes, open, full: VecDeque::new(), filter, is_complete: false }
    }

    /// Adds the ids of the events of a shard before `next`. Returns true if a segment is full now.
    pub fn insert(
        &mut self,
        shard: ShardId,
        ids: impl Iterator<Item = (Uuid, Location)>,
        next: Position,
        record_bytes: usize,
    ) -> bool {
        for (id, location) in ids {
            self.filter.insert(id);
            self.open.ids.insert(id, location.encode());
        }
        self.open.record_bytes += record_bytes;
        if let Some(shard_next) = self.open.next.get_mut(usize::from(shard.0)) {
            *shard_next = next;
        }
        let is_full = self.open.ids.len() >= self.sizes.segment_ids || self.open.record_bytes >= SEGMENT_RECORD_BYTES;
        if is_full {
            self.close_segment();
        }
        is_full
    }

    /// Adds ids that are in the database to the filter.
    pub fn add_stored(&mut self, ids: impl Iterator<Item = Uuid>) {
        ids.for_each(|id| self.filter.insert(id));
    }

    /// Notes that all ids in the database were added to the filter.
    pub fn complete(&mut self) {
        self.is_complete = true;
    }

    /// Begins a new segment, unless no event was added to the open one.
    pub fn close_segment(&mut self) {
        if self.open.record_bytes > 0 {
            let empty = Segment::new(self.open.ids.len(), self.open.next.clone());
            self.full.push_back(Arc::new(std::mem::replace(&mut self.open, empty)));
        }
    }

    /// What is known of an id.
    pub fn find(&self, id: Uuid) -> Known {
        if !self.filter.may_contain(id) {
            return if self.is_complete { Known::Absent } else { Known::Unknown };
        }
        let mut segments = self.full.iter().rev().map(|segment| &**segment);
        let found = self.open.ids.get(&id).or_else(|| segments.find_map(|segment| segment.ids.get(&id)));
        found.and_then(|location| Location::decode(location)).map_or(Known::Unknown, Known::At)
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

    /// The memory of the ids, in bytes, and the number of those that are not in the database.
    pub fn used(&self) -> (usize, usize) {
        let segments = || self.full.iter().map(|segment| &**segment).chain([&self.open]);
        let capacity: usize = segments().map(|segment| segment.ids.capacity()).sum();
        (self.filter.bytes() + capacity * ID_BYTES, segments().map(|segment| segment.ids.len()).sum())
    }
}
