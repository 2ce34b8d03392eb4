//! The thread of one shard. It owns the heads of its agents: nothing else assigns a sequence or computes a hash.
//!
//! It takes all waiting events, seals them, commits them as one batch and answers them. While it waits for the disk,
//! the next batch gathers in the queue. This is the group commit, and it needs no timer: see
//! `docs/adr/0001-group-commit-needs-no-timer.md`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use rand::rngs::StdRng;
use tokio::runtime::Handle;

use super::batch::{self, CommitBatch, Disposition};
use super::commit::Commit;
use super::dedup::{Dedup, IdLookup};
use super::disk_space::DiskSpace;
use super::heads::Heads;
use super::metrics::ShardMetrics;
use super::queue::{Message, Refusal, Submission};
use super::recover::{self, Tail};
use super::seal::{ReceiptTime, seal};
use super::wall_clock::Reading;
use crate::ledger::format::checks::CheckedRows;
use crate::ledger::format::clock_step::ClockStep;
use crate::ledger::format::frame::FrameBuilder;
use crate::ledger::format::keys::{Location, Position, Run, ShardId, time_key};
use crate::ledger::format::meta::agents_key;
use crate::ledger::format::record::Draft;
use crate::ledger::read::committed::Committed;
use crate::ledger::read::recent::CommittedBatch;
use crate::ledger::store::{CommitError, Family, Store, StoreError};
use crate::runtime::Clock;
use cairn_proof::chain::time;

/// The most events of one commit. Bounded so that the first event does not wait for too many others.
const MAX_COMMIT_EVENTS: usize = 8192;
/// The most bytes of one commit.
const MAX_COMMIT_BYTES: usize = 4 << 20;
/// The number of heads that remain in memory between commits at first: about 4 MiB.
const MIN_CACHED_HEADS: usize = 16_384;
/// The number of heads to which that may rise, in all shards together, when evicted agents return: about 27 MiB. With
/// 100,000 agents in turn, this is a quarter more events a second.
const MAX_CACHED_HEADS: usize = 131_072;
/// How long the database may refuse writes after there is free space again.
const RESUME_WAIT: Duration = Duration::from_secs(60);

/// The interval of test writes while commits fail for want of space.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// An error after which the shard cannot continue. The process has to end; its restart recovers.
#[derive(Debug, thiserror::Error)]
pub enum Fatal {
    /// A commit failed for another reason than a lack of space, or the database did not resume.
    #[error("{0}")]
    Commit(#[from] CommitError),
    /// The database could not be read after a failed commit or during one.
    #[error("{0}")]
    Store(#[from] StoreError),
}

/// Receives the steps of the clock that the shards find.
pub type OnClockStep = Arc<dyn Fn(ShardId, ClockStep) + Send + Sync>;

/// The state and the dependencies of a shard thread.
pub struct Shard {
    /// The number of the shard.
    pub id: ShardId,
    /// The number of shards.
    pub shards: u16,
    /// The database that the thread reads from and makes batches for.
    pub store: Arc<Store>,
    /// Writes its batches: the store itself, except in tests that make commits fail.
    pub commit: Arc<dyn Commit>,
    /// The runtime of the senders. The answers of a commit are passed to it together, and its own threads wake the
    /// senders: 4 % more single events a second at 128 connections than waking each sender from the shard thread.
    pub runtime: Handle,
    /// The clock.
    pub clock: Clock,
    /// Called after a commit that found a step of the clock.
    pub on_clock_step: OnClockStep,
    /// The disk space of the ledger.
    pub space: Arc<DiskSpace>,
    /// Where the shard publishes its progress.
    pub committed: Arc<Committed>,
    /// The metrics of the shard.
    pub metrics: ShardMetrics,
    /// Deduplication by the ids that clients sent.
    pub dedup: Dedup,
    /// The builder of frames. Its memory is reused.
    pub frame: FrameBuilder,
    /// The position at which the shard continues, and related state.
    pub tail: Tail,
    /// The reading of the clocks for the last commit of this run.
    pub last_reading: Option<Reading>,
}

impl Shard {
    /// Processes events until the queue is closed.
    ///
    /// # Errors
    /// When the shard cannot continue. Every event that it received was answered before.
    pub fn run(mut self, queue: &Receiver<Message>) -> Result<(), Fatal> {
        let max_heads = MAX_CACHED_HEADS / usize::from(self.shards.max(1));
        let mut heads = Heads::new(MIN_CACHED_HEADS, max_heads.max(MIN_CACHED_HEADS));
        let mut random: StdRng = rand::make_rng();
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

    /// Tests with a small write whether the database accepts writes again, when no events arrive that would show it.
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

    /// Seals, commits and answers the waiting events.
    fn process(&mut self, waiting: &mut Vec<Submission>, heads: &mut Heads, random: &mut StdRng) -> Result<(), Fatal> {
        let now = Instant::now();
        let mut commit = self.begin_commit(waiting, Reading::take(&self.clock, now));
        self.dedup.begin(&self.store, batch::drafts(waiting))?;
        heads.prefetch(&self.store, batch::drafts(waiting))?;
        for submission in waiting.iter_mut() {
            self.metrics.queue_wait.record(now.saturating_duration_since(submission.admitted));
            commit.counts.push(submission.drafts.len());
            for draft in submission.drafts.drain(..) {
                let disposition = self.add(draft, &mut commit, heads, random)?;
                commit.dispositions.push(disposition);
            }
        }
        let result = self.commit(&mut commit, heads);
        if result.is_ok() {
            // Before the answers: the same id may come again at once, in an event of another shard.
            self.dedup.release();
        }
        let refusal = result.as_ref().err().map(|error| match error {
            CommitError::NoSpace(_) => Refusal::NoSpace,
            CommitError::Failed(_) => Refusal::CommitFailed,
        });
        let bytes = commit.record_bytes as u64;
        batch::answer(waiting, commit, refusal, &self.runtime);
        match result {
            Ok(()) => {
                let pause = self.space.pause_after(bytes);
                if !pause.is_zero() {
                    std::thread::sleep(pause);
                }
                Ok(())
            }
            Err(error) => {
                tracing::error!(shard = self.id.0, %error, "commit failed: its events are refused with 503");
                let resumed = self.resume(error, heads);
                self.dedup.release();
                resumed
            }
        }
    }

    fn begin_commit(&self, waiting: &[Submission], reading: Reading) -> CommitBatch {
        let events = waiting.iter().map(|submission| submission.drafts.len()).sum();
        let tail = self.tail.at(reading.wall_ms, events);
        CommitBatch {
            rows: self.store.batch(batch::drafts(waiting).map(Draft::memory_bytes).sum::<usize>() / 4),
            records: Vec::with_capacity(events),
            record_bytes: 0,
            dispositions: Vec::with_capacity(events),
            counts: Vec::with_capacity(waiting.len()),
            touched: Vec::new(),
            finished_runs: Vec::new(),
            recent: CommittedBatch::new(tail.next, events),
            tail,
            receipt_time: ReceiptTime {
                text: time::format_ms(reading.wall_ms),
                ms: reading.wall_ms,
                id_ms: tail.id_ms,
                first_of_ms: tail.first_of_ms,
            },
            reading,
            clock_step: reading.step(&self.tail, self.last_reading),
        }
    }

    /// Adds one event to the commit, unless it is stored already or has to be refused.
    fn add(
        &mut self,
        mut draft: Draft,
        commit: &mut CommitBatch,
        heads: &mut Heads,
        random: &mut StdRng,
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
            Err(error) => return Ok(refuse_unreadable(&error)),
        }
        let (agent, client_id) = (draft.agent, draft.client_id);
        let head = match heads.load(&self.store, agent, || draft.agent_id()) {
            Ok(head) => head,
            Err(error) => {
                client_id.into_iter().for_each(|_| self.dedup.forget_last());
                return Ok(refuse_unreadable(&error));
            }
        };
        commit.tail.agents += u64::from(head.is_new());
        if head.touch() {
            commit.touched.push(agent);
        }
        let terms = draft.take_terms();
        let location = Location { shard: self.id, position: commit.tail.next };
        let sealed = seal(draft, head, &commit.receipt_time, location, random);
        commit.recent.push(agent, &head.agent.agent_id, head.agent.sequence, head.agent.hash, &terms);
        commit.finished_runs.extend(sealed.finished_run.map(|run| (agent, run)));
        commit.tail.next = location.position.next();
        // While the record is in the processor's cache.
        commit.record_bytes += sealed.record.as_ref().bytes().len();
        self.frame.add(sealed.record.as_ref().bytes());
        if self.frame.is_full() {
            self.frame.put(&self.store, &mut commit.rows, location)?;
        }
        commit.records.push(sealed.record);
        Ok(Disposition::New)
    }

    /// Writes the sealed events to disk.
    fn commit(&mut self, commit: &mut CommitBatch, heads: &mut Heads) -> Result<(), CommitError> {
        if commit.records.is_empty() {
            return Ok(());
        }
        self.put_last_frame(commit)
            .and_then(|()| self.put_rows(commit, heads))
            .map_err(|error| CommitError::Failed(error.to_string()))?;
        if !self.dedup.wait_for_room() {
            return Err(CommitError::NoSpace("the ids of earlier events are not written yet".to_owned()));
        }
        let started = Instant::now();
        if self.space.was_paused(started) && self.space.is_data_dir_gone(self.store.path()) {
            return Err(CommitError::Failed(
                "the data directory was removed or replaced while it was in use".to_owned(),
            ));
        }
        let rows = std::mem::replace(&mut commit.rows, self.store.batch(0));
        let recent = std::mem::replace(&mut commit.recent, CommittedBatch::new(commit.tail.next, 0));
        let result = self.commit.commit(rows);
        self.metrics.committed(commit.records.len(), started.elapsed(), result.is_ok());
        result?;
        self.dedup.committed(self.id, self.tail.next, commit.tail.next, commit.record_bytes);
        self.tail = commit.tail;
        self.last_reading = Some(commit.reading);
        if let Some(step) = commit.clock_step {
            self.report(step);
        }
        self.space.commit_succeeded();
        self.committed.publish(self.id, self.tail.next, self.tail.agents, Some(recent));
        heads.evict();
        Ok(())
    }

    /// Adds the frame with the last events to the batch.
    fn put_last_frame(&mut self, commit: &mut CommitBatch) -> Result<(), StoreError> {
        let last = Position(commit.tail.next.0.saturating_sub(1));
        self.frame.put(&self.store, &mut commit.rows, Location { shard: self.id, position: last })
    }

    /// Adds the rows of runs, heads, agent count and time to the batch.
    fn put_rows(&self, commit: &mut CommitBatch, heads: &mut Heads) -> Result<(), StoreError> {
        let rows = &mut commit.rows;
        // Rows in key order are inserted faster into the memtable.
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
        if commit.tail.id_ms != self.tail.id_ms {
            let first = commit.tail.first_of_ms.encode();
            self.store.put(rows, Family::Times, &time_key(self.id, commit.tail.id_ms), &first)?;
        }
        if let Some(step) = commit.clock_step {
            let steps = CheckedRows::all_of(&ClockStep::prefix(self.id));
            steps.put_row(&self.store, rows, &step.key(self.id), &step.encode(self.id))?;
        }
        Ok(())
    }

    /// Logs, counts and reports a step of the clock.
    fn report(&self, step: ClockStep) {
        self.metrics.clock_stepped(step);
        (self.on_clock_step)(self.id, step);
        tracing::warn!(
            shard = self.id.0,
            position = step.position.0,
            by_seconds = step.by_ms() as f64 / 1000.0,
            "the system clock was set: received_at follows it, and the order of events does not depend on it"
        );
    }

    /// Handles a failed commit: discards the heads in memory, and reads from disk where to continue, unless the error
    /// is fatal.
    fn resume(&mut self, error: CommitError, heads: &mut Heads) -> Result<(), Fatal> {
        heads.clear();
        match &error {
            CommitError::Failed(_) => return Err(error.into()),
            CommitError::NoSpace(_) if self.space.stuck_for() > RESUME_WAIT => {
                tracing::error!(
                    "the disk has had free space for {RESUME_WAIT:?}, but the database still refuses writes"
                );
                return Err(error.into());
            }
            CommitError::NoSpace(_) => {}
        }
        let known = self.tail.next;
        self.tail = recover::tail(&self.store, self.id)?;
        // The commit may have been stored nevertheless.
        self.dedup.stored().read_back(&self.store, self.id, known, self.tail.next)?;
        self.committed.publish(self.id, self.tail.next, self.tail.agents, None);
        Ok(())
    }
}

/// Waits for events, then takes all waiting ones up to the bounds of a commit. Returns true if the queue is closed and
/// the shard has to stop. While commits fail, it waits only for the probe interval.
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
        bytes += submission.drafts.iter().map(Draft::memory_bytes).sum::<usize>();
        waiting.push(submission);
        if events >= MAX_COMMIT_EVENTS || bytes >= MAX_COMMIT_BYTES {
            return false;
        }
        next = queue.try_recv().ok();
    }
    waiting.is_empty()
}

fn refuse_unreadable(error: &StoreError) -> Disposition {
    tracing::error!(%error, "event refused: the ledger cannot be read");
    Disposition::Refused(Refusal::Unreadable)
}
