//! When to try again: back-off of a session, and the circuit of a destination.
//!
//! A session that fails waits for itself. When failures of several sessions come in a row, the circuit opens: from then
//! on one request at a time is sent, a probe, with waits between that grow in the same way, until one succeeds.

use std::time::{Duration, Instant};

use super::config::RetryConfig;

/// So many failures in a row open the circuit.
const OPENING_FAILURES: u32 = 5;

/// How long to wait after that many failures in a row: exponential, with full jitter, and not less than the upstream
/// asks for.
pub fn back_off(config: RetryConfig, failures: u32, retry_after: Option<Duration>) -> Duration {
    let doubled = 2u32.saturating_pow(failures.saturating_sub(1));
    let longest = config.initial.saturating_mul(doubled).min(config.max);
    longest.mul_f64(fastrand::f64()).max(retry_after.unwrap_or_default())
}

/// Whether a destination is worth a request.
pub struct Circuit {
    retry: RetryConfig,
    /// In a row.
    failures: u32,
    open: Option<Open>,
}

/// When the next probe may be sent.
#[derive(Clone, Copy)]
struct Open {
    /// By a session that failed before.
    until: Instant,
    /// By one that did not: sooner, because it may be that nothing is wrong but with those that failed.
    fresh_until: Instant,
}

/// What a request's end changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    None,
    /// The circuit opened.
    Opened,
    /// The circuit closed again.
    Closed,
}

impl Circuit {
    /// Closed.
    pub fn new(retry: RetryConfig) -> Circuit {
        Circuit { retry, failures: 0, open: None }
    }

    /// Whether only probes are sent.
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Whether one more request may be sent while that many are on their way. `is_fresh`: of a session that did not
    /// fail.
    pub fn allows(&self, is_fresh: bool, in_flight: usize, now: Instant) -> bool {
        self.probe_at(is_fresh).is_none_or(|at| in_flight == 0 && now >= at)
    }

    /// When the next probe may be sent; `None` if the circuit is closed.
    pub fn probe_at(&self, is_fresh: bool) -> Option<Instant> {
        self.open.map(|open| if is_fresh { open.fresh_until } else { open.until })
    }

    /// A probe may be sent now.
    pub fn retry_now(&mut self, now: Instant) {
        if self.open.is_some() {
            self.open = Some(Open { until: now, fresh_until: now });
        }
    }

    /// A request failed. `is_news`: it says something of the upstream, not only of its session. `is_probe`: it was sent
    /// alone, after the circuit had opened.
    ///
    /// An upstream that asks one session to wait holds up the others for `retry.max` at most.
    pub fn failed(&mut self, is_news: bool, is_probe: bool, retry_after: Option<Duration>, now: Instant) -> Change {
        let was_open = self.is_open();
        // Those that were on their way when the circuit opened are no news, either.
        if is_news && (!was_open || is_probe) {
            self.failures = self.failures.saturating_add(1);
        }
        if self.failures < OPENING_FAILURES || was_open && !is_probe {
            return Change::None;
        }
        let asked = retry_after.map(|wait| wait.min(self.retry.max));
        let until = now + back_off(self.retry, self.failures - OPENING_FAILURES + 1, asked);
        self.open = Some(Open { until, fresh_until: until.min(now + self.retry.initial) });
        if was_open { Change::None } else { Change::Opened }
    }

    /// The upstream answered sensibly.
    pub fn succeeded(&mut self) -> Change {
        self.failures = 0;
        if self.open.take().is_some() { Change::Closed } else { Change::None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETRY: RetryConfig = RetryConfig { initial: Duration::from_secs(1), max: Duration::from_secs(30) };

    #[test]
    fn waits_double_up_to_the_longest_and_fill_the_whole_range() {
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
    fn an_open_circuit_lets_one_probe_at_a_time_pass_until_one_succeeds() {
        let mut circuit = Circuit::new(RETRY);
        let now = Instant::now();
        for _ in 1..OPENING_FAILURES {
            assert_eq!(circuit.failed(true, false, None, now), Change::None);
            assert_eq!(circuit.failed(false, false, None, now), Change::None, "no news");
            assert!(circuit.allows(false, 100, now));
        }
        assert_eq!(circuit.failed(true, false, Some(Duration::from_secs(9)), now), Change::Opened);
        assert!(!circuit.allows(false, 0, now + Duration::from_secs(8)));
        // What was on its way before changes nothing.
        assert_eq!(circuit.failed(true, false, Some(Duration::from_secs(99)), now), Change::None);
        assert!(circuit.allows(true, 0, now + RETRY.initial), "who did not fail may ask sooner");
        assert!(!circuit.allows(true, 1, now + RETRY.initial));
        let probe = circuit.probe_at(false).unwrap();
        assert!(circuit.allows(false, 0, probe) && !circuit.allows(false, 1, probe));
        assert_eq!(circuit.failed(false, true, Some(Duration::from_secs(50)), probe), Change::None);
        assert_eq!(circuit.probe_at(false), Some(probe + RETRY.max), "not longer for everybody");
        assert_eq!(circuit.succeeded(), Change::Closed);
        assert!(circuit.allows(false, 100, probe));
        assert_eq!(circuit.failed(true, false, None, probe), Change::None, "the count starts anew");
    }

    #[test]
    fn successes_between_keep_it_closed() {
        let mut circuit = Circuit::new(RETRY);
        for _ in 0..100 {
            assert_eq!(circuit.failed(true, false, None, Instant::now()), Change::None);
            assert_eq!(circuit.succeeded(), Change::None);
        }
    }
}
