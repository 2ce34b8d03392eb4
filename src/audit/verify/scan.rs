//! Reads every event once: first the leaves of the log in their order, then the events that are not in the log.
//!
//! The leaves of one shard are in the order of positions, so every chain is read from its start to its end as well.
//! Reading and decompressing has a thread of its own, which sends chunks to the pool.

use crossbeam_channel::Receiver;

use super::chunk::{Chunk, ChunkEvent};
use super::dropped::Dropped;
use super::pool::Dispatcher;
use super::rows::fault::RowFault;
use super::rows::log::LogRuns;
use crate::ledger::format::keys::{Location, Position};
use crate::ledger::read::events::{Event, Events};
use crate::ledger::store::{Store, StoreError};
use crate::tlog::rows::{LogRows, Progress};

/// The size of a chunk, in bytes. Large enough that the cost of waking another thread does not matter.
const CHUNK_BYTES: usize = 512 << 10;
/// Most events in a chunk.
const CHUNK_EVENTS: usize = 4096;
/// How far the leaves of the log could be read.
#[derive(Default)]
pub struct Leaves {
    /// The number of leaves read.
    pub count: u64,
    /// The position of the next event of each shard.
    pub next: Vec<Position>,
    /// Why not all leaves could be read; `None` if they were.
    pub broken: Option<String>,
    /// The rows of the log that differ from what other rows of it show.
    pub faults: Vec<RowFault>,
}

/// Reads events and sends them to the pool.
pub struct Scan<'s> {
    store: &'s Store,
    pool: Dispatcher,
    /// Verified chunks, to be reused.
    verified: Receiver<Chunk>,
    chunk: Chunk,
}

impl<'s> Scan<'s> {
    /// Reads the events of `store`, sends them to `pool`, and reuses the chunks from
    /// `verified`.
    pub fn new(store: &'s Store, pool: Dispatcher, verified: Receiver<Chunk>) -> Scan<'s> {
        Scan { store, pool, verified, chunk: Chunk::default() }
    }

    /// Reads every event; the leaves of `log` come first.
    ///
    /// # Errors
    /// When the database cannot be read, or the chunks are not received any more.
    pub fn run(mut self, log: Option<&Progress>, dropped: &Dropped) -> Result<Leaves, StoreError> {
        let leaves = match log {
            Some(progress) => self.scan_leaves(progress, dropped)?,
            None => Leaves::default(),
        };
        self.scan_others(&leaves.next)?;
        self.send_chunk()?;
        Ok(leaves)
    }

    /// Reads the leaves, run by run, until a run does not continue the one before.
    fn scan_leaves(&mut self, progress: &Progress, dropped: &Dropped) -> Result<Leaves, StoreError> {
        let shards = progress.next.len();
        let mut leaves = Leaves { count: dropped.first_leaf, next: dropped.all_first(shards), ..Leaves::default() };
        let mut events = Vec::new();
        for shard in LogRows::shards(&progress.next) {
            let mut shard_events = Events::scan(self.store, shards)?;
            shard_events.seek(Location { shard, position: Position(0) });
            events.push(shard_events);
        }
        let mut runs = LogRuns::new(self.store, progress)?;
        let mut shard = match runs.begin(leaves.count, &leaves.next)? {
            Some(shard) => shard,
            None => {
                leaves.broken = Some("its first run does not match what was dropped".to_owned());
                leaves.count = progress.size;
                None
            }
        };
        while leaves.count < progress.size {
            let Some((location, end)) = runs.next(leaves.count, &leaves.next, shard)? else {
                leaves.broken = Some(format!("no run contains leaf {}", leaves.count));
                break;
            };
            if end <= leaves.count {
                leaves.broken = Some("its size does not match its runs".to_owned());
                break;
            }
            if !self.scan_run(&mut events[usize::from(location.shard.0)], location, end, &mut leaves)? {
                leaves.broken = Some(missing_leaf(leaves.count));
                break;
            }
            shard = Some(location.shard);
        }
        if leaves.broken.is_none() && leaves.next != progress.next {
            leaves.broken = Some("its size does not match its runs".to_owned());
        }
        leaves.faults = match leaves.broken {
            None => runs.finish()?,
            // What follows is unknown, so the rows of it are not judged.
            Some(_) => runs.faults,
        };
        Ok(leaves)
    }

    /// Reads the events of a run. Returns false if events are missing.
    fn scan_run(
        &mut self,
        events: &mut Events<'_>,
        first: Location,
        end: u64,
        leaves: &mut Leaves,
    ) -> Result<bool, StoreError> {
        let mut location = first;
        while leaves.count < end {
            let Some(event) = events.event()? else { return Ok(false) };
            if event.location == Some(location) {
                // One request per row, because one request per event took a twentieth of a verification.
                let max_events = usize::try_from(end - leaves.count).unwrap_or(usize::MAX);
                let taken = events.visit_row(max_events, |event| self.add(event, true))? as u64;
                leaves.count += taken;
                location.position.0 += taken;
                leaves.next[usize::from(first.shard.0)] = location.position;
            } else if event.is_before(location) {
                // An event that no run contains.
                self.add(event, false)?;
                events.next();
            } else {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Reads the events that are not leaves: those before the first position of a shard, if there are any, and those
    /// after its last leaf.
    fn scan_others(&mut self, next: &[Position]) -> Result<(), StoreError> {
        let mut events = Events::scan(self.store, 1)?;
        events.seek_first();
        for (shard, next) in LogRows::shards(next).zip(next) {
            self.scan_until(&mut events, Some(Location { shard, position: Position(0) }))?;
            let Some(last) = next.0.checked_sub(1) else { continue };
            if events.at(Location { shard, position: Position(last) })?.is_some() {
                events.next();
            }
        }
        self.scan_until(&mut events, None)
    }

    /// Reads the events before `end` that are not leaves.
    fn scan_until(&mut self, events: &mut Events<'_>, end: Option<Location>) -> Result<(), StoreError> {
        while let Some(event) = events.event()?.filter(|event| end.is_none_or(|end| event.is_before(end))) {
            self.add(event, false)?;
            events.next();
        }
        Ok(())
    }

    fn add(&mut self, event: Event<'_>, is_leaf: bool) -> Result<(), StoreError> {
        let Chunk { bytes, entries } = &self.chunk;
        let is_full = bytes.len() + event.bytes.len() > CHUNK_BYTES || entries.len() == CHUNK_EVENTS;
        if is_full && !entries.is_empty() {
            self.send_chunk()?;
        }
        let bytes = &mut self.chunk.bytes;
        bytes.extend_from_slice(event.bytes);
        self.chunk.entries.push(ChunkEvent { location: event.location, is_leaf, end: bytes.len() });
        Ok(())
    }

    fn send_chunk(&mut self) -> Result<(), StoreError> {
        let mut next = self.verified.try_recv().unwrap_or_default();
        next.clear();
        let chunk = std::mem::replace(&mut self.chunk, next);
        if self.pool.send(chunk) { Ok(()) } else { Err(StoreError::Cancelled) }
    }
}

/// The message about a leaf without an event.
pub fn missing_leaf(leaf: u64) -> String {
    format!("the event of leaf {leaf} is missing or cannot be read")
}
