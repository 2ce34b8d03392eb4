//! Verifies the log: every leaf is the event that was logged, no leaf lacks its event, and the checkpoints are those of
//! the rebuilt tree. The tree is specified in `docs/verification.md`, section "Rules for the log".

use tlog_tiles::{HASH_SIZE, Hash as Node};

use super::chunk::ScannedEvent;
use super::pool::EventCheck;
use super::report::Report;
use super::rows::fault::{FaultKind, RowFault};
use super::rows::log::LogTiles;
use super::scan::{self, Leaves};
use crate::ledger::read::lookup;
use crate::ledger::store::{Family, Store, StoreError};
use crate::tlog::rows::{LogRows, Progress, tile_key};
use cairn_proof::tree::{Edge, Head, WIDTH};

/// The most tiles whose right value is kept, of 8 KiB each.
const MAX_FAULTS: usize = 1000;

/// The result of the verification of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogVerdict {
    /// The number of leaves.
    pub size: u64,
    /// The number of committed events that are not leaves yet.
    pub unlogged: u64,
    /// The first error, if the log is broken.
    pub broken: Option<String>,
    /// The number of rows of `log` and `tiles` that differ from the events or from each other.
    pub wrong_rows: u64,
}

impl LogVerdict {
    /// Why the log is not valid; `None` if it is.
    pub fn error(&self) -> Option<String> {
        let rows = self.wrong_rows;
        self.broken
            .clone()
            .or_else(|| (rows > 0).then(|| format!("{rows} of its rows are missing, wrong or unexpected")))
    }

    /// The verdict for a log that cannot be read, for this reason.
    pub fn broken(reason: String) -> LogVerdict {
        LogVerdict { size: 0, unlogged: 0, broken: Some(reason), wrong_rows: 0 }
    }

    /// The verdict for a ledger without rows of a log: `None`, unless a checkpoint proves that there was a log.
    pub fn without_log(checkpoints: &[(String, Head)]) -> Option<LogVerdict> {
        let (name, head) = checkpoints.iter().find(|(_, head)| head.size > 0)?;
        let broken = format!("the log is missing, but {name} was signed over {} events", head.size);
        Some(LogVerdict::broken(broken))
    }
}

/// The tree rebuilt from the events, to be compared with the stored tree and with checkpoints.
pub struct LogRebuild<'s> {
    tiles: LogTiles<'s>,
    /// The rows of tiles that differ from the rebuilt tree.
    faults: Vec<RowFault>,
    edge: Edge,
    /// Checkpoints, each with a name for messages.
    checkpoints: &'s [(String, Head)],
    /// The root of the rebuilt tree at the size of each checkpoint; `None` until that size is reached.
    roots: Vec<Option<Node>>,
    broken: Option<String>,
    /// Whether a leaf is missing, after which nothing can be compared.
    is_stopped: bool,
    /// The first leaf whose event is kept.
    first_leaf: u64,
}

impl<'s> LogRebuild<'s> {
    /// Starts with the tree of the log in `store` before `first_leaf`, of which only tiles are left.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn new(
        store: &'s Store,
        checkpoints: &'s [(String, Head)],
        first_leaf: u64,
    ) -> Result<LogRebuild<'s>, StoreError> {
        let (tiles, roots) = (LogTiles::new(store)?, vec![None; checkpoints.len()]);
        let (edge, faults) = (Edge::default(), Vec::new());
        let mut tree =
            LogRebuild { tiles, faults, edge, checkpoints, roots, broken: None, is_stopped: false, first_leaf };
        record_roots(&tree.edge, checkpoints, &mut tree.roots);
        tree.begin(store)?;
        Ok(tree)
    }

    /// Adds the leaves whose events were dropped, from the tiles that are left.
    fn begin(&mut self, store: &Store) -> Result<(), StoreError> {
        let width = WIDTH as u64;
        let tile = |level, index| -> Result<Option<Vec<u8>>, StoreError> {
            let row = store.get(Family::Tiles, &tile_key(level, index))?;
            Ok(row.filter(|row| row.len() == WIDTH * HASH_SIZE).map(|row| row.to_vec()))
        };
        for index in 0..self.first_leaf / width {
            if let Some(hashes) = tile(0, index)? {
                for hash in hashes.as_chunks::<HASH_SIZE>().0 {
                    self.push(Node(*hash))?;
                }
                continue;
            }
            let above = tile(1, index / width)?;
            let root = above.and_then(|above| above.as_chunks::<HASH_SIZE>().0.get((index % width) as usize).copied());
            let Some(root) = root else {
                self.broken = Some(format!("tile {index} of level 0, or the one above it, is missing"));
                self.is_stopped = true;
                return Ok(());
            };
            let (mut faults, tiles) = (Ok(Vec::new()), &mut self.tiles);
            self.edge.push_tile(Node(root), |tile| {
                if let Ok(found) = &mut faults {
                    match tiles.take(&tile) {
                        Ok(more) => found.extend(more),
                        Err(error) => faults = Err(error),
                    }
                }
            });
            self.add_faults(faults?);
            record_roots(&self.edge, self.checkpoints, &mut self.roots);
        }
        Ok(())
    }

    /// Adds a leaf.
    fn push(&mut self, leaf: Node) -> Result<(), StoreError> {
        let (mut faults, tiles) = (Ok(Vec::new()), &mut self.tiles);
        self.edge.push(leaf, |tile| {
            let Ok(found) = &mut faults else { return };
            match tiles.take(&tile) {
                // The first tile that differs names the leaves; the tiles above it differ as a consequence.
                Ok(more) => {
                    if more.iter().any(|fault| fault.kind != FaultKind::Unexpected) {
                        let (from, to) = tile_leaves(tile.level, tile.index);
                        self.broken.get_or_insert_with(|| {
                            format!("an event of leaves {from} to {to} differs from the event that was logged")
                        });
                    }
                    found.extend(more);
                }
                Err(error) => faults = Err(error),
            }
        });
        self.add_faults(faults?);
        record_roots(&self.edge, self.checkpoints, &mut self.roots);
        Ok(())
    }

    fn add_faults(&mut self, faults: Vec<RowFault>) {
        if self.faults.len() < MAX_FAULTS {
            self.faults.extend(faults);
        }
    }

    /// Adds those of the next events that are leaves.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn take(&mut self, events: &[ScannedEvent<'_>], checks: &[EventCheck]) -> Result<(), StoreError> {
        for (_, check) in events.iter().zip(checks).filter(|(event, _)| event.is_leaf) {
            if self.is_stopped {
                return Ok(());
            }
            let Some(leaf) = check.leaf else {
                self.broken.get_or_insert_with(|| scan::missing_leaf(self.edge.size()));
                self.is_stopped = true;
                return Ok(());
            };
            self.push(leaf)?;
        }
        Ok(())
    }

    /// Returns the verdict, and reports the rows that differ. `progress` is the stored progress of the log, `leaves` how
    /// far its leaves could be read.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn finish(
        mut self,
        store: &Store,
        progress: &Progress,
        leaves: Leaves,
        report: &mut Report<'_>,
    ) -> Result<LogVerdict, StoreError> {
        let size = self.edge.size();
        let is_whole = leaves.broken.is_none();
        leaves.faults.into_iter().for_each(|fault| report.row(fault));
        // If a checkpoint signs the rebuilt tree, the tiles differ and not the events.
        let checked = self.checkpoints.iter().zip(&self.roots);
        let signed =
            checked.filter(|((_, head), root)| **root == Some(head.root)).map(|((_, head), _)| head.size).max();
        let compare = || compare_checkpoints(size, self.first_leaf, self.checkpoints, &self.roots);
        let is_signed = compare().is_none();
        let signed = signed.filter(|_| is_signed).unwrap_or(0);
        let is_row = |fault: &RowFault| fault.kind == FaultKind::Unexpected || last_leaf_of(&fault.key) < signed;
        if self.faults.iter().all(is_row) {
            self.broken = self.broken.filter(|_| self.is_stopped);
        }
        self.faults.into_iter().filter(is_row).for_each(|fault| report.row(fault));
        if is_whole {
            self.tiles.finish()?.into_iter().for_each(|fault| report.row(fault));
        }
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
        let broken = broken.or_else(|| compare_checkpoints(size, self.first_leaf, self.checkpoints, &self.roots));
        let wrong_rows = report.wrong_rows_of(Family::Log) + report.wrong_rows_of(Family::Tiles);
        Ok(LogVerdict { size, unlogged, broken, wrong_rows })
    }
}

/// The last leaf under a tile, from its key.
fn last_leaf_of(tile_key: &[u8]) -> u64 {
    tile_key.first_chunk::<8>().map_or(u64::MAX, |last| u64::from_be_bytes(*last))
}

/// Records the current root for each checkpoint of this size.
fn record_roots(edge: &Edge, checkpoints: &[(String, Head)], roots: &mut [Option<Node>]) {
    for (root, (_, head)) in roots.iter_mut().zip(checkpoints) {
        if head.size == edge.size() {
            *root = Some(edge.root());
        }
    }
}

fn compare_checkpoints(
    size: u64,
    first_leaf: u64,
    checkpoints: &[(String, Head)],
    roots: &[Option<Node>],
) -> Option<String> {
    checkpoints.iter().zip(roots).find_map(|((name, head), root)| match root {
        None if head.size < first_leaf => {
            Some(format!("{name} was signed over {} events, and the tile in which they end was dropped", head.size))
        }
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
