//! The consumer of one destination: a thread that reads commits from its cursor on, sends events, and stores the
//! results.
//!
//! Each iteration of its loop handles results, reads more events if there are free slots to send them, writes both,
//! sends what may be sent, and waits. It never reads more than it can send, so an unavailable upstream costs only disk
//! space, and a consumer without free slots is not woken by commits.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::backlog::{Backlog, RelayCursor, RowChanges};
use super::circuit::Circuit;
use super::commands::Command;
use super::config::DestinationConfig;
use super::destination::{Destination, SendResult};
use super::event::{EventFilter, RelayEvent};
use super::report::{FailureReporter, report_damaged};
use super::sessions::{Sessions, Turn};
use super::status::Shared;
use crate::ledger::format::keys::Location;
use crate::ledger::read::follower::Follower;
use crate::ledger::read::merge;
use crate::ledger::store::{Store, StoreError};
use crate::runtime::now_ms;

/// Most events read at a time.
const READ_EVENTS: usize = 512;
/// Most events read at a time while the circuit is open, when only a fresh session for a probe is needed.
const PROBE_READ_EVENTS: usize = 16;
/// Most sessions with waiting events in memory. At this number nothing is read until some are done.
const MAX_SESSIONS: usize = 16_384;
/// How long to wait for more commits before reading.
pub const DEBOUNCE: Duration = Duration::from_millis(5);
/// How long to wait before a failed write is retried.
const WRITE_RETRY_DELAY: Duration = Duration::from_secs(1);

/// What a consumer uses of its surroundings. It outlives restarts of the consumer.
pub struct RelayContext {
    /// The database.
    pub store: Arc<Store>,
    /// Follows the commits.
    pub follower: Follower,
    /// The runtime that requests run in.
    pub runtime: Handle,
    /// The destination.
    pub destination: Arc<dyn Destination>,
    /// Commands of operators.
    pub commands: Receiver<Command>,
    /// Receives a message while the process is about to stop: everything in back-off is then retried.
    pub retry_now: Receiver<()>,
    /// Receives the request to stop, with the deadline for requests in flight.
    pub stop: Receiver<Instant>,
    /// The state that other threads read.
    pub shared: Arc<Shared>,
    /// The settings.
    pub config: DestinationConfig,
}

/// The result of a request, with its context.
pub(super) struct RequestEnd {
    pub turn: Turn,
    /// The number of events in the request.
    pub events: usize,
    /// The first of them: its id, for a dead letter, and its location.
    pub id: Uuid,
    pub location: Location,
    /// The request announced the session; its first event is still to be sent.
    pub is_announcement: bool,
    /// The request sent an event that also announces its session.
    pub announces: bool,
    /// The request was a probe, sent while the circuit was open.
    pub is_probe: bool,
    pub sent: SendResult,
}

/// The state of a running consumer.
pub struct Consumer<'o> {
    pub(super) context: &'o RelayContext,
    pub(super) backlog: Backlog,
    pub(super) cursor: RelayCursor,
    pub(super) sessions: Sessions,
    pub(super) circuit: Circuit,
    pub(super) reporter: FailureReporter,
    pub(super) dead_letters: u64,
    /// When the last event was acknowledged since the start, in ms since 1970.
    pub(super) last_sent_ms: Option<u64>,
    /// Row changes that are not written yet.
    pub(super) changes: RowChanges,
    /// Whether the cursor has changed since it was written.
    pub(super) is_cursor_changed: bool,
    pub(super) filter: EventFilter,
    /// The time before which nothing is read.
    pub(super) read_at: Instant,
    pub(super) results: (Sender<RequestEnd>, Receiver<RequestEnd>),
    /// Requests in flight. They are aborted when the consumer is dropped; its successor sends them again.
    pub(super) requests: JoinSet<()>,
}

impl<'o> Consumer<'o> {
    /// Loads the stored state of the destination.
    ///
    /// # Errors
    /// When the database cannot be read or written.
    pub fn open(context: &'o RelayContext) -> Result<Consumer<'o>, StoreError> {
        let RelayContext { store, config, destination, shared, .. } = context;
        let backlog = shared.backlog.clone();
        let Some(cursor) = backlog.cursor()? else {
            return Err(store.damaged("the cursor row of a relay destination is missing"));
        };
        let mut sessions = Sessions::new(destination.batch().events);
        backlog.for_each_waiting(|session, event| {
            sessions.push(session, event, || backlog.is_announced(session, destination.recipient()))
        })?;
        let consumer = Consumer {
            dead_letters: backlog.count_dead_letters()?,
            backlog,
            cursor,
            sessions,
            circuit: Circuit::new(config.retry),
            reporter: FailureReporter::new(&config.name, &shared.identity_key),
            last_sent_ms: None,
            changes: RowChanges::default(),
            is_cursor_changed: false,
            filter: EventFilter::new(&config.filter),
            read_at: Instant::now(),
            results: crossbeam_channel::unbounded(),
            requests: JoinSet::new(),
            context,
        };
        consumer.publish();
        Ok(consumer)
    }

    /// Relays until a stop is requested.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn run(&mut self) -> Result<(), StoreError> {
        let context = self.context;
        loop {
            while let Ok(end) = self.results.1.try_recv() {
                self.on_result(end)?;
            }
            self.sessions.wake(Instant::now());
            if self.wants_events() && Instant::now() >= self.read_at {
                self.read()?;
            }
            if !self.write(None) {
                return Ok(());
            }
            self.send()?;
            self.publish();
            if !self.changes.is_empty() {
                continue;
            }
            let never = crossbeam_channel::never();
            let woken = if self.wants_events() { context.follower.woken() } else { &never };
            let due = self.next_due().map_or_else(crossbeam_channel::never, crossbeam_channel::at);
            crossbeam_channel::select! {
                recv(self.results.1) -> end => if let Ok(end) = end { self.on_result(end)? },
                recv(context.commands) -> command => if let Ok(command) = command { self.handle(command) },
                recv(woken) -> _ => {
                    let now = Instant::now();
                    // Later wake-ups must not extend the debounce time of the first one.
                    if self.read_at <= now {
                        self.read_at = now + context.follower.debounce();
                    }
                }
                recv(context.retry_now) -> _ => self.retry_now(),
                recv(due) -> _ => {}
                recv(context.stop) -> deadline => return self.drain(deadline.unwrap_or_else(|_| Instant::now())),
            }
        }
    }

    /// Retries everything in back-off, because little time is left before the process stops.
    fn retry_now(&mut self) {
        self.circuit.retry_now(Instant::now());
        self.sessions.wake_all();
        self.read_at = Instant::now();
    }

    /// Stops sending, and waits until `deadline` for the results of requests in flight.
    fn drain(&mut self, deadline: Instant) -> Result<(), StoreError> {
        while self.sessions.in_flight() > 0 {
            let Ok(end) = self.results.1.recv_deadline(deadline) else {
                let requests = self.sessions.in_flight();
                tracing::warn!(
                    requests,
                    "deadline reached before all relay requests were answered: their events will be sent again"
                );
                break;
            };
            self.on_result(end)?;
        }
        self.write(Some(deadline));
        self.publish();
        Ok(())
    }

    /// The number of committed events that are not read yet.
    fn lag(&self) -> u64 {
        self.context.follower.committed().lag(&self.cursor.next)
    }

    /// Whether events of more sessions are needed than are in memory.
    fn wants_events(&self) -> bool {
        let (in_flight, concurrency) = (self.sessions.in_flight(), self.context.config.concurrency);
        let batch = self.context.destination.batch().events;
        if batch > 1 {
            // Enough for as many full requests as may be in flight.
            return self.sessions.waiting() < (batch * concurrency) as u64;
        }
        self.sessions.len() < MAX_SESSIONS
            && match self.circuit.is_open() {
                // A probe should be made by a fresh session.
                true => !self.sessions.has_fresh() && self.circuit.allows(true, in_flight, Instant::now()),
                false => self.sessions.ready(self.retry_slots()) + in_flight < concurrency,
            }
    }

    /// Most requests in flight of sessions whose last request failed: half of all, and none for a probe that a fresh
    /// session can make.
    fn retry_slots(&self) -> usize {
        match self.circuit.is_open() && self.sessions.has_fresh() {
            true => 0,
            false => self.context.config.concurrency.div_ceil(2),
        }
    }

    /// When the consumer has to act without being woken.
    fn next_due(&self) -> Option<Instant> {
        let in_flight = self.sessions.in_flight();
        let now = Instant::now();
        let backed_off = self.sessions.wake_at();
        let send = match self.circuit.probe_at(false) {
            Some(_) if in_flight > 0 => None,
            // There is a fresh session, or reading may find one.
            Some(probe) => {
                let fresh = self.circuit.probe_at(true).filter(|at| *at > now || self.sessions.has_fresh());
                let retry = if self.sessions.ready(1) > 0 { Some(probe) } else { backed_off.map(|at| at.max(probe)) };
                fresh.into_iter().chain(retry).min()
            }
            None if in_flight >= self.context.config.concurrency => None,
            None => backed_off,
        };
        let read = (self.wants_events() && self.lag() > 0).then_some(self.read_at);
        send.into_iter().chain(read).min()
    }

    /// Reads committed events. Those that pass the filter wait from now on.
    fn read(&mut self) -> Result<(), StoreError> {
        let RelayContext { store, follower, destination, .. } = self.context;
        let (backlog, changes, sessions) = (&self.backlog, &mut self.changes, &mut self.sessions);
        let (filter, ticket, metrics) = (&self.filter, &mut self.cursor.ticket, &self.context.shared.metrics);
        // With `retention.unrelayed`.
        let committed = follower.committed();
        let firsts = committed.shards().map(|shard| committed.first(shard)).zip(&self.cursor.next);
        metrics.dropped(firsts.map(|(first, next)| first.0.saturating_sub(next.0)).sum());
        let mut is_cursor_changed = false;
        let limit = if self.circuit.is_open() { PROBE_READ_EVENTS } else { READ_EVENTS };
        let read = merge::read(store, follower.committed(), &mut self.cursor.next, limit, |location, record| {
            is_cursor_changed = true;
            let Some(event) = record.map(RelayEvent::new) else {
                report_damaged(location, metrics);
                return Ok(());
            };
            if event.record.is_erased() || !filter.passes(&event) {
                return Ok(());
            }
            let session = destination.session(&event);
            let waiting = super::sessions::WaitingEvent { ticket: *ticket, location };
            *ticket += 1;
            backlog.insert_waiting(changes, session, waiting);
            sessions.push(session, waiting, || backlog.is_announced(session, destination.recipient()))
        });
        self.is_cursor_changed |= is_cursor_changed;
        if self.circuit.is_open() {
            // While looking for a fresh session to probe with, the backlog of sessions in back-off must not be copied
            // as a whole.
            self.read_at = Instant::now() + self.context.config.retry.initial;
        }
        read
    }

    /// Writes the changes and retries until that succeeds: nothing may be sent before. Once a stop is requested, it
    /// retries until the deadline only. Returns whether the changes were written; if not, the consumer must end, and
    /// repeats the unwritten work after its next start.
    pub(super) fn write(&mut self, deadline: Option<Instant>) -> bool {
        if self.is_cursor_changed {
            self.backlog.set_cursor(&mut self.changes, &self.cursor);
        }
        while !self.changes.is_empty() {
            let Err(error) = self.backlog.write(&self.changes) else { break };
            let destination = &self.context.config.name;
            tracing::warn!(%error, destination, "writing relay state failed: relaying is paused until it succeeds");
            let must_stop = deadline.map_or(!self.context.stop.is_empty(), |deadline| Instant::now() >= deadline);
            if must_stop {
                return false;
            }
            std::thread::sleep(WRITE_RETRY_DELAY);
        }
        self.changes.clear();
        self.is_cursor_changed = false;
        true
    }

    /// Sends what may be sent.
    fn send(&mut self) -> Result<(), StoreError> {
        let concurrency = self.context.config.concurrency;
        while self.sessions.in_flight() < concurrency
            && self.circuit.allows(self.sessions.has_fresh(), self.sessions.in_flight(), Instant::now())
            && let Some(turn) = self.sessions.next(self.retry_slots())
        {
            let (turn, records) = self.records_of(turn)?;
            match records.is_empty() {
                true => self.finish(&turn)?,
                false => self.request(turn, &records),
            }
        }
        Ok(())
    }

    /// Publishes the state that other threads read.
    pub(super) fn publish(&self) {
        let mut status = self.context.shared.status.lock().unwrap_or_else(PoisonError::into_inner);
        status.is_loaded = true;
        status.sent = self.cursor.sent;
        status.waiting = self.sessions.waiting();
        status.in_flight = self.sessions.in_flight();
        status.next.clone_from(&self.cursor.next);
        status.oldest = self.sessions.oldest();
        status.is_open = self.circuit.is_open();
        status.dead_letters = self.dead_letters;
        status.last_sent_ms = self.last_sent_ms;
        let is_idle = self.sessions.waiting() > 0 && self.sessions.in_flight() == 0;
        let due = if is_idle { self.next_due() } else { None };
        let wait = due.map(|due| due.saturating_duration_since(Instant::now()));
        status.next_try_ms = wait.map(|wait| now_ms() + wait.as_millis() as u64);
    }
}
