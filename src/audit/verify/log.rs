//! Verifying the log: every event is the leaf that it should be, no leaf lacks its event, and the last checkpoint is of
//! this tree.

use tlog_tiles::Hash as Node;

use super::PROGRESS_EVENTS;
use crate::ledger::keys::{Place, Position};
use crate::ledger::record::RecordRef;
use crate::ledger::store::{Family, Store, StoreError};
use crate::tlog::checkpoint::Head;
use crate::tlog::leaf::Leaves;
use crate::tlog::rows::{LogRows, Run};
use crate::tlog::tree::Edge;

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

/// Computes the tree anew from the events, and compares it with what is stored and with checkpoints, each with a name
/// to call it by. `None` if there is no log. `progress` is told how many leaves were verified since the last time.
///
/// # Errors
/// When the database cannot be read.
pub fn log(
    store: &std::sync::Arc<Store>,
    checkpoints: &[(String, Head)],
    mut progress: impl FnMut(u64),
) -> Result<Option<LogVerdict>, StoreError> {
    let rows = LogRows::new(std::sync::Arc::clone(store));
    let Some(known) = rows.progress()? else {
        // Without rows there is no log; but whatever was signed was in one.
        let signed = checkpoints.iter().find(|(_, head)| head.size > 0);
        let broken =
            signed.map(|(name, head)| format!("there is none, and {name} was signed over {} events", head.size));
        return Ok(broken.map(|broken| LogVerdict { size: 0, unlogged: 0, broken: Some(broken) }));
    };
    let mut tree = Recomputed {
        store,
        rows: &rows,
        edge: Edge::default(),
        leaves: Leaves::default(),
        next: vec![Position(0); known.next.len()],
        roots: vec![None; checkpoints.len()],
        checkpoints,
    };
    tree.note_roots();
    let broken = match tree.walk(known.size, &mut progress)? {
        Some(broken) => Some(broken),
        None if tree.next != known.next => Some("its size is not that of its runs".to_owned()),
        None => tree.compare_checkpoints(),
    };
    let mut unlogged = 0;
    for (shard, next) in LogRows::shards(&known.next).zip(&known.next) {
        unlogged += crate::ledger::read::end(store, shard)?.0.saturating_sub(next.0);
    }
    Ok(Some(LogVerdict { size: tree.edge.size(), unlogged, broken }))
}

/// The tree as the events make it.
struct Recomputed<'s> {
    store: &'s Store,
    rows: &'s LogRows,
    edge: Edge,
    leaves: Leaves,
    /// The next event of each shard.
    next: Vec<Position>,
    checkpoints: &'s [(String, Head)],
    /// The roots of the tree at the sizes of the checkpoints.
    roots: Vec<Option<Node>>,
}

impl Recomputed<'_> {
    fn note_roots(&mut self) {
        for (root, (_, head)) in self.roots.iter_mut().zip(self.checkpoints) {
            if head.size == self.edge.size() {
                *root = Some(self.edge.root());
            }
        }
    }

    /// Follows the runs; says what is wrong first.
    fn walk(&mut self, size: u64, progress: &mut impl FnMut(u64)) -> Result<Option<String>, StoreError> {
        let mut runs = self.rows.runs()?;
        let mut run = readable(runs.take_next())?;
        while self.edge.size() < size {
            let following = readable(runs.take_next())?;
            let end = following.as_ref().map_or(size, |run| run.leaf).min(size);
            let Some(Run { leaf, place }) = run else {
                return Ok(Some(format!("nothing says which event leaf {} is", self.edge.size())));
            };
            let expected = self.next.get(usize::from(place.shard.0)).copied();
            if leaf != self.edge.size() || expected != Some(place.position) || end <= leaf {
                return Ok(Some(format!("the run of leaf {leaf} is not where the one before it ends")));
            }
            if self.rows.leaf_of(place).ok() != Some(leaf) {
                return Ok(Some(format!("the event of leaf {leaf} does not lead back to it")));
            }
            if let Some(broken) = self.walk_run(place, end, progress)? {
                return Ok(Some(broken));
            }
            run = following;
        }
        Ok(None)
    }

    fn walk_run(
        &mut self,
        first: Place,
        end: u64,
        progress: &mut impl FnMut(u64),
    ) -> Result<Option<String>, StoreError> {
        let mut events = self.store.scan(Family::Events)?;
        events.seek(&first.encode());
        let mut position = first.position;
        while self.edge.size() < end {
            let number = self.edge.size();
            let key = Place { position, ..first }.encode();
            let record = events.row()?.filter(|(found, _)| *found == key).map(|(_, value)| RecordRef::parse(value));
            let Some(Ok(record)) = record else {
                return Ok(Some(format!("the event of leaf {number} is missing or cannot be read")));
            };
            let mut wrong = None;
            let rows = self.rows;
            self.edge.push(self.leaves.hash(record), |tile| {
                // The first tile that differs says it; those above it differ because of it.
                if wrong.is_none() && !rows.has_tile(&tile) {
                    wrong = Some(tile_leaves(tile.level, tile.index));
                }
            });
            if let Some((from, to)) = wrong {
                return Ok(Some(format!("an event of the leaves {from} to {to} is not the one that was logged")));
            }
            self.note_roots();
            position = position.next();
            events.next();
            if self.edge.size().is_multiple_of(PROGRESS_EVENTS) {
                progress(PROGRESS_EVENTS);
            }
        }
        self.next[usize::from(first.shard.0)] = position;
        Ok(None)
    }

    fn compare_checkpoints(&self) -> Option<String> {
        self.checkpoints.iter().zip(&self.roots).find_map(|((name, head), root)| match root {
            None => {
                let size = self.edge.size();
                Some(format!(
                    "{name} was signed over {} events, and there are {size}: the ledger was set back",
                    head.size
                ))
            }
            Some(root) if *root != head.root => {
                Some(format!("the first {} events are not those that were signed in {name}", head.size))
            }
            Some(_) => None,
        })
    }
}

/// A run that cannot be read is as good as none: the one before it does not end where it should.
fn readable(run: Result<Option<Run>, StoreError>) -> Result<Option<Run>, StoreError> {
    match run {
        Err(StoreError::Damaged { .. }) => Ok(None),
        run => run,
    }
}

/// The first and the last leaf under a tile.
fn tile_leaves(level: u8, index: u64) -> (u64, u64) {
    let width = 1u64 << (8 * (u32::from(level) + 1)).min(63);
    let first = index.saturating_mul(width);
    (first, first.saturating_add(width - 1))
}
