//! The progress of all shards, which readers and consumers follow.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use crossbeam_channel::{Receiver, Sender};

use super::recent::{CommittedBatch, Recent, Source};
use crate::ledger::format::keys::{Position, ShardId};
use crate::ledger::store::Expired;

/// The progress of one shard.
#[derive(Default)]
struct Shard {
    next: AtomicU64,
    agents: AtomicU64,
    recent: Recent,
}

/// The progress of all shards. Written by each shard after each commit, before it answers; read by all threads.
pub struct Committed {
    shards: Box<[Shard]>,
    expired: Arc<Expired>,
    /// Write-locked only while a consumer subscribes.
    wake_senders: RwLock<Vec<Sender<()>>>,
}

impl Committed {
    /// The progress of `shards` shards without events, given the floors of the store.
    pub fn new(shards: u16, expired: Arc<Expired>) -> Committed {
        Committed { shards: (0..shards).map(|_| Shard::default()).collect(), expired, wake_senders: RwLock::default() }
    }

    /// Subscribes a consumer. The receiver gets a message after new commits.
    pub fn subscribe(&self) -> Receiver<()> {
        // One pending message is enough: the consumer reads all new commits when it receives it.
        let (wake, woken) = crossbeam_channel::bounded(1);
        self.wake_senders.write().unwrap_or_else(PoisonError::into_inner).push(wake);
        woken
    }

    /// Publishes that a shard has committed everything before `next`, and makes its latest commit readable from memory.
    pub fn publish(&self, shard: ShardId, next: Position, agents: u64, latest: Option<CommittedBatch>) {
        let slot = &self.shards[usize::from(shard.0)];
        if let Some(latest) = latest {
            slot.recent.push(latest);
        }
        slot.agents.store(agents, Ordering::Relaxed);
        slot.next.store(next.0, Ordering::Release);
        for wake in self.wake_senders.read().unwrap_or_else(PoisonError::into_inner).iter() {
            // If the channel is full, a message is already pending.
            let _ = wake.try_send(());
        }
    }

    /// The position after the last committed event of a shard.
    pub fn next(&self, shard: ShardId) -> Position {
        Position(self.shards[usize::from(shard.0)].next.load(Ordering::Acquire))
    }

    /// The position of the first event of a shard that retention has not dropped.
    pub fn first(&self, shard: ShardId) -> Position {
        Position(self.expired.first_kept(shard.0))
    }

    /// Where to read the committed event at a position.
    pub fn source(&self, shard: ShardId, position: Position) -> Source {
        self.shards[usize::from(shard.0)].recent.source(position)
    }

    /// All shards.
    pub fn shards(&self) -> impl Iterator<Item = ShardId> + use<> {
        (0..self.shards.len() as u16).map(ShardId)
    }

    /// The number of events that retention has dropped.
    pub fn dropped(&self) -> u64 {
        self.shards().map(|shard| self.first(shard).0).sum()
    }

    /// The number of committed events that retention has not dropped.
    pub fn kept(&self) -> u64 {
        self.shards().map(|shard| self.next(shard).0.saturating_sub(self.first(shard).0)).sum()
    }

    /// The number of committed events, including those that retention has dropped.
    pub fn events(&self) -> u64 {
        self.shards().map(|shard| self.next(shard).0).sum()
    }

    /// The number of committed events at or after these positions, one for each shard.
    pub fn lag(&self, next: &[Position]) -> u64 {
        self.shards().zip(next).map(|(shard, next)| self.next(shard).0.saturating_sub(next.0)).sum()
    }

    /// The number of agents.
    pub fn agents(&self) -> u64 {
        self.shards.iter().map(|shard| shard.agents.load(Ordering::Relaxed)).sum()
    }
}
