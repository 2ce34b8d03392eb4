//! When to retry: the back-off of a session and the circuit breaker of a destination.
//!
//! A session that fails backs off alone. Failures of several sessions in a row open the circuit: only one request at a
//! time is sent, as a probe, with a back-off that grows in the same way, until one succeeds. Specified in
//! `docs/relay.md`, section "Failures".
//!
//! A session is *fresh* if its last request did not fail.

use std::time::{Duration, Instant};

use super::config::RetryConfig;

/// The number of failures in a row that opens the circuit.
const OPENING_FAILURES: u32 = 5;

/// The wait after a number of failures in a row: exponential, with full jitter, and at least what the upstream asks
/// for.
pub fn back_off(config: RetryConfig, failures: u32, retry_after: Option<Duration>) -> Duration {
    let doubled = 2u32.saturating_pow(failures.saturating_sub(1));
    let longest = config.initial.saturating_mul(doubled).min(config.max);
    longest.mul_f64(fastrand::f64()).max(retry_after.unwrap_or_default())
}

/// The circuit breaker of a destination.
pub struct Circuit {
    retry: RetryConfig,
    /// Failures in a row.
    failures: u32,
    open: Option<Open>,
}

/// When the next probe may be sent.
#[derive(Clone, Copy)]
struct Open {
    /// By a session whose last request failed.
    until: Instant,
    /// By a fresh session: sooner, because the upstream may reject only the sessions that failed.
    fresh_until: Instant,
}

/// How the result of a request changed the circuit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transition {
    /// Not at all.
    None,
    /// The circuit opened.
    Opened,
    /// The circuit closed.
    Closed,
}

impl Circuit {
    /// A closed circuit.
    pub fn new(retry: RetryConfig) -> Circuit {
        Circuit { retry, failures: 0, open: None }
    }

    /// Whether the circuit is open, so that only probes are sent.
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Whether one more request may be sent while `in_flight` are in flight. `is_fresh`: it is of a fresh session.
    pub fn allows(&self, is_fresh: bool, in_flight: usize, now: Instant) -> bool {
        self.probe_at(is_fresh).is_none_or(|at| in_flight == 0 && now >= at)
    }

    /// When the next probe may be sent; `None` if the circuit is closed.
    pub fn probe_at(&self, is_fresh: bool) -> Option<Instant> {
        self.open.map(|open| if is_fresh { open.fresh_until } else { open.until })
    }

    /// Permits a probe now.
    pub fn retry_now(&mut self, now: Instant) {
        if self.open.is_some() {
            self.open = Some(Open { until: now, fresh_until: now });
        }
    }

    /// Records a failed request. `is_upstream_failure`: the failure may concern the upstream, not only its session.
    /// `is_probe`: it was sent as a probe, while the circuit was open.
    ///
    /// `retry_after` delays other sessions by at most `retry.max`.
    pub fn failed(
        &mut self,
        is_upstream_failure: bool,
        is_probe: bool,
        retry_after: Option<Duration>,
        now: Instant,
    ) -> Transition {
        let was_open = self.is_open();
        // Requests that were in flight when the circuit opened do not count.
        if is_upstream_failure && (!was_open || is_probe) {
            self.failures = self.failures.saturating_add(1);
        }
        if self.failures < OPENING_FAILURES || was_open && !is_probe {
            return Transition::None;
        }
        let requested = retry_after.map(|wait| wait.min(self.retry.max));
        let until = now + back_off(self.retry, self.failures - OPENING_FAILURES + 1, requested);
        self.open = Some(Open { until, fresh_until: until.min(now + self.retry.initial) });
        if was_open { Transition::None } else { Transition::Opened }
    }

    /// Records a request that the upstream accepted or refused permanently.
    pub fn succeeded(&mut self) -> Transition {
        self.failures = 0;
        if self.open.take().is_some() { Transition::Closed } else { Transition::None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETRY: RetryConfig = RetryConfig { initial: Duration::from_secs(1), max: Duration::from_secs(30) };

    #[test]
    fn waits_double_up_to_the_longest_and_cover_the_whole_range() {
        for (failures, longest_s) in [(1, 1.0), (2, 2.0), (5, 16.0), (6, 30.0), (40, 30.0), (u32::MAX, 30.0)] {
            let waits: Vec<f64> = (0..2000).map(|_| back_off(RETRY, failures, None).as_secs_f64()).collect();
            let (least, most) =
                waits.iter().fold((f64::MAX, 0f64), |(least, most), &wait| (least.min(wait), most.max(wait)));
            assert!(
                least < longest_s * 0.05 && most > longest_s * 0.95 && most <= longest_s,
                "{failures}: {least} {most}"
            );
        }
        assert!(back_off(RETRY, 1, Some(Duration::from_secs(77))) >= Duration::from_secs(77));
    }

    #[test]
    fn an_open_circuit_permits_one_probe_at_a_time_until_one_succeeds() {
        let mut circuit = Circuit::new(RETRY);
        let now = Instant::now();
        for _ in 1..OPENING_FAILURES {
            assert_eq!(circuit.failed(true, false, None, now), Transition::None);
            assert_eq!(circuit.failed(false, false, None, now), Transition::None, "the upstream may be available");
            assert!(circuit.allows(false, 100, now));
        }
        assert_eq!(circuit.failed(true, false, Some(Duration::from_secs(9)), now), Transition::Opened);
        assert!(!circuit.allows(false, 0, now + Duration::from_secs(8)));
        // A request that was in flight before changes nothing.
        assert_eq!(circuit.failed(true, false, Some(Duration::from_secs(99)), now), Transition::None);
        assert!(circuit.allows(true, 0, now + RETRY.initial), "a fresh session may probe sooner");
        assert!(!circuit.allows(true, 1, now + RETRY.initial));
        let probe = circuit.probe_at(false).unwrap();
        assert!(circuit.allows(false, 0, probe) && !circuit.allows(false, 1, probe));
        assert_eq!(circuit.failed(false, true, Some(Duration::from_secs(50)), probe), Transition::None);
        assert_eq!(circuit.probe_at(false), Some(probe + RETRY.max), "other sessions are delayed by at most retry.max");
        assert_eq!(circuit.succeeded(), Transition::Closed);
        assert!(circuit.allows(false, 100, probe));
        assert_eq!(circuit.failed(true, false, None, probe), Transition::None, "the count of failures starts again");
    }

    #[test]
    fn successes_between_failures_keep_the_circuit_closed() {
        let mut circuit = Circuit::new(RETRY);
        for _ in 0..100 {
            assert_eq!(circuit.failed(true, false, None, Instant::now()), Transition::None);
            assert_eq!(circuit.succeeded(), Transition::None);
        }
    }
}
