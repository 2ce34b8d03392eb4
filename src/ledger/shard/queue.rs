//! The way to a shard: a channel that is bounded by events and by bytes, with places that can be waited for.
//!
//! A place is held from admission until the event is answered, so the bound covers what waits and what is being
//! committed.

use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender};
use smallvec::SmallVec;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::config::QueueConfig;
use crate::ledger::format::record::{Draft, Record};

/// Events of one request for one shard. One is the common case, and takes no allocation of its own.
pub type Drafts = SmallVec<[Draft; 1]>;

/// What became of the events of a submission, in their order.
pub type Outcomes = SmallVec<[Outcome; 1]>;

/// What became of one event.
pub enum Outcome {
    /// It is on disk.
    Stored(Record),
    /// The same event was stored before, under the same id. This is what is stored.
    AlreadyStored(Record),
    /// It is not acknowledged.
    Refused(Refusal),
}

/// Why the ledger did not take an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Its id belongs to another event.
    IdTaken,
    /// Another shard is storing an event with its id right now.
    IdBusy,
    /// The commit failed. Whether the event is stored is unknown.
    CommitFailed,
    /// The commit failed for want of space. Whether the event is stored is unknown.
    NoSpace,
    /// The stored rows that the event builds on cannot be read.
    Unreadable,
}

/// Places in a queue. Dropping it gives them back.
pub struct Permit {
    events: OwnedSemaphorePermit,
    bytes: OwnedSemaphorePermit,
}

impl Permit {
    /// Joins the places of another permit of the same queue, so that all are given back at once.
    pub fn merge(&mut self, other: Permit) {
        self.events.merge(other.events);
        self.bytes.merge(other.bytes);
    }
}

/// Events on their way to a shard, and where their outcomes go.
pub struct Submission {
    /// The events, in the order of the request.
    pub drafts: Drafts,
    /// Answered once, with an outcome per event. Nobody may be listening any more.
    pub reply: oneshot::Sender<Outcomes>,
    /// The places that the events take.
    pub permit: Permit,
    /// When the events got their places.
    pub admitted: Instant,
}

/// What comes out of a queue.
#[expect(
    clippy::large_enum_variant,
    reason = "all but the last are submissions, and a box would be an allocation more"
)]
pub enum Message {
    /// Events to commit.
    Submission(Submission),
    /// Nothing that comes behind this is committed.
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

/// The queue takes nothing more: the process is shutting down, or its shard is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed;

impl Queue {
    /// A queue and its receiving end.
    pub fn new(config: &QueueConfig) -> (Queue, Receiver<Message>) {
        // A permit counts in 32 bits.
        let capacity_bytes = usize::try_from(config.bytes.as_u64().min(u32::MAX.into())).unwrap_or(usize::MAX);
        // Permits are the bound. A channel with a bound of its own would keep what is left in it when the shard goes,
        // and with it the senders who wait for an answer.
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

    /// The most events that have a place.
    pub fn capacity_events(&self) -> usize {
        self.capacity_events
    }

    /// The most memory that has a place.
    pub fn capacity_bytes(&self) -> usize {
        self.capacity_bytes
    }

    /// How many events have a place now, and how much memory they take.
    pub fn used(&self) -> (usize, usize) {
        let events = self.capacity_events.saturating_sub(self.events.available_permits());
        (events, self.capacity_bytes.saturating_sub(self.bytes.available_permits()))
    }

    /// Places for that many events and bytes, if they are free and nobody waits for them.
    pub fn try_admit(&self, events: usize, bytes: usize) -> Option<Permit> {
        let (events, bytes) = self.clamp(events, bytes);
        let events = Arc::clone(&self.events).try_acquire_many_owned(events).ok()?;
        let bytes = Arc::clone(&self.bytes).try_acquire_many_owned(bytes).ok()?;
        Some(Permit { events, bytes })
    }

    /// Waits for places, first come, first served.
    ///
    /// # Errors
    /// When the queue is closed.
    pub async fn admit(&self, events: usize, bytes: usize) -> Result<Permit, Closed> {
        let (events, bytes) = self.clamp(events, bytes);
        let events = Arc::clone(&self.events).acquire_many_owned(events).await.map_err(|_| Closed)?;
        let bytes = Arc::clone(&self.bytes).acquire_many_owned(bytes).await.map_err(|_| Closed)?;
        Ok(Permit { events, bytes })
    }

    /// One event larger than the whole queue gets all of it, rather than none.
    fn clamp(&self, events: usize, bytes: usize) -> (u32, u32) {
        let clamp = |wanted: usize, capacity: usize| u32::try_from(wanted.min(capacity)).unwrap_or(u32::MAX);
        (clamp(events, self.capacity_events), clamp(bytes, self.capacity_bytes))
    }

    /// Hands events over. Does not wait: who has a permit has a place.
    ///
    /// # Errors
    /// When the shard is gone.
    pub fn send(&self, submission: Submission) -> Result<(), Closed> {
        self.sender.send(Message::Submission(submission)).map_err(|_| Closed)
    }

    /// Lets nobody else in. What was sent before is still committed, then the shard ends.
    pub fn close(&self) {
        self.events.close();
        self.bytes.close();
        // The shard may have ended already; then there is nobody to tell.
        let _ = self.sender.send(Message::Stop);
    }
}
