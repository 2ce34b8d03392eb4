//! Reads what was committed: single rows, whole ranges, the latest commits in memory, and behind a cursor.

pub mod committed;
pub mod events;
pub mod follower;
pub mod index;
pub mod lookup;
pub mod merge;
pub mod recent;
pub mod runs;
