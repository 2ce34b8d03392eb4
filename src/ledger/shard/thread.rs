//! The thread of one shard. It owns the heads of its agents: nothing else assigns a sequence or computes a hash.
//!
//! It takes every event that waits, seals them, commits them as one batch and answers all of them. While it waits for the disk,
//! the next batch gathers in the queue: that is the group commit, and no timer is needed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use tokio::runtime::Handle;

use super::batch::{self, CommitBatch, Disposition};
use super::commit::Commit;
use super::dedup::{Dedup, IdLookup};
use super::disk_space::DiskSpace;
use super::heads::Heads;
use super::metrics::ShardMetrics;
use super::queue::{Message, Refusal, Submission};
use super::recover::{self, Tail};
use super::seal::{Receipt, seal};
use crate::ledger::format::frame::FrameBuilder;
use crate::ledger::format::keys::{Location, Position, Run, ShardId, time_key};
use crate::ledger::format::meta::agents_key;
use crate::ledger::format::record::Draft;
use crate::ledger::read::committed::Committed;
use crate::ledger::read::recent::CommittedBatch;
use crate::ledger::store::{CommitError, Family, Store, StoreError};
use crate::runtime::Clock;
use cairn_proof::chain::time;

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

/// What the thread of a shard works with.
pub struct Shard {
    /// Its id.
    pub id: ShardId,
    /// The number of shards.
    pub shards: u16,
    /// The database that it reads, and for which its batches are made.
    pub store: Arc<Store>,
    /// How it commits: the store itself, except in tests that make commits fail.
    pub commit: Arc<dyn Commit>,
    /// The runtime of the senders. The answers of a commit are handed over at once and wake the senders on the runtime's own
    /// threads: 4 % more single events a second at 128 connections than waking each sender from here.
    pub runtime: Handle,
    /// The clock.
    pub clock: Clock,
    /// Whether there is room on disk.
    pub space: Arc<DiskSpace>,
    /// Where it publishes its progress.
    pub committed: Arc<Committed>,
    /// Its metrics.
    pub metrics: ShardMetrics,
    /// The ids that clients sent.
    pub dedup: Dedup,
    /// The frame that is being filled.
    pub frame: FrameBuilder,
    /// Where it continues.
    pub tail: Tail,
}

impl Shard {
    /// Works until the queue is closed.
    ///
    /// # Errors
    /// When the shard cannot go on. Every event that it had taken was answered.
    pub fn run(mut self, queue: &Receiver<Message>) -> Result<(), Fatal> {
        let most = MOST_CACHED_HEADS / usize::from(self.shards.max(1));
        let mut heads = Heads::new(CACHED_HEADS, most.max(CACHED_HEADS));
        let mut random = fastrand::Rng::new();
        let mut waiting = Vec::new();
        loop {
            let stopped = gather(queue, &mut waiting, self.space.is_failing());
            match waiting.is_empty() {
                false => self.process(&mut waiting, &mut heads, &mut random)?,
                true if stopped => {}
                true => self.probe(&mut heads)?,
            }
            if stopped {
                return Ok(());
            }
        }
    }

    /// Finds out whether the database accepts writes again when no events arrive that would.
    fn probe(&mut self, heads: &mut Heads) -> Result<(), Fatal> {
        let mut batch = self.store.batch(0);
        let count = Position(self.tail.agents).encode();
        self.store.put(&mut batch, Family::Meta, &agents_key(self.id), &count)?;
        match self.commit.commit(batch) {
            Ok(()) => {
                self.space.commit_succeeded();
                Ok(())
            }
            Err(error) => self.resume(error, heads),
        }
    }

    /// Seals, commits and answers the events that wait.
    fn process(
        &mut self,
        waiting: &mut Vec<Submission>,
        heads: &mut Heads,
        random: &mut fastrand::Rng,
    ) -> Result<(), Fatal> {
        let now = Instant::now();
        let mut commit = self.begin(waiting);
        self.dedup.prepare(&self.store, batch::drafts(waiting))?;
        heads.prepare(&self.store, batch::drafts(waiting))?;
        for submission in waiting.iter_mut() {
            self.metrics.queue_wait.record(now.saturating_duration_since(submission.admitted));
            commit.counts.push(submission.drafts.len());
            for draft in submission.drafts.drain(..) {
                let disposition = self.take(draft, &mut commit, heads, random)?;
                commit.dispositions.push(disposition);
            }
        }
        let result = self.commit(&mut commit, heads);
        self.dedup.release();
        let refusal = result.as_ref().err().map(|error| match error {
            CommitError::NoSpace(_) => Refusal::NoSpace,
            CommitError::Failed(_) => Refusal::CommitFailed,
        });
        batch::answer(waiting, commit, refusal, &self.runtime);
        match result {
            Ok(()) => Ok(()),
            Err(error) => {
                tracing::error!(shard = self.id.0, %error, "commit failed: its events were refused with 503");
                self.resume(error, heads)
            }
        }
    }

    fn begin(&self, waiting: &[Submission]) -> CommitBatch {
        let mut tail = self.tail;
        // Receipt times never decrease, whatever the clock does; 0 means that there is no event yet.
        let now_ms = (self.clock)().max(tail.last_ms).max(1);
        if now_ms > tail.last_ms {
            tail.first_of_ms = tail.next;
            tail.last_ms = now_ms;
        }
        let events = waiting.iter().map(|submission| submission.drafts.len()).sum();
        CommitBatch {
            rows: self.store.batch(batch::drafts(waiting).map(Draft::cost).sum()),
            records: Vec::with_capacity(events),
            dispositions: Vec::with_capacity(events),
            counts: Vec::with_capacity(waiting.len()),
            touched: Vec::new(),
            finished_runs: Vec::new(),
            recent: CommittedBatch::new(tail.next, events),
            tail,
            receipt: Receipt { text: time::format_ms(now_ms), ms: now_ms, first_of_ms: tail.first_of_ms },
        }
    }

    /// Takes one event into the commit, or finds out why not.
    fn take(
        &mut self,
        mut draft: Draft,
        commit: &mut CommitBatch,
        heads: &mut Heads,
        random: &mut fastrand::Rng,
    ) -> Result<Disposition, Fatal> {
        match self.dedup.check(&self.store, &draft, commit.records.len()) {
            Ok(IdLookup::New) => {}
            Ok(IdLookup::SameEvent(record)) => return Ok(Disposition::AlreadyStored(record)),
            Ok(IdLookup::OtherEvent) => return Ok(Disposition::Refused(Refusal::IdTaken)),
            Ok(IdLookup::InThisCommit(index)) if self.dedup.is_same(&draft, commit.records[index].as_ref()) => {
                return Ok(Disposition::SameAs(index));
            }
            Ok(IdLookup::InThisCommit(_)) => return Ok(Disposition::IdConflict),
            Ok(IdLookup::InFlightOnOtherShard) => return Ok(Disposition::Refused(Refusal::IdBusy)),
            Err(error) => return Ok(unreadable(&error)),
        }
        let (agent, client_id) = (draft.agent, draft.client_id);
        let head = match heads.load(&self.store, agent, || draft.agent_id()) {
            Ok(head) => head,
            Err(error) => {
                client_id.into_iter().for_each(|id| self.dedup.forget(id));
                return Ok(unreadable(&error));
            }
        };
        commit.tail.agents += u64::from(head.is_new());
        if head.touch() {
            commit.touched.push(agent);
        }
        let terms = draft.take_terms();
        let location = Location { shard: self.id, position: commit.tail.next };
        let sealed = seal(draft, head, &commit.receipt, location, random.u64(..));
        commit.recent.push(agent, &head.agent.agent_id, head.agent.sequence, head.agent.hash, &terms);
        commit.finished_runs.extend(sealed.finished_run.map(|run| (agent, run)));
        if let Some(id) = client_id {
            self.store.put(&mut commit.rows, Family::ClientIds, id.as_bytes(), &location.encode())?;
        }
        commit.tail.next = location.position.next();
        commit.records.push(sealed.record);
        Ok(Disposition::New)
    }

    /// Puts the sealed events on disk.
    fn commit(&mut self, commit: &mut CommitBatch, heads: &mut Heads) -> Result<(), CommitError> {
        if commit.records.is_empty() {
            return Ok(());
        }
        self.put_frames(commit)
            .and_then(|()| self.put_rows(commit, heads))
            .map_err(|error| CommitError::Failed(error.to_string()))?;
        let started = Instant::now();
        let rows = std::mem::replace(&mut commit.rows, self.store.batch(0));
        let recent = std::mem::replace(&mut commit.recent, CommittedBatch::new(commit.tail.next, 0));
        let result = self.commit.commit(rows);
        self.metrics.committed(commit.records.len(), started.elapsed(), result.is_ok());
        result?;
        self.tail = commit.tail;
        self.space.commit_succeeded();
        self.committed.publish(self.id, self.tail.next, self.tail.agents, Some(recent));
        heads.evict();
        Ok(())
    }

    /// Adds the rows of the events.
    fn put_frames(&mut self, commit: &mut CommitBatch) -> Result<(), StoreError> {
        let mut location = Location { shard: self.id, position: self.tail.next };
        for record in &commit.records {
            self.frame.add(record.as_ref().bytes());
            if self.frame.is_full() || location.position.next() == commit.tail.next {
                self.frame.put(&self.store, &mut commit.rows, location)?;
            }
            location.position = location.position.next();
        }
        Ok(())
    }

    /// Adds the rows that a commit has once, or once for each agent.
    fn put_rows(&self, commit: &mut CommitBatch, heads: &mut Heads) -> Result<(), StoreError> {
        let rows = &mut commit.rows;
        // In the order of their keys, rows are inserted faster into the database's sorted memory.
        commit.finished_runs.sort_unstable_by_key(|(agent, run)| (*agent, run.first));
        for (agent, run) in &commit.finished_runs {
            self.store.put(rows, Family::Chain, &Run::key(*agent, run.first), &run.encode())?;
        }
        commit.touched.sort_unstable();
        for &agent in &commit.touched {
            let Some(head) = heads.loaded(agent) else { continue };
            head.is_touched = false;
            self.store.put(rows, Family::Agents, &agent.0, &head.agent.encode())?;
        }
        if commit.tail.agents != self.tail.agents {
            let count = Position(commit.tail.agents).encode();
            self.store.put(rows, Family::Meta, &agents_key(self.id), &count)?;
        }
        if commit.tail.last_ms != self.tail.last_ms {
            let first = commit.tail.first_of_ms.encode();
            self.store.put(rows, Family::Times, &time_key(self.id, commit.tail.last_ms), &first)?;
        }
        Ok(())
    }

    /// After a failed commit: forgets everything in memory and reads from disk where to continue, if that is possible at all.
    fn resume(&mut self, error: CommitError, heads: &mut Heads) -> Result<(), Fatal> {
        heads.forget();
        match &error {
            CommitError::Failed(_) => return Err(error.into()),
            CommitError::NoSpace(_) if self.space.stuck_for() > RESUME_WAIT => {
                tracing::error!("the disk has had space for {RESUME_WAIT:?}, but the database still refuses writes");
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

fn unreadable(error: &StoreError) -> Disposition {
    tracing::error!(%error, "event refused: the ledger cannot be read");
    Disposition::Refused(Refusal::Unreadable)
}
