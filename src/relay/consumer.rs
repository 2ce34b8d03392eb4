//! The consumer of one destination: a thread that reads commits behind its cursor, sends, and keeps what came of it.
//!
//! One turn of its loop: take what came back, read more if there is nobody to send for, write down both, send what may
//! be sent, wait. It never reads ahead of what it can send, so an upstream that is down costs nothing but disk, and a
//! full house is not woken by commits.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::backlog::{Backlog, Changes, RelayCursor};
use super::circuit::Circuit;
use super::commands::Command;
use super::config::DestinationConfig;
use super::destination::{Destination, Reason, Sent};
use super::event::{EventFilter, RelayEvent};
use super::metrics::DestinationMetrics;
use super::report::FailureReporter;
use super::sessions::{Sessions, Turn};
use super::status::Shared;
use crate::ledger::format::keys::Location;
use crate::ledger::read::follower::Follower;
use crate::ledger::read::lookup;
use crate::ledger::read::merge;
use crate::ledger::store::{Store, StoreError};
use crate::runtime::now_ms;

/// The most events that are read in one go.
const STRETCH_EVENTS: usize = 512;
/// The same while the circuit is open, and somebody is looked for who did not fail.
const LOOK_EVENTS: usize = 16;
/// The most sessions with something to send that are kept in memory. With more, nothing is read until some are done.
const SESSIONS: usize = 16_384;
/// How long to wait for more commits before reading.
pub const DEBOUNCE: Duration = Duration::from_millis(5);
/// How long to wait before rows that could not be written are written again.
const REWRITE: Duration = Duration::from_secs(1);

/// An event cannot be read: the operator learns it, and the others go on.
fn damaged(location: Location, metrics: &DestinationMetrics) {
    let (shard, position) = (location.shard.0, location.position.0);
    tracing::error!(shard, position, "an event cannot be read and is not relayed: run `cairn verify --all`");
    metrics.failed(Reason::Damaged);
}

/// What a consumer needs from outside, in every life of its thread.
pub struct RelayContext {
    /// The database.
    pub store: Arc<Store>,
    /// Follows the commits.
    pub follower: Follower,
    /// Where requests run.
    pub runtime: Handle,
    /// The upstream.
    pub destination: Arc<dyn Destination>,
    /// What the operator asks for.
    pub commands: Receiver<Command>,
    /// Says that the end is near.
    pub retry_now: Receiver<()>,
    /// Says until when what is in flight may come to its end.
    pub stop: Receiver<Instant>,
    /// What others see.
    pub shared: Arc<Shared>,
    /// The settings.
    pub config: DestinationConfig,
}

/// The end of a request.
pub(super) struct End {
    pub turn: Turn,
    /// The event's id, for a dead letter.
    pub id: Uuid,
    /// It was about the session, not yet the event.
    pub is_announcement: bool,
    /// It was the event, and tells of its session.
    pub announces: bool,
    /// It was sent alone, while the circuit was open.
    pub is_probe: bool,
    pub sent: Sent,
}

/// A consumer at work.
pub struct Consumer<'o> {
    pub(super) context: &'o RelayContext,
    pub(super) backlog: Backlog,
    pub(super) cursor: RelayCursor,
    pub(super) sessions: Sessions,
    pub(super) circuit: Circuit,
    pub(super) reporter: FailureReporter,
    pub(super) dead_letters: u64,
    /// When the last event was acknowledged, since the start.
    pub(super) last_sent_ms: Option<u64>,
    /// What is not written yet.
    pub(super) changes: Changes,
    /// The cursor is not written yet.
    pub(super) is_moved: bool,
    filter: EventFilter,
    /// Nothing is read before.
    pub(super) read_at: Instant,
    ended: (Sender<End>, Receiver<End>),
    /// Broken off when the consumer is dropped: the next one sends them again.
    requests: JoinSet<()>,
}

impl<'o> Consumer<'o> {
    /// Goes on where the destination stopped.
    ///
    /// # Errors
    /// When the database cannot be read or written.
    pub fn open(context: &'o RelayContext) -> Result<Consumer<'o>, StoreError> {
        let RelayContext { store, config, destination, shared, .. } = context;
        let backlog = shared.backlog.clone();
        let Some(cursor) = backlog.cursor()? else {
            return Err(store.damaged("the cursor of a destination of the relay is gone"));
        };
        let mut sessions = Sessions::default();
        backlog.each_waiting(|session, event| {
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
            changes: Changes::default(),
            is_moved: false,
            filter: EventFilter::new(&config.filter),
            read_at: Instant::now(),
            ended: crossbeam_channel::unbounded(),
            requests: JoinSet::new(),
            context,
        };
        consumer.publish();
        Ok(consumer)
    }

    /// Relays until it is told to stop.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn run(&mut self) -> Result<(), StoreError> {
        let context = self.context;
        loop {
            while let Ok(end) = self.ended.1.try_recv() {
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
            let due = self.due().map_or_else(crossbeam_channel::never, crossbeam_channel::at);
            crossbeam_channel::select! {
                recv(self.ended.1) -> end => if let Ok(end) = end { self.on_result(end)? },
                recv(context.commands) -> command => if let Ok(command) = command { self.handle(command) },
                recv(woken) -> _ => {
                    let now = Instant::now();
                    // A second word must not put off what the first one asked for.
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

    /// Tries once more whatever waits for its next try: it is the last chance before the end.
    fn retry_now(&mut self) {
        self.circuit.retry_now(Instant::now());
        self.sessions.wake_all();
        self.read_at = Instant::now();
    }

    /// Sends nothing more, and keeps what comes of what is in flight.
    fn drain(&mut self, deadline: Instant) -> Result<(), StoreError> {
        while self.sessions.in_flight() > 0 {
            let Ok(end) = self.ended.1.recv_deadline(deadline) else {
                let requests = self.sessions.in_flight();
                tracing::warn!(requests, "the relay leaves requests without their answers; they are sent again");
                break;
            };
            self.on_result(end)?;
        }
        self.write(Some(deadline));
        self.publish();
        Ok(())
    }

    /// How many committed events were not read.
    fn lag(&self) -> u64 {
        self.context.follower.committed().lag(&self.cursor.next)
    }

    /// Whether more sessions are needed than are in memory.
    fn wants_events(&self) -> bool {
        let in_flight = self.sessions.in_flight();
        self.sessions.len() < SESSIONS
            && match self.circuit.is_open() {
                // A probe is best made with a session that did not fail before.
                true => !self.sessions.has_fresh() && self.circuit.allows(true, in_flight, Instant::now()),
                false => self.sessions.ready(self.retry_slots()) + in_flight < self.context.config.concurrency,
            }
    }

    /// How many requests at once may be of sessions whose last one failed: half of them, and none for a probe that
    /// another session can make.
    fn retry_slots(&self) -> usize {
        match self.circuit.is_open() && self.sessions.has_fresh() {
            true => 0,
            false => self.context.config.concurrency.div_ceil(2),
        }
    }

    /// When there is something to do without anybody's word.
    fn due(&self) -> Option<Instant> {
        let in_flight = self.sessions.in_flight();
        let now = Instant::now();
        let rested = self.sessions.wake_at();
        let send = match self.circuit.probe_at(false) {
            Some(_) if in_flight > 0 => None,
            // A session that did not fail may be there, or come.
            Some(probe) => {
                let fresh = self.circuit.probe_at(true).filter(|at| *at > now || self.sessions.has_fresh());
                let again = if self.sessions.ready(1) > 0 { Some(probe) } else { rested.map(|at| at.max(probe)) };
                fresh.into_iter().chain(again).min()
            }
            None if in_flight >= self.context.config.concurrency => None,
            None => rested,
        };
        let read = (self.wants_events() && self.lag() > 0).then_some(self.read_at);
        send.into_iter().chain(read).min()
    }

    /// Reads a stretch of what was committed: whatever passes the filter waits from now on.
    fn read(&mut self) -> Result<(), StoreError> {
        let RelayContext { store, follower, destination, .. } = self.context;
        let (backlog, changes, sessions) = (&self.backlog, &mut self.changes, &mut self.sessions);
        let (filter, ticket, metrics) = (&self.filter, &mut self.cursor.ticket, &self.context.shared.metrics);
        let mut is_moved = false;
        let limit = if self.circuit.is_open() { LOOK_EVENTS } else { STRETCH_EVENTS };
        let read = merge::read(store, follower.committed(), &mut self.cursor.next, limit, |location, record| {
            is_moved = true;
            let Some(event) = record.map(RelayEvent::new) else {
                damaged(location, metrics);
                return Ok(());
            };
            if !filter.passes(&event) {
                return Ok(());
            }
            let session = destination.session(&event);
            let waiting = super::sessions::Waiting { ticket: *ticket, location };
            *ticket += 1;
            backlog.add(changes, session, waiting);
            sessions.push(session, waiting, || backlog.is_announced(session, destination.recipient()))
        });
        self.is_moved |= is_moved;
        if self.circuit.is_open() {
            // Looking for a session to probe with must not copy the whole backlog of those that rest.
            self.read_at = Instant::now() + self.context.config.retry.initial;
        }
        read
    }

    /// Writes what changed, and waits until that succeeds: nothing may be sent before. Once the thread has to stop, it
    /// tries until the deadline. Whether it was written: if not, the consumer has to end, and what it did not write is
    /// done again after the next start.
    pub(super) fn write(&mut self, deadline: Option<Instant>) -> bool {
        if self.is_moved {
            self.backlog.set_cursor(&mut self.changes, &self.cursor);
        }
        while !self.changes.is_empty() {
            let Err(error) = self.backlog.write(&self.changes) else { break };
            let destination = &self.context.config.name;
            tracing::warn!(%error, destination, "the relay waits: its rows cannot be written");
            let has_to_stop = deadline.map_or(!self.context.stop.is_empty(), |deadline| Instant::now() >= deadline);
            if has_to_stop {
                return false;
            }
            std::thread::sleep(REWRITE);
        }
        self.changes.clear();
        self.is_moved = false;
        true
    }

    /// Sends what may be sent.
    fn send(&mut self) -> Result<(), StoreError> {
        let concurrency = self.context.config.concurrency;
        while self.sessions.in_flight() < concurrency
            && self.circuit.allows(self.sessions.has_fresh(), self.sessions.in_flight(), Instant::now())
            && let Some(turn) = self.sessions.next(self.retry_slots())
        {
            match lookup::record(&self.context.store, turn.event.location) {
                Ok(Some(record)) => {
                    let event = RelayEvent::new(record.as_ref());
                    // The filter may have changed since the event was read.
                    match self.filter.passes(&event) {
                        true => self.request(turn, &event),
                        false => self.finish(turn)?,
                    }
                }
                Ok(None) | Err(StoreError::Damaged { .. }) => {
                    damaged(turn.event.location, &self.context.shared.metrics);
                    self.finish(turn)?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn request(&mut self, turn: Turn, event: &RelayEvent<'_>) {
        let destination = &self.context.destination;
        let announces = destination.announces(event);
        let announcement = if turn.is_announced || announces { None } else { destination.announce(event) };
        let is_announcement = announcement.is_some();
        let sending = announcement.unwrap_or_else(|| destination.send(event));
        let id = lookup::id(event.record).unwrap_or_default();
        let (is_probe, ended) = (self.circuit.is_open(), self.ended.0.clone());
        let request = async move {
            let sent = sending.await;
            // Nobody waits for it any more when the consumer is gone.
            let _ = ended.send(End { turn, id, is_announcement, announces, is_probe, sent });
        };
        self.requests.spawn_on(request, &self.context.runtime);
        // Those that have ended are only let go here: their ends came through the channel.
        while self.requests.try_join_next().is_some() {}
    }

    /// Shows others how far it is.
    pub(super) fn publish(&self) {
        let mut status = self.context.shared.status.lock().unwrap_or_else(PoisonError::into_inner);
        status.is_known = true;
        status.sent = self.cursor.sent;
        status.waiting = self.sessions.waiting();
        status.in_flight = self.sessions.in_flight();
        status.next.clone_from(&self.cursor.next);
        status.oldest = self.sessions.oldest();
        status.is_open = self.circuit.is_open();
        status.dead_letters = self.dead_letters;
        status.last_sent_ms = self.last_sent_ms;
        let is_idle = self.sessions.waiting() > 0 && self.sessions.in_flight() == 0;
        let due = if is_idle { self.due() } else { None };
        let wait = due.map(|due| due.saturating_duration_since(Instant::now()));
        status.next_try_ms = wait.map(|wait| now_ms() + wait.as_millis() as u64);
    }
}
