//! The result of the last verification of each chain since the start of the process. Kept in memory only.

use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};

use lru::LruCache;
use metrics::{Gauge, describe_gauge, gauge};

use cairn_proof::chain::AgentKey;

/// Most chains whose verdict is remembered.
const CAPACITY: NonZeroUsize = NonZeroUsize::new(65_536).unwrap();

/// The last verdict on the chain of each agent.
pub struct Verdicts {
    /// Locked for one lookup.
    state: Mutex<State>,
    valid: Gauge,
    broken: Gauge,
}

struct State {
    is_valid: LruCache<AgentKey, bool>,
    broken: usize,
}

impl Verdicts {
    /// No verdicts yet. Registers its metrics with the current recorder.
    pub fn register() -> Verdicts {
        describe_gauge!(
            "cairn_chains",
            "Chains by what their last verification since the start found: valid or broken."
        );
        Verdicts {
            state: Mutex::new(State { is_valid: LruCache::new(CAPACITY), broken: 0 }),
            valid: gauge!("cairn_chains", "verdict" => "valid"),
            broken: gauge!("cairn_chains", "verdict" => "broken"),
        }
    }

    /// Records the verdict on a chain.
    pub fn record(&self, agent: AgentKey, is_valid: bool) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.broken += usize::from(!is_valid);
        // `push` returns the previous verdict on this chain, or that of an evicted one.
        if let Some((_, false)) = state.is_valid.push(agent, is_valid) {
            state.broken -= 1;
        }
        self.valid.set((state.is_valid.len() - state.broken) as f64);
        self.broken.set(state.broken as f64);
    }

    /// The share of verified chains that are valid; `None` if none was verified yet.
    pub fn health(&self) -> Option<f64> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let verified = state.is_valid.len();
        (verified > 0).then(|| (verified - state.broken) as f64 / verified as f64)
    }

    /// The last verdict on a chain; `None` if it is not remembered.
    pub fn of(&self, agent: AgentKey) -> Option<bool> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).is_valid.peek(&agent).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_verdict_on_a_chain_counts_and_old_verdicts_are_evicted() {
        let verdicts = Verdicts::register();
        let agent = |number: usize| AgentKey::of(&number.to_string());
        assert_eq!((verdicts.health(), verdicts.of(agent(0))), (None, None));
        verdicts.record(agent(0), true);
        verdicts.record(agent(1), false);
        verdicts.record(agent(1), false);
        assert_eq!((verdicts.health(), verdicts.of(agent(1))), (Some(0.5), Some(false)));
        verdicts.record(agent(1), true);
        assert_eq!(verdicts.health(), Some(1.0));
        verdicts.record(agent(0), false);
        for number in 2..2 + CAPACITY.get() {
            verdicts.record(agent(number), true);
        }
        assert_eq!((verdicts.health(), verdicts.of(agent(0))), (Some(1.0), None));
    }
}
