//! The heads of the shard's agents: the last sequence and hash, from which the next event goes on.

use lru::LruCache;

use crate::ledger::format::keys::{Agent, Location, Position, Run, ShardId};
use crate::ledger::format::record::Draft;
use crate::ledger::read::lookup;
use crate::ledger::store::{Store, StoreError};
use cairn_proof::chain::{AgentKey, Hash, Sequence};

/// The head of an agent's chain, from which the next event continues.
pub struct Head {
    /// What the row in `agents` says after the commit.
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

    /// Marks the head as grown in this commit; returns whether it was not before.
    pub fn touch(&mut self) -> bool {
        !std::mem::replace(&mut self.is_touched, true)
    }

    /// Makes the event at `location` the head. Returns the run that it does not continue, if there was one.
    pub fn advance(&mut self, location: Location, ms: u64, hash: Hash) -> Option<Run> {
        if self.is_new() {
            self.agent.first_ms = ms;
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

/// A bounded cache of heads. It may grow beyond its bound during a commit, because a head that has moved must not
/// be read from disk before the commit is there.
///
/// With each agent that has to be read from disk the bound rises: it came back, and mostly because it had been let go too
/// soon. Any number of agents that are never heard of again do not make it rise.
pub struct Heads {
    heads: LruCache<AgentKey, Head>,
    bound: Bound,
}

/// How many heads stay between commits, and how far that may rise.
struct Bound {
    now: usize,
    most: usize,
}

impl Bound {
    /// Makes the head of what was read of an agent.
    fn head(&mut self, read: Option<Agent>, agent_id: impl FnOnce() -> Box<str>) -> Head {
        let Some(agent) = read else { return Head::new(agent_id()) };
        self.now = self.most.min(self.now + 1);
        Head { agent, is_touched: false }
    }
}

impl Heads {
    /// A cache of `least` heads, which may become `most`.
    pub fn new(least: usize, most: usize) -> Heads {
        Heads { heads: LruCache::unbounded(), bound: Bound { now: least, most } }
    }

    /// Loads the heads of the agents of these events in one go, those that are not here. What cannot be read is
    /// left to [`Heads::load`].
    ///
    /// # Errors
    /// When the database has no such family.
    pub fn prepare<'d>(&mut self, store: &Store, drafts: impl Iterator<Item = &'d Draft>) -> Result<(), StoreError> {
        let mut unknown: Vec<(AgentKey, &Draft)> = Vec::new();
        let mut previous = None;
        for draft in drafts {
            // Most events come behind one of the same agent.
            if previous.replace(draft.agent) != Some(draft.agent) && !self.heads.contains(&draft.agent) {
                unknown.push((draft.agent, draft));
            }
        }
        if unknown.len() < 2 {
            return Ok(());
        }
        unknown.sort_unstable_by_key(|(agent, _)| *agent);
        unknown.dedup_by_key(|(agent, _)| *agent);
        let keys: Vec<AgentKey> = unknown.iter().map(|(agent, _)| *agent).collect();
        for (agent, (key, draft)) in lookup::agents(store, &keys)?.into_iter().zip(unknown) {
            if let Ok(agent) = agent {
                self.heads.put(key, self.bound.head(agent, || draft.agent_id()));
            }
        }
        Ok(())
    }

    /// The head of an agent, from the cache or from disk. `agent_id` is asked for only if the agent is new.
    ///
    /// # Errors
    /// When the row cannot be read.
    pub fn load(
        &mut self,
        store: &Store,
        key: AgentKey,
        agent_id: impl FnOnce() -> Box<str>,
    ) -> Result<&mut Head, StoreError> {
        self.heads.try_get_or_insert_mut(key, || Ok(self.bound.head(lookup::agent(store, key)?, agent_id)))
    }

    /// The head of an agent that was loaded for this commit.
    pub fn loaded(&mut self, key: AgentKey) -> Option<&mut Head> {
        self.heads.peek_mut(&key)
    }

    /// After a commit: what was not used for longest goes.
    pub fn evict(&mut self) {
        while self.heads.len() > self.bound.now {
            self.heads.pop_lru();
        }
    }

    /// After a failed commit: what is on disk is unknown, so nothing in memory is right.
    pub fn forget(&mut self) {
        self.heads.clear();
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::ledger::store::{Family, StorageConfig};

    #[test]
    fn the_bound_rises_with_agents_that_come_back_and_not_with_others() {
        let data = TempDir::new().unwrap();
        let config = StorageConfig { data_dir: data.path().to_owned(), ..StorageConfig::default() };
        let store = Store::open(&config).unwrap();
        let mut heads = Heads::new(2, 4);
        let load = |heads: &mut Heads, n: usize| {
            heads.load(&store, AgentKey([n as u8; 16]), || n.to_string().into()).unwrap();
            heads.evict();
        };
        (0..100).for_each(|n| load(&mut heads, n));
        assert_eq!((heads.heads.len(), heads.bound.now), (2, 2), "agents that are new");

        let mut batch = store.batch(0);
        for n in 0..100 {
            let mut head = Head::new(n.to_string().into());
            head.advance(Location { shard: ShardId(0), position: Position(n) }, 1, Hash::GENESIS);
            store.put(&mut batch, Family::Agents, &[n as u8; 16], &head.agent.encode()).unwrap();
        }
        store.write(batch).unwrap();
        load(&mut heads, 0);
        assert_eq!((heads.heads.len(), heads.bound.now), (3, 3), "an agent that came back");
        (1..100).for_each(|n| load(&mut heads, n));
        assert_eq!((heads.heads.len(), heads.bound.now), (4, 4), "agents that came back");
    }
}
