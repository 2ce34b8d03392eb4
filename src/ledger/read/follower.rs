//! Follows the commits of a ledger from a cursor. The index, the log and each destination of the relay are its
//! consumers.
//!
//! A consumer reads committed events in the order of their positions, shard by shard, and stores its cursor together
//! with what it derives, in one batch: a crash loses both or neither. The follower has that cursor in memory, wakes the
//! consumer when there are new commits, waits a moment so that one pass reads many of them (debounce), and reads events
//! from the memory of the latest commits or, for a consumer that lags, from the database. A slow consumer never slows a
//! commit. See `docs/adr/0009-consumers-read-recent-commits-from-memory.md`.
//!
//! Not included are the row that stores the cursor, and the thread: both belong to the consumer.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use metrics::{Gauge, describe_gauge, gauge};

use super::committed::Committed;
use super::events::Events;
use super::lookup;
use super::recent::{CommittedEvent, Source};
use crate::ledger::format::keys::{Location, Position, ShardId};
use crate::ledger::format::record::RecordRef;
use crate::ledger::store::{Store, StoreError};

/// The position of the next event of each shard. Written by its consumer, read by other threads.
pub struct Cursor {
    next: Box<[AtomicU64]>,
}

impl Cursor {
    /// A cursor with these positions, in the order of the shards.
    pub fn new(next: impl IntoIterator<Item = Position>) -> Cursor {
        Cursor { next: next.into_iter().map(|next| AtomicU64::new(next.0)).collect() }
    }

    /// The position of the next event of a shard.
    pub fn next(&self, shard: ShardId) -> Position {
        Position(self.next[usize::from(shard.0)].load(Ordering::Acquire))
    }

    /// Moves the cursor of a shard.
    pub fn set(&self, shard: ShardId, next: Position) {
        self.next[usize::from(shard.0)].store(next.0, Ordering::Release);
    }

    /// The positions of all shards, in their order.
    pub fn positions(&self) -> Vec<Position> {
        self.next.iter().map(|next| Position(next.load(Ordering::Acquire))).collect()
    }
}

/// Why a consumer wakes up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// There are new commits.
    Commits,
    /// The timer has fired.
    Timer,
    /// The consumer has to stop.
    Stop,
}

/// An event that a consumer reads.
pub enum FollowedEvent<'e> {
    /// The event as the shard published it with its commit.
    Recent(CommittedEvent<'e>),
    /// The record, read back from the database.
    Stored(RecordRef<'e>),
}

/// Follows the commits of a ledger.
pub struct Follower {
    committed: Arc<Committed>,
    cursor: Arc<Cursor>,
    woken: Receiver<()>,
    debounce: Duration,
}

impl Follower {
    /// Follows `committed` from `cursor` on. `debounce` is how long to wait for more commits before reading.
    pub fn new(committed: &Arc<Committed>, cursor: Arc<Cursor>, debounce: Duration) -> Follower {
        Follower { woken: committed.subscribe(), committed: Arc::clone(committed), cursor, debounce }
    }

    /// The progress of the shards.
    pub fn committed(&self) -> &Committed {
        &self.committed
    }

    /// The position of the next event of a shard that the consumer reads. Events that retention has dropped are skipped.
    pub fn next(&self, shard: ShardId) -> Position {
        let (next, first) = (self.cursor.next(shard), self.committed.first(shard));
        if next < first {
            self.cursor.set(shard, first);
        }
        next.max(first)
    }

    /// The cursor of the consumer.
    pub fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    /// The number of committed events that the consumer has not read.
    pub fn lag(&self) -> u64 {
        self.committed.lag(&self.cursor.positions())
    }

    /// Receives a message after new commits, for a consumer that waits for other things as well.
    pub fn woken(&self) -> &Receiver<()> {
        &self.woken
    }

    /// How long to wait for more commits before reading.
    pub fn debounce(&self) -> Duration {
        self.debounce
    }

    /// Waits for commits, for the time `timer`, or until the sender of `stop` is dropped.
    pub fn wait(&self, timer: Option<Instant>, stop: &Receiver<()>) -> Wake {
        let timer = timer.map_or_else(crossbeam_channel::never, crossbeam_channel::at);
        crossbeam_channel::select! {
            recv(self.woken) -> message => if message.is_err() { return Wake::Stop },
            recv(timer) -> _ => return Wake::Timer,
            recv(stop) -> _ => return Wake::Stop,
        }
        match stop.recv_timeout(self.debounce) {
            Err(RecvTimeoutError::Timeout) => Wake::Commits,
            _ => Wake::Stop,
        }
    }

    /// Passes up to `max_events` committed events of a shard to `take`, beginning at the cursor, until `take` returns
    /// `Break`. Returns the position after the last of them, to which the consumer moves the cursor when it has stored
    /// what it derived.
    ///
    /// # Errors
    /// When the database cannot be read, or `take` fails. An event that is missing or damaged is passed to `take` as an
    /// error.
    pub fn read<E: From<StoreError>>(
        &self,
        store: &Store,
        shard: ShardId,
        max_events: u64,
        mut take: impl FnMut(Location, Result<FollowedEvent<'_>, StoreError>) -> Result<ControlFlow<()>, E>,
    ) -> Result<Position, E> {
        let mut next = self.next(shard);
        let end = Position(self.committed.next(shard).0.min(next.0.saturating_add(max_events)));
        while next < end {
            let flow = match self.committed.source(shard, next) {
                Source::Memory(batch) => {
                    let mut events = batch.from(next);
                    let take = |event: CommittedEvent<'_>, location| take(location, Ok(FollowedEvent::Recent(event)));
                    pass_recent(&mut events, shard, &mut next, end, take)?
                }
                Source::Disk(until) => {
                    let end = until.map_or(end, |until| until.min(end));
                    pass_stored(store, shard, &mut next, end, &mut take)?
                }
            };
            if flow.is_break() {
                break;
            }
        }
        Ok(next)
    }
}

fn pass_recent<'e, E>(
    events: &mut impl Iterator<Item = CommittedEvent<'e>>,
    shard: ShardId,
    next: &mut Position,
    end: Position,
    mut take: impl FnMut(CommittedEvent<'e>, Location) -> Result<ControlFlow<()>, E>,
) -> Result<ControlFlow<()>, E> {
    while *next < end
        && let Some(event) = events.next()
    {
        let location = Location { shard, position: *next };
        *next = next.next();
        if take(event, location)?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

fn pass_stored<E: From<StoreError>>(
    store: &Store,
    shard: ShardId,
    next: &mut Position,
    end: Position,
    take: &mut impl FnMut(Location, Result<FollowedEvent<'_>, StoreError>) -> Result<ControlFlow<()>, E>,
) -> Result<ControlFlow<()>, E> {
    let mut events = Events::new(store)?;
    while *next < end {
        let location = Location { shard, position: *next };
        *next = next.next();
        let event =
            match events.at(location)? {
                Some(record) => lookup::parse(store, location, record).map(FollowedEvent::Stored),
                None => Err(store
                    .damaged(format!("the event at position {} of shard {} is missing", location.position.0, shard.0))),
            };
        if take(location, event)?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// The metric `cairn_consumer_lag_events` of one consumer.
pub struct LagGauge(Gauge);

impl LagGauge {
    /// Registers with the current recorder.
    pub fn register(consumer: impl Into<String>) -> LagGauge {
        describe_gauge!("cairn_consumer_lag_events", "Committed events that a consumer has not read yet.");
        LagGauge(gauge!("cairn_consumer_lag_events", "consumer" => consumer.into()))
    }

    /// Sets the number of events.
    pub fn set(&self, events: u64) {
        self.0.set(events as f64);
    }
}
