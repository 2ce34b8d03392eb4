//! What the last verification of each chain found, since the start.

use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};

use lru::LruCache;
use metrics::{Gauge, describe_gauge, gauge};

use cairn_proof::chain::AgentKey;

/// How many verdicts are remembered.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(65_536).unwrap();

/// The last verdict on each agent's chain.
pub struct Verdicts {
    /// Held for one look-up.
    known: Mutex<Known>,
    valid: Gauge,
    broken: Gauge,
}

struct Known {
    is_valid: LruCache<AgentKey, bool>,
    broken: usize,
}

impl Verdicts {
    /// None yet. Metrics register with the recorder that is in force.
    pub fn register() -> Verdicts {
        describe_gauge!(
            "cairn_chains",
            "Chains by what their last verification since the start found: valid or broken."
        );
        Verdicts {
            known: Mutex::new(Known { is_valid: LruCache::new(REMEMBERED), broken: 0 }),
            valid: gauge!("cairn_chains", "verdict" => "valid"),
            broken: gauge!("cairn_chains", "verdict" => "broken"),
        }
    }

    /// A chain was verified.
    pub fn remember(&self, agent: AgentKey, is_valid: bool) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.broken += usize::from(!is_valid);
        // The verdict before, or that of another agent that had to go.
        if let Some((_, false)) = known.is_valid.push(agent, is_valid) {
            known.broken -= 1;
        }
        self.valid.set((known.is_valid.len() - known.broken) as f64);
        self.broken.set(known.broken as f64);
    }

    /// The share of verified chains that are valid; `None` if none was verified yet.
    pub fn health(&self) -> Option<f64> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let verified = known.is_valid.len();
        (verified > 0).then(|| (verified - known.broken) as f64 / verified as f64)
    }

    /// The last verdict on a chain.
    pub fn of(&self, agent: AgentKey) -> Option<bool> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).is_valid.peek(&agent).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_verdict_on_a_chain_counts_and_old_ones_go() {
        let verdicts = Verdicts::register();
        let agent = |number: usize| AgentKey::of(&number.to_string());
        assert_eq!((verdicts.health(), verdicts.of(agent(0))), (None, None));
        verdicts.remember(agent(0), true);
        verdicts.remember(agent(1), false);
        verdicts.remember(agent(1), false);
        assert_eq!((verdicts.health(), verdicts.of(agent(1))), (Some(0.5), Some(false)));
        verdicts.remember(agent(1), true);
        assert_eq!(verdicts.health(), Some(1.0));
        verdicts.remember(agent(0), false);
        for number in 2..2 + REMEMBERED.get() {
            verdicts.remember(agent(number), true);
        }
        assert_eq!((verdicts.health(), verdicts.of(agent(0))), (Some(1.0), None));
    }
}
