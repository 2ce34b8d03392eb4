//! Sends the events of a request to the queues of their shards and collects their outcomes.
//!
//! Waiting for admission is bounded by `queue.max_wait`. A request that is larger than the queue is admitted in parts.
//! Each part is queued as soon as it has its permit, so a permit of one shard is never held while waiting for another
//! shard. A queued event is committed even if its sender has disconnected.

use std::sync::Arc;
use std::time::{Duration, Instant};

use smallvec::smallvec;
use tokio::sync::oneshot;

use crate::ledger::Ledger;
use crate::ledger::format::keys::shard_of;
use crate::ledger::format::record::{Draft, Record};
use crate::ledger::shard::queue::{Drafts, Outcome, Outcomes, Permit, Queue, Refusal};

/// Why an event was not acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotStored {
    /// The queue stayed full for `queue.max_wait`. The event is not stored.
    QueueFull,
    /// The process is shutting down. The event is not stored.
    Draining,
    /// The shard stopped without an outcome. Whether the event is stored is unknown.
    Lost,
    /// The shard refused the event.
    Refused(Refusal),
}

/// An event that is on disk.
pub struct Stored {
    /// The stored record.
    pub record: Record,
    /// Whether the event was already stored under the same id.
    pub is_duplicate: bool,
}

/// The outcome of one event.
pub type Answer = Result<Stored, NotStored>;

/// Dispatches events to the queues of the shards.
pub struct Dispatch {
    queues: Vec<Queue>,
    max_wait: Duration,
}

impl Dispatch {
    /// Dispatches to the shards of `ledger`. Admission waits for at most `max_wait`.
    pub fn new(ledger: &Arc<Ledger>, max_wait: Duration) -> Dispatch {
        Dispatch { queues: ledger.queues().to_vec(), max_wait }
    }

    /// Commits one event.
    pub async fn commit_one(&self, draft: Draft) -> Answer {
        let queue = self.queue_of(&draft);
        let permit = self.admit(queue, 1, draft.memory_bytes()).await?;
        let mut outcomes = submit(queue, smallvec![draft], permit)?.await.map_err(|_| NotStored::Lost)?;
        outcomes.pop().map_or(Err(NotStored::Lost), answer)
    }

    /// Commits events of any number; the outcomes are in the order of the events.
    pub async fn commit_many(&self, drafts: Vec<Draft>) -> Vec<Answer> {
        if let [queue] = &self.queues[..]
            && fit_one_part(queue, &drafts)
        {
            return self.commit_part(queue, drafts).await;
        }
        let mut answers: Vec<Option<Answer>> = drafts.iter().map(|_| None).collect();
        let mut by_shard: Vec<Vec<(usize, Draft)>> = self.queues.iter().map(|_| Vec::new()).collect();
        for (index, draft) in drafts.into_iter().enumerate() {
            let shard = shard_of(draft.agent, self.queues.len() as u16);
            by_shard[usize::from(shard.0)].push((index, draft));
        }
        let mut queued = Vec::new();
        for (queue, drafts) in self.queues.iter().zip(by_shard) {
            self.queue_parts(queue, drafts, &mut queued, &mut answers).await;
        }
        for Part { indexes, mut outcomes } in queued {
            outcomes.wait().await;
            let Pending::Done(Some(outcomes)) = outcomes else { continue };
            for (index, outcome) in indexes.into_iter().zip(outcomes) {
                answers[index] = Some(answer(outcome));
            }
        }
        answers.into_iter().map(|answer| answer.unwrap_or(Err(NotStored::Lost))).collect()
    }

    /// Commits events of one shard that fit into one part. Most requests do, and their drafts are not regrouped.
    async fn commit_part(&self, queue: &Queue, drafts: Vec<Draft>) -> Vec<Answer> {
        let (count, bytes) = (drafts.len(), drafts.iter().map(Draft::memory_bytes).sum());
        let outcomes = match self.admit(queue, count, bytes).await {
            Ok(permit) => match submit(queue, Drafts::from_vec(drafts), permit) {
                Ok(outcomes) => outcomes.await.map_err(|_| NotStored::Lost),
                Err(why) => Err(why),
            },
            Err(why) => Err(why),
        };
        match outcomes {
            Ok(outcomes) => outcomes.into_iter().map(answer).collect(),
            Err(why) => (0..count).map(|_| Err(why)).collect(),
        }
    }

    /// Queues the events of one shard, part by part. After a part that is refused, all later parts are refused as well,
    /// so that the events of an agent keep the order of the request.
    async fn queue_parts(
        &self,
        queue: &Queue,
        drafts: Vec<(usize, Draft)>,
        queued: &mut Vec<Part>,
        answers: &mut [Option<Answer>],
    ) {
        let mut rest = drafts.into_iter().peekable();
        let mut refused = None;
        let first_own = queued.len();
        while rest.peek().is_some() {
            let (mut indexes, mut part, mut bytes) = (Vec::new(), Drafts::new(), 0);
            while let Some((index, draft)) = rest.next_if(|(_, draft)| has_room(queue, part.len(), bytes, draft)) {
                bytes += draft.memory_bytes();
                indexes.push(index);
                part.push(draft);
            }
            let sent = match refused {
                Some(why) => Err(why),
                None => match self.admit_part(queue, part.len(), bytes, &mut queued[first_own..]).await {
                    Ok(permit) => submit(queue, part, permit),
                    Err(why) => Err(why),
                },
            };
            match sent {
                Ok(receiver) => queued.push(Part { indexes, outcomes: Pending::Waiting(receiver) }),
                Err(why) => {
                    refused = Some(why);
                    indexes.into_iter().for_each(|index| answers[index] = Some(Err(why)));
                }
            }
        }
    }

    fn queue_of(&self, draft: &Draft) -> &Queue {
        &self.queues[usize::from(shard_of(draft.agent, self.queues.len() as u16).0)]
    }

    /// Admits a part of a request. Earlier parts of the same request may be what fills the queue, so the time until
    /// they are committed does not count against `max_wait`.
    async fn admit_part(
        &self,
        queue: &Queue,
        events: usize,
        bytes: usize,
        earlier: &mut [Part],
    ) -> Result<Permit, NotStored> {
        for part in earlier {
            if let Some(permit) = queue.try_admit(events, bytes) {
                return Ok(permit);
            }
            part.outcomes.wait().await;
        }
        self.admit(queue, events, bytes).await
    }

    async fn admit(&self, queue: &Queue, events: usize, bytes: usize) -> Result<Permit, NotStored> {
        if let Some(permit) = queue.try_admit(events, bytes) {
            return Ok(permit);
        }
        match tokio::time::timeout(self.max_wait, queue.admit(events, bytes)).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) => Err(NotStored::Draining),
            Err(_) => Err(NotStored::QueueFull),
        }
    }
}

/// A part of a request that was queued.
struct Part {
    /// The indexes of its events in the request.
    indexes: Vec<usize>,
    outcomes: Pending,
}

/// Outcomes that may not have arrived yet.
enum Pending {
    Waiting(oneshot::Receiver<Outcomes>),
    /// `None` if the shard stopped without an outcome.
    Done(Option<Outcomes>),
}

impl Pending {
    async fn wait(&mut self) {
        if let Pending::Waiting(receiver) = self {
            *self = Pending::Done(receiver.await.ok());
        }
    }
}

/// A part takes at most a quarter of the queue, so that other requests are admitted between parts. One event always
/// fits.
const QUEUE_DIVISOR: usize = 4;

fn has_room(queue: &Queue, events: usize, bytes: usize, next: &Draft) -> bool {
    events == 0
        || (events < queue.capacity_events() / QUEUE_DIVISOR
            && bytes + next.memory_bytes() <= queue.capacity_bytes() / QUEUE_DIVISOR)
}

/// Whether all of `drafts` fit into one part.
fn fit_one_part(queue: &Queue, drafts: &[Draft]) -> bool {
    let bytes: usize = drafts.iter().map(Draft::memory_bytes).sum();
    !drafts.is_empty()
        && drafts.len() <= queue.capacity_events() / QUEUE_DIVISOR
        && bytes <= queue.capacity_bytes() / QUEUE_DIVISOR
}

fn submit(queue: &Queue, drafts: Drafts, permit: Permit) -> Result<oneshot::Receiver<Outcomes>, NotStored> {
    queue.submit(drafts, permit, Instant::now()).map_err(|_| NotStored::Draining)
}

fn answer(outcome: Outcome) -> Answer {
    match outcome {
        Outcome::Stored(record) => Ok(Stored { record, is_duplicate: false }),
        Outcome::AlreadyStored(record) => Ok(Stored { record, is_duplicate: true }),
        Outcome::Refused(refusal) => Err(NotStored::Refused(refusal)),
    }
}
