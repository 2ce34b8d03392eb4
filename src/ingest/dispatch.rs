//! From a request to its shards: admission, and the outcomes of its events.
//!
//! Waiting for a place is bounded by `queue.max_wait`. A request that is larger than the queue is admitted in
//! parts, and each part is queued as soon as it has its places: places of one shard are never held while waiting
//! for another's. What was queued is committed whether or not its sender still listens.

use std::sync::Arc;
use std::time::{Duration, Instant};

use smallvec::smallvec;
use tokio::sync::oneshot;

use crate::ledger::Ledger;
use crate::ledger::format::keys::shard_of;
use crate::ledger::format::record::{Draft, Record};
use crate::ledger::shard::queue::{Drafts, Outcome, Outcomes, Permit, Queue, Refusal, Submission};

/// Why an event was not acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotStored {
    /// No place became free in time. The event is not stored.
    QueueFull,
    /// The process is shutting down. The event is not stored.
    Draining,
    /// The shard went away with the event. Whether it is stored is unknown.
    Lost,
    /// The ledger said no.
    Refused(Refusal),
}

/// An event that is on disk.
pub struct Stored {
    /// What is stored.
    pub record: Record,
    /// It was stored before, under the same id.
    pub is_known: bool,
}

/// What became of one event.
pub type Answer = Result<Stored, NotStored>;

/// The way to the shards.
pub struct Dispatch {
    queues: Vec<Queue>,
    max_wait: Duration,
}

impl Dispatch {
    /// To the shards of this ledger.
    pub fn new(ledger: &Arc<Ledger>, max_wait: Duration) -> Dispatch {
        Dispatch { queues: ledger.queues().to_vec(), max_wait }
    }

    /// Has one event committed.
    pub async fn one(&self, draft: Draft) -> Answer {
        let queue = self.queue_of(&draft);
        let permit = self.admit(queue, 1, draft.cost()).await?;
        let mut outcomes = submit(queue, smallvec![draft], permit)?.await.map_err(|_| NotStored::Lost)?;
        outcomes.pop().map_or(Err(NotStored::Lost), answer)
    }

    /// Has many events committed; the answers are in the order of the events.
    pub async fn many(&self, drafts: Vec<Draft>) -> Vec<Answer> {
        if let [queue] = &self.queues[..]
            && fits(queue, &drafts)
        {
            return self.at_once(queue, drafts).await;
        }
        let mut answers: Vec<Option<Answer>> = drafts.iter().map(|_| None).collect();
        let mut by_shard: Vec<Vec<(usize, Draft)>> = self.queues.iter().map(|_| Vec::new()).collect();
        for (index, draft) in drafts.into_iter().enumerate() {
            let shard = shard_of(draft.agent, self.queues.len() as u16);
            by_shard[usize::from(shard.0)].push((index, draft));
        }
        let mut underway = Vec::new();
        for (queue, drafts) in self.queues.iter().zip(by_shard) {
            self.in_parts(queue, drafts, &mut underway, &mut answers).await;
        }
        for Part { indexes, mut outcomes } in underway {
            outcomes.wait().await;
            let Pending::Done(Some(outcomes)) = outcomes else { continue };
            for (index, outcome) in indexes.into_iter().zip(outcomes) {
                answers[index] = Some(answer(outcome));
            }
        }
        answers.into_iter().map(|answer| answer.unwrap_or(Err(NotStored::Lost))).collect()
    }

    /// Has events of one shard committed that are one part. Most requests are: nothing of them is moved.
    async fn at_once(&self, queue: &Queue, drafts: Vec<Draft>) -> Vec<Answer> {
        let (count, bytes) = (drafts.len(), drafts.iter().map(Draft::cost).sum());
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

    /// Queues the events of one shard, part by part. Once a part finds no place, so does what comes behind it: the
    /// order of an agent's events is that of the request.
    async fn in_parts(
        &self,
        queue: &Queue,
        drafts: Vec<(usize, Draft)>,
        underway: &mut Vec<Part>,
        answers: &mut [Option<Answer>],
    ) {
        let mut rest = drafts.into_iter().peekable();
        let mut refused = None;
        let mine = underway.len();
        while rest.peek().is_some() {
            let (mut indexes, mut part, mut bytes) = (Vec::new(), Drafts::new(), 0);
            while let Some((index, draft)) = rest.next_if(|(_, draft)| has_room(queue, part.len(), bytes, draft)) {
                bytes += draft.cost();
                indexes.push(index);
                part.push(draft);
            }
            let sent = match refused {
                Some(why) => Err(why),
                None => match self.admit_part(queue, part.len(), bytes, &mut underway[mine..]).await {
                    Ok(permit) => submit(queue, part, permit),
                    Err(why) => Err(why),
                },
            };
            match sent {
                Ok(receiver) => underway.push(Part { indexes, outcomes: Pending::Waiting(receiver) }),
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

    /// Admits a part of a request. As long as earlier parts of the same request are in the queue they may be what
    /// fills it, and waiting for them does not count.
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
    /// Which events of the request it has.
    indexes: Vec<usize>,
    outcomes: Pending,
}

/// Outcomes that may still be on their way.
enum Pending {
    Waiting(oneshot::Receiver<Outcomes>),
    /// `None` if the shard went away.
    Done(Option<Outcomes>),
}

impl Pending {
    async fn wait(&mut self) {
        if let Pending::Waiting(receiver) = self {
            *self = Pending::Done(receiver.await.ok());
        }
    }
}

/// A part takes at most a quarter of the queue, so that others find places between parts; one event always fits.
const SHARE: usize = 4;

fn has_room(queue: &Queue, events: usize, bytes: usize, next: &Draft) -> bool {
    events == 0 || (events < queue.capacity_events() / SHARE && bytes + next.cost() <= queue.capacity_bytes() / SHARE)
}

/// Whether all of these are one part.
fn fits(queue: &Queue, drafts: &[Draft]) -> bool {
    let bytes: usize = drafts.iter().map(Draft::cost).sum();
    !drafts.is_empty() && drafts.len() <= queue.capacity_events() / SHARE && bytes <= queue.capacity_bytes() / SHARE
}

fn submit(queue: &Queue, drafts: Drafts, permit: Permit) -> Result<oneshot::Receiver<Outcomes>, NotStored> {
    let (reply, receiver) = oneshot::channel();
    let submission = Submission { drafts, reply, permit, admitted: Instant::now() };
    queue.send(submission).map_err(|_| NotStored::Draining)?;
    Ok(receiver)
}

fn answer(outcome: Outcome) -> Answer {
    match outcome {
        Outcome::Stored(record) => Ok(Stored { record, is_known: false }),
        Outcome::AlreadyStored(record) => Ok(Stored { record, is_known: true }),
        Outcome::Refused(refusal) => Err(NotStored::Refused(refusal)),
    }
}
