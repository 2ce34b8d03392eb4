//! A throttle for log lines that a peer or an upstream can cause repeatedly.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Allows one log line per interval, and counts the lines that it suppresses.
pub struct LogThrottle {
    interval: Duration,
    /// Held for one comparison.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    last: Option<Instant>,
    suppressed: u64,
}

impl LogThrottle {
    /// A throttle that allows the next line at once.
    pub fn new(interval: Duration) -> LogThrottle {
        LogThrottle { interval, state: Mutex::default() }
    }

    /// Returns the number of lines suppressed since the last one if a line may be logged now; `None` if it must be
    /// suppressed.
    pub fn allow(&self) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.last.is_some_and(|last| last.elapsed() < self.interval) {
            state.suppressed += 1;
            return None;
        }
        state.last = Some(Instant::now());
        Some(std::mem::take(&mut state.suppressed))
    }

    /// Allows the next line at once. Called when the condition that the lines report has ended.
    pub fn reset(&self) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = State::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_per_interval_is_allowed_and_the_others_are_counted() {
        let throttle = LogThrottle::new(Duration::from_secs(3600));
        assert_eq!([throttle.allow(), throttle.allow(), throttle.allow()], [Some(0), None, None]);
        throttle.state.lock().unwrap().last = Instant::now().checked_sub(Duration::from_secs(3601));
        assert_eq!([throttle.allow(), throttle.allow()], [Some(2), None]);
        throttle.reset();
        assert_eq!(throttle.allow(), Some(0));
    }
}
