//! The wall clock of a shard, and its steps.
//!
//! The time of receipt is what the wall clock shows, whatever it showed before. A step is found by comparison with the
//! monotonic clock and, across a restart, with the newest stored event.

use std::time::{Duration, Instant};

use super::recover::Tail;
use crate::ledger::format::clock_step::ClockStep;
use crate::runtime::Clock;

/// The difference between wall clock and monotonic clock above which the wall clock was set. Below are the delays
/// between the readings of the two clocks. A smeared leap second differs by 12 us a second, and both clocks have it.
const MIN_STEP: Duration = Duration::from_secs(1);

/// A reading of both clocks at the same time.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    /// The monotonic clock.
    pub monotonic: Instant,
    /// The wall clock, in ms since 1970. At least 1: 0 means that a shard has no event.
    pub wall_ms: u64,
}

impl Reading {
    /// Reads the wall clock. `monotonic` is the monotonic clock now.
    pub fn take(clock: &Clock, monotonic: Instant) -> Reading {
        Reading { monotonic, wall_ms: clock().max(1) }
    }

    /// The step between the last event of the shard, which is that of `tail`, and this reading; `None` if there is none.
    /// `previous` is the reading of the last event, unless it was stored before the start of the server.
    pub fn step(&self, tail: &Tail, previous: Option<Reading>) -> Option<ClockStep> {
        let previous_ms = tail.received_ms;
        let expected_ms = previous.map_or(previous_ms, |previous| {
            let elapsed = self.monotonic.saturating_duration_since(previous.monotonic);
            previous.wall_ms.saturating_add(elapsed.as_millis() as u64)
        });
        let is_set = previous.is_some() && u128::from(self.wall_ms.abs_diff(expected_ms)) >= MIN_STEP.as_millis();
        let step = ClockStep { position: tail.next, previous_ms, expected_ms, found_ms: self.wall_ms };
        (is_set || step.decreases()).then_some(step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::format::keys::Position;

    const HOUR_MS: u64 = 3_600_000;
    const START_MS: u64 = 1_800_000_000_000;

    fn tail(received_ms: u64) -> Tail {
        Tail { next: Position(5), received_ms, id_ms: received_ms, first_of_ms: Position(0), agents: 1 }
    }

    /// The step found `elapsed_ms` after an event at `START_MS`, when the wall clock shows `wall_ms`.
    fn step(elapsed_ms: u64, wall_ms: u64) -> Option<ClockStep> {
        let now = Instant::now();
        let previous = Reading { monotonic: now, wall_ms: START_MS };
        Reading { monotonic: now + Duration::from_millis(elapsed_ms), wall_ms }.step(&tail(START_MS), Some(previous))
    }

    #[test]
    fn a_clock_that_advances_with_the_monotonic_clock_has_no_step() {
        for elapsed_ms in [0, 1, 500, HOUR_MS, 24 * HOUR_MS] {
            assert_eq!(step(elapsed_ms, START_MS + elapsed_ms), None, "{elapsed_ms}");
        }
        // A reading that was delayed between the clocks, and a leap second that is smeared over a day.
        assert_eq!(step(1000, START_MS + 1900), None);
        assert_eq!(step(24 * HOUR_MS, START_MS + 24 * HOUR_MS - 999), None);
    }

    #[test]
    fn a_step_forward_and_a_step_back_are_found() {
        let forward = step(10, START_MS + 10 + 2 * HOUR_MS).unwrap();
        assert_eq!((forward.by_ms(), forward.decreases()), (2 * 3_600_000, false));
        let back = step(10, START_MS - HOUR_MS).unwrap();
        assert_eq!((back.by_ms(), back.decreases()), (-3_600_010, true));
        // Set back by less than the time without events: times of receipt still increase.
        let hidden = step(HOUR_MS, START_MS + HOUR_MS / 2).unwrap();
        assert_eq!((hidden.by_ms(), hidden.decreases()), (-1_800_000, false));
        // Any decrease is a step, however small.
        assert_eq!(step(0, START_MS - 1).map(|step| step.by_ms()), Some(-1));
    }

    #[test]
    fn after_a_restart_the_newest_event_is_what_the_clock_is_compared_with() {
        let at = |wall_ms| Reading { monotonic: Instant::now(), wall_ms }.step(&tail(START_MS), None);
        assert_eq!(at(START_MS), None);
        assert_eq!(at(START_MS + 24 * HOUR_MS), None, "the server may have been stopped for a day");
        assert_eq!(at(START_MS - HOUR_MS).map(|step| step.by_ms()), Some(-3_600_000));
        let first = Reading { monotonic: Instant::now(), wall_ms: 1 }.step(&tail(0), None);
        assert_eq!(first, None, "the first event of a ledger");
    }
}
