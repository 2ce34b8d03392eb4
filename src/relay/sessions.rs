//! The sessions that have events to send, in memory, and the order in which they send.
//!
//! The requests of a session are sent one after the other; sessions are sent concurrently. Only the first events of each
//! session are in memory, the others wait on disk ([`super::backlog`]), so that a session that is stuck for a day needs
//! little memory.
//!
//! A session is *fresh* if its last request did not fail.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Instant;

use super::destination::SessionKey;
use crate::ledger::format::keys::Location;

/// Most events of a session in memory, unless a request holds more.
pub const MAX_IN_MEMORY: usize = 16;

/// An event that waits to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WaitingEvent {
    /// Its number in the order in which events were read, which sessions preserve.
    pub ticket: u64,
    /// Its location in the ledger.
    pub location: Location,
}

struct Session {
    /// The first waiting events; never empty.
    first: VecDeque<WaitingEvent>,
    /// The number of further waiting events on disk.
    on_disk: u64,
    is_announced: bool,
    /// Failed requests in a row.
    failures: u32,
    /// The most events of the next request: fewer after a request was refused, to find the event that is the reason.
    at_most: usize,
}

/// Events that may be sent now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// The session.
    pub session: SessionKey,
    /// The first waiting events of the session, at least one.
    pub events: Vec<WaitingEvent>,
    /// Whether the session was announced to the upstream.
    pub is_announced: bool,
}

/// All sessions that have events to send.
pub struct Sessions {
    /// The most events of a request.
    batch: usize,
    all: HashMap<SessionKey, Session>,
    /// Ready sessions whose last request did not fail.
    fresh: VecDeque<SessionKey>,
    /// Ready sessions whose last request failed and whose back-off is over.
    retry: VecDeque<SessionKey>,
    /// Sessions in back-off, by its end.
    backing_off: BTreeSet<(Instant, SessionKey)>,
    /// The first event of each session, by ticket.
    fronts: BTreeMap<u64, Location>,
    in_flight: usize,
    /// Requests in flight of sessions whose last request failed.
    retries_in_flight: usize,
    waiting: u64,
    turns: u32,
}

impl Sessions {
    /// No sessions. A request holds at most `batch` events.
    pub fn new(batch: usize) -> Sessions {
        Sessions {
            batch,
            all: HashMap::new(),
            fresh: VecDeque::new(),
            retry: VecDeque::new(),
            backing_off: BTreeSet::new(),
            fronts: BTreeMap::new(),
            in_flight: 0,
            retries_in_flight: 0,
            waiting: 0,
            turns: 0,
        }
    }

    /// Most events of a session in memory.
    fn in_memory(&self) -> usize {
        self.batch.max(MAX_IN_MEMORY)
    }

    /// The number of sessions.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// The number of events that wait or are in flight.
    pub fn waiting(&self) -> u64 {
        self.waiting
    }

    /// The number of requests in flight.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// The number of sessions that may send now, if sessions that failed have `retry_slots` slots.
    pub fn ready(&self, retry_slots: usize) -> usize {
        self.fresh.len() + self.retry.len().min(retry_slots.saturating_sub(self.retries_in_flight))
    }

    /// Whether a fresh session may send now.
    pub fn has_fresh(&self) -> bool {
        !self.fresh.is_empty()
    }

    /// The location of the event that was read first.
    pub fn oldest(&self) -> Option<Location> {
        self.fronts.first_key_value().map(|(_, location)| *location)
    }

    /// Adds an event at the end of its session. `is_announced` is called for a session that is not in memory.
    ///
    /// # Errors
    /// The error of `is_announced`. The event is not added then.
    pub fn push<E>(
        &mut self,
        session: SessionKey,
        event: WaitingEvent,
        is_announced: impl FnOnce() -> Result<bool, E>,
    ) -> Result<(), E> {
        let in_memory = self.in_memory();
        if let Some(entry) = self.all.get_mut(&session) {
            if entry.on_disk == 0 && entry.first.len() < in_memory {
                entry.first.push_back(event);
            } else {
                entry.on_disk += 1;
            }
            self.waiting += 1;
            return Ok(());
        }
        let is_announced = is_announced()?;
        self.waiting += 1;
        self.fronts.insert(event.ticket, event.location);
        self.fresh.push_back(session);
        let first = VecDeque::from([event]);
        self.all.insert(session, Session { first, on_disk: 0, is_announced, failures: 0, at_most: self.batch });
        Ok(())
    }

    /// Makes sessions ready whose back-off is over.
    pub fn wake(&mut self, now: Instant) {
        while self.wake_at().is_some_and(|until| until <= now)
            && let Some((_, session)) = self.backing_off.pop_first()
        {
            self.retry.push_back(session);
        }
    }

    /// Ends the back-off of all sessions.
    pub fn wake_all(&mut self) {
        if let Some((until, _)) = self.backing_off.last() {
            self.wake(*until);
        }
    }

    /// When the next back-off is over.
    pub fn wake_at(&self) -> Option<Instant> {
        self.backing_off.first().map(|(until, _)| *until)
    }

    /// Takes the next events to send. Their request is in flight until [`Sessions::done`], [`Sessions::on_announced`],
    /// [`Sessions::split`] or [`Sessions::failed`].
    ///
    /// Fresh sessions and those that failed alternate. Requests of the latter may hang again, so at most `retry_slots`
    /// of them are in flight, and many of them hold up no other session.
    pub fn next(&mut self, retry_slots: usize) -> Option<Turn> {
        self.turns = self.turns.wrapping_add(1);
        let prefers_retry = self.turns.is_multiple_of(2) || self.fresh.is_empty();
        let session = match prefers_retry && self.retries_in_flight < retry_slots {
            true => self.retry.pop_front().or_else(|| self.fresh.pop_front())?,
            false => self.fresh.pop_front()?,
        };
        let entry = self.all.get(&session)?;
        self.in_flight += 1;
        self.retries_in_flight += usize::from(entry.failures > 0);
        let events = entry.first.iter().take(entry.at_most).copied().collect();
        Some(Turn { session, events, is_announced: entry.is_announced })
    }

    /// Records that the request of a session has ended.
    fn end(&mut self, session: SessionKey) {
        self.in_flight -= 1;
        self.retries_in_flight -= usize::from(self.all.get(&session).is_some_and(|entry| entry.failures > 0));
    }

    /// The session was announced: its first event is ready.
    pub fn on_announced(&mut self, session: SessionKey) {
        self.end(session);
        if let Some(entry) = self.all.get_mut(&session) {
            entry.is_announced = true;
            entry.failures = 0;
            self.fresh.push_front(session);
        }
    }

    /// The session was announced by an event whose request has not ended yet.
    pub fn set_announced(&mut self, session: SessionKey) {
        if let Some(entry) = self.all.get_mut(&session) {
            entry.is_announced = true;
        }
    }

    /// The request failed; the caller must call [`Sessions::back_off`] next. Returns the number of failures in a row.
    pub fn failed(&mut self, session: SessionKey) -> u32 {
        self.end(session);
        self.all.get_mut(&session).map_or(1, |entry| {
            entry.failures = entry.failures.saturating_add(1);
            entry.failures
        })
    }

    /// A request with this number of events, more than one, was refused: the next one holds half as many, until the event
    /// that is the reason is alone.
    pub fn split(&mut self, session: SessionKey, events: usize) {
        self.end(session);
        if let Some(entry) = self.all.get_mut(&session) {
            entry.at_most = (events / 2).max(1);
            entry.failures = 0;
            self.fresh.push_front(session);
        }
    }

    /// Puts the session into back-off.
    pub fn back_off(&mut self, session: SessionKey, until: Instant) {
        self.backing_off.insert((until, session));
    }

    /// The first `events` events of the session are done. If no other event of it is in memory, `read` reads the given number
    /// of events after a ticket from disk.
    ///
    /// # Errors
    /// The error of `read`.
    pub fn done<E>(
        &mut self,
        session: SessionKey,
        events: usize,
        read: impl FnOnce(u64, usize) -> Result<VecDeque<WaitingEvent>, E>,
    ) -> Result<(), E> {
        self.end(session);
        let (batch, in_memory) = (self.batch, self.in_memory() as u64);
        let Some(entry) = self.all.get_mut(&session) else { return Ok(()) };
        let done: Vec<WaitingEvent> = entry.first.drain(..events.min(entry.first.len())).collect();
        let (Some(first), Some(last)) = (done.first(), done.last()) else { return Ok(()) };
        self.waiting -= done.len() as u64;
        self.fronts.remove(&first.ticket);
        entry.failures = 0;
        entry.at_most = entry.at_most.saturating_mul(2).min(batch);
        if entry.first.is_empty() && entry.on_disk > 0 {
            let count = entry.on_disk.min(in_memory);
            entry.first = read(last.ticket, count as usize)?;
            entry.on_disk -= count;
        }
        match entry.first.front() {
            Some(next) => {
                self.fronts.insert(next.ticket, next.location);
                self.fresh.push_back(session);
            }
            None => {
                self.all.remove(&session);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
