//! The right edge of the tree: the hashes that are not in full tiles yet.
//!
//! A tile has 256 hashes of one level; the levels of tiles are eight levels of the tree apart (C2SP tlog-tiles). Tile
//! `n` of level 0 has the hashes of leaves 256 n to 256 n + 255, tile `n` of level 1 the roots of 256 tiles of level 0,
//! and so on. A full tile never changes. An [`Edge`] holds the last, partial tile of each level; the caller stores the
//! full tiles and reads them through [`Tiles`].

use tlog_tiles::{EMPTY_HASH, Error, HASH_SIZE, Hash, HashReader, Tile, node_hash, split_stored_hash_index};

/// The number of hashes of a full tile.
pub const WIDTH: usize = 256;
/// The number of levels of the tree that one level of tiles spans.
pub const HEIGHT: u8 = 8;
/// The maximum number of levels of tiles: 2^64 leaves have eight.
const LEVELS: u8 = 8;

/// The hashes of a tile, 32 bytes each.
pub type TileBytes = Vec<u8>;

/// A tile with all of its 256 hashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FullTile {
    /// The level of the tile.
    pub level: u8,
    /// The number of the tile on its level.
    pub index: u64,
    /// Its 256 hashes.
    pub bytes: TileBytes,
}

/// The partial tiles of a tree, at most one per level.
#[derive(Debug, Clone, Default)]
pub struct Edge {
    size: u64,
    /// By level, the hashes of the partial tile: fewer than 256 each.
    levels: Vec<TileBytes>,
}

impl Edge {
    /// Restores the edge of a tree of `size` leaves. `hashes(level, first, count)` returns `count` hashes of a level,
    /// beginning with number `first`.
    ///
    /// # Errors
    /// When `hashes` fails.
    pub fn rebuild<E>(size: u64, mut hashes: impl FnMut(u8, u64, usize) -> Result<TileBytes, E>) -> Result<Edge, E> {
        let mut edge = Edge { size, levels: Vec::new() };
        for level in 0..LEVELS {
            let on_level = size >> (HEIGHT * level);
            if on_level == 0 {
                break;
            }
            let count = on_level % WIDTH as u64;
            edge.levels.push(match count {
                0 => TileBytes::new(),
                _ => hashes(level, on_level - count, count as usize)?,
            });
        }
        Ok(edge)
    }

    /// The hashes of the partial tiles, by level: the input of [`Edge::rebuild`].
    pub fn levels(&self) -> &[TileBytes] {
        &self.levels
    }

    /// The number of leaves of the tree.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The hashes of the partial tile of a level; empty if there is none.
    pub fn hashes(&self, level: u8) -> &[u8] {
        self.levels.get(usize::from(level)).map_or(&[], Vec::as_slice)
    }

    /// Appends a leaf, and calls `on_full` with each tile that it completes.
    pub fn push(&mut self, leaf: Hash, on_full: impl FnMut(FullTile)) {
        self.size += 1;
        self.add(0, leaf, on_full);
    }

    /// Appends 256 leaves of which only the root is known, and calls `on_full` with each tile of a higher level that they complete.
    /// Returns false, and appends nothing, if the last tile of level 0 is not full.
    pub fn push_tile(&mut self, root: Hash, on_full: impl FnMut(FullTile)) -> bool {
        if !self.hashes(0).is_empty() {
            return false;
        }
        if self.levels.is_empty() {
            self.levels.push(TileBytes::new());
        }
        self.size += WIDTH as u64;
        self.add(1, root, on_full);
        true
    }

    fn add(&mut self, first_level: u8, hash: Hash, mut on_full: impl FnMut(FullTile)) {
        let mut hash = hash;
        for level in first_level..LEVELS {
            let at = usize::from(level);
            if self.levels.len() == at {
                self.levels.push(TileBytes::with_capacity(WIDTH * HASH_SIZE));
            }
            self.levels[at].extend_from_slice(&hash.0);
            if self.levels[at].len() < WIDTH * HASH_SIZE {
                return;
            }
            let bytes = std::mem::take(&mut self.levels[at]);
            hash = Tile::subtree_hash(&bytes);
            on_full(FullTile { level, index: (self.size >> (HEIGHT * (level + 1))) - 1, bytes });
        }
    }

    /// The root of the tree (RFC 6962, section 2.1).
    pub fn root(&self) -> Hash {
        let mut root: Option<Hash> = None;
        // Complete subtrees are joined from right to left.
        for hashes in &self.levels {
            let mut rest = &hashes[..];
            while !rest.is_empty() {
                let count = rest.len() / HASH_SIZE;
                let subtree = 1 << count.trailing_zeros();
                let (before, last) = rest.split_at((count - subtree) * HASH_SIZE);
                let last = Tile::subtree_hash(last);
                root = Some(root.map_or(last, |right| node_hash(last, right)));
                rest = before;
            }
        }
        root.unwrap_or(EMPTY_HASH)
    }
}

/// Access to the full tiles of a tree.
pub trait Tiles {
    /// Returns the 256 hashes of a full tile.
    ///
    /// # Errors
    /// When the tile cannot be read.
    fn tile(&self, level: u8, index: u64) -> Result<TileBytes, String>;
}

/// Reads any hash of a tree from its full tiles and its edge.
pub struct Hashes<'a, T> {
    /// The full tiles.
    pub tiles: &'a T,
    /// The partial tiles.
    pub edge: &'a Edge,
}

impl<T: Tiles> Hashes<'_, T> {
    /// Returns the first `count` hashes of a tile, full or partial.
    ///
    /// # Errors
    /// When the tree does not have that many hashes there, or they cannot be read.
    pub fn tile(&self, level: u8, index: u64, count: usize) -> Result<TileBytes, Error> {
        let missing = || Error::IndexesNotInTree;
        if level >= LEVELS || count > WIDTH {
            return Err(missing());
        }
        let on_level = self.edge.size() >> (HEIGHT * level);
        let first = index.checked_mul(WIDTH as u64).ok_or_else(missing)?;
        if first.checked_add(count as u64).is_none_or(|end| end > on_level) {
            return Err(missing());
        }
        if first + WIDTH as u64 <= on_level {
            let mut bytes = self.tiles.tile(level, index).map_err(Error::InvalidInput)?;
            bytes.truncate(count * HASH_SIZE);
            return Ok(bytes);
        }
        self.edge.hashes(level).get(..count * HASH_SIZE).map(<[u8]>::to_vec).ok_or_else(missing)
    }
}

impl<T: Tiles> HashReader for Hashes<'_, T> {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<Hash>, Error> {
        let read = |index: &u64| {
            let (level, n) = split_stored_hash_index(*index);
            let (tile_level, within) = (level / HEIGHT, level % HEIGHT);
            let first = n << within;
            let offset = (first % WIDTH as u64) as usize;
            let count = 1 << within;
            let bytes = self.tile(tile_level, first / WIDTH as u64, offset + count)?;
            Ok(Tile::subtree_hash(&bytes[offset * HASH_SIZE..]))
        };
        indexes.iter().map(read).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tlog_tiles::{check_record, check_tree, prove_record, prove_tree, record_hash};

    use super::*;

    #[derive(Default)]
    struct Memory(HashMap<(u8, u64), TileBytes>);

    impl Tiles for Memory {
        fn tile(&self, level: u8, index: u64) -> Result<TileBytes, String> {
            self.0.get(&(level, index)).cloned().ok_or_else(|| format!("no tile {level} {index}"))
        }
    }

    /// The definition in RFC 6962, section 2.1.
    fn root(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => EMPTY_HASH,
            [leaf] => *leaf,
            _ => {
                let k = leaves.len().next_power_of_two() / 2;
                node_hash(root(&leaves[..k]), root(&leaves[k..]))
            }
        }
    }

    fn leaf(n: u64) -> Hash {
        record_hash(&n.to_be_bytes())
    }

    #[test]
    fn roots_and_proofs_match_the_rfc_across_tile_boundaries() {
        let (mut edge, mut tiles) = (Edge::default(), Memory::default());
        let mut leaves = Vec::new();
        let mut roots = HashMap::new();
        assert_eq!(edge.root(), EMPTY_HASH);
        let checked = [1, 2, 3, 7, 255, 256, 257, 300, 511, 512, 513, 1000, 65_535, 65_536, 65_537, 65_900];
        for n in 0..65_900u64 {
            leaves.push(leaf(n));
            edge.push(leaf(n), |tile| assert!(tiles.0.insert((tile.level, tile.index), tile.bytes).is_none()));
            if checked.contains(&edge.size()) {
                assert_eq!(edge.root(), root(&leaves), "{}", edge.size());
                roots.insert(edge.size(), edge.root());
            }
        }
        assert_eq!(tiles.0.len(), 257 + 1);
        let hashes = Hashes { tiles: &tiles, edge: &edge };
        for old in checked {
            // Proofs of a smaller tree are read from the tiles of a larger one.
            for size in checked.into_iter().filter(|&size| size >= old) {
                let proof = prove_tree(size, old, &hashes).unwrap();
                check_tree(&proof, size, roots[&size], old, roots[&old]).unwrap();
                let proof = prove_record(size, old - 1, &hashes).unwrap();
                check_record(&proof, size, roots[&size], old - 1, leaf(old - 1)).unwrap();
            }
        }
        let mut of_tiles = Edge::default();
        for tile in 0..257 {
            let root = Tile::subtree_hash(&tiles.0[&(0, tile)]);
            assert!(of_tiles.push_tile(root, |tile| assert_eq!(tiles.0[&(tile.level, tile.index)], tile.bytes)));
        }
        (0..65_900 - 257 * 256).for_each(|n| of_tiles.push(leaf(257 * 256 + n), |_| {}));
        assert_eq!((of_tiles.size(), of_tiles.root()), (edge.size(), edge.root()));
        assert!(!of_tiles.push_tile(EMPTY_HASH, |_| {}), "the last tile is not full");
        for size in checked {
            let rebuilt = Edge::rebuild(size, |level, first, count| {
                hashes.tile(level, first / WIDTH as u64, (first % WIDTH as u64) as usize + count)
            });
            let rebuilt = rebuilt.unwrap();
            assert_eq!((rebuilt.size(), rebuilt.root()), (size, roots[&size]));
        }
        assert!(hashes.tile(0, 257, 200).is_err() && hashes.tile(0, u64::MAX, 1).is_err());
        assert!(hashes.tile(9, 0, 1).is_err() && hashes.tile(0, 0, 257).is_err());
    }
}
