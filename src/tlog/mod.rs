//! The transparency log: one RFC 6962 tree over all events, signed at intervals.
//!
//! A chain does not show that its tail was cut off, nor that it was rewritten from its start. A signed checkpoint that has left
//! the machine shows both.
//!
//! | file | |
//! |---|---|
//! | [`leaf`] | the leaf of a stored event |
//! | [`rows`] | the log on disk |
//! | [`keys`] | the signing keys |
//! | [`checkpoint`] | signing, and the file with the last checkpoint |
//! | [`sequencer`] | the consumer: makes every committed event a leaf, and signs |
//! | [`signed`] | a signed tree and its proofs |
//! | [`prover`] | proofs of many events |
//! | [`state`] | what the consumer shares with everyone else |
//! | [`log`] | the log of a running ledger, and its thread |
//!
//! Nothing here is on the path of an answer. Tree, tiles and verification are in `cairn_proof::tree`.

pub mod checkpoint;
mod config;
pub mod keys;
pub mod leaf;
mod log;
mod prover;
pub mod rows;
mod sequencer;
mod signed;
mod state;

pub use config::LogConfig;
pub use log::{Log, LogThread, origin};
pub use prover::Prover;
pub use signed::{Proof, Signed};
pub use state::State;
