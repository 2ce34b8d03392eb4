//! Keys and values of the rows of the log, which [`super::rows`] lists.

use crate::ledger::format::keys::{Location, Position};
use cairn_proof::tree::HEIGHT;

/// The key of the progress.
pub const SIZE: &[u8] = b"s";
/// The key of the origin.
pub const ORIGIN: &[u8] = b"o";
/// The key of the positions at which the log begins.
pub const BASE: &[u8] = b"b";

/// The progress of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The number of leaves.
    pub size: u64,
    /// The position of the next event of each shard.
    pub next: Vec<Position>,
}

impl Progress {
    /// The value of the row.
    pub fn encode(&self) -> Vec<u8> {
        let numbers = [self.size].into_iter().chain(self.next.iter().map(|next| next.0));
        numbers.flat_map(u64::to_be_bytes).collect()
    }

    /// Decodes what [`Progress::encode`] wrote; `None` if it is damaged.
    pub fn decode(row: &[u8]) -> Option<Progress> {
        let (numbers, rest) = row.as_chunks::<8>();
        let (size, next) = numbers.split_first()?;
        let next = next.iter().map(|next| Position(u64::from_be_bytes(*next))).collect();
        rest.is_empty().then_some(Progress { size: u64::from_be_bytes(*size), next })
    }
}

/// A run of leaves: consecutive leaves whose events are at consecutive positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// The first leaf.
    pub leaf: u64,
    /// The location of the event of that leaf.
    pub location: Location,
}

impl Run {
    /// The row by which the location of a leaf is found: its key and its value.
    pub fn by_leaf(&self) -> ([u8; 9], [u8; 10]) {
        (leaf_key(self.leaf), self.location.encode())
    }

    /// The row by which the leaf of a location is found: its key and its value.
    pub fn by_location(&self) -> ([u8; 11], [u8; 8]) {
        (location_key(self.location), self.leaf.to_be_bytes())
    }

    /// Decodes the row by which the location of a leaf is found; `None` if it is damaged.
    pub fn decode_by_leaf(key: &[u8], value: &[u8]) -> Option<Run> {
        let leaf = u64::from_be_bytes(key.strip_prefix(b"l")?.try_into().ok()?);
        Some(Run { leaf, location: Location::decode(value)? })
    }

    /// Decodes the row by which the leaf of a location is found; `None` if it is damaged.
    pub fn decode_by_location(key: &[u8], value: &[u8]) -> Option<Run> {
        let location = Location::decode(key.strip_prefix(b"p")?)?;
        Some(Run { leaf: u64::from_be_bytes(value.try_into().ok()?), location })
    }
}

/// The key of a full tile.
pub fn tile_key(level: u8, index: u64) -> [u8; 9] {
    // The highest level is 7: a tile of it covers all the leaves that 64 bits can count.
    let last = (u128::from(index) << (HEIGHT * (level + 1))) | ((1 << (HEIGHT * (level + 1))) - 1);
    let mut key = [level; 9];
    key[..8].copy_from_slice(&(last as u64).to_be_bytes());
    key
}

/// The key of the row by which the location of a leaf is found.
pub fn leaf_key(leaf: u64) -> [u8; 9] {
    let mut key = [b'l'; 9];
    key[1..].copy_from_slice(&leaf.to_be_bytes());
    key
}

/// The key of the row by which the leaf of a location is found.
pub fn location_key(location: Location) -> [u8; 11] {
    let mut key = [b'p'; 11];
    key[1..].copy_from_slice(&location.encode());
    key
}
