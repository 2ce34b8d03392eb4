//! The task that records what happens while the server runs: heartbeats, refusals of each minute, and the notes of other stages.
//! What cannot be stored at once, because the disk is full, waits in memory and keeps its order.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use uuid::Uuid;

use super::chain::{NotRecorded, Recorder};
use crate::runtime::now_ms;
use crate::tlog::{Log, State};
use cairn_proof::chain::time;
use cairn_proof::evidence::recorder::action;

/// The interval at which refusals are recorded.
const REFUSALS_INTERVAL: Duration = Duration::from_secs(60);
/// The interval at which an event that could not be stored is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);
/// How long events may be unsigned until the log is taken to be unable to sign: more than one interval, because an event may
/// have come just before its end.
const UNSIGNED_MAX: Duration = Duration::from_secs(90);
/// The most events that wait to be stored.
const MAX_PENDING: usize = 1024;

/// The events that were refused since the last call, by reason.
pub type Refusals = Box<dyn Fn() -> Vec<(&'static str, u64)> + Send + Sync>;

/// What another stage reports to the recorder: the name of the event, and its input.
type Note = (&'static str, Value);

/// Reports to the recorder, from any thread.
#[derive(Clone)]
pub struct Notes(mpsc::UnboundedSender<Note>);

impl Notes {
    /// Reports an event, which is stored soon.
    pub fn add(&self, action: &'static str, input: Value) {
        // Without a receiver the server has stopped, or its recorder is off.
        let _ = self.0.send((action, input));
    }
}

/// A channel of reports, and its receiver.
pub fn notes() -> (Notes, mpsc::UnboundedReceiver<Note>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (Notes(sender), receiver)
}

/// What the task watches.
pub struct Watch {
    /// Stores the events.
    pub recorder: Arc<Recorder>,
    /// The interval of the events that show that the server runs; 0 for none.
    pub heartbeat: Duration,
    /// The reports of other stages.
    pub notes: mpsc::UnboundedReceiver<Note>,
    /// The refused events.
    pub refusals: Refusals,
    /// The log, whose signatures are watched.
    pub log: Arc<Log>,
}

/// The task.
pub struct Recording {
    watch: Watch,
    /// What is to be stored, each under the id that it will have.
    pending: VecDeque<(Uuid, Note)>,
    /// The start of the interval whose refusals were not recorded.
    refusals_from_ms: u64,
    is_signing: Option<bool>,
}

impl Watch {
    /// Records the start of the server. `start` is the input of that event; it waits in memory if it cannot be stored.
    pub async fn start(self, start: Value) -> Recording {
        let mut recording = Recording {
            pending: VecDeque::from([(Uuid::new_v4(), (action::START, start))]),
            refusals_from_ms: now_ms(),
            is_signing: None,
            watch: self,
        };
        recording.store().await;
        recording
    }
}

impl Recording {
    /// Records until `stopping` is true, then what is left and the stop.
    pub async fn run(mut self, mut stopping: watch::Receiver<bool>) {
        let (heartbeat, mut state) = (self.watch.heartbeat, self.watch.log.watch());
        let ticks = |period: Duration| {
            let mut ticks = interval_at(Instant::now() + period, period);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        };
        let (mut minutes, mut retries) = (ticks(REFUSALS_INTERVAL), ticks(RETRY_INTERVAL));
        let mut beats = ticks(heartbeat.max(Duration::from_millis(1)));
        self.observe_log();
        loop {
            self.store().await;
            tokio::select! {
                _ = stopping.wait_for(|stopping| *stopping) => break,
                Some(note) = self.watch.notes.recv() => self.add(note),
                _ = beats.tick(), if !heartbeat.is_zero() => self.beat(),
                _ = minutes.tick() => {
                    self.take_refusals();
                    self.observe_log();
                }
                Ok(()) = state.changed() => self.observe_log(),
                _ = retries.tick(), if !self.pending.is_empty() => {}
            }
        }
        while let Ok(note) = self.watch.notes.try_recv() {
            self.add(note);
        }
        self.take_refusals();
        self.add((action::STOP, json!({})));
        self.store().await;
    }

    fn add(&mut self, note: Note) {
        self.pending.push_back((Uuid::new_v4(), note));
    }

    fn beat(&mut self) {
        // The event that comes out of the pause says as much as many of them.
        if self.pending.is_empty() {
            let events = self.watch.recorder.ledger().committed().events();
            self.add((action::HEARTBEAT, json!({"events": events})));
        }
    }

    /// Adds an event with the refusals since the last one, if there are any.
    fn take_refusals(&mut self) {
        let (from, until) = (self.refusals_from_ms, now_ms());
        let counts: Map<String, Value> =
            (self.watch.refusals)().into_iter().map(|(reason, count)| (reason.to_owned(), count.into())).collect();
        self.refusals_from_ms = until;
        if !counts.is_empty() {
            let input = json!({"from": text_of(from), "until": text_of(until), "refused": counts});
            self.add((action::REFUSALS, input));
        }
    }

    /// Adds an event if the log has lost or regained the ability to sign.
    fn observe_log(&mut self) {
        let log = &self.watch.log;
        let (is_signing, input) = match log.state() {
            State::Starting => return,
            State::Stopped(reason) => (false, json!({"signing": false, "reason": &*reason})),
            State::Signed(_) if log.is_unsigned_for(UNSIGNED_MAX) => {
                let reason = "events have been unsigned for more than 90 seconds";
                (false, json!({"signing": false, "reason": reason}))
            }
            State::Signed(_) => (true, json!({"signing": true, "keys": log.verifier_keys()})),
        };
        if self.is_signing != Some(is_signing) {
            self.is_signing = Some(is_signing);
            self.add((action::SIGNING, input));
        }
    }

    /// Stores what is pending, in its order, until one event cannot be stored.
    async fn store(&mut self) {
        while let Some((id, (action, input))) = self.pending.front() {
            match self.watch.recorder.record_as(*id, action, input, None).await {
                Ok(_) => {
                    self.pending.pop_front();
                }
                Err(NotRecorded::Closed) => return self.pending.clear(),
                Err(NotRecorded::Refused) => break,
            }
        }
        // The oldest ones are kept: they say when the failure began.
        self.pending.truncate(MAX_PENDING);
    }
}

fn text_of(ms: u64) -> String {
    String::from_utf8_lossy(&time::format_ms(ms)).into_owned()
}
