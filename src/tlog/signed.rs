//! A signed tree: the log as of one checkpoint, and its proofs. `docs/verification.md` specifies them.

use std::sync::Arc;

use cairn_proof::tree::{Edge, Hashes, Head, WIDTH};
use tlog_tiles::{Error, Hash, prove_record, prove_tree};

use super::leaf;
use super::rows::LogRows;
use crate::ledger::format::keys::{Location, Position};
use crate::ledger::store::{Store, StoreError};

/// The tree of one checkpoint.
pub struct SignedTree {
    /// The number of leaves.
    pub size: u64,
    /// The root hash.
    pub root: Hash,
    /// The checkpoint, as a signed note.
    pub note: Vec<u8>,
    /// A position per shard: the events before these positions are its leaves.
    pub next: Vec<Position>,
    /// The edge of the tree: its partial tiles.
    pub edge: Edge,
    /// The rows of the log.
    pub rows: LogRows,
}

/// An inclusion proof of an event.
pub struct Proof {
    /// The index of the leaf.
    pub leaf: u64,
    /// The hash of the leaf.
    pub leaf_hash: Hash,
    /// The audit path: the hashes from the leaf's sibling up to the root.
    pub siblings: Vec<Hash>,
}

impl SignedTree {
    /// Opens the tree of a checkpoint in a ledger that is only read. Later events are left out.
    ///
    /// # Errors
    /// When the database cannot be read, or is not the one that was signed.
    pub fn of(rows: LogRows, head: &Head, note: Vec<u8>) -> Result<SignedTree, StoreError> {
        let size = rows.progress()?.map_or(0, |progress| progress.size);
        if size < head.size {
            let signed = head.size;
            return Err(rows.store().damaged(format!("its log has {size} events, and {signed} were signed")));
        }
        let (edge, next) = (rows.edge(head.size)?, rows.positions_at(head.size)?);
        if edge.root() != head.root {
            return Err(rows.store().damaged(format!("its first {} events are not those that were signed", head.size)));
        }
        Ok(SignedTree { size: head.size, root: head.root, note, next, edge, rows })
    }

    /// The database that contains the tree.
    pub fn store(&self) -> &Arc<Store> {
        self.rows.store()
    }

    fn hashes(&self) -> Hashes<'_, LogRows> {
        Hashes { tiles: &self.rows, edge: &self.edge }
    }

    /// Whether the event at `location` is a leaf of the tree.
    pub fn covers(&self, location: Location) -> bool {
        self.next.get(usize::from(location.shard.0)).is_some_and(|next| location.position < *next)
    }

    /// Proves that the event at `location` is in the tree.
    ///
    /// # Errors
    /// When the event is not in the log, or the database cannot be read.
    pub fn prove(&self, location: Location) -> Result<Proof, StoreError> {
        let leaf = self.rows.leaf_of(location)?;
        let damaged = |error: Error| self.rows.store().damaged(format!("the log cannot be read: {error}"));
        let siblings = prove_record(self.size, leaf, &self.hashes()).map_err(damaged)?;
        let leaf_hash = leaf::hash(self.rows.event_of(leaf)?.as_ref());
        Ok(Proof { leaf, leaf_hash, siblings })
    }

    /// Proves that the tree of size `to` begins with the tree of size `from`: 1 <= from <= to <= size.
    ///
    /// # Errors
    /// When the sizes are out of range, or the database cannot be read.
    pub fn prove_extension(&self, from: u64, to: u64) -> Result<Vec<Hash>, Error> {
        if to > self.size {
            return Err(Error::InvalidInput(format!("{to} is more than the {} leaves that are signed", self.size)));
        }
        prove_tree(to, from, &self.hashes())
    }

    /// The first `count` hashes of a tile.
    ///
    /// # Errors
    /// When the tree has fewer hashes, or they cannot be read.
    pub fn tile(&self, level: u8, index: u64, count: usize) -> Result<Vec<u8>, Error> {
        self.hashes().tile(level, index, count)
    }

    /// The data of the first `count` leaves of a bundle of 256, each preceded by its length as u16 (C2SP tlog-tiles).
    ///
    /// # Errors
    /// When the tree has fewer leaves, or they cannot be read.
    pub fn entries(&self, index: u64, count: usize) -> Result<Vec<u8>, Error> {
        let first = index.checked_mul(WIDTH as u64).ok_or(Error::IndexesNotInTree)?;
        let end = first.checked_add(count as u64).filter(|&end| end <= self.size).ok_or(Error::IndexesNotInTree)?;
        let mut bundle = Vec::with_capacity(count * 192);
        let failed = |error: StoreError| Error::InvalidInput(error.to_string());
        let mut events = self.rows.events_from(first).map_err(failed)?;
        for _ in first..end {
            let data = leaf::data(events.take_next().map_err(failed)?);
            // An agent's id has at most 256 bytes, so the length fits.
            bundle.extend_from_slice(&(data.len() as u16).to_be_bytes());
            bundle.extend_from_slice(&data);
        }
        Ok(bundle)
    }
}
