//! What the server records of itself, and the erasure of events.

pub mod canaries;
pub mod interrupted;
pub mod proofs;
pub mod recorder;
pub mod requests;
