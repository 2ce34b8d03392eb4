//! The heads of the shard's agents: the last sequence and hash, from which the next event goes on.

use lru::LruCache;

use super::keys::{Agent, Place, Position, Run, ShardId};
use super::read;
use super::record::Draft;
use super::store::{Store, StoreError};
use crate::chain::{AgentKey, Hash, Sequence};

/// An agent whose chain may grow in this commit.
pub struct Head {
    /// What the row in `agents` will say after the commit.
    pub agent: Agent,
    /// Whether it has grown in this commit.
    pub has_grown: bool,
}

impl Head {
    /// The head of a chain that has no event yet.
    fn new(agent_id: Box<str>) -> Head {
        let run = Run { first: Sequence(1), place: Place { shard: ShardId(0), position: Position(0) }, count: 0 };
        let (sequence, hash) = (Sequence(0), Hash::GENESIS);
        let agent = Agent { sequence, hash, first_ms: 0, last_ms: 0, run, agent_id };
        Head { agent, has_grown: false }
    }

    /// Whether the chain has no event yet.
    pub fn is_new(&self) -> bool {
        self.agent.sequence == Sequence(0)
    }

    /// Takes the event at `place` as the new head. Returns the run that it does not continue, if there was one.
    pub fn advance(&mut self, place: Place, hash: Hash, ms: u64) -> Option<Run> {
        if self.is_new() {
            self.agent.first_ms = ms;
        }
        let agent = &mut self.agent;
        agent.sequence = agent.sequence.next();
        agent.hash = hash;
        agent.last_ms = ms;
        if agent.run.goes_on_at(place) {
            agent.run.count += 1;
            return None;
        }
        let before = std::mem::replace(&mut agent.run, Run { first: agent.sequence, place, count: 1 });
        (before.count > 0).then_some(before)
    }
}

/// A bounded cache of heads. It may grow beyond its bound during a commit, because a head that has moved must not
/// be read from disk before the commit is there.
pub struct Heads {
    heads: LruCache<AgentKey, Head>,
    capacity: usize,
}

impl Heads {
    /// A cache of that many heads.
    pub fn new(capacity: usize) -> Heads {
        Heads { heads: LruCache::unbounded(), capacity }
    }

    /// Loads the heads of the agents of these events in one go, those that are not here. What cannot be read is
    /// left to [`Heads::load`].
    ///
    /// # Errors
    /// When the database has no such family.
    pub fn prepare<'d>(&mut self, store: &Store, drafts: impl Iterator<Item = &'d Draft>) -> Result<(), StoreError> {
        let mut unknown: Vec<(AgentKey, &Draft)> = Vec::new();
        for draft in drafts {
            // Most events come behind one of the same agent.
            let is_known = unknown.last().is_some_and(|(last, _)| *last == draft.agent);
            if !is_known && !self.heads.contains(&draft.agent) {
                unknown.push((draft.agent, draft));
            }
        }
        if unknown.len() < 2 {
            return Ok(());
        }
        unknown.sort_unstable_by_key(|(agent, _)| *agent);
        unknown.dedup_by_key(|(agent, _)| *agent);
        let keys: Vec<AgentKey> = unknown.iter().map(|(agent, _)| *agent).collect();
        for (agent, (key, draft)) in read::agents(store, &keys)?.into_iter().zip(unknown) {
            match agent {
                Ok(Some(agent)) => self.heads.put(key, Head { agent, has_grown: false }),
                Ok(None) => self.heads.put(key, Head::new(draft.agent_id())),
                Err(_) => None,
            };
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
        self.heads.try_get_or_insert_mut(key, || {
            Ok(match read::agent(store, key)? {
                Some(agent) => Head { agent, has_grown: false },
                None => Head::new(agent_id()),
            })
        })
    }

    /// The head of an agent that was loaded for this commit.
    pub fn loaded(&mut self, key: AgentKey) -> Option<&mut Head> {
        self.heads.peek_mut(&key)
    }

    /// After a commit: what was not used for longest goes.
    pub fn evict(&mut self) {
        while self.heads.len() > self.capacity {
            self.heads.pop_lru();
        }
    }

    /// After a failed commit: what is on disk is unknown, so nothing in memory is right.
    pub fn forget(&mut self) {
        self.heads.clear();
    }
}
