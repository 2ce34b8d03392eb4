//! The transparency log: checkpoints, proofs, keys, attacks, and verification from outside.

pub mod attacks;
pub mod checkpoints;
pub mod follow;
pub mod keys;
pub mod merkle;
