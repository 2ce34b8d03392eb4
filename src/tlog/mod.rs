//! The transparency log: one Merkle tree (RFC 6962) over all events of a ledger, signed at intervals.
//! `docs/verification.md` specifies it.
//!
//! A chain alone does not show that its tail was removed, or that it was rewritten from its start. A signed checkpoint
//! that has left the machine shows both.
//!
//! | file | |
//! |---|---|
//! | [`leaf`] | the leaf of a stored event |
//! | [`rows`] | the log on disk |
//! | [`format`] | keys and values of its rows |
//! | [`keys`] | the signing keys and their file |
//! | [`checkpoint`] | signs checkpoints; the file with the last one |
//! | [`new_log`] | begins a new log |
//! | [`sequencer`] | the consumer: makes every committed event a leaf, and signs the tree |
//! | [`signed`] | a signed tree and its proofs |
//! | [`prover`] | proofs of many events |
//! | [`prune`] | drops the part that leads to events which retention drops |
//! | [`state`] | the state that the log thread shares with other threads |
//! | [`log`] | the log of a running ledger, and its thread |
//!
//! Nothing here is on the path of a commit. Trees, tiles and their verification are in `cairn_proof::tree`.

pub mod checkpoint;
mod config;
mod format;
pub mod keys;
pub mod leaf;
mod log;
pub mod new_log;
mod prover;
pub mod prune;
pub mod rows;
mod sequencer;
mod signed;
mod state;

pub use config::LogConfig;
pub use log::{Log, LogThread, origin};
pub use prover::Prover;
pub use signed::{Proof, SignedTree};
pub use state::State;
