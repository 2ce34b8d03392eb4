//! Verifying the log: every event is the leaf that it should be, no leaf lacks its event, and the last checkpoint is of
//! this tree.

use tlog_tiles::Hash as Node;

use super::chunk::ScannedEvent;
use super::pool::Facts;
use super::scan::{self, Leaves};
use crate::ledger::read::lookup;
use crate::ledger::store::{Store, StoreError};
use crate::tlog::rows::{LogRows, Progress};
use cairn_proof::tree::{Edge, Head};

/// What verification found out about the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogVerdict {
    /// How many leaves there are.
    pub size: u64,
    /// How many committed events are no leaves yet.
    pub unlogged: u64,
    /// The first thing that is wrong.
    pub broken: Option<String>,
}

impl LogVerdict {
    /// Of a ledger without rows of a log. Then there is none, unless something was signed: that was in one.
    pub fn of_none(checkpoints: &[(String, Head)]) -> Option<LogVerdict> {
        let (name, head) = checkpoints.iter().find(|(_, head)| head.size > 0)?;
        let broken = format!("there is none, and {name} was signed over {} events", head.size);
        Some(LogVerdict { size: 0, unlogged: 0, broken: Some(broken) })
    }
}

/// The tree as the events make it, to be compared with what is stored and with checkpoints.
pub struct LogRebuild<'s> {
    rows: &'s LogRows,
    edge: Edge,
    /// Each with a name to call it by.
    checkpoints: &'s [(String, Head)],
    /// The roots of the tree at the sizes of the checkpoints.
    roots: Vec<Option<Node>>,
    broken: Option<String>,
}

impl<'s> LogRebuild<'s> {
    /// Begins with the empty tree.
    pub fn new(rows: &'s LogRows, checkpoints: &'s [(String, Head)]) -> LogRebuild<'s> {
        let roots = vec![None; checkpoints.len()];
        let mut tree = LogRebuild { rows, edge: Edge::default(), checkpoints, roots, broken: None };
        note_roots(&tree.edge, checkpoints, &mut tree.roots);
        tree
    }

    /// Takes the events that come next, and of them those that are leaves.
    pub fn take(&mut self, events: &[ScannedEvent<'_>], facts: &[Facts]) {
        for (_, facts) in events.iter().zip(facts).filter(|(event, _)| event.is_leaf) {
            if self.broken.is_some() {
                return;
            }
            let Some(leaf) = facts.leaf else {
                self.broken = Some(scan::missing(self.edge.size()));
                return;
            };
            let (stored, broken) = (self.rows, &mut self.broken);
            self.edge.push(leaf, |tile| {
                // The first tile that differs names the leaves; those above it differ because of it.
                if broken.is_none() && !stored.has_tile(&tile) {
                    let (from, to) = tile_leaves(tile.level, tile.index);
                    *broken = Some(format!("an event of the leaves {from} to {to} is not the one that was logged"));
                }
            });
            note_roots(&self.edge, self.checkpoints, &mut self.roots);
        }
    }

    /// The verdict, when of what the log is known to have `leaves` could be read.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn finish(self, store: &Store, known: &Progress, leaves: Leaves) -> Result<LogVerdict, StoreError> {
        let size = self.edge.size();
        // What was found among the leaves stands before that where their reading ended.
        let mut broken = self.broken.or(leaves.broken);
        let mut unlogged = 0;
        for (shard, next) in LogRows::shards(&known.next).zip(&known.next) {
            match lookup::end(store, shard) {
                Ok(end) => unlogged += end.0.saturating_sub(next.0),
                Err(StoreError::Damaged { message, .. }) => broken = broken.or(Some(message)),
                Err(error) => return Err(error),
            }
        }
        let broken = broken.or_else(|| compare(size, self.checkpoints, &self.roots));
        Ok(LogVerdict { size, unlogged, broken })
    }
}

/// Keeps the root of the tree as it is, if a checkpoint was signed over it.
fn note_roots(edge: &Edge, checkpoints: &[(String, Head)], roots: &mut [Option<Node>]) {
    for (root, (_, head)) in roots.iter_mut().zip(checkpoints) {
        if head.size == edge.size() {
            *root = Some(edge.root());
        }
    }
}

fn compare(size: u64, checkpoints: &[(String, Head)], roots: &[Option<Node>]) -> Option<String> {
    checkpoints.iter().zip(roots).find_map(|((name, head), root)| match root {
        None => {
            Some(format!("{name} was signed over {} events, and there are {size}: the ledger was set back", head.size))
        }
        Some(root) if *root != head.root => {
            Some(format!("the first {} events are not those that were signed in {name}", head.size))
        }
        Some(_) => None,
    })
}

/// The first and the last leaf under a tile.
fn tile_leaves(level: u8, index: u64) -> (u64, u64) {
    let width = 1u64 << (8 * (u32::from(level) + 1)).min(63);
    let first = index.saturating_mul(width);
    (first, first.saturating_add(width - 1))
}
