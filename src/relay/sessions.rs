//! The sessions that have events to send, in memory, and the order in which they send.
//!
//! The events of a session are sent one after the other; sessions are sent concurrently. Only the first events of each
//! session are in memory, the others wait on disk ([`super::backlog`]), so that a session that is stuck for a day needs
//! little memory.
//!
//! A session is *fresh* if its last request did not fail.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Instant;

use super::destination::SessionKey;
use crate::ledger::format::keys::Location;

/// Most events of a session in memory.
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
}

/// An event that may be sent now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// The session.
    pub session: SessionKey,
    /// The first waiting event of the session.
    pub event: WaitingEvent,
    /// Whether the session was announced to the upstream.
    pub is_announced: bool,
}

/// All sessions that have events to send.
#[derive(Default)]
pub struct Sessions {
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
        if let Some(entry) = self.all.get_mut(&session) {
            if entry.on_disk == 0 && entry.first.len() < MAX_IN_MEMORY {
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
        self.all.insert(session, Session { first, on_disk: 0, is_announced, failures: 0 });
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

    /// Takes the next event to send. Its request is in flight until [`Sessions::done`], [`Sessions::on_announced`] or
    /// [`Sessions::failed`].
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
        Some(Turn { session, event: *entry.first.front()?, is_announced: entry.is_announced })
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

    /// Puts the session into back-off.
    pub fn back_off(&mut self, session: SessionKey, until: Instant) {
        self.backing_off.insert((until, session));
    }

    /// The first event of the session is done. If no other event of it is in memory, `read` reads the given number of
    /// events after a ticket from disk.
    ///
    /// # Errors
    /// The error of `read`.
    pub fn done<E>(
        &mut self,
        session: SessionKey,
        read: impl FnOnce(u64, usize) -> Result<VecDeque<WaitingEvent>, E>,
    ) -> Result<(), E> {
        self.end(session);
        let Some(entry) = self.all.get_mut(&session) else { return Ok(()) };
        let Some(done) = entry.first.pop_front() else { return Ok(()) };
        self.waiting -= 1;
        self.fronts.remove(&done.ticket);
        entry.failures = 0;
        if entry.first.is_empty() && entry.on_disk > 0 {
            let count = entry.on_disk.min(MAX_IN_MEMORY as u64);
            entry.first = read(done.ticket, count as usize)?;
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
mod tests {
    use std::convert::Infallible;
    use std::time::Duration;

    use super::*;
    use crate::ledger::format::keys::{Position, ShardId};

    const A: SessionKey = SessionKey([1; 16]);
    const B: SessionKey = SessionKey([2; 16]);

    fn event(ticket: u64) -> WaitingEvent {
        WaitingEvent { ticket, location: Location { shard: ShardId(0), position: Position(ticket) } }
    }

    fn push(sessions: &mut Sessions, session: SessionKey, event: WaitingEvent, is_announced: bool) {
        sessions.push(session, event, || Ok::<_, Infallible>(is_announced)).unwrap();
    }

    fn nothing(_: u64, _: usize) -> Result<VecDeque<WaitingEvent>, Infallible> {
        Ok(VecDeque::new())
    }

    #[test]
    fn events_of_a_session_are_sent_one_after_the_other_and_sessions_concurrently() {
        let mut sessions = Sessions::default();
        push(&mut sessions, A, event(0), false);
        push(&mut sessions, A, event(1), false);
        push(&mut sessions, B, event(2), true);
        let first = sessions.next(1).unwrap();
        assert_eq!((first.session, first.event.ticket, first.is_announced), (A, 0, false));
        let second = sessions.next(1).unwrap();
        assert_eq!((second.session, second.event.ticket, second.is_announced), (B, 2, true));
        assert_eq!((sessions.next(1), sessions.in_flight()), (None, 2));
        sessions.on_announced(A);
        let first = sessions.next(1).unwrap();
        assert_eq!((first.event.ticket, first.is_announced), (0, true));
        sessions.done(A, nothing).unwrap();
        assert_eq!(sessions.next(1).unwrap().event.ticket, 1);
        assert_eq!(sessions.oldest(), Some(event(1).location));
        sessions.done(A, nothing).unwrap();
        sessions.done(B, nothing).unwrap();
        assert_eq!((sessions.len(), sessions.waiting(), sessions.in_flight()), (0, 0, 0));
        assert_eq!(sessions.oldest(), None);
    }

    #[test]
    fn a_session_in_back_off_holds_up_no_other_session_and_keeps_its_first_event() {
        let mut sessions = Sessions::default();
        let now = Instant::now();
        push(&mut sessions, A, event(0), true);
        push(&mut sessions, B, event(1), true);
        sessions.next(1).unwrap();
        assert_eq!(sessions.failed(A), 1);
        sessions.back_off(A, now + Duration::from_secs(9));
        assert_eq!(sessions.next(1).unwrap().session, B);
        sessions.wake(now);
        assert_eq!((sessions.next(1), sessions.wake_at()), (None, Some(now + Duration::from_secs(9))));
        sessions.done(B, nothing).unwrap();
        push(&mut sessions, B, event(2), true);
        sessions.wake(now + Duration::from_secs(9));
        let turns = [sessions.next(1).unwrap(), sessions.next(1).unwrap()];
        assert!(turns.iter().any(|turn| turn.event == event(0)) && turns.iter().any(|turn| turn.session == B));
        assert_eq!(sessions.failed(A), 2);
        sessions.back_off(A, now);
        assert_eq!(sessions.in_flight(), 1);
    }

    #[test]
    fn sessions_that_failed_use_at_most_their_slots() {
        let mut sessions = Sessions::default();
        let now = Instant::now();
        for n in 0..20 {
            push(&mut sessions, SessionKey([n; 16]), event(u64::from(n)), true);
        }
        let bad: Vec<SessionKey> = (0..10).map(|_| sessions.next(2).unwrap().session).collect();
        for session in &bad {
            sessions.failed(*session);
            sessions.back_off(*session, now);
        }
        sessions.wake(now);
        let turns: Vec<SessionKey> = (0..8).map(|_| sessions.next(2).unwrap().session).collect();
        assert_eq!(turns.iter().filter(|session| bad.contains(session)).count(), 2);
        // Without fresh sessions they still get no more slots, so that a new session finds a free one.
        while sessions.has_fresh() {
            sessions.next(2).unwrap();
        }
        assert_eq!(sessions.next(2), None);
        sessions.done(bad[0], nothing).unwrap();
        assert!(bad.contains(&sessions.next(2).unwrap().session));
    }

    #[test]
    fn events_that_do_not_fit_into_memory_are_read_from_disk_in_order() {
        let mut sessions = Sessions::default();
        let total = 3 * MAX_IN_MEMORY as u64 + 5;
        for ticket in 0..total {
            push(&mut sessions, A, event(ticket), true);
        }
        assert_eq!(sessions.all[&A].first.len(), MAX_IN_MEMORY);
        for ticket in 0..total {
            assert_eq!(sessions.waiting(), total - ticket);
            assert_eq!(sessions.next(1).unwrap().event.ticket, ticket);
            let read = |after: u64, count: usize| {
                assert_eq!((after, count), (ticket, MAX_IN_MEMORY.min((total - ticket - 1) as usize)));
                Ok::<_, Infallible>((after + 1..total).take(count).map(event).collect())
            };
            sessions.done(A, read).unwrap();
        }
        assert_eq!((sessions.len(), sessions.waiting()), (0, 0));
    }
}
