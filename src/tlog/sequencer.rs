//! The log's consumer: one thread that makes every committed event a leaf, and signs the tree now and then.
//!
//! What is true if the process ends after each step of a checkpoint:
//!
//! 1. new leaves are in memory: the next start reads their events again, perhaps in another order of shards;
//! 2. runs, tiles and size are written and synced: the order of these leaves is fixed, nobody has seen it;
//! 3. the tree was checked to extend the last checkpoint, and a new one was signed in memory: nobody has seen it;
//! 4. the file has the new checkpoint: the next start goes on from it, and signs only what extends it;
//! 5. it is published.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use tlog_tiles::{Hash, check_tree, prove_tree};

use super::checkpoint::{self, Head, SignedHead};
use super::config::LogConfig;
use super::keys::{KeyError, Keys};
use super::leaf::{self, Leaves};
use super::rows::{LogRows, Progress};
use super::tree::{self, Edge, Hashes, Whole};
use super::{Shared, Signed, State};
use crate::ledger::committed::Committed;
use crate::ledger::events::Events;
use crate::ledger::keys::{Place, Position, ShardId};
use crate::ledger::read;
use crate::ledger::recent::Source;
use crate::ledger::store::{Batch, StoreError};

/// The most events of a shard that are read in one go.
const STRETCH_EVENTS: u64 = 4096;
/// So many new leaves are written without waiting for a checkpoint: 256 tiles, 2 MiB.
const UNWRITTEN_LEAVES: u64 = 65_536;
/// How long a word of new events is let lie, so that one pass sees many of them.
const GATHER: Duration = Duration::from_millis(20);

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
    /// Whether time may mend it.
    pub fn may_pass(&self) -> bool {
        matches!(self, LogError::Store(_) | LogError::File { .. })
    }
}

/// What the thread needs from outside.
pub struct Outside {
    /// The rows.
    pub rows: LogRows,
    /// How far the ledger is.
    pub committed: Arc<Committed>,
    /// A word of new commits.
    pub woken: Receiver<()>,
    /// Ends the thread when its sender goes.
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
    outside: &'o Outside,
    keys: Keys,
    tree: Tree,
    leaves: Leaves,
    /// The next event of each shard.
    next: Vec<Position>,
    /// How many leaves the rows on disk have.
    written: u64,
    /// The last checkpoint.
    signed: Option<SignedHead>,
}

/// The tree as it grows.
struct Tree {
    edge: Edge,
    /// Which event the last leaf is.
    last: Option<Place>,
    /// What is not written yet: tiles and the starts of runs.
    tiles: Vec<Whole>,
    runs: Vec<(u64, Place)>,
}

impl Tree {
    /// Takes the event at `place` as the next leaf.
    fn push(&mut self, place: Place, leaf: Hash) {
        let follows = self.last.is_some_and(|last| last.shard == place.shard && last.position.next() == place.position);
        if !follows {
            self.runs.push((self.edge.size(), place));
        }
        let tiles = &mut self.tiles;
        self.edge.push(leaf, |tile| tiles.push(tile));
        self.last = Some(place);
    }
}

impl<'o> Sequencer<'o> {
    /// Goes on from what is on disk.
    ///
    /// # Errors
    /// When it cannot be read, or is not what was signed.
    pub fn open(outside: &'o Outside) -> Result<Sequencer<'o>, LogError> {
        let Outside { rows, committed, shared, .. } = outside;
        if !leaf::are_hashed_alike() || !tree::is_hashed_alike() {
            return Err(LogError::Stopped(format!("SHA-256 is wrong on this processor ({})", tape_sha256::backend())));
        }
        let progress = rows.progress()?;
        let was_signed = progress.as_ref().is_some_and(|progress| progress.size > 0);
        let (keys, signed) = keys_and_checkpoint(outside, was_signed)?;
        let shards = committed.shards().count();
        let Progress { size, mut next } = progress.unwrap_or(Progress { size: 0, next: Vec::new() });
        next.resize(shards, Position(0));
        let last = match size.checked_sub(1) {
            Some(last) => Some(rows.place_of(last)?),
            None => None,
        };
        shared.set_keys(keys.verifiers());
        let tree = Tree { edge: rows.edge(size)?, last, tiles: Vec::new(), runs: Vec::new() };
        let leaves = Leaves::default();
        Ok(Sequencer { outside, keys, tree, leaves, next, written: size, signed })
    }

    /// Follows the commits until it is told to stop.
    ///
    /// # Errors
    /// When the log cannot go on.
    pub fn run(&mut self) -> Result<(), LogError> {
        let interval = self.outside.config.checkpoint_interval;
        if self.signed.is_none() {
            // The empty tree, before there is a leaf: from then on there is a checkpoint wherever there are leaves.
            self.checkpoint()?;
        }
        self.catch_up()?;
        self.checkpoint()?;
        let mut sign_at = Instant::now() + interval;
        loop {
            let is_news = self.signed.as_ref().is_none_or(|(signed, _)| signed.size < self.tree.edge.size());
            let due = if is_news { crossbeam_channel::at(sign_at) } else { crossbeam_channel::never() };
            crossbeam_channel::select! {
                recv(self.outside.woken) -> _ => {}
                recv(due) -> _ => {}
                recv(self.outside.stop) -> _ => return self.end(),
            }
            if self.outside.stop.recv_timeout(GATHER) != Err(RecvTimeoutError::Timeout) {
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
            for shard in self.outside.committed.shards() {
                is_behind |= self.stretch(shard)?;
                if self.tree.edge.size() - self.written >= UNWRITTEN_LEAVES {
                    self.write(false)?;
                }
            }
            self.outside.shared.sequenced(self.tree.edge.size());
            if !is_behind {
                return Ok(());
            }
        }
    }

    /// Makes leaves of a stretch of a shard; says whether there is more.
    fn stretch(&mut self, shard: ShardId) -> Result<bool, LogError> {
        let store = self.outside.rows.store();
        let next = &mut self.next[usize::from(shard.0)];
        let committed = self.outside.committed.next(shard);
        let end = Position(committed.0.min(next.0.saturating_add(STRETCH_EVENTS)));
        if *next >= end {
            return Ok(false);
        }
        while *next < end {
            match self.outside.committed.source(shard, *next) {
                Source::Memory(commit) => {
                    let count = (end.0 - next.0) as usize;
                    self.leaves.hash_told(commit.from(*next).take(count), |hash| {
                        self.tree.push(Place { shard, position: *next }, hash);
                        *next = next.next();
                    });
                }
                Source::Disk(until) => {
                    let end = until.map_or(end, |until| until.min(end));
                    let mut events = Events::new(store)?;
                    while *next < end {
                        let place = Place { shard, position: *next };
                        let missing =
                            || format!("the event at position {} of shard {} is missing", place.position.0, shard.0);
                        let record = events.at(place)?.ok_or_else(|| store.damaged(missing()))?;
                        let record = read::parse(store, place, record)?;
                        self.leaves.hash_records(std::iter::once(record), |hash| self.tree.push(place, hash));
                        *next = next.next();
                    }
                }
            }
        }
        Ok(end < committed)
    }

    /// Writes runs, tiles and size; synced, if a checkpoint is to cover them.
    fn write(&mut self, is_synced: bool) -> Result<(), LogError> {
        let rows = &self.outside.rows;
        let mut batch: Batch = rows.store().batch(self.tree.tiles.len() * 9000 + 256);
        for tile in &self.tree.tiles {
            rows.put_tile(&mut batch, tile)?;
        }
        for (leaf, place) in &self.tree.runs {
            rows.put_run(&mut batch, *leaf, *place)?;
        }
        rows.put_progress(&mut batch, &Progress { size: self.tree.edge.size(), next: self.next.clone() })?;
        match is_synced {
            true => rows.store().write_synced(batch)?,
            false => rows.store().write(batch)?,
        }
        self.tree.tiles.clear();
        self.tree.runs.clear();
        self.written = self.tree.edge.size();
        Ok(())
    }

    /// Signs the tree, if it has grown and extends what was signed.
    fn checkpoint(&mut self) -> Result<(), LogError> {
        let Outside { rows, shared, checkpoint_path, .. } = self.outside;
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
        let next = self.next.clone();
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
            tiles: &UnwrittenTiles { tiles: &self.tree.tiles, rows: &self.outside.rows },
            edge: &self.tree.edge,
        };
        let failed = |error: tlog_tiles::Error| LogError::Store(self.outside.rows.store().damaged(error.to_string()));
        let proof = prove_tree(size, signed.size, &hashes).map_err(failed)?;
        let checked = check_tree(&proof, size, self.tree.edge.root(), signed.size, signed.root);
        checked
            .map_err(|_| rollback(&format!("its first {} events are others than those that were signed", signed.size)))
    }
}

/// Whole tiles, the latest of which are not written yet.
struct UnwrittenTiles<'a> {
    tiles: &'a [Whole],
    rows: &'a LogRows,
}

impl super::tree::Tiles for UnwrittenTiles<'_> {
    fn tile(&self, level: u8, index: u64) -> Result<Vec<u8>, String> {
        match self.tiles.iter().rev().find(|tile| tile.level == level && tile.index == index) {
            Some(tile) => Ok(tile.bytes.clone()),
            None => self.rows.tile(level, index),
        }
    }
}

/// The keys, and the last checkpoint that they signed. A log that was never signed gets new keys if it has none, and
/// the checkpoint of the empty tree.
fn keys_and_checkpoint(outside: &Outside, was_signed: bool) -> Result<(Keys, Option<SignedHead>), LogError> {
    let Outside { shared, key_path, checkpoint_path, .. } = outside;
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
