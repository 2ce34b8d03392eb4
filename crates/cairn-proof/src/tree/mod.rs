//! The Merkle tree of the log (RFC 6962, section 2.1): leaves, tiles, and the checkpoints that sign it.
//!
//! Formats: `docs/verification.md`, "Rules for the log". Proofs, and the hashes of leaves and nodes, come from the
//! crate `tlog_tiles`.

pub mod checkpoint;
pub mod edge;
pub mod leaf;
pub mod note_keys;
pub mod tile_path;

pub use checkpoint::Head;
pub use edge::{Edge, FullTile, HEIGHT, Hashes, TileBytes, Tiles, WIDTH};
pub use leaf::LeafHasher;
pub use tile_path::TilePath;
pub use tlog_tiles::{Hash as NodeHash, Tile};
