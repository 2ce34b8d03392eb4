//! The thread that carries out erasures. It reads their records in the chain of the recorder, from the last one that is completed
//! on, so that what a crash interrupted is completed after the next start.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TryRecvError};
use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};
use rustix::process::setpriority_process;
use tokio::sync::watch;

use crate::ledger::Ledger;
use crate::ledger::erase::{self, Rewritten};
use crate::ledger::format::keys::{Location, Position};
use crate::ledger::format::meta;
use crate::ledger::read::lookup;
use crate::ledger::read::runs::Runs;
use crate::ledger::store::{Compression, Family, Store, StoreError};
use crate::recorder::{self, Recorder};
use crate::runtime::supervise;
use cairn_proof::chain::{AgentKey, ErasedBy, Field, Sequence, scan};
use cairn_proof::evidence::Erased;
use cairn_proof::evidence::recorder::action;

/// The most events that are erased at a time.
const STEP_EVENTS: usize = 65_536;
/// How long to wait before an erasure that could not be completed is tried again.
const RETRY_DELAY: Duration = Duration::from_secs(30);
/// The priority of the thread: the least.
const NICE: i32 = 19;
/// The interval at which the index is asked whether it has all events.
const INDEX_INTERVAL: Duration = Duration::from_millis(5);

/// Works on the events at some locations.
type OnLocations = Box<dyn Fn(&[Location]) -> Result<(), StoreError> + Send + Sync>;

/// Removes what the relay has of erased events.
pub struct RelayErasure {
    /// Forgets the sessions of events that are about to be erased.
    pub forget_sessions: OnLocations,
    /// Drops the dead letters of erased events.
    pub drop_letters: Box<dyn Fn() -> Result<u64, StoreError> + Send + Sync>,
}

/// Carries out erasures.
pub struct Eraser {
    /// Stores the records.
    pub recorder: Arc<Recorder>,
    /// The last record whose erasure is completed.
    done: watch::Sender<Sequence>,
    wake: Sender<()>,
}

/// The thread. Its owner stops it.
pub struct EraserThread {
    thread: JoinHandle<()>,
    stop: Sender<()>,
}

impl EraserThread {
    /// Lets the thread end. What it has not completed continues at the next start.
    pub fn request_stop(self) -> EndingThread {
        drop(self.stop);
        EndingThread(self.thread)
    }
}

/// The thread of the eraser, which ends.
pub struct EndingThread(JoinHandle<()>);

impl EndingThread {
    /// Waits until it has ended. Blocks.
    pub fn join(self) {
        // A panic was already reported by `supervise`.
        let _ = self.0.join();
    }
}

/// What operators see of erasures. `docs/metrics.md` lists it.
struct EraserMetrics {
    erased: Counter,
    pending: Gauge,
}

impl EraserMetrics {
    /// Registers with the current recorder.
    fn register() -> EraserMetrics {
        describe_counter!("cairn_erased_events_total", "Events whose content was erased.");
        describe_gauge!("cairn_erasures_pending", "Erasures that are recorded and not completed.");
        EraserMetrics { erased: counter!("cairn_erased_events_total"), pending: gauge!("cairn_erasures_pending") }
    }
}

/// What the thread uses.
struct Context {
    ledger: Arc<Ledger>,
    compression: Compression,
    relay: RelayErasure,
    metrics: EraserMetrics,
    done: watch::Sender<Sequence>,
    woken: Receiver<()>,
    stop: Receiver<()>,
}

impl Eraser {
    /// Starts the thread, which first completes what is recorded and not completed. Registers metrics with the current recorder.
    ///
    /// # Errors
    /// When the database cannot be read, or the thread cannot be started.
    pub fn start(
        recorder: Arc<Recorder>,
        compression: Compression,
        relay: RelayErasure,
    ) -> Result<(Arc<Eraser>, EraserThread), StoreError> {
        let ledger = Arc::clone(recorder.ledger());
        let done = watch::Sender::new(meta::erased(ledger.store())?);
        let (wake, woken) = crossbeam_channel::bounded(1);
        let (stop, stopped) = crossbeam_channel::bounded(0);
        let path = ledger.store().path().to_owned();
        let context = Context {
            ledger,
            compression,
            relay,
            metrics: EraserMetrics::register(),
            done: done.clone(),
            woken,
            stop: stopped.clone(),
        };
        let wait = move |pause| stopped.recv_timeout(pause) != Err(crossbeam_channel::RecvTimeoutError::Timeout);
        let thread = supervise("cairn-erase".to_owned(), RETRY_DELAY, move || context.run(), wait);
        let thread = thread.map_err(|source| StoreError::Directory { path, source })?;
        Ok((Arc::new(Eraser { recorder, done, wake }), EraserThread { thread, stop }))
    }

    /// Carries out what was recorded since.
    pub fn wake(&self) {
        // If the channel is full, a message is already pending.
        let _ = self.wake.try_send(());
    }

    /// The last record whose erasure is completed.
    pub fn done(&self) -> Sequence {
        *self.done.borrow()
    }

    /// Waits until the erasure with this record is completed.
    pub async fn wait_for(&self, record: Sequence) {
        let mut done = self.done.subscribe();
        // This fails only when the sender is dropped, but this is a reference to it.
        let _ = done.wait_for(|done| *done >= record).await;
    }
}

/// An erasure that is not completed.
struct Pending {
    by: ErasedBy,
    erased: Erased,
}

impl Context {
    /// Carries out erasures until the sender of `stop` is dropped.
    fn run(&self) -> Result<(), StoreError> {
        // The priority of this thread alone: answers do not wait for it. If it cannot be lowered, erasures are only less polite.
        let _ = setpriority_process(None, NICE);
        loop {
            let is_complete = self.complete()?;
            let retry = if is_complete { crossbeam_channel::never() } else { crossbeam_channel::after(RETRY_DELAY) };
            crossbeam_channel::select! {
                recv(self.woken) -> _ => {}
                recv(retry) -> _ => {}
                recv(self.stop) -> _ => return Ok(()),
            }
        }
    }

    /// Carries out the erasures that are recorded and not completed. Returns false if some have to be tried again.
    fn complete(&self) -> Result<bool, StoreError> {
        let store = self.ledger.store();
        let (mut rewritten, mut last, mut events) = (Rewritten::new(), None, 0);
        let pending = self.pending()?;
        self.metrics.pending.set(pending.len() as f64);
        for Pending { by, erased } in pending {
            let mut locations = Vec::new();
            for (agent_id, ranges) in &erased.agents {
                for range in ranges {
                    unless_damaged(add_locations(store, AgentKey::of(agent_id), *range, &mut locations))?;
                }
            }
            locations.sort_unstable();
            meta::set_with_gaps(store)?;
            for step in locations.chunks(STEP_EVENTS) {
                if !self.wait_for_index(step) {
                    return Ok(false);
                }
                (self.relay.forget_sessions)(step)?;
                self.erase(step, &by, &mut rewritten)?;
            }
            events += erased.events;
            last = Some(by.record());
        }
        let Some(last) = last else { return Ok(true) };
        (self.relay.drop_letters)()?;
        let (keys, started) = (rewritten.into_iter().collect::<Vec<[u8; 10]>>(), Instant::now());
        let is_stopping = || self.stop.try_recv() == Err(TryRecvError::Disconnected);
        if !store.purge(&keys, &[Family::Index, Family::Relay, Family::Meta], &is_stopping)? {
            tracing::warn!(
                retry_after = ?RETRY_DELAY, "an erasure waits: a reader, such as a backup, still uses files with erased events"
            );
            return Ok(false);
        }
        meta::set_erased(store, last)?;
        self.done.send_replace(last);
        self.metrics.erased.increment(events);
        self.metrics.pending.set(0.0);
        let purged_in = started.elapsed();
        tracing::info!(events, record = last.0, frames = keys.len(), ?purged_in, "the content of events was erased");
        Ok(true)
    }

    /// Erases events. Damaged ones are left: they must not keep others from being erased, and `cairn verify` reports them.
    fn erase(&self, locations: &[Location], by: &ErasedBy, rewritten: &mut Rewritten) -> Result<(), StoreError> {
        let store = self.ledger.store();
        match erase::erase(store, locations, by, self.compression, rewritten) {
            Err(StoreError::Damaged { .. }) => locations.iter().try_for_each(|location| {
                unless_damaged(erase::erase(store, &[*location], by, self.compression, rewritten))
            }),
            result => result,
        }
    }

    /// The erasures that are recorded and not completed.
    fn pending(&self) -> Result<Vec<Pending>, StoreError> {
        let (store, mut pending) = (self.ledger.store(), Vec::new());
        let instance = self.ledger.instance();
        recorder::read(store, instance, meta::erased(store)?.next(), |_, record| {
            let text = |field| record.value(field).and_then(scan::text).unwrap_or_default().into_owned();
            if text(Field::ActionName) == action::ERASURE {
                let erased = serde_json::from_slice(record.value(Field::ActionOutput).unwrap_or_default());
                let erased = erased.map_err(|error| store.damaged(format!("the record of an erasure: {error}")))?;
                let by = ErasedBy {
                    at: text(Field::ReceivedAt),
                    recorder: text(Field::AgentId),
                    sequence: record.sequence().0,
                };
                pending.push(Pending { by, erased });
            }
            Ok(())
        })?;
        Ok(pending)
    }

    /// Waits until the index has the events at these locations: what it added later would stay. Returns false if the thread has to
    /// stop.
    fn wait_for_index(&self, locations: &[Location]) -> bool {
        let is_indexed = |location: &Location| location.position < self.ledger.index().next(location.shard);
        // The last one of each shard; they are sorted.
        let mut last: Vec<Location> = Vec::new();
        for location in locations {
            match last.last_mut() {
                Some(of_shard) if of_shard.shard == location.shard => *of_shard = *location,
                _ => last.push(*location),
            }
        }
        while !last.iter().all(is_indexed) {
            if !matches!(self.stop.recv_timeout(INDEX_INTERVAL), Err(crossbeam_channel::RecvTimeoutError::Timeout)) {
                return false;
            }
        }
        true
    }
}

/// Logs an error about damaged data, and returns every other one.
fn unless_damaged(result: Result<(), StoreError>) -> Result<(), StoreError> {
    match result {
        Err(error @ StoreError::Damaged { .. }) => {
            tracing::error!(%error, "an event cannot be erased: run `cairn verify --all`");
            Ok(())
        }
        result => result,
    }
}

/// Adds the locations of consecutive events of an agent.
///
/// # Errors
/// When the database cannot be read, or there are fewer events.
pub fn add_locations(
    store: &Store,
    agent: AgentKey,
    (first, last): (u64, u64),
    locations: &mut Vec<Location>,
) -> Result<(), StoreError> {
    let missing = || store.damaged(format!("an event that is to be erased is missing: agent {agent:?}"));
    let head = lookup::agent(store, agent)?.ok_or_else(missing)?;
    if last > head.sequence.0 {
        return Err(missing());
    }
    let mut runs = Runs::from(store, agent, Sequence(first))?;
    let mut sequence = first;
    while sequence <= last {
        let run = runs.run()?.filter(|run| run.first.0 <= sequence).ok_or_else(missing)?;
        let end = run.first.0 + u64::from(run.count);
        while sequence < end && sequence <= last {
            let position = Position(run.location.position.0 + (sequence - run.first.0));
            locations.push(Location { position, ..run.location });
            sequence += 1;
        }
        runs.forward()?;
    }
    Ok(())
}
