//! The heads of the shard's agents: the last sequence and hash, from which the next event goes on.

use lru::LruCache;

use super::keys::{Agent, Place, Position, Run, ShardId};
use super::read;
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
    fn new(agent_id: Box<str>, now_ms: u64) -> Head {
        let run = Run { first: Sequence(1), place: Place { shard: ShardId(0), position: Position(0) }, count: 0 };
        let (sequence, hash) = (Sequence(0), Hash::GENESIS);
        let agent = Agent { sequence, hash, first_ms: now_ms, last_ms: now_ms, run, agent_id };
        Head { agent, has_grown: false }
    }

    /// Takes the event at `place` as the new head. Returns the run that it does not continue, if there was one.
    pub fn advance(&mut self, place: Place, hash: Hash, ms: u64) -> Option<Run> {
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
        let head = self.heads.try_get_or_insert_mut(key, || {
            Ok(match read::agent(store, key)? {
                Some(agent) => Head { agent, has_grown: false },
                None => {
                    is_new = true;
                    Head::new(agent_id(), now_ms)
                }
            })
        });
        head.map(|head| (head, is_new))
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
