//! The heads of the shard's agents: the last sequence and hash, from which the next event goes on.

use lru::LruCache;

use super::keys::{Agent, Place, Run};
use super::read;
use super::store::{Store, StoreError};
use crate::chain::{AgentKey, Hash, Sequence};

/// An agent whose chain may grow in this commit.
pub struct Head {
    /// What the row in `agents` will say after the commit.
    pub agent: Agent,
    /// The events of this commit that stand together and end at the head.
    pub run: Option<Run>,
}

impl Head {
    /// The head of a chain that has no event yet.
    fn new(agent_id: Box<str>, now_ms: u64) -> Head {
        let agent = Agent { sequence: Sequence(0), hash: Hash::GENESIS, first_ms: now_ms, last_ms: now_ms, agent_id };
        Head { agent, run: None }
    }

    /// Takes the event at `place` as the new head. Returns the run that it does not continue, if there was one.
    pub fn advance(&mut self, place: Place, hash: Hash, ms: u64) -> Option<Run> {
        self.agent.sequence = self.agent.sequence.next();
        self.agent.hash = hash;
        self.agent.last_ms = ms;
        match &mut self.run {
            Some(run) if run.place.position.0 + u64::from(run.count) == place.position.0 => {
                run.count += 1;
                None
            }
            run => run.replace(Run { first: self.agent.sequence, place, count: 1 }),
        }
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

    /// The head of an agent, from the cache or from disk; the second says that the agent is new. `agent_id` is
    /// asked for only then.
    ///
    /// # Errors
    /// When the row cannot be read.
    pub fn load(
        &mut self,
        store: &Store,
        key: AgentKey,
        agent_id: impl FnOnce() -> Box<str>,
        now_ms: u64,
    ) -> Result<(&mut Head, bool), StoreError> {
        let mut is_new = false;
        if !self.heads.contains(&key) {
            let head = match read::agent(store, key)? {
                Some(agent) => Head { agent, run: None },
                None => {
                    is_new = true;
                    Head::new(agent_id(), now_ms)
                }
            };
            self.heads.put(key, head);
        }
        let missing = || store.damaged("a head vanished from memory");
        self.heads.get_mut(&key).map(|head| (head, is_new)).ok_or_else(missing)
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
