//! Verification of evidence packages and of whole logs.
//!
//! An evidence package is one file with the events of one agent, their proofs and the signed checkpoint. Its format and
//! its verification are specified in `docs/verification.md`, "Evidence package" and "How a verifier checks a package";
//! the checks of a log in "How a monitor checks a log". Nothing here reads a ledger or uses the network: the input is a
//! stream or a [`follow::LogSource`].
//!
//! | module | content |
//! |---|---|
//! | [`package`] | reads a package member by member and verifies it: [`verify`] |
//! | [`verdict`] | the result, layer by layer: [`Verdict`] |
//! | [`follow`] | reads a log up to each new checkpoint: [`follow::Follower`] |
//! | [`erasures`] | the erasures that a recorder has recorded |
//! | [`recorder`] | when a server was up, down or refusing, by the events of its recorder |
//! | [`monitor`] | checks the sequences of all agents in the leaves of a log: [`Monitor`] |
//! | `check` | the layers `events`, `chain`, `tree` and `checkpoint` |
//! | `recorded` | the layers `recorder` and `erasures` |
//! | `retained` | the layer `retention` |
//! | `claims`, `package_event` | parse the members, events and proofs of a package |
//! | `json_stream` | reads a JSON text of any size, value by value |
//! | `list_digest` | compares two lists of any size with bounded memory |

mod check;
mod claims;
pub mod erasures;
pub mod follow;
mod json_stream;
mod list_digest;
pub mod monitor;
pub mod package;
mod package_event;
mod recorded;
pub mod recorder;
mod retained;
pub mod verdict;

pub use claims::HexHash;
pub use erasures::{Erased, Erasures};
pub use monitor::Monitor;
pub use package::verify;
pub use recorder::RecorderReport;
pub use retained::{Dropped, anchor_leaf};
pub use verdict::{Finding, Outcome, Verdict};
