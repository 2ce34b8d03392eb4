//! Tests of the order in which sessions send.

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
    let mut sessions = Sessions::new(1);
    push(&mut sessions, A, event(0), false);
    push(&mut sessions, A, event(1), false);
    push(&mut sessions, B, event(2), true);
    let first = sessions.next(1).unwrap();
    assert_eq!((first.session, first.events[0].ticket, first.is_announced), (A, 0, false));
    let second = sessions.next(1).unwrap();
    assert_eq!((second.session, second.events[0].ticket, second.is_announced), (B, 2, true));
    assert_eq!((sessions.next(1), sessions.in_flight()), (None, 2));
    sessions.on_announced(A);
    let first = sessions.next(1).unwrap();
    assert_eq!((first.events[0].ticket, first.is_announced), (0, true));
    sessions.done(A, 1, nothing).unwrap();
    assert_eq!(sessions.next(1).unwrap().events[0].ticket, 1);
    assert_eq!(sessions.oldest(), Some(event(1).location));
    sessions.done(A, 1, nothing).unwrap();
    sessions.done(B, 1, nothing).unwrap();
    assert_eq!((sessions.len(), sessions.waiting(), sessions.in_flight()), (0, 0, 0));
    assert_eq!(sessions.oldest(), None);
}

#[test]
fn a_session_in_back_off_holds_up_no_other_session_and_keeps_its_first_event() {
    let mut sessions = Sessions::new(1);
    let now = Instant::now();
    push(&mut sessions, A, event(0), true);
    push(&mut sessions, B, event(1), true);
    sessions.next(1).unwrap();
    assert_eq!(sessions.failed(A), 1);
    sessions.back_off(A, now + Duration::from_secs(9));
    assert_eq!(sessions.next(1).unwrap().session, B);
    sessions.wake(now);
    assert_eq!((sessions.next(1), sessions.wake_at()), (None, Some(now + Duration::from_secs(9))));
    sessions.done(B, 1, nothing).unwrap();
    push(&mut sessions, B, event(2), true);
    sessions.wake(now + Duration::from_secs(9));
    let turns = [sessions.next(1).unwrap(), sessions.next(1).unwrap()];
    assert!(turns.iter().any(|turn| turn.events == [event(0)]) && turns.iter().any(|turn| turn.session == B));
    assert_eq!(sessions.failed(A), 2);
    sessions.back_off(A, now);
    assert_eq!(sessions.in_flight(), 1);
}

#[test]
fn sessions_that_failed_use_at_most_their_slots() {
    let mut sessions = Sessions::new(1);
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
    sessions.done(bad[0], 1, nothing).unwrap();
    assert!(bad.contains(&sessions.next(2).unwrap().session));
}

#[test]
fn events_that_do_not_fit_into_memory_are_read_from_disk_in_order() {
    let mut sessions = Sessions::new(1);
    let total = 3 * MAX_IN_MEMORY as u64 + 5;
    for ticket in 0..total {
        push(&mut sessions, A, event(ticket), true);
    }
    assert_eq!(sessions.all[&A].first.len(), MAX_IN_MEMORY);
    for ticket in 0..total {
        assert_eq!(sessions.waiting(), total - ticket);
        assert_eq!(sessions.next(1).unwrap().events[0].ticket, ticket);
        let read = |after: u64, count: usize| {
            assert_eq!((after, count), (ticket, MAX_IN_MEMORY.min((total - ticket - 1) as usize)));
            Ok::<_, Infallible>((after + 1..total).take(count).map(event).collect())
        };
        sessions.done(A, 1, read).unwrap();
    }
    assert_eq!((sessions.len(), sessions.waiting()), (0, 0));
}

#[test]
fn a_request_that_is_refused_is_split_until_the_event_that_is_the_reason_is_alone() {
    let mut sessions = Sessions::new(8);
    (0..20).for_each(|ticket| push(&mut sessions, A, event(ticket), true));
    let (mut requests, mut refused, mut delivered) = (0, Vec::new(), Vec::new());
    while sessions.len() > 0 {
        let turn = sessions.next(1).unwrap();
        let tickets: Vec<u64> = turn.events.iter().map(|event| event.ticket).collect();
        requests += 1;
        let has_bad = tickets.contains(&5);
        match (has_bad, &tickets[..]) {
            (true, [_, _, ..]) => {
                sessions.split(A, tickets.len());
                continue;
            }
            (true, only) => refused.extend_from_slice(only),
            (false, some) => delivered.extend_from_slice(some),
        }
        let after = |ticket: u64, count: usize| Ok::<_, Infallible>((ticket + 1..20).take(count).map(event).collect());
        sessions.done(A, tickets.len(), after).unwrap();
    }
    assert_eq!(refused, [5]);
    assert_eq!(delivered, (0..20).filter(|ticket| *ticket != 5).collect::<Vec<_>>());
    assert!(requests <= 12, "{requests}");
    assert_eq!((sessions.waiting(), sessions.in_flight()), (0, 0));
}
