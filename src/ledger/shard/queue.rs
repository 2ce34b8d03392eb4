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

/// Room in a queue for a number of events and bytes, which is released on drop.
pub struct Permit {
    events: OwnedSemaphorePermit,
    bytes: OwnedSemaphorePermit,
}

impl Permit {
    /// Adds another permit of the same queue, so that both are released at once.
    pub fn merge(&mut self, other: Permit) {
        self.events.merge(other.events);
        self.bytes.merge(other.bytes);
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
    events: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    capacity_events: usize,
    capacity_bytes: usize,
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
        let queue = Queue {
            events: Arc::new(Semaphore::new(config.events)),
            bytes: Arc::new(Semaphore::new(capacity_bytes)),
            capacity_events: config.events,
            capacity_bytes,
            sender,
        };
        (queue, receiver)
    }

    /// The most events in the queue.
    pub fn capacity_events(&self) -> usize {
        self.capacity_events
    }

    /// The most memory of the events in the queue, in bytes.
    pub fn capacity_bytes(&self) -> usize {
        self.capacity_bytes
    }

    /// The number of events in the queue, and their memory in bytes.
    pub fn used(&self) -> (usize, usize) {
        let events = self.capacity_events.saturating_sub(self.events.available_permits());
        (events, self.capacity_bytes.saturating_sub(self.bytes.available_permits()))
    }

    /// Grants a permit if there is room now and no other sender waits for it.
    pub fn try_admit(&self, events: usize, bytes: usize) -> Option<Permit> {
        let (events, bytes) = self.clamp(events, bytes);
        let events = Arc::clone(&self.events).try_acquire_many_owned(events).ok()?;
        let bytes = Arc::clone(&self.bytes).try_acquire_many_owned(bytes).ok()?;
        Some(Permit { events, bytes })
    }

    /// Waits for a permit, in the order of arrival.
    ///
    /// # Errors
    /// When the queue is closed.
    pub async fn admit(&self, events: usize, bytes: usize) -> Result<Permit, Closed> {
        let (events, bytes) = self.clamp(events, bytes);
        let events = Arc::clone(&self.events).acquire_many_owned(events).await.map_err(|_| Closed)?;
        let bytes = Arc::clone(&self.bytes).acquire_many_owned(bytes).await.map_err(|_| Closed)?;
        Ok(Permit { events, bytes })
    }

    /// An event larger than the whole queue gets all of the queue, so that it can be admitted at all.
    fn clamp(&self, events: usize, bytes: usize) -> (u32, u32) {
        let clamp = |wanted: usize, capacity: usize| u32::try_from(wanted.min(capacity)).unwrap_or(u32::MAX);
        (clamp(events, self.capacity_events), clamp(bytes, self.capacity_bytes))
    }

    /// Sends events to the shard. Never waits, because the permit guarantees room.
    ///
    /// # Errors
    /// When the shard has ended.
    pub fn send(&self, submission: Submission) -> Result<(), Closed> {
        self.sender.send(Message::Submission(submission)).map_err(|_| Closed)
    }

    /// Refuses new events. The shard commits what was sent before, and ends.
    pub fn close(&self) {
        self.events.close();
        self.bytes.close();
        // Fails if the shard has already ended.
        let _ = self.sender.send(Message::Stop);
    }
}
