//! One shard: a thread that owns the heads of its agents. Nothing else gives a sequence or computes a hash.
//!
//! It takes every event that waits, seals them, commits them as one batch and answers all of them. While it waits
//! for the disk the next batch gathers: that is the group commit, and no timer is needed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use tokio::runtime::Handle;

use super::Clock;
use super::commit::{Commit, CommitError};
use super::committed::Committed;
use super::frame;
use super::heads::Heads;
use super::ids::{Ids, Known};
use super::keys::{Place, Position, Run, ShardId, time_key};
use super::metrics::ShardMetrics;
use super::queue::{Message, Refusal, Submission};
use super::recent::Stretch;
use super::record::{Draft, Stamp};
use super::recover::{self, Tail};
use super::round::{self, Round, Verdict};
use super::seal::{Before, Sealer};
use super::space::Space;
use super::store::{Family, Store, StoreError};
use crate::chain::time;

/// The most events of one commit, so that the first of them does not wait for too many others.
const COMMIT_EVENTS: usize = 8192;
/// The most bytes of one commit.
const COMMIT_BYTES: usize = 4 << 20;
/// How many heads stay in memory between commits: about 4 MiB.
const CACHED_HEADS: usize = 16_384;
/// The same where agents come back that had to go, in all shards together: about 27 MiB. Of 100,000 agents in turn, a
/// quarter more events a second.
const MOST_CACHED_HEADS: usize = 131_072;
/// How long the database may take to go on after there is room again.
const RESUME_WAIT: Duration = Duration::from_secs(60);

/// How often it is tried whether there is room again.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// The shard cannot go on; the process has to end and start again.
#[derive(Debug, thiserror::Error)]
pub enum Fatal {
    /// A commit failed for good.
    #[error("{0}")]
    Commit(#[from] CommitError),
    /// After a failed commit, or in the midst of one, the database could not be read.
    #[error("{0}")]
    Store(#[from] StoreError),
}

/// What a shard works with.
pub struct Shard {
    /// Which one it is.
    pub id: ShardId,
    /// Of how many.
    pub shards: u16,
    /// Where it reads, and what its batches are made for.
    pub store: Arc<Store>,
    /// How it commits.
    pub commit: Arc<dyn Commit>,
    /// Where senders wait. The answers of a commit are handed over in one go, and wake them on the runtime's own
    /// threads: 4 % more single events a second at 128 connections than waking each of them from here.
    pub runtime: Handle,
    /// What tells the time.
    pub clock: Clock,
    /// Whether there is room.
    pub space: Arc<Space>,
    /// Whom it tells how far it is.
    pub committed: Arc<Committed>,
    /// Its numbers.
    pub metrics: ShardMetrics,
    /// The ids that are being stored.
    pub ids: Ids,
    /// The frame that is being filled.
    pub frame: frame::Draft,
    /// What links events into their chains.
    pub sealer: Sealer,
    /// Where it goes on.
    pub tail: Tail,
}

impl Shard {
    /// Works until the queue says stop.
    ///
    /// # Errors
    /// When the shard cannot go on. Everybody whose events it had was answered.
    pub fn run(mut self, queue: &Receiver<Message>) -> Result<(), Fatal> {
        let most = MOST_CACHED_HEADS / usize::from(self.shards.max(1));
        let mut heads = Heads::new(CACHED_HEADS, most.max(CACHED_HEADS));
        let mut random = fastrand::Rng::new();
        let mut waiting = Vec::new();
        loop {
            let stopped = gather(queue, &mut waiting, self.space.is_failing());
            match waiting.is_empty() {
                false => self.serve(&mut waiting, &mut heads, &mut random)?,
                true if stopped => {}
                true => self.probe(&mut heads)?,
            }
            if stopped {
                return Ok(());
            }
        }
    }

    /// Finds out whether the database takes writes again when no events come that would.
    fn probe(&mut self, heads: &mut Heads) -> Result<(), Fatal> {
        let mut batch = self.store.batch(0);
        let count = Position(self.tail.agents).encode();
        self.store.put(&mut batch, Family::Meta, &recover::agents_key(self.id), &count)?;
        match self.commit.commit(batch) {
            Ok(()) => {
                self.space.commit_succeeded();
                Ok(())
            }
            Err(error) => self.resume(error, heads),
        }
    }

    /// Seals, commits and answers what waits.
    fn serve(
        &mut self,
        waiting: &mut Vec<Submission>,
        heads: &mut Heads,
        random: &mut fastrand::Rng,
    ) -> Result<(), Fatal> {
        let now = Instant::now();
        let mut round = self.begin(waiting);
        self.ids.prepare(&self.store, round::drafts(waiting))?;
        heads.prepare(&self.store, round::drafts(waiting))?;
        for submission in waiting.iter_mut() {
            self.metrics.queue_wait.record(now.saturating_duration_since(submission.admitted));
            round.counts.push(submission.drafts.len());
            for draft in submission.drafts.drain(..) {
                let verdict = self.take(draft, &mut round, heads, random)?;
                round.verdicts.push(verdict);
            }
        }
        let result = self.commit(&mut round, heads);
        self.ids.release();
        let refusal = result.as_ref().err().map(|error| match error {
            CommitError::NoSpace(_) => Refusal::NoSpace,
            CommitError::Failed(_) => Refusal::CommitFailed,
        });
        round::answer(waiting, round, refusal, &self.runtime);
        match result {
            Ok(()) => Ok(()),
            Err(error) => {
                tracing::error!(shard = self.id.0, %error, "a commit failed: its events were refused");
                self.resume(error, heads)
            }
        }
    }

    fn begin(&self, waiting: &[Submission]) -> Round {
        let mut tail = self.tail;
        // Never back, whatever the clock does; and 0 stands for no event yet.
        let now_ms = (self.clock)().max(tail.last_ms).max(1);
        if now_ms > tail.last_ms {
            tail.first_of_ms = tail.next;
            tail.last_ms = now_ms;
        }
        let events = waiting.iter().map(|submission| submission.drafts.len()).sum();
        Round {
            batch: self.store.batch(round::drafts(waiting).map(Draft::cost).sum()),
            records: Vec::with_capacity(events),
            before: Vec::with_capacity(events),
            verdicts: Vec::with_capacity(events),
            counts: Vec::with_capacity(waiting.len()),
            touched: Vec::new(),
            finished: Vec::new(),
            told: Stretch::new(tail.next, events),
            tail,
            received_at: time::format_ms(now_ms),
        }
    }

    /// Takes one event into the commit, or finds out why not.
    fn take(
        &mut self,
        mut draft: Draft,
        round: &mut Round,
        heads: &mut Heads,
        random: &mut fastrand::Rng,
    ) -> Result<Verdict, Fatal> {
        match self.ids.check(&self.store, &draft, round.records.len()) {
            Ok(Known::No) => {}
            Ok(Known::Same(record)) => return Ok(Verdict::Known(record)),
            Ok(Known::Other) => return Ok(Verdict::Refused(Refusal::IdTaken)),
            Ok(Known::InThisCommit(index)) if self.ids.is_same(&draft, round.records[index].as_ref()) => {
                return Ok(Verdict::SameAs(index));
            }
            Ok(Known::InThisCommit(_)) => return Ok(Verdict::Conflict),
            Ok(Known::Elsewhere) => return Ok(Verdict::Refused(Refusal::IdBusy)),
            Err(error) => return Ok(unreadable(&error)),
        }
        let loaded = heads.load(&self.store, draft.agent, || draft.agent_id());
        if loaded.is_err() {
            draft.client_id.into_iter().for_each(|id| self.ids.forget(id));
        }
        match loaded {
            Ok(head) => {
                round.tail.agents += u64::from(head.is_new());
                let place = Place { shard: self.id, position: round.tail.next };
                let (agent, client_id) = (draft.agent, draft.client_id);
                let (terms, sequence) = (draft.take_terms(), head.agent.sequence.next());
                let record = draft.stamp(&Stamp {
                    received_at: round.received_at,
                    ms: round.tail.last_ms,
                    first_of_ms: round.tail.first_of_ms,
                    position: place.position,
                    random: random.u64(..),
                    sequence,
                });
                round.told.push(agent, &head.agent.agent_id, sequence, &terms);
                let before = head.grow(round.records.len());
                if matches!(before, Before::Head(_)) {
                    round.touched.push(agent);
                }
                round.before.push(before);
                let finished = head.advance(place, round.tail.last_ms);
                round.finished.extend(finished.map(|run| (agent, run)));
                if let Some(id) = client_id {
                    self.store.put(&mut round.batch, Family::ClientIds, id.as_bytes(), &place.encode())?;
                }
                round.tail.next = place.position.next();
                round.records.push(record);
                Ok(Verdict::Fresh)
            }
            Err(error) => Ok(unreadable(&error)),
        }
    }

    /// Seals, and puts what was sealed on disk.
    fn commit(&mut self, round: &mut Round, heads: &mut Heads) -> Result<(), CommitError> {
        if round.records.is_empty() {
            return Ok(());
        }
        self.seal(round)
            .and_then(|()| self.finish(round, heads))
            .map_err(|error| CommitError::Failed(error.to_string()))?;
        let started = Instant::now();
        let batch = std::mem::replace(&mut round.batch, self.store.batch(0));
        let told = std::mem::replace(&mut round.told, Stretch::new(round.tail.next, 0));
        let result = self.commit.commit(batch);
        self.metrics.committed(round.records.len(), started.elapsed(), result.is_ok());
        result?;
        self.tail = round.tail;
        self.space.commit_succeeded();
        self.committed.publish(self.id, self.tail.next, self.tail.agents, Some(told));
        heads.evict();
        Ok(())
    }

    /// Adds the hashes, and the rows of the events.
    fn seal(&mut self, round: &mut Round) -> Result<(), StoreError> {
        self.sealer.seal(&mut round.records, &round.before);
        round.told.seal(round.records.iter().map(|record| record.as_ref().hash()));
        let mut place = Place { shard: self.id, position: self.tail.next };
        for record in &round.records {
            self.frame.add(record.as_ref().bytes());
            if self.frame.is_full() || place.position.next() == round.tail.next {
                self.frame.put(&self.store, &mut round.batch, place)?;
            }
            place.position = place.position.next();
        }
        Ok(())
    }

    /// Adds the rows that stand once in a commit, or once for an agent.
    fn finish(&mut self, round: &mut Round, heads: &mut Heads) -> Result<(), StoreError> {
        let batch = &mut round.batch;
        // In the order of their keys, rows go faster into the database's sorted memory.
        round.finished.sort_unstable_by_key(|(agent, run)| (*agent, run.first));
        for (agent, run) in &round.finished {
            self.store.put(batch, Family::Chain, &Run::key(*agent, run.first), &run.encode())?;
        }
        round.touched.sort_unstable();
        for &agent in &round.touched {
            let Some(head) = heads.loaded(agent) else { continue };
            head.seal(&round.records);
            self.store.put(batch, Family::Agents, &agent.0, &head.agent.encode())?;
        }
        if round.tail.agents != self.tail.agents {
            let count = Position(round.tail.agents).encode();
            self.store.put(batch, Family::Meta, &recover::agents_key(self.id), &count)?;
        }
        if round.tail.last_ms != self.tail.last_ms {
            let first = round.tail.first_of_ms.encode();
            self.store.put(batch, Family::Times, &time_key(self.id, round.tail.last_ms), &first)?;
        }
        Ok(())
    }

    /// After a failed commit: forgets everything and reads from disk where to go on, if that is possible at all.
    fn resume(&mut self, error: CommitError, heads: &mut Heads) -> Result<(), Fatal> {
        heads.forget();
        match &error {
            CommitError::Failed(_) => return Err(error.into()),
            CommitError::NoSpace(_) if self.space.stuck_for() > RESUME_WAIT => {
                tracing::error!("there has been room again for {RESUME_WAIT:?}, but the database does not go on");
                return Err(error.into());
            }
            CommitError::NoSpace(_) => {}
        }
        self.tail = recover::tail(&self.store, self.id)?;
        self.committed.publish(self.id, self.tail.next, self.tail.agents, None);
        Ok(())
    }
}

/// Waits for events, then takes all that are there, up to a commit's bounds. True: the queue said stop. If commits
/// fail it does not wait for long.
fn gather(queue: &Receiver<Message>, waiting: &mut Vec<Submission>, is_failing: bool) -> bool {
    waiting.clear();
    let (mut events, mut bytes) = (0, 0);
    let mut next = match is_failing {
        false => queue.recv().ok(),
        true => match queue.recv_timeout(PROBE_INTERVAL) {
            Err(RecvTimeoutError::Timeout) => return false,
            received => received.ok(),
        },
    };
    while let Some(message) = next {
        let Message::Submission(submission) = message else { return true };
        events += submission.drafts.len();
        bytes += submission.drafts.iter().map(Draft::cost).sum::<usize>();
        waiting.push(submission);
        if events >= COMMIT_EVENTS || bytes >= COMMIT_BYTES {
            return false;
        }
        next = queue.try_recv().ok();
    }
    waiting.is_empty()
}

fn unreadable(error: &StoreError) -> Verdict {
    tracing::error!(%error, "an event was refused because the ledger could not be read");
    Verdict::Refused(Refusal::Unreadable)
}
