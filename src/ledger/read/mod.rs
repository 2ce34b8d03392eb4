//! Reads committed events: single rows, ranges, the latest commits from memory, and new commits as a consumer with a
//! cursor.

pub mod committed;
pub mod events;
pub mod follower;
pub mod index;
pub mod lookup;
pub mod merge;
pub mod received;
pub mod recent;
pub mod runs;
mod term_groups;
