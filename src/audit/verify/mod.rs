//! Verifies the ledger: the chain of one agent, or everything.
//!
//! The rules are specified in `docs/verification.md`; those of single events and links are in [`cairn_proof::chain`].
//!
//! Verdicts on chains depend on `events`, `chain` and `agents` alone, which every commit writes together, so that
//! another process can verify a ledger while it is being written.
//!
//! | file | |
//! |---|---|
//! | [`agent`] | the chain of one agent |
//! | [`full`] | everything: every chain, the rows that locate events, and the log |
//! | [`scan`] | reads every event once, in the order of the log |
//! | [`chunk`], [`pool`] | hashes and checks events on all cores |
//! | [`chains`] | follows the chains of the events that were read |
//! | [`dropped`] | compares what retention has dropped with what is recorded |
//! | [`erasures`] | compares erased events with the erasures that are recorded |
//! | [`rows`] | checks every row that follows from the events |
//! | [`log`] | rebuilds the tree and compares it with the stored one |
//! | [`report`] | collects the findings |

mod agent;
mod chains;
mod chunk;
mod dropped;
mod erasures;
mod full;
mod log;
mod pool;
mod report;
mod rows;
mod scan;

pub use agent::{ChainVerdict, agent};
pub use full::{Summary, all};
pub use log::LogVerdict;
pub use report::Observer;
pub use rows::fault::{FaultKind, Repair, RowFault};
pub use rows::index::{IndexVerdict, check as index};
