//! How far the ledger is, for those who read behind it.

use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_channel::{Receiver, Sender};

use super::keys::{Position, ShardId};

/// What one shard has committed.
#[derive(Default)]
struct Shard {
    next: AtomicU64,
    agents: AtomicU64,
}

/// Written by each shard after each commit, before it answers; read by everybody.
pub struct Committed {
    shards: Box<[Shard]>,
    wake: Sender<()>,
}

impl Committed {
    /// For that many shards; the receiver gets a word when there is something new.
    pub fn new(shards: u16) -> (Committed, Receiver<()>) {
        // One word is enough: who gets it looks at all that is new.
        let (wake, woken) = crossbeam_channel::bounded(1);
        (Committed { shards: (0..shards).map(|_| Shard::default()).collect(), wake }, woken)
    }

    /// Says that a shard has committed everything before `next`.
    pub fn publish(&self, shard: ShardId, next: Position, agents: u64) {
        let slot = &self.shards[usize::from(shard.0)];
        slot.agents.store(agents, Ordering::Relaxed);
        slot.next.store(next.0, Ordering::Release);
        // Full means that the word is still on its way.
        let _ = self.wake.try_send(());
    }

    /// The position behind the last committed event of a shard.
    pub fn next(&self, shard: ShardId) -> Position {
        Position(self.shards[usize::from(shard.0)].next.load(Ordering::Acquire))
    }

    /// Every shard.
    pub fn shards(&self) -> impl Iterator<Item = ShardId> + use<> {
        (0..self.shards.len() as u16).map(ShardId)
    }

    /// How many events there are.
    pub fn events(&self) -> u64 {
        self.shards().map(|shard| self.next(shard).0).sum()
    }

    /// How many agents there are.
    pub fn agents(&self) -> u64 {
        self.shards.iter().map(|shard| shard.agents.load(Ordering::Relaxed)).sum()
    }
}
