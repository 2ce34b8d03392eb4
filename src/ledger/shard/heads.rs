//! The cache of the heads of a shard's agents: the last sequence and hash, to which the next event is linked. See
//! `docs/adr/0014-the-cache-of-heads-grows-when-agents-return.md`.

use lru::LruCache;

use crate::ledger::format::keys::{Agent, Location, Position, Run, ShardId};
use crate::ledger::format::record::Draft;
use crate::ledger::read::lookup;
use crate::ledger::store::{Store, StoreError};
use crate::runtime::FOR_TERMINAL;
use crate::text::sanitize;
use cairn_proof::chain::{AgentKey, Hash, RECORDER_PREFIX, Sequence};

/// The head of an agent's chain, to which the next event is linked.
pub struct Head {
    /// The row in `agents` as it is after the commit.
    pub agent: Agent,
    /// Whether the chain has grown in this commit.
    pub is_touched: bool,
}

impl Head {
    /// The head of a chain that has no event yet.
    pub fn new(agent_id: Box<str>) -> Head {
        let location = Location { shard: ShardId(0), position: Position(0) };
        let run = Run { first: Sequence(1), location, count: 0 };
        let (sequence, hash) = (Sequence(0), Hash::GENESIS);
        let agent = Agent { sequence, hash, first_ms: 0, last_ms: 0, run, agent_id };
        Head { agent, is_touched: false }
    }

    /// Whether the chain has no event yet.
    pub fn is_new(&self) -> bool {
        self.agent.sequence == Sequence(0)
    }

    /// Marks the chain as grown in this commit; returns whether it was not marked before.
    pub fn touch(&mut self) -> bool {
        !std::mem::replace(&mut self.is_touched, true)
    }

    /// Makes the event at `location` the head. Returns the previous run if the event does not continue it.
    pub fn advance(&mut self, location: Location, ms: u64, hash: Hash) -> Option<Run> {
        if self.is_new() {
            self.agent.first_ms = ms;
            let agent_id = sanitize(&self.agent.agent_id);
            if !agent_id.starts_with(RECORDER_PREFIX) {
                tracing::info!(name: FOR_TERMINAL, agent_id, "first event of an agent");
            }
        }
        let agent = &mut self.agent;
        agent.sequence = agent.sequence.next();
        agent.hash = hash;
        agent.last_ms = ms;
        if agent.run.is_continued_at(location) {
            agent.run.count += 1;
            return None;
        }
        let finished = std::mem::replace(&mut agent.run, Run { first: agent.sequence, location, count: 1 });
        (finished.count > 0).then_some(finished)
    }
}

/// A bounded cache of heads. It may exceed its bound during a commit, because a head that has changed must not be read
/// from disk before the commit is there.
///
/// The bound rises by one with each known agent whose head has to be read from disk, because that head was probably
/// evicted too early. New agents do not raise it.
pub struct Heads {
    heads: LruCache<AgentKey, Head>,
    bound: Bound,
}

/// The number of heads that remain in the cache between commits, and its maximum.
struct Bound {
    current: usize,
    max: usize,
}

impl Bound {
    /// Makes a head from the row of an agent, or a new head if there is no row. Raises the bound if there is one.
    fn head_from(&mut self, read: Option<Agent>, agent_id: impl FnOnce() -> Box<str>) -> Head {
        let Some(agent) = read else { return Head::new(agent_id()) };
        self.current = self.max.min(self.current + 1);
        Head { agent, is_touched: false }
    }
}

impl Heads {
    /// A cache bounded by `initial` heads, a bound that may rise to `max`.
    pub fn new(initial: usize, max: usize) -> Heads {
        Heads { heads: LruCache::unbounded(), bound: Bound { current: initial, max } }
    }

    /// Loads the heads of all agents of a commit that are not in the cache, together. Errors of single rows are left to
    /// [`Heads::load`].
    ///
    /// # Errors
    /// When the column family is missing.
    pub fn prefetch<'d>(&mut self, store: &Store, drafts: impl Iterator<Item = &'d Draft>) -> Result<(), StoreError> {
        let mut missing: Vec<(AgentKey, &Draft)> = Vec::new();
        let mut previous = None;
        for draft in drafts {
            // Most events follow an event of the same agent.
            if previous.replace(draft.agent) != Some(draft.agent) && !self.heads.contains(&draft.agent) {
                missing.push((draft.agent, draft));
            }
        }
        if missing.len() < 2 {
            return Ok(());
        }
        missing.sort_unstable_by_key(|(agent, _)| *agent);
        missing.dedup_by_key(|(agent, _)| *agent);
        let keys: Vec<AgentKey> = missing.iter().map(|(agent, _)| *agent).collect();
        for (agent, (key, draft)) in lookup::agents(store, &keys)?.into_iter().zip(missing) {
            if let Ok(agent) = agent {
                self.heads.put(key, self.bound.head_from(agent, || draft.agent_id()));
            }
        }
        Ok(())
    }

    /// The head of an agent, from the cache or from disk. `agent_id` is called only if the agent is new.
    ///
    /// # Errors
    /// When the row cannot be read.
    pub fn load(
        &mut self,
        store: &Store,
        key: AgentKey,
        agent_id: impl FnOnce() -> Box<str>,
    ) -> Result<&mut Head, StoreError> {
        self.heads.try_get_or_insert_mut(key, || Ok(self.bound.head_from(lookup::agent(store, key)?, agent_id)))
    }

    /// The head of an agent that was loaded for this commit.
    pub fn loaded(&mut self, key: AgentKey) -> Option<&mut Head> {
        self.heads.peek_mut(&key)
    }

    /// Evicts the least recently used heads down to the bound. Called after a commit.
    pub fn evict(&mut self) {
        while self.heads.len() > self.bound.current {
            self.heads.pop_lru();
        }
    }

    /// Removes all heads. Called after a failed commit, because it is unknown whether its heads are on disk.
    pub fn clear(&mut self) {
        self.heads.clear();
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::ledger::store::{Family, StorageConfig};

    #[test]
    fn the_bound_rises_with_returning_agents_and_not_with_new_ones() {
        let data = TempDir::new().unwrap();
        let config = StorageConfig { data_dir: data.path().to_owned(), ..StorageConfig::default() };
        let store = Store::open(&config).unwrap();
        let mut heads = Heads::new(2, 4);
        let load = |heads: &mut Heads, n: usize| {
            heads.load(&store, AgentKey::of(&n.to_string()), || n.to_string().into()).unwrap();
            heads.evict();
        };
        (0..100).for_each(|n| load(&mut heads, n));
        assert_eq!((heads.heads.len(), heads.bound.current), (2, 2), "new agents");

        let mut batch = store.batch(0);
        for n in 0..100 {
            let mut head = Head::new(n.to_string().into());
            head.advance(Location { shard: ShardId(0), position: Position(n) }, 1, Hash::GENESIS);
            store.put(&mut batch, Family::Agents, &AgentKey::of(&n.to_string()).0, &head.agent.encode()).unwrap();
        }
        store.write(batch).unwrap();
        load(&mut heads, 0);
        assert_eq!((heads.heads.len(), heads.bound.current), (3, 3), "a returning agent");
        (1..100).for_each(|n| load(&mut heads, n));
        assert_eq!((heads.heads.len(), heads.bound.current), (4, 4), "returning agents");
    }
}
