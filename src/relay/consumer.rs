//! The consumer of one destination: a thread that reads commits behind its cursor, sends, and keeps what came of it.
//!
//! One turn of its loop: take what came back, read more if there is nobody to send for, write down both, send what may
//! be sent, wait. It never reads ahead of what it can send, so an upstream that is down costs nothing but disk, and a
//! full house is not woken by commits.

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, Sender};
use tokio::runtime::Handle;
use uuid::Uuid;

use super::backlog::{Backlog, Changes, Cursor};
use super::circuit::Circuit;
use super::config::{DestinationConfig, Start};
use super::destination::{Destination, Reason, Sent};
use super::event::{Event, Filter};
use super::orders::Order;
use super::sessions::{Sessions, Turn};
use super::status::Shared;
use super::{complaints::Complaints, reader};
use crate::ledger::committed::Committed;
use crate::ledger::read;
use crate::ledger::store::{Store, StoreError};

/// The most events that are read in one go.
const STRETCH_EVENTS: usize = 512;
/// The most sessions with something to send that are kept in memory. With more, nothing is read until some are done.
const SESSIONS: usize = 16_384;
/// How long a word of new events is let lie, so that one pass sees many of them.
const GATHER: Duration = Duration::from_millis(5);
/// How long to wait before rows that could not be written are written again.
const REWRITE: Duration = Duration::from_secs(1);

/// What a consumer needs from outside, in every life of its thread.
pub struct Outside {
    /// The database.
    pub store: Arc<Store>,
    /// How far the ledger is.
    pub committed: Arc<Committed>,
    /// A word of new commits.
    pub woken: Receiver<()>,
    /// Where requests run.
    pub runtime: Handle,
    /// The upstream.
    pub destination: Arc<dyn Destination>,
    /// What the operator asks for.
    pub orders: Receiver<Order>,
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
    /// It was sent alone, while the circuit was open.
    pub is_probe: bool,
    pub sent: Sent,
}

/// A consumer at work.
pub struct Consumer<'o> {
    pub(super) outside: &'o Outside,
    pub(super) backlog: Backlog,
    pub(super) cursor: Cursor,
    pub(super) sessions: Sessions,
    pub(super) circuit: Circuit,
    pub(super) complaints: Complaints,
    pub(super) dead_letters: u64,
    /// What is not written yet.
    pub(super) changes: Changes,
    /// The cursor is not written yet.
    pub(super) is_moved: bool,
    filter: Filter,
    /// Nothing is read before.
    read_at: Instant,
    /// While the circuit is open: something was read for the next probe.
    pub(super) has_looked: bool,
    ended: (Sender<End>, Receiver<End>),
}

/// The time in ms since 1970.
pub(super) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

impl<'o> Consumer<'o> {
    /// Goes on where the destination stopped.
    ///
    /// # Errors
    /// When the database cannot be read or written.
    pub fn open(outside: &'o Outside) -> Result<Consumer<'o>, StoreError> {
        let Outside { store, committed, config, destination, .. } = outside;
        let backlog = Backlog::new(Arc::clone(store), &config.name);
        let end = || committed.shards().map(|shard| committed.next(shard));
        let mut cursor = backlog.cursor()?.unwrap_or_else(|| match config.from {
            Start::Start => Cursor { ticket: 0, sent: 0, next: Vec::new() },
            Start::Now => Cursor { ticket: 0, sent: 0, next: end().collect() },
        });
        cursor.next.resize(end().count(), crate::ledger::keys::Position(0));
        for (next, end) in cursor.next.iter_mut().zip(end()) {
            if *next > end {
                // Positions are given anew, and what gets them must not be passed over.
                tracing::warn!(
                    destination = config.name,
                    "the cursor is ahead of the ledger: it is set back to its end"
                );
                *next = end;
            }
        }
        let mut sessions = Sessions::default();
        let mut failed = None;
        backlog.each_waiting(|session, event| {
            let is_announced = || backlog.is_announced(session, destination.recipient());
            match if sessions.has(session) { Ok(false) } else { is_announced() } {
                Ok(is_announced) => sessions.push(session, event, is_announced),
                Err(error) => failed = Some(error),
            }
        })?;
        failed.map_or(Ok(()), Err)?;
        let mut consumer = Consumer {
            dead_letters: backlog.count_dead_letters()?,
            backlog,
            cursor,
            sessions,
            circuit: Circuit::new(config.retry),
            complaints: Complaints::new(&config.name, &outside.shared.identity_key),
            changes: Changes::default(),
            is_moved: true,
            filter: Filter::new(&config.filter),
            read_at: Instant::now(),
            has_looked: false,
            ended: crossbeam_channel::unbounded(),
            outside,
        };
        // A start from now on is a promise to keep over a restart.
        consumer.write();
        consumer.publish();
        Ok(consumer)
    }

    /// Relays until it is told to stop.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn run(&mut self) -> Result<(), StoreError> {
        let outside = self.outside;
        loop {
            while let Ok(end) = self.ended.1.try_recv() {
                self.settle(end)?;
            }
            self.sessions.wake(Instant::now());
            if self.is_hungry() && Instant::now() >= self.read_at {
                self.read()?;
            }
            self.write();
            self.send()?;
            self.publish();
            if !self.changes.is_empty() || self.is_hungry() && self.lag() > 0 && Instant::now() >= self.read_at {
                continue;
            }
            let never = crossbeam_channel::never();
            let woken = if self.is_hungry() { &outside.woken } else { &never };
            let due = self.due().map_or_else(crossbeam_channel::never, crossbeam_channel::at);
            crossbeam_channel::select! {
                recv(self.ended.1) -> end => if let Ok(end) = end { self.settle(end)? },
                recv(outside.orders) -> order => if let Ok(order) = order { self.obey(order)? },
                recv(woken) -> _ => self.read_at = Instant::now() + GATHER,
                recv(due) -> _ => {}
                recv(outside.stop) -> deadline => return self.drain(deadline.unwrap_or_else(|_| Instant::now())),
            }
        }
    }

    /// Sends nothing more, and keeps what comes of what is in flight.
    fn drain(&mut self, deadline: Instant) -> Result<(), StoreError> {
        while self.sessions.in_flight() > 0 {
            let Ok(end) = self.ended.1.recv_deadline(deadline) else {
                let requests = self.sessions.in_flight();
                tracing::warn!(requests, "the relay leaves requests without their answers; they are sent again");
                break;
            };
            self.settle(end)?;
        }
        self.write();
        self.publish();
        Ok(())
    }

    /// How many committed events were not read.
    fn lag(&self) -> u64 {
        super::status::lag(&self.outside.committed, &self.cursor.next)
    }

    /// Whether more sessions are needed than are in memory.
    fn is_hungry(&self) -> bool {
        let in_flight = self.sessions.in_flight();
        self.sessions.len() < SESSIONS
            && match self.circuit.is_open() {
                // A probe is best made with a session that did not fail before: one look for it has to do.
                true => {
                    !self.has_looked && !self.sessions.has_fresh() && self.circuit.allows(in_flight, Instant::now())
                }
                false => self.sessions.ready() + in_flight < self.outside.config.concurrency,
            }
    }

    /// When there is something to do without anybody's word.
    fn due(&self) -> Option<Instant> {
        let in_flight = self.sessions.in_flight();
        let now = Instant::now();
        let rested = self.sessions.wake_at();
        let send = match self.circuit.probe_at() {
            Some(_) if in_flight > 0 => None,
            Some(probe) if probe > now => Some(probe),
            Some(_) => rested,
            None if in_flight >= self.outside.config.concurrency => None,
            None => rested,
        };
        let read = (self.is_hungry() && self.lag() > 0).then_some(self.read_at);
        send.into_iter().chain(read).min()
    }

    /// Reads a stretch of what was committed: whatever passes the filter waits from now on.
    fn read(&mut self) -> Result<(), StoreError> {
        let Outside { store, committed, destination, .. } = self.outside;
        let (backlog, changes, sessions) = (&self.backlog, &mut self.changes, &mut self.sessions);
        let (filter, ticket) = (&self.filter, &mut self.cursor.ticket);
        let mut is_moved = false;
        let read = reader::read(store, committed, &mut self.cursor.next, STRETCH_EVENTS, |place, record| {
            is_moved = true;
            let event = Event::new(record);
            if !filter.passes(&event) {
                return Ok(());
            }
            let session = destination.session(&event);
            let is_announced = !sessions.has(session) && backlog.is_announced(session, destination.recipient())?;
            let waiting = super::sessions::Waiting { ticket: *ticket, place };
            *ticket += 1;
            backlog.add(changes, session, waiting);
            sessions.push(session, waiting, is_announced);
            Ok(())
        });
        self.is_moved |= is_moved;
        self.has_looked = true;
        read
    }

    /// Writes what changed, and waits until that succeeds: nothing may be sent before.
    pub(super) fn write(&mut self) {
        if self.is_moved {
            self.backlog.set_cursor(&mut self.changes, &self.cursor);
        }
        while !self.changes.is_empty()
            && let Err(error) = self.backlog.write(&self.changes)
        {
            tracing::warn!(%error, destination = self.outside.config.name, "the relay waits: its rows cannot be written");
            std::thread::sleep(REWRITE);
            // What is not written is sent again after the next start.
            if !self.outside.stop.is_empty() {
                break;
            }
        }
        self.changes.clear();
        self.is_moved = false;
    }

    /// Sends what may be sent.
    fn send(&mut self) -> Result<(), StoreError> {
        let concurrency = self.outside.config.concurrency;
        while self.sessions.in_flight() < concurrency
            && self.circuit.allows(self.sessions.in_flight(), Instant::now())
            && let Some(turn) = self.sessions.next(self.circuit.is_open())
        {
            match read::record(&self.outside.store, turn.event.place) {
                Ok(Some(record)) => self.request(turn, &Event::new(record.as_ref())),
                Ok(None) | Err(StoreError::Damaged { .. }) => {
                    let (shard, position) = (turn.event.place.shard.0, turn.event.place.position.0);
                    tracing::error!(
                        shard,
                        position,
                        "an event cannot be read and is not relayed: run `cairn verify --all`"
                    );
                    self.outside.shared.metrics.failed(Reason::Damaged);
                    self.finish(turn)?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn request(&self, turn: Turn, event: &Event<'_>) {
        let destination = &self.outside.destination;
        let announcement = if turn.is_announced { None } else { destination.announce(event) };
        let is_announcement = announcement.is_some();
        let sending = announcement.unwrap_or_else(|| destination.send(event));
        let id = read::id(event.record).unwrap_or_default();
        let (is_probe, ended) = (self.circuit.is_open(), self.ended.0.clone());
        self.outside.runtime.spawn(async move {
            let sent = sending.await;
            // Nobody waits for it any more when the consumer is gone.
            let _ = ended.send(End { turn, id, is_announcement, is_probe, sent });
        });
    }

    /// Shows others how far it is.
    pub(super) fn publish(&self) {
        let mut status = self.outside.shared.status.lock().unwrap_or_else(PoisonError::into_inner);
        status.sent = self.cursor.sent;
        status.waiting = self.sessions.waiting();
        status.in_flight = self.sessions.in_flight();
        status.next.clone_from(&self.cursor.next);
        status.oldest = self.sessions.oldest();
        status.is_open = self.circuit.is_open();
        status.dead_letters = self.dead_letters;
    }
}
