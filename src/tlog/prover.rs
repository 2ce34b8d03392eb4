//! Proves many events of one tree, one after another.
//!
//! The siblings of a leaf are roots of subtrees within tiles. The subtrees of a tile are cached once they are hashed,
//! so that proving an agent's whole chain hashes each tile once instead of once per event.

use std::cell::RefCell;
use std::num::NonZeroUsize;
use std::sync::Arc;

use lru::LruCache;
use tlog_tiles::{Error, HASH_SIZE, Hash, HashReader, node_hash, prove_record, split_stored_hash_index};

use cairn_proof::tree::{HEIGHT, WIDTH};

use super::leaf;
use super::signed::{Proof, SignedTree};
use crate::ledger::format::keys::Location;
use crate::ledger::format::record::RecordRef;
use crate::ledger::store::StoreError;

/// The number of cached tiles, of 16 KiB each: per level the one above the leaf and the last one.
const CACHED_TILES: NonZeroUsize = NonZeroUsize::new(24).unwrap();

/// Proves that events are in one signed tree.
pub struct Prover {
    signed: Arc<SignedTree>,
    tiles: RefCell<LruCache<(u8, u64), Subtrees>>,
    /// The run of leaves of the last event: its first event, its first leaf, and the position after its last event.
    run: Option<(Location, u64, u64)>,
}

/// The roots of the subtrees within a tile, by height: the hashes of the tile, the hashes of pairs of these, and so on.
type Subtrees = Vec<Vec<Hash>>;

impl Prover {
    /// A prover for a signed tree.
    pub fn new(signed: Arc<SignedTree>) -> Prover {
        Prover { signed, tiles: RefCell::new(LruCache::new(CACHED_TILES)), run: None }
    }

    /// The signed tree.
    pub fn signed(&self) -> &Arc<SignedTree> {
        &self.signed
    }

    /// Proves that the event at `location` is in the tree, which must cover it. The same as [`SignedTree::prove`].
    ///
    /// # Errors
    /// When the database cannot be read.
    pub fn prove(&mut self, location: Location, record: RecordRef<'_>) -> Result<Proof, StoreError> {
        let leaf = self.leaf_of(location)?;
        let store = self.signed.rows.store();
        let damaged = |error: Error| store.damaged(format!("the log cannot be read: {error}"));
        let siblings = prove_record(self.signed.size, leaf, &*self).map_err(damaged)?;
        Ok(Proof { leaf, leaf_hash: leaf::hash(record), siblings })
    }

    fn leaf_of(&mut self, location: Location) -> Result<u64, StoreError> {
        let position = location.position.0;
        let within = |(first, _, end): &(Location, u64, u64)| {
            first.shard == location.shard && (first.position.0..*end).contains(&position)
        };
        let (first, leaf, _) = match self.run.filter(within) {
            Some(run) => run,
            None => *self.run.insert(self.signed.rows.run_of(location)?),
        };
        Ok(leaf + (position - first.position.0))
    }

    fn subtrees(&self, level: u8, index: u64) -> Result<Subtrees, Error> {
        let on_level = self.signed.size >> (HEIGHT * level);
        let count = on_level.saturating_sub(index.saturating_mul(WIDTH as u64)).min(WIDTH as u64) as usize;
        let bytes = self.signed.tile(level, index, count)?;
        let hashes: Vec<Hash> = bytes.as_chunks::<HASH_SIZE>().0.iter().map(|hash| Hash(*hash)).collect();
        let mut heights = vec![hashes];
        while let Some([_, _, ..]) = heights.last().map(Vec::as_slice) {
            let below = &heights[heights.len() - 1];
            heights.push(below.as_chunks::<2>().0.iter().map(|[left, right]| node_hash(*left, *right)).collect());
        }
        Ok(heights)
    }
}

impl HashReader for Prover {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<Hash>, Error> {
        let mut tiles = self.tiles.borrow_mut();
        let read = |index: &u64| {
            let (level, n) = split_stored_hash_index(*index);
            let (tile_level, height) = (level / HEIGHT, level % HEIGHT);
            let first = n << height;
            let tile = first / WIDTH as u64;
            let subtrees = tiles.try_get_or_insert((tile_level, tile), || self.subtrees(tile_level, tile))?;
            let within = (first % WIDTH as u64) as usize >> height;
            let hash = subtrees.get(usize::from(height)).and_then(|roots| roots.get(within));
            hash.copied().ok_or(Error::IndexesNotInTree)
        };
        indexes.iter().map(read).collect()
    }
}
