//! Verifies the log: every leaf is the event that was logged, no leaf lacks its event, and the checkpoints are those of
//! the rebuilt tree. The tree is specified in `docs/verification.md`, section "Rules for the log".

use tlog_tiles::Hash as Node;

use super::chunk::ScannedEvent;
use super::pool::EventCheck;
use super::scan::{self, Leaves};
use crate::ledger::read::lookup;
use crate::ledger::store::{Store, StoreError};
use crate::tlog::rows::{LogRows, Progress};
use cairn_proof::tree::{Edge, Head};

/// The result of the verification of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogVerdict {
    /// The number of leaves.
    pub size: u64,
    /// The number of committed events that are not leaves yet.
    pub unlogged: u64,
    /// The first error, if the log is broken.
    pub broken: Option<String>,
}

impl LogVerdict {
    /// The verdict for a ledger without rows of a log: `None`, unless a checkpoint proves that there was a log.
    pub fn without_log(checkpoints: &[(String, Head)]) -> Option<LogVerdict> {
        let (name, head) = checkpoints.iter().find(|(_, head)| head.size > 0)?;
        let broken = format!("the log is missing, but {name} was signed over {} events", head.size);
        Some(LogVerdict { size: 0, unlogged: 0, broken: Some(broken) })
    }
}

/// The tree rebuilt from the events, to be compared with the stored tree and with checkpoints.
pub struct LogRebuild<'s> {
    rows: &'s LogRows,
    edge: Edge,
    /// Checkpoints, each with a name for messages.
    checkpoints: &'s [(String, Head)],
    /// The root of the rebuilt tree at the size of each checkpoint; `None` until that size is reached.
    roots: Vec<Option<Node>>,
    broken: Option<String>,
}

impl<'s> LogRebuild<'s> {
    /// Starts with the empty tree.
    pub fn new(rows: &'s LogRows, checkpoints: &'s [(String, Head)]) -> LogRebuild<'s> {
        let roots = vec![None; checkpoints.len()];
        let mut tree = LogRebuild { rows, edge: Edge::default(), checkpoints, roots, broken: None };
        record_roots(&tree.edge, checkpoints, &mut tree.roots);
        tree
    }

    /// Adds those of the next events that are leaves.
    pub fn take(&mut self, events: &[ScannedEvent<'_>], checks: &[EventCheck]) {
        for (_, check) in events.iter().zip(checks).filter(|(event, _)| event.is_leaf) {
            if self.broken.is_some() {
                return;
            }
            let Some(leaf) = check.leaf else {
                self.broken = Some(scan::missing_leaf(self.edge.size()));
                return;
            };
            let (stored, broken) = (self.rows, &mut self.broken);
            self.edge.push(leaf, |tile| {
                // The first tile that differs names the leaves; the tiles above it differ as a consequence.
                if broken.is_none() && !stored.has_tile(&tile) {
                    let (from, to) = tile_leaves(tile.level, tile.index);
                    *broken = Some(format!("an event of leaves {from} to {to} differs from the event that was logged"));
                }
            });
            record_roots(&self.edge, self.checkpoints, &mut self.roots);
        }
    }

    /// Returns the verdict. `progress` is the stored progress of the log, `leaves` how far its leaves could be read.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn finish(self, store: &Store, progress: &Progress, leaves: Leaves) -> Result<LogVerdict, StoreError> {
        let size = self.edge.size();
        // An error found in a leaf precedes the error at which reading ended.
        let mut broken = self.broken.or(leaves.broken);
        let mut unlogged = 0;
        for (shard, next) in LogRows::shards(&progress.next).zip(&progress.next) {
            match lookup::end(store, shard) {
                Ok(end) => unlogged += end.0.saturating_sub(next.0),
                Err(StoreError::Damaged { message, .. }) => broken = broken.or(Some(message)),
                Err(error) => return Err(error),
            }
        }
        let broken = broken.or_else(|| compare_checkpoints(size, self.checkpoints, &self.roots));
        Ok(LogVerdict { size, unlogged, broken })
    }
}

/// Records the current root for each checkpoint of this size.
fn record_roots(edge: &Edge, checkpoints: &[(String, Head)], roots: &mut [Option<Node>]) {
    for (root, (_, head)) in roots.iter_mut().zip(checkpoints) {
        if head.size == edge.size() {
            *root = Some(edge.root());
        }
    }
}

fn compare_checkpoints(size: u64, checkpoints: &[(String, Head)], roots: &[Option<Node>]) -> Option<String> {
    checkpoints.iter().zip(roots).find_map(|((name, head), root)| match root {
        None => {
            Some(format!("{name} was signed over {} events, but the ledger has {size}: it was rolled back", head.size))
        }
        Some(root) if *root != head.root => {
            Some(format!("the first {} events are not those that were signed in {name}", head.size))
        }
        Some(_) => None,
    })
}

/// The first and the last leaf below a tile.
fn tile_leaves(level: u8, index: u64) -> (u64, u64) {
    let width = 1u64 << (8 * (u32::from(level) + 1)).min(63);
    let first = index.saturating_mul(width);
    (first, first.saturating_add(width - 1))
}
