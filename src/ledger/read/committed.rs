//! How far the ledger is, for those who read behind it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

use crossbeam_channel::{Receiver, Sender};

use super::recent::{CommittedBatch, Recent, Source};
use crate::ledger::format::keys::{Position, ShardId};

/// What one shard has committed.
#[derive(Default)]
struct Shard {
    next: AtomicU64,
    agents: AtomicU64,
    recent: Recent,
}

/// Written by each shard after each commit, before it answers; read by everybody.
pub struct Committed {
    shards: Box<[Shard]>,
    /// Locked for writing only while a consumer starts.
    wakes: RwLock<Vec<Sender<()>>>,
}

impl Committed {
    /// For that many shards.
    pub fn new(shards: u16) -> Committed {
        Committed { shards: (0..shards).map(|_| Shard::default()).collect(), wakes: RwLock::default() }
    }

    /// For a consumer: it gets a word when there is something new.
    pub fn subscribe(&self) -> Receiver<()> {
        // One word is enough: who gets it looks at all that is new.
        let (wake, woken) = crossbeam_channel::bounded(1);
        self.wakes.write().unwrap_or_else(PoisonError::into_inner).push(wake);
        woken
    }

    /// Says that a shard has committed everything before `next`, and hands the latest of it over.
    pub fn publish(&self, shard: ShardId, next: Position, agents: u64, latest: Option<CommittedBatch>) {
        let slot = &self.shards[usize::from(shard.0)];
        if let Some(latest) = latest {
            slot.recent.push(latest);
        }
        slot.agents.store(agents, Ordering::Relaxed);
        slot.next.store(next.0, Ordering::Release);
        for wake in self.wakes.read().unwrap_or_else(PoisonError::into_inner).iter() {
            // Full means that the word is still on its way.
            let _ = wake.try_send(());
        }
    }

    /// The position behind the last committed event of a shard.
    pub fn next(&self, shard: ShardId) -> Position {
        Position(self.shards[usize::from(shard.0)].next.load(Ordering::Acquire))
    }

    /// Where the event at a position, which is committed, is to be read.
    pub fn source(&self, shard: ShardId, position: Position) -> Source {
        self.shards[usize::from(shard.0)].recent.source(position)
    }

    /// Every shard.
    pub fn shards(&self) -> impl Iterator<Item = ShardId> + use<> {
        (0..self.shards.len() as u16).map(ShardId)
    }

    /// How many events there are.
    pub fn events(&self) -> u64 {
        self.shards().map(|shard| self.next(shard).0).sum()
    }

    /// How many committed events are at or after these positions, one for each shard.
    pub fn lag(&self, next: &[Position]) -> u64 {
        self.shards().zip(next).map(|(shard, next)| self.next(shard).0.saturating_sub(next.0)).sum()
    }

    /// How many agents there are.
    pub fn agents(&self) -> u64 {
        self.shards.iter().map(|shard| shard.agents.load(Ordering::Relaxed)).sum()
    }
}
