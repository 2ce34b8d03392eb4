//! The consumer of the log: one thread that makes every committed event a leaf, and signs the tree at intervals. See
//! `docs/adr/0024-sign-only-what-extends-the-last-checkpoint.md`.
//!
//! What is true if the process ends after each step of a checkpoint:
//!
//! 1. new leaves are in memory: the next start reads their events again, perhaps with the shards in another order;
//! 2. runs, tiles and size are written and synced: the order of these leaves is fixed, and nobody has seen it;
//! 3. the tree was checked to extend the last checkpoint, and a new one was signed in memory: nobody has seen it;
//! 4. the file contains the new checkpoint: the next start continues from it, and signs only what extends it;
//! 5. the checkpoint is published.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cairn_proof::tree::{Edge, FullTile, Hashes, Head, LeafHasher, Tiles};
use crossbeam_channel::Receiver;
use tlog_tiles::{Hash, check_tree, prove_tree};

use super::checkpoint::{self, SignedHead};
use super::config::LogConfig;
use super::keys::{KeyError, Keys};
use super::leaf::RecordHasher;
use super::prune;
use super::rows::{LogRows, Progress};
use super::signed::SignedTree;
use super::state::{Shared, State};
use crate::ledger::format::keys::{Location, Position, ShardId};
use crate::ledger::read::follower::{FollowedEvent, Follower, Wake};
use crate::ledger::store::{Batch, StoreError};

/// The most events of a shard that are read at a time.
const BATCH_EVENTS: u64 = 4096;
/// The number of new leaves that are written without waiting for a checkpoint: 256 tiles, 2 MiB.
const MAX_UNWRITTEN_LEAVES: u64 = 65_536;
/// How long to wait for more commits before reading.
pub const DEBOUNCE: Duration = Duration::from_millis(20);

/// The reason why the log cannot continue.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The database cannot be read or written. Retried.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The checkpoint file cannot be written. Retried.
    #[error("log.checkpoint_file: {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// The keys cannot be used. Nothing is signed.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// The tree does not extend what was signed, or this cannot be determined. Nothing is signed any more.
    #[error("{0}")]
    Stopped(String),
}

impl LogError {
    /// Whether a retry may succeed.
    pub fn is_transient(&self) -> bool {
        matches!(self, LogError::Store(_) | LogError::File { .. })
    }
}

/// The dependencies of the thread.
pub struct LogContext {
    /// The rows of the log.
    pub rows: LogRows,
    /// Follows the commits.
    pub follower: Follower,
    /// The thread stops when the sender is dropped.
    pub stop: Receiver<()>,
    /// The state that other threads see.
    pub shared: Arc<Shared>,
    /// The settings.
    pub config: LogConfig,
    /// The path of the key file.
    pub key_path: PathBuf,
    /// The path of the checkpoint file.
    pub checkpoint_path: PathBuf,
}

/// The state of the thread.
pub struct Sequencer<'c> {
    context: &'c LogContext,
    keys: Keys,
    tree: Tree,
    leaves: LeafHasher,
    records: RecordHasher,
    /// The number of leaves that are on disk.
    written: u64,
    /// The last checkpoint.
    signed: Option<SignedHead>,
}

/// The growing tree, and the part of it that is not written.
struct Tree {
    edge: Edge,
    /// The location of the event of the last leaf.
    last: Option<Location>,
    /// Full tiles and starts of runs that are not written yet.
    tiles: Vec<FullTile>,
    runs: Vec<(u64, Location)>,
}

impl Tree {
    /// Appends the event at `location` as the next leaf.
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

impl<'c> Sequencer<'c> {
    /// Continues from what is on disk.
    ///
    /// # Errors
    /// When it cannot be read, or keys or checkpoint are missing or do not belong to the log.
    pub fn open(context: &'c LogContext) -> Result<Sequencer<'c>, LogError> {
        let LogContext { rows, follower, shared, .. } = context;
        let progress = rows.progress()?;
        let was_signed = progress.as_ref().is_some_and(|progress| progress.size > 0);
        let (keys, signed) = keys_and_checkpoint(context, was_signed)?;
        let Progress { size, mut next } = match progress {
            Some(progress) => progress,
            None => Progress { size: 0, next: rows.base()? },
        };
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

    /// Follows the commits until the thread has to stop.
    ///
    /// # Errors
    /// When the log cannot continue.
    pub fn run(&mut self) -> Result<(), LogError> {
        let interval = self.context.config.checkpoint_interval;
        if self.signed.is_none() {
            // The empty tree is signed before there is a leaf: from then on, a log with leaves always has a checkpoint.
            self.checkpoint()?;
        }
        self.catch_up()?;
        self.checkpoint()?;
        let mut sign_at = Instant::now() + interval;
        loop {
            let is_unsigned = self.signed.as_ref().is_none_or(|(signed, _)| signed.size < self.tree.edge.size());
            if self.context.follower.wait(is_unsigned.then_some(sign_at), &self.context.stop) == Wake::Stop {
                return self.finish();
            }
            self.catch_up()?;
            if Instant::now() >= sign_at {
                self.checkpoint()?;
                sign_at = Instant::now() + interval;
            }
        }
    }

    /// Signs all committed events before the thread ends, so that a clean shutdown leaves no unsigned tail.
    fn finish(&mut self) -> Result<(), LogError> {
        self.catch_up()?;
        self.checkpoint()
    }

    /// Makes leaves of all committed events, one batch of each shard in turn.
    fn catch_up(&mut self) -> Result<(), LogError> {
        loop {
            let mut has_more = false;
            for shard in self.context.follower.committed().shards() {
                has_more |= self.read_batch(shard)?;
                if self.tree.edge.size() - self.written >= MAX_UNWRITTEN_LEAVES {
                    self.write(false)?;
                }
            }
            self.context.shared.set_size(self.tree.edge.size());
            if !has_more {
                return Ok(());
            }
        }
    }

    /// Makes leaves of the next events of a shard. Returns whether the shard has more.
    fn read_batch(&mut self, shard: ShardId) -> Result<bool, LogError> {
        let LogContext { follower, rows, .. } = self.context;
        let Sequencer { tree, leaves, records, .. } = self;
        let next = follower.read(rows.store(), shard, BATCH_EVENTS, |location, event| {
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

    /// Writes runs, tiles and size. Synced if a checkpoint is about to cover them.
    fn write(&mut self, is_synced: bool) -> Result<(), LogError> {
        let rows = &self.context.rows;
        let mut batch: Batch = rows.store().batch(self.tree.tiles.len() * 9000 + 256);
        for tile in &self.tree.tiles {
            rows.put_tile(&mut batch, tile)?;
        }
        for (leaf, location) in &self.tree.runs {
            rows.put_run(&mut batch, *leaf, *location)?;
        }
        let size = self.tree.edge.size();
        rows.put_progress(&mut batch, &Progress { size, next: self.next() })?;
        if is_synced {
            prune::note_checkpoint(rows, &mut batch, size)?;
        }
        match is_synced {
            true => rows.store().write_synced(batch)?,
            false => rows.store().write(batch)?,
        }
        self.tree.tiles.clear();
        self.tree.runs.clear();
        self.written = size;
        Ok(())
    }

    /// The position of the next event of each shard.
    fn next(&self) -> Vec<Position> {
        self.context.follower.cursor().positions()
    }

    /// Signs the tree if it has grown, after checking that it extends what was signed.
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
            // After a start this tree is already signed, unless a key was added since.
            Some((signed, note)) if signed.size == size && self.keys.have_all_signed(note) => note.clone(),
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
        shared.publish(State::Signed(Arc::new(SignedTree { size, root, note, next, edge, rows: rows.clone() })));
        Ok(())
    }

    /// Checks that the tree begins with the leaves that were signed.
    fn check_extension(&self, signed: &Head) -> Result<(), LogError> {
        let size = self.tree.edge.size();
        let rollback = |why: &str| {
            LogError::Stopped(format!(
                "the database is not the one whose checkpoint was signed last ({why}): events are accepted, nothing is \
                 signed. Restore the missing data, or begin a new log with `cairn key new-log`"
            ))
        };
        if size < signed.size {
            return Err(rollback(&format!("it has {size} events, and {} were signed", signed.size)));
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
        checked.map_err(|_| rollback(&format!("its first {} events are not those that were signed", signed.size)))
    }
}

/// Full tiles, of which the latest are not written yet.
struct UnwrittenTiles<'a> {
    tiles: &'a [FullTile],
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

/// Returns the keys, and the last checkpoint if there is one. Creates keys for a log that was never signed and has
/// none.
fn keys_and_checkpoint(context: &LogContext, was_signed: bool) -> Result<(Keys, Option<SignedHead>), LogError> {
    let LogContext { shared, key_path, checkpoint_path, .. } = context;
    let exists = |path: &PathBuf| path.try_exists().unwrap_or(true);
    let keys = match Keys::read(key_path, &shared.origin)? {
        Some(keys) => keys,
        None if !was_signed && !exists(checkpoint_path) => Keys::create(key_path, &shared.origin)?,
        None => {
            let key = key_path.display();
            return Err(LogError::Stopped(if was_signed {
                format!(
                    "log.key_file: {key} is missing, and checkpoints were signed with it: restore it, or begin a new log \
                     with `cairn key new-log`"
                )
            } else {
                let (file, size) = (checkpoint_path.display(), checkpoint::signed_size(checkpoint_path));
                format!(
                    "the checkpoint in {file} signs {size} events, and this ledger has none of them and no key ({key}): \
                     correct storage.data_dir, restore a backup, or begin a new log with `cairn key new-log`"
                )
            }));
        }
    };
    if !was_signed && !exists(checkpoint_path) {
        // Only for a new log. Later, a missing directory was removed, or is on a disk that is not mounted.
        let failed = |source| LogError::File { path: checkpoint_path.clone(), source };
        cairn_proof::files::create_directory_of(checkpoint_path).map_err(failed)?;
    }
    match checkpoint::read(checkpoint_path, &keys).map_err(LogError::Stopped)? {
        Some(signed) if signed.0.origin == shared.origin => Ok((keys, Some(signed))),
        Some((head, _)) => Err(LogError::Stopped(format!(
            "log.checkpoint_file: {} belongs to the log {:?}, and this log is {:?}",
            checkpoint_path.display(),
            head.origin,
            shared.origin
        ))),
        None if was_signed => Err(LogError::Stopped(format!(
            "log.checkpoint_file: {} is missing: restore it, or begin a new log with `cairn key new-log`",
            checkpoint_path.display()
        ))),
        None => Ok((keys, None)),
    }
}
