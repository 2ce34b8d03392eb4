//! The log's consumer: one thread that makes every committed event a leaf, and signs the tree now and then.
//!
//! What is true if the process ends after each step of a checkpoint:
//!
//! 1. new leaves are in memory: the next start reads their events again, perhaps in another order of shards;
//! 2. runs, tiles and size are written and synced: the order of these leaves is fixed, nobody has seen it;
//! 3. the tree was checked to extend the last checkpoint, and a new one was signed in memory: nobody has seen it;
//! 4. the file has the new checkpoint: the next start goes on from it, and signs only what extends it;
//! 5. it is published.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cairn_proof::tree::{Edge, Hashes, Head, LeafHasher, Tiles, WholeTile};
use crossbeam_channel::Receiver;
use tlog_tiles::{Hash, check_tree, prove_tree};

use super::checkpoint::{self, SignedHead};
use super::config::LogConfig;
use super::keys::{KeyError, Keys};
use super::leaf::RecordHasher;
use super::rows::{LogRows, Progress};
use super::signed::Signed;
use super::state::{Shared, State};
use crate::ledger::format::keys::{Location, Position, ShardId};
use crate::ledger::read::follower::{FollowedEvent, Follower, Wake};
use crate::ledger::store::{Batch, StoreError};

/// The most events of a shard that are read in one go.
const STRETCH_EVENTS: u64 = 4096;
/// So many new leaves are written without waiting for a checkpoint: 256 tiles, 2 MiB.
const UNWRITTEN_LEAVES: u64 = 65_536;
/// How long to wait for more commits before reading.
pub const DEBOUNCE: Duration = Duration::from_millis(20);

/// Why the log cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The database cannot be read or written: it is tried again.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The checkpoint file cannot be written: it is tried again.
    #[error("log.checkpoint_file: {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The keys cannot be used: nothing is signed.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// The tree does not continue what was signed, or nobody knows: nothing is signed any more.
    #[error("{0}")]
    Stopped(String),
}

impl LogError {
    /// Whether it may succeed when it is tried again.
    pub fn is_transient(&self) -> bool {
        matches!(self, LogError::Store(_) | LogError::File { .. })
    }
}

/// What the thread needs from outside.
pub struct LogContext {
    /// The rows.
    pub rows: LogRows,
    /// Follows the commits.
    pub follower: Follower,
    /// The thread stops when the sender is dropped.
    pub stop: Receiver<()>,
    /// What others see.
    pub shared: Arc<Shared>,
    /// The settings.
    pub config: LogConfig,
    /// Where the keys are.
    pub key_path: PathBuf,
    /// Where the last checkpoint is.
    pub checkpoint_path: PathBuf,
}

/// The thread's state.
pub struct Sequencer<'o> {
    context: &'o LogContext,
    keys: Keys,
    tree: Tree,
    leaves: LeafHasher,
    records: RecordHasher,
    /// How many leaves the rows on disk have.
    written: u64,
    /// The last checkpoint.
    signed: Option<SignedHead>,
}

/// The tree as it grows.
struct Tree {
    edge: Edge,
    /// Which event the last leaf is.
    last: Option<Location>,
    /// What is not written yet: tiles and the starts of runs.
    tiles: Vec<WholeTile>,
    runs: Vec<(u64, Location)>,
}

impl Tree {
    /// Takes the event at `place` as the next leaf.
    fn push(&mut self, location: Location, leaf: Hash) {
        let follows =
            self.last.is_some_and(|last| last.shard == location.shard && last.position.next() == location.position);
        if !follows {
            self.runs.push((self.edge.size(), location));
        }
        let tiles = &mut self.tiles;
        self.edge.push(leaf, |tile| tiles.push(tile));
        self.last = Some(location);
    }
}

impl<'o> Sequencer<'o> {
    /// Goes on from what is on disk.
    ///
    /// # Errors
    /// When it cannot be read, or is not what was signed.
    pub fn open(context: &'o LogContext) -> Result<Sequencer<'o>, LogError> {
        let LogContext { rows, follower, shared, .. } = context;
        let progress = rows.progress()?;
        let was_signed = progress.as_ref().is_some_and(|progress| progress.size > 0);
        let (keys, signed) = keys_and_checkpoint(context, was_signed)?;
        let Progress { size, mut next } = progress.unwrap_or(Progress { size: 0, next: Vec::new() });
        next.resize(follower.committed().shards().count(), Position(0));
        for (shard, next) in follower.committed().shards().zip(next) {
            follower.cursor().set(shard, next);
        }
        let last = match size.checked_sub(1) {
            Some(last) => Some(rows.location_of(last)?),
            None => None,
        };
        shared.set_keys(keys.verifiers());
        let tree = Tree { edge: rows.edge(size)?, last, tiles: Vec::new(), runs: Vec::new() };
        let (leaves, records) = (LeafHasher::default(), RecordHasher::default());
        Ok(Sequencer { context, keys, tree, leaves, records, written: size, signed })
    }

    /// Follows the commits until it is told to stop.
    ///
    /// # Errors
    /// When the log cannot go on.
    pub fn run(&mut self) -> Result<(), LogError> {
        let interval = self.context.config.checkpoint_interval;
        if self.signed.is_none() {
            // The empty tree, before there is a leaf: from then on there is a checkpoint wherever there are leaves.
            self.checkpoint()?;
        }
        self.catch_up()?;
        self.checkpoint()?;
        let mut sign_at = Instant::now() + interval;
        loop {
            let is_unsigned = self.signed.as_ref().is_none_or(|(signed, _)| signed.size < self.tree.edge.size());
            if self.context.follower.wait(is_unsigned.then_some(sign_at), &self.context.stop) == Wake::Stop {
                return self.end();
            }
            self.catch_up()?;
            if Instant::now() >= sign_at {
                self.checkpoint()?;
                sign_at = Instant::now() + interval;
            }
        }
    }

    /// Signs what there is before the thread ends, so that a clean end leaves no unsigned tail.
    fn end(&mut self) -> Result<(), LogError> {
        self.catch_up()?;
        self.checkpoint()
    }

    /// Makes leaves of all committed events, a stretch of each shard in turn.
    fn catch_up(&mut self) -> Result<(), LogError> {
        loop {
            let mut is_behind = false;
            for shard in self.context.follower.committed().shards() {
                is_behind |= self.stretch(shard)?;
                if self.tree.edge.size() - self.written >= UNWRITTEN_LEAVES {
                    self.write(false)?;
                }
            }
            self.context.shared.sequenced(self.tree.edge.size());
            if !is_behind {
                return Ok(());
            }
        }
    }

    /// Makes leaves of a stretch of a shard; says whether there is more.
    fn stretch(&mut self, shard: ShardId) -> Result<bool, LogError> {
        let LogContext { follower, rows, .. } = self.context;
        let Sequencer { tree, leaves, records, .. } = self;
        let next = follower.read(rows.store(), shard, STRETCH_EVENTS, |location, event| {
            let hash = match event? {
                FollowedEvent::Recent(event) => leaves.hash(event.agent_id, event.hash, event.sequence),
                FollowedEvent::Stored(record) => records.hash(record),
            };
            tree.push(location, hash);
            Ok::<_, LogError>(ControlFlow::Continue(()))
        })?;
        follower.cursor().set(shard, next);
        Ok(next < follower.committed().next(shard))
    }

    /// Writes runs, tiles and size; synced, if a checkpoint is to cover them.
    fn write(&mut self, is_synced: bool) -> Result<(), LogError> {
        let rows = &self.context.rows;
        let mut batch: Batch = rows.store().batch(self.tree.tiles.len() * 9000 + 256);
        for tile in &self.tree.tiles {
            rows.put_tile(&mut batch, tile)?;
        }
        for (leaf, location) in &self.tree.runs {
            rows.put_run(&mut batch, *leaf, *location)?;
        }
        rows.put_progress(&mut batch, &Progress { size: self.tree.edge.size(), next: self.next() })?;
        match is_synced {
            true => rows.store().write_synced(batch)?,
            false => rows.store().write(batch)?,
        }
        self.tree.tiles.clear();
        self.tree.runs.clear();
        self.written = self.tree.edge.size();
        Ok(())
    }

    /// The next event of each shard.
    fn next(&self) -> Vec<Position> {
        self.context.follower.cursor().positions()
    }

    /// Signs the tree, if it has grown and extends what was signed.
    fn checkpoint(&mut self) -> Result<(), LogError> {
        let LogContext { rows, shared, checkpoint_path, .. } = self.context;
        let size = self.tree.edge.size();
        let root = self.tree.edge.root();
        match &self.signed {
            Some((signed, _)) if signed.size == size && signed.root == root && shared.is_signed() => return Ok(()),
            Some((signed, _)) => self.check_extension(signed)?,
            None => {}
        }
        self.write(true)?;
        let note = match &self.signed {
            // After a start: it is signed already.
            Some((signed, note)) if signed.size == size => note.clone(),
            _ => {
                let head = Head { origin: shared.origin.clone(), size, root };
                let note = checkpoint::sign(&head, &self.keys).map_err(LogError::Stopped)?;
                let failed = |source| LogError::File { path: checkpoint_path.clone(), source };
                checkpoint::write(checkpoint_path, &note).map_err(failed)?;
                self.signed = Some((head, note.clone()));
                note
            }
        };
        let next = self.next();
        let edge = self.tree.edge.clone();
        shared.publish(State::Signed(Arc::new(Signed { size, root, note, next, edge, rows: rows.clone() })));
        Ok(())
    }

    /// The tree has to begin with the leaves that were signed.
    fn check_extension(&self, signed: &Head) -> Result<(), LogError> {
        let size = self.tree.edge.size();
        let rollback = |why: &str| {
            LogError::Stopped(format!(
                "the database is not the one whose checkpoint was signed last ({why}): events are taken, nothing is \
                 signed. Restore what was lost, or begin a new log with `cairn key new-log`"
            ))
        };
        if size < signed.size {
            return Err(rollback(&format!("it has {size} events, {} were signed", signed.size)));
        }
        if signed.size == 0 {
            return Ok(());
        }
        let hashes = Hashes {
            tiles: &UnwrittenTiles { tiles: &self.tree.tiles, rows: &self.context.rows },
            edge: &self.tree.edge,
        };
        let failed = |error: tlog_tiles::Error| LogError::Store(self.context.rows.store().damaged(error.to_string()));
        let proof = prove_tree(size, signed.size, &hashes).map_err(failed)?;
        let checked = check_tree(&proof, size, self.tree.edge.root(), signed.size, signed.root);
        checked
            .map_err(|_| rollback(&format!("its first {} events are others than those that were signed", signed.size)))
    }
}

/// WholeTile tiles, the latest of which are not written yet.
struct UnwrittenTiles<'a> {
    tiles: &'a [WholeTile],
    rows: &'a LogRows,
}

impl Tiles for UnwrittenTiles<'_> {
    fn tile(&self, level: u8, index: u64) -> Result<Vec<u8>, String> {
        match self.tiles.iter().rev().find(|tile| tile.level == level && tile.index == index) {
            Some(tile) => Ok(tile.bytes.clone()),
            None => self.rows.tile(level, index),
        }
    }
}

/// The keys, and the last checkpoint that they signed. A log that was never signed gets new keys if it has none, and
/// the checkpoint of the empty tree.
fn keys_and_checkpoint(context: &LogContext, was_signed: bool) -> Result<(Keys, Option<SignedHead>), LogError> {
    let LogContext { shared, key_path, checkpoint_path, .. } = context;
    let is_there = |path: &PathBuf| path.try_exists().unwrap_or(true);
    let keys = match Keys::read(key_path, &shared.origin)? {
        Some(keys) => keys,
        None if !was_signed && !is_there(checkpoint_path) => Keys::make(key_path, &shared.origin)?,
        None => {
            let key = key_path.display();
            return Err(LogError::Stopped(format!(
                "log.key_file: {key} is gone, and checkpoints were signed with it: restore it, or begin a new log with \
                 `cairn key new-log`"
            )));
        }
    };
    match checkpoint::read(checkpoint_path, &keys).map_err(LogError::Stopped)? {
        Some(signed) if signed.0.origin == shared.origin => Ok((keys, Some(signed))),
        Some((head, _)) => Err(LogError::Stopped(format!(
            "log.checkpoint_file: {} is of the log {:?}, and this one is {:?}",
            checkpoint_path.display(),
            head.origin,
            shared.origin
        ))),
        None if was_signed => Err(LogError::Stopped(format!(
            "log.checkpoint_file: {} is gone: restore it, or begin a new log with `cairn key new-log`",
            checkpoint_path.display()
        ))),
        None => Ok((keys, None)),
    }
}
