//! Reading every event once: first the leaves of the log in their order, then what the log does not have.
//!
//! A shard's events are leaves in the order in which they stand, so every chain is read from its start to its end too.
//! Reading and inflating has a thread of its own; whole pieces go over to the one that verifies them.

use crossbeam_channel::Receiver;

use super::chunk::{Chunk, ChunkEvent};
use super::pool::Dispatcher;
use crate::ledger::format::keys::{Location, Position};
use crate::ledger::read::events::{Event, Events};
use crate::ledger::store::{Store, StoreError};
use crate::tlog::rows::{LogRows, Progress, Run};

/// How many bytes go over at once. Large enough that waking the other thread costs nothing.
const CHUNK_BYTES: usize = 512 << 10;
/// How many events they have at most.
const CHUNK_EVENTS: usize = 4096;
/// How far the log could be read.
#[derive(Default)]
pub struct Leaves {
    /// How many leaves there are.
    pub count: u64,
    /// The next event of each shard.
    pub next: Vec<Position>,
    /// Why not all of them.
    pub broken: Option<String>,
}

/// Reads events and hands them over.
pub struct Scan<'s> {
    store: &'s Store,
    shards: u16,
    pool: Dispatcher,
    /// Chunks that were verified, to be filled again.
    verified: Receiver<Chunk>,
    chunk: Chunk,
}

impl<'s> Scan<'s> {
    /// Gives the events of `store`, which has that many shards, to `pool`, and takes chunks back from `verified`.
    pub fn new(store: &'s Store, shards: u16, pool: Dispatcher, verified: Receiver<Chunk>) -> Scan<'s> {
        Scan { store, shards, pool, verified, chunk: Chunk::default() }
    }

    /// Reads every event; first the leaves, if `log` tells of them.
    ///
    /// # Errors
    /// When the database cannot be read, or nobody takes the pieces.
    pub fn run(mut self, log: Option<(&LogRows, &Progress)>) -> Result<Leaves, StoreError> {
        let leaves = match log {
            Some((rows, known)) => self.leaves(rows, known)?,
            None => Leaves::default(),
        };
        self.others(&leaves.next)?;
        self.hand_over()?;
        Ok(leaves)
    }

    /// Follows the runs of the log as far as they lead from one event to the next.
    fn leaves(&mut self, rows: &LogRows, known: &Progress) -> Result<Leaves, StoreError> {
        let shards = known.next.len();
        if shards != usize::from(self.shards) {
            return Ok(Leaves { broken: Some("its size is of other shards".to_owned()), ..Leaves::default() });
        }
        let mut leaves = Leaves { count: 0, next: vec![Position(0); shards], broken: None };
        let mut events = Vec::new();
        for shard in LogRows::shards(&known.next) {
            let mut of_shard = Events::scan(self.store, shards)?;
            of_shard.seek(Location { shard, position: Position(0) });
            events.push(of_shard);
        }
        let mut runs = rows.runs()?;
        let mut run = readable(runs.take_next())?;
        while leaves.count < known.size {
            let following = readable(runs.take_next())?;
            let end = following.map_or(known.size, |run| run.leaf).min(known.size);
            leaves.broken = wrong_run(rows, run, end, &leaves);
            let (None, Some(Run { location, .. })) = (&leaves.broken, run) else { return Ok(leaves) };
            if !self.run_of_leaves(&mut events[usize::from(location.shard.0)], location, end, &mut leaves)? {
                leaves.broken = Some(missing(leaves.count));
                return Ok(leaves);
            }
            run = following;
        }
        if leaves.next != known.next {
            leaves.broken = Some("its size is not that of its runs".to_owned());
        }
        Ok(leaves)
    }

    /// Reads the events of a run; false if there are not so many.
    fn run_of_leaves(
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
                // Event by event, asking the database took a twentieth of a verification.
                let most = usize::try_from(end - leaves.count).unwrap_or(usize::MAX);
                let taken = events.take_row(most, |event| self.add(event, true))? as u64;
                leaves.count += taken;
                location.position.0 += taken;
                leaves.next[usize::from(first.shard.0)] = location.position;
            } else if event.is_before(location) {
                // Nobody's event.
                self.add(event, false)?;
                events.next();
            } else {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Reads the rows that are no leaves: those before a shard's first event, if there are any, and those behind its last
    /// leaf.
    fn others(&mut self, next: &[Position]) -> Result<(), StoreError> {
        let mut events = Events::scan(self.store, 1)?;
        events.seek_first();
        for (shard, next) in LogRows::shards(next).zip(next) {
            self.up_to(&mut events, Some(Location { shard, position: Position(0) }))?;
            let Some(last) = next.0.checked_sub(1) else { continue };
            if events.at(Location { shard, position: Position(last) })?.is_some() {
                events.next();
            }
        }
        self.up_to(&mut events, None)
    }

    /// Reads what stands before `end` and is no leaf.
    fn up_to(&mut self, events: &mut Events<'_>, end: Option<Location>) -> Result<(), StoreError> {
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
            self.hand_over()?;
        }
        let bytes = &mut self.chunk.bytes;
        bytes.extend_from_slice(event.bytes);
        self.chunk.entries.push(ChunkEvent { location: event.location, is_leaf, end: bytes.len() });
        Ok(())
    }

    fn hand_over(&mut self) -> Result<(), StoreError> {
        let mut next = self.verified.try_recv().unwrap_or_default();
        next.clear();
        let chunk = std::mem::replace(&mut self.chunk, next);
        if self.pool.send(chunk) { Ok(()) } else { Err(StoreError::BrokenOff) }
    }
}

/// What is said of a leaf without an event.
pub fn missing(leaf: u64) -> String {
    format!("the event of leaf {leaf} is missing or cannot be read")
}

/// Why a run, which ends before leaf `end`, does not go on where the one before it ended.
fn wrong_run(rows: &LogRows, run: Option<Run>, end: u64, leaves: &Leaves) -> Option<String> {
    let Some(Run { leaf, location }) = run else {
        return Some(format!("nothing says which event leaf {} is", leaves.count));
    };
    let expected = leaves.next.get(usize::from(location.shard.0)).copied();
    if leaf != leaves.count || expected != Some(location.position) || end <= leaf {
        return Some(format!("the run of leaf {leaf} is not where the one before it ends"));
    }
    if rows.leaf_of(location).ok() != Some(leaf) {
        return Some(format!("the event of leaf {leaf} does not lead back to it"));
    }
    None
}

/// A run that cannot be read is as good as none: the one before it does not end where it should.
fn readable(run: Result<Option<Run>, StoreError>) -> Result<Option<Run>, StoreError> {
    match run {
        Err(StoreError::Damaged { .. }) => Ok(None),
        run => run,
    }
}
