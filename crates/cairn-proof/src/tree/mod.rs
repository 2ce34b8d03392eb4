//! The log's Merkle tree (RFC 6962): leaves, tiles, proofs, and the checkpoints that sign it.

pub mod checkpoint;
pub mod edge;
pub mod leaf;
pub mod note_keys;
pub mod tile_path;

pub use checkpoint::Head;
pub use edge::{Edge, HEIGHT, Hashes, TileBytes, Tiles, WIDTH, WholeTile};
pub use leaf::LeafHasher;
pub use tile_path::TilePath;
pub use tlog_tiles::{Hash as NodeHash, Tile};
