//! The queue of a shard: a channel that is bounded by number of events and by bytes, with permits that senders can wait
//! for.
//!
//! A permit is held from admission until the events are answered, so the bounds cover events that wait and events that
//! are being committed. See `docs/adr/0019-permits-bound-the-queue.md`.

use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender};
use smallvec::SmallVec;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::config::QueueConfig;
use crate::ledger::format::record::{Draft, Record};

/// The events of one request for one shard. One event, the common case, needs no allocation.
pub type Drafts = SmallVec<[Draft; 1]>;

/// The outcomes of the events of a submission, in the order of its events.
pub type Outcomes = SmallVec<[Outcome; 1]>;

/// The outcome of one event.
pub enum Outcome {
    /// The event is on disk.
    Stored(Record),
    /// The same event was stored before under the same id. The record is the stored one.
    AlreadyStored(Record),
    /// The event is refused.
    Refused(Refusal),
}

/// The reason why the ledger refused an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The id belongs to a different event.
    IdTaken,
    /// Another shard is storing an event with the same id.
    IdBusy,
    /// The commit failed. Whether the event is stored is unknown.
    CommitFailed,
    /// The commit failed for want of space. Whether the event is stored is unknown.
    NoSpace,
    /// The stored rows that the event depends on cannot be read.
    Unreadable,
}

/// The submissions that count as small: at most this number of events ...
const SMALL_EVENTS: usize = 16;
/// ... and at most this number of bytes.
const SMALL_BYTES: usize = 64 << 10;
/// The part of a queue that only small submissions may take, so that those of one client do not wait until the batches of
/// others have room.
const SMALL_SHARE: usize = 8;

/// Room in a queue for a number of events and bytes, which is released on drop.
pub struct Permit {
    small: Option<Taken>,
    large: Option<Taken>,
}

/// Room of one part of a queue.
struct Taken {
    events: OwnedSemaphorePermit,
    bytes: OwnedSemaphorePermit,
}

impl Permit {
    /// Adds another permit of the same queue, so that both are released at once.
    pub fn merge(&mut self, other: Permit) {
        for (taken, other) in [(&mut self.small, other.small), (&mut self.large, other.large)] {
            match (taken, other) {
                (Some(taken), Some(other)) => {
                    taken.events.merge(other.events);
                    taken.bytes.merge(other.bytes);
                }
                (taken @ None, other) => *taken = other,
                (Some(_), None) => {}
            }
        }
    }
}

/// A part of a queue.
#[derive(Clone)]
struct Room {
    events: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    capacity_events: usize,
    capacity_bytes: usize,
}

impl Room {
    fn new(capacity_events: usize, capacity_bytes: usize) -> Room {
        let (events, bytes) = (Arc::new(Semaphore::new(capacity_events)), Arc::new(Semaphore::new(capacity_bytes)));
        Room { events, bytes, capacity_events, capacity_bytes }
    }

    fn try_take(&self, events: usize, bytes: usize) -> Option<Taken> {
        let (events, bytes) = self.clamp(events, bytes);
        let events = Arc::clone(&self.events).try_acquire_many_owned(events).ok()?;
        let bytes = Arc::clone(&self.bytes).try_acquire_many_owned(bytes).ok()?;
        Some(Taken { events, bytes })
    }

    async fn take(&self, events: usize, bytes: usize) -> Result<Taken, Closed> {
        let (events, bytes) = self.clamp(events, bytes);
        let events = Arc::clone(&self.events).acquire_many_owned(events).await.map_err(|_| Closed)?;
        let bytes = Arc::clone(&self.bytes).acquire_many_owned(bytes).await.map_err(|_| Closed)?;
        Ok(Taken { events, bytes })
    }

    /// An event larger than all of it gets all of it, so that it can be admitted at all.
    fn clamp(&self, events: usize, bytes: usize) -> (u32, u32) {
        let clamp = |wanted: usize, capacity: usize| u32::try_from(wanted.min(capacity)).unwrap_or(u32::MAX);
        (clamp(events, self.capacity_events), clamp(bytes, self.capacity_bytes))
    }

    fn used(&self) -> (usize, usize) {
        let events = self.capacity_events.saturating_sub(self.events.available_permits());
        (events, self.capacity_bytes.saturating_sub(self.bytes.available_permits()))
    }

    fn close(&self) {
        self.events.close();
        self.bytes.close();
    }
}

/// Events for a shard, and the channel for their outcomes.
pub struct Submission {
    /// The events, in the order of the request.
    pub drafts: Drafts,
    /// The channel for the outcomes, one per event. The receiver may have been dropped.
    pub reply: oneshot::Sender<Outcomes>,
    /// The room that the events take in the queue.
    pub permit: Permit,
    /// When the permit was granted.
    pub admitted: Instant,
}

/// A message in a queue.
#[expect(
    clippy::large_enum_variant,
    reason = "all messages but the last are submissions, and a box would cost an allocation for each"
)]
pub enum Message {
    /// Events to commit.
    Submission(Submission),
    /// The shard stops here, and does not commit what follows.
    Stop,
}

/// The sending side of one shard's queue.
#[derive(Clone)]
pub struct Queue {
    /// The part for small submissions; `None` in a queue that is too short for one.
    small: Option<Room>,
    large: Room,
    sender: Sender<Message>,
}

/// The queue is closed: the process is shutting down, or the shard has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed;

impl Queue {
    /// Creates a queue and its receiving end.
    pub fn new(config: &QueueConfig) -> (Queue, Receiver<Message>) {
        // The semaphore counts permits in 32 bits.
        let capacity_bytes = usize::try_from(config.bytes.as_u64().min(u32::MAX.into())).unwrap_or(usize::MAX);
        // Permits are the bound. A bounded channel would retain its messages when the shard ends, and the senders would
        // wait for their answers forever.
        let (sender, receiver) = crossbeam_channel::unbounded();
        let (events, bytes) = (config.events / SMALL_SHARE, capacity_bytes / SMALL_SHARE);
        let small = (events >= SMALL_EVENTS && bytes >= SMALL_BYTES).then(|| Room::new(events, bytes));
        let (events, bytes) = if small.is_some() { (events, bytes) } else { (0, 0) };
        (Queue { small, large: Room::new(config.events - events, capacity_bytes - bytes), sender }, receiver)
    }

    /// The most events in the queue.
    pub fn capacity_events(&self) -> usize {
        self.rooms().map(|room| room.capacity_events).sum()
    }

    /// The most memory of the events in the queue, in bytes.
    pub fn capacity_bytes(&self) -> usize {
        self.rooms().map(|room| room.capacity_bytes).sum()
    }

    fn rooms(&self) -> impl Iterator<Item = &Room> {
        self.small.iter().chain([&self.large])
    }

    /// The part for small submissions, if this is one.
    fn small_room(&self, events: usize, bytes: usize) -> Option<&Room> {
        self.small.as_ref().filter(|_| events <= SMALL_EVENTS && bytes <= SMALL_BYTES)
    }

    /// The number of events in the queue, and their memory in bytes.
    pub fn used(&self) -> (usize, usize) {
        self.rooms().map(Room::used).fold((0, 0), |sum, used| (sum.0 + used.0, sum.1 + used.1))
    }

    /// Grants a permit if there is room now and no other sender waits for it.
    pub fn try_admit(&self, events: usize, bytes: usize) -> Option<Permit> {
        let small = self.small_room(events, bytes).and_then(|room| room.try_take(events, bytes));
        if small.is_some() {
            return Some(Permit { small, large: None });
        }
        self.large.try_take(events, bytes).map(|large| Permit { small: None, large: Some(large) })
    }

    /// Waits for a permit, in the order of arrival.
    ///
    /// # Errors
    /// When the queue is closed.
    pub async fn admit(&self, events: usize, bytes: usize) -> Result<Permit, Closed> {
        Ok(match self.small_room(events, bytes) {
            Some(room) => Permit { small: Some(room.take(events, bytes).await?), large: None },
            None => Permit { small: None, large: Some(self.large.take(events, bytes).await?) },
        })
    }

    /// Sends events to the shard, and returns the channel for their outcomes. Never waits, because the permit guarantees room.
    /// `admitted` is when it was granted.
    ///
    /// # Errors
    /// When the shard has ended.
    pub fn submit(
        &self,
        drafts: Drafts,
        permit: Permit,
        admitted: Instant,
    ) -> Result<oneshot::Receiver<Outcomes>, Closed> {
        let (reply, receiver) = oneshot::channel();
        let submission = Submission { drafts, reply, permit, admitted };
        self.sender.send(Message::Submission(submission)).map_err(|_| Closed)?;
        Ok(receiver)
    }

    /// Refuses new events. The shard commits what was sent before, and ends.
    pub fn close(&self) {
        self.rooms().for_each(Room::close);
        // Fails if the shard has already ended.
        let _ = self.sender.send(Message::Stop);
    }
}
