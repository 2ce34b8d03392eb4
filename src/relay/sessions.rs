//! Whose turn it is: the sessions that have something to send, in memory.
//!
//! The events of a session go one after the other; sessions go side by side. Of each session only the first events are
//! here, the others wait on disk ([`super::backlog`]), so that a session that is stuck for a day takes no memory.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Instant;

use super::destination::SessionKey;
use crate::ledger::format::keys::Location;

/// How many events of a session are kept in memory.
pub const IN_MEMORY: usize = 16;

/// An event that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// Its place in the order in which events were read: sessions keep it.
    pub ticket: u64,
    /// Where it stands in the ledger.
    pub location: Location,
}

struct Session {
    /// The first ones; never empty.
    first: VecDeque<Waiting>,
    /// How many more there are on disk.
    on_disk: u64,
    is_announced: bool,
    /// In a row.
    failures: u32,
}

/// What may be sent now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// Whose turn it is.
    pub session: SessionKey,
    /// Its first event.
    pub event: Waiting,
    /// Whether the upstream knows the session.
    pub is_announced: bool,
}

/// Every session that has something to send.
#[derive(Default)]
pub struct Sessions {
    all: HashMap<SessionKey, Session>,
    /// Ready, and their last request did not fail.
    fresh: VecDeque<SessionKey>,
    /// Ready after a back-off.
    retry: VecDeque<SessionKey>,
    /// In their back-off.
    backing_off: BTreeSet<(Instant, SessionKey)>,
    /// The first event of each session, by ticket.
    fronts: BTreeMap<u64, Location>,
    in_flight: usize,
    /// Of them, how many are of sessions whose last request failed.
    retries_in_flight: usize,
    waiting: u64,
    turns: u32,
}

impl Sessions {
    /// How many sessions there are.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// How many events wait or are in flight.
    pub fn waiting(&self) -> u64 {
        self.waiting
    }

    /// How many requests are on their way.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// How many sessions could send now, if those that failed get so many slots.
    pub fn ready(&self, retry_slots: usize) -> usize {
        self.fresh.len() + self.retry.len().min(retry_slots.saturating_sub(self.retries_in_flight))
    }

    /// Whether a session could send now whose last request did not fail.
    pub fn has_fresh(&self) -> bool {
        !self.fresh.is_empty()
    }

    /// The event that has waited longest.
    pub fn oldest(&self) -> Option<Location> {
        self.fronts.first_key_value().map(|(_, location)| *location)
    }

    /// Adds an event behind the others of its session. `is_announced` is asked of a session that is new here.
    ///
    /// # Errors
    /// What `is_announced` fails with. The event is not added then.
    pub fn push<E>(
        &mut self,
        session: SessionKey,
        event: Waiting,
        is_announced: impl FnOnce() -> Result<bool, E>,
    ) -> Result<(), E> {
        if let Some(known) = self.all.get_mut(&session) {
            if known.on_disk == 0 && known.first.len() < IN_MEMORY {
                known.first.push_back(event);
            } else {
                known.on_disk += 1;
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

    /// Lets those be ready whose back-off is over.
    pub fn wake(&mut self, now: Instant) {
        while self.wake_at().is_some_and(|until| until <= now)
            && let Some((_, session)) = self.backing_off.pop_first()
        {
            self.retry.push_back(session);
        }
    }

    /// Ends the rest of all of them.
    pub fn wake_all(&mut self) {
        if let Some((until, _)) = self.backing_off.last() {
            self.wake(*until);
        }
    }

    /// When the next back-off is over.
    pub fn wake_at(&self) -> Option<Instant> {
        self.backing_off.first().map(|(until, _)| *until)
    }

    /// Takes the next turn; it lasts until [`Sessions::done`], [`Sessions::announced`] or [`Sessions::rest`].
    ///
    /// Sessions that failed and those that did not take turns. The former may hang again, and get no more than
    /// `again_slots` at once, so that many of them hold up nobody else.
    pub fn next(&mut self, retry_slots: usize) -> Option<Turn> {
        self.turns = self.turns.wrapping_add(1);
        let is_agains = self.turns.is_multiple_of(2) || self.fresh.is_empty();
        let session = match is_agains && self.retries_in_flight < retry_slots {
            true => self.retry.pop_front().or_else(|| self.fresh.pop_front())?,
            false => self.fresh.pop_front()?,
        };
        let known = self.all.get(&session)?;
        self.in_flight += 1;
        self.retries_in_flight += usize::from(known.failures > 0);
        Some(Turn { session, event: *known.first.front()?, is_announced: known.is_announced })
    }

    /// A turn is over.
    fn end(&mut self, session: SessionKey) {
        self.in_flight -= 1;
        self.retries_in_flight -= usize::from(self.all.get(&session).is_some_and(|known| known.failures > 0));
    }

    /// The upstream knows the session now: it is ready for its first event.
    pub fn announced(&mut self, session: SessionKey) {
        self.end(session);
        if let Some(known) = self.all.get_mut(&session) {
            known.is_announced = true;
            known.failures = 0;
            self.fresh.push_front(session);
        }
    }

    /// The upstream knows the session now, by an event that is still to be done.
    pub fn known(&mut self, session: SessionKey) {
        if let Some(known) = self.all.get_mut(&session) {
            known.is_announced = true;
        }
    }

    /// The request failed, and [`Sessions::rest`] comes next. Returns how many failed in a row.
    pub fn failed(&mut self, session: SessionKey) -> u32 {
        self.end(session);
        self.all.get_mut(&session).map_or(1, |known| {
            known.failures = known.failures.saturating_add(1);
            known.failures
        })
    }

    /// The session rests until then.
    pub fn back_off(&mut self, session: SessionKey, until: Instant) {
        self.backing_off.insert((until, session));
    }

    /// The session's first event is done. If none of its others are in memory, `read` gets so many from disk: those
    /// behind a ticket.
    pub fn done<E>(
        &mut self,
        session: SessionKey,
        read: impl FnOnce(u64, usize) -> Result<VecDeque<Waiting>, E>,
    ) -> Result<(), E> {
        self.end(session);
        let Some(known) = self.all.get_mut(&session) else { return Ok(()) };
        let Some(done) = known.first.pop_front() else { return Ok(()) };
        self.waiting -= 1;
        self.fronts.remove(&done.ticket);
        known.failures = 0;
        if known.first.is_empty() && known.on_disk > 0 {
            let count = known.on_disk.min(IN_MEMORY as u64);
            known.first = read(done.ticket, count as usize)?;
            known.on_disk -= count;
        }
        match known.first.front() {
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

    fn event(ticket: u64) -> Waiting {
        Waiting { ticket, location: Location { shard: ShardId(0), position: Position(ticket) } }
    }

    fn push(sessions: &mut Sessions, session: SessionKey, event: Waiting, is_announced: bool) {
        sessions.push(session, event, || Ok::<_, Infallible>(is_announced)).unwrap();
    }

    fn nothing(_: u64, _: usize) -> Result<VecDeque<Waiting>, Infallible> {
        Ok(VecDeque::new())
    }

    #[test]
    fn events_of_a_session_take_turns_one_after_the_other_and_sessions_side_by_side() {
        let mut sessions = Sessions::default();
        push(&mut sessions, A, event(0), false);
        push(&mut sessions, A, event(1), false);
        push(&mut sessions, B, event(2), true);
        let first = sessions.next(1).unwrap();
        assert_eq!((first.session, first.event.ticket, first.is_announced), (A, 0, false));
        let second = sessions.next(1).unwrap();
        assert_eq!((second.session, second.event.ticket, second.is_announced), (B, 2, true));
        assert_eq!((sessions.next(1), sessions.in_flight()), (None, 2));
        sessions.announced(A);
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
    fn a_session_that_rests_holds_up_nobody_and_keeps_its_place() {
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
    fn sessions_that_failed_get_their_share_and_no_more() {
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
        // With nobody else to ask, they still get no more: whoever comes next finds a place.
        while sessions.has_fresh() {
            sessions.next(2).unwrap();
        }
        assert_eq!(sessions.next(2), None);
        sessions.done(bad[0], nothing).unwrap();
        assert!(bad.contains(&sessions.next(2).unwrap().session));
    }

    #[test]
    fn what_is_too_much_for_memory_comes_back_from_disk_in_order() {
        let mut sessions = Sessions::default();
        let total = 3 * IN_MEMORY as u64 + 5;
        for ticket in 0..total {
            push(&mut sessions, A, event(ticket), true);
        }
        assert_eq!(sessions.all[&A].first.len(), IN_MEMORY);
        for ticket in 0..total {
            assert_eq!(sessions.waiting(), total - ticket);
            assert_eq!(sessions.next(1).unwrap().event.ticket, ticket);
            let read = |behind: u64, count: usize| {
                assert_eq!((behind, count), (ticket, IN_MEMORY.min((total - ticket - 1) as usize)));
                Ok::<_, Infallible>((behind + 1..total).take(count).map(event).collect())
            };
            sessions.done(A, read).unwrap();
        }
        assert_eq!((sessions.len(), sessions.waiting()), (0, 0));
    }
}
