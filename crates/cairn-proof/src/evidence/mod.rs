//! Evidence packages: one agent's events with all that proves them, in one file (spec: the README's "For the auditor").
//!
//! A package is checked with nothing but itself and a key. Nothing here reads a ledger, or asks anybody.
//!
//! | file | |
//! |---|---|
//! | [`package`] | the file, member by member |
//! | [`stream`] | JSON that may be longer than memory |
//! | [`told`] | one event, as the package tells it |
//! | [`check`] | the layers: events, chain, tree, checkpoint |
//! | [`trail`] | whether two long lists are the same, without keeping either |
//! | [`verdict`] | what was found, a layer at a time |
//! | [`follow`] | the reader of every leaf of a log |

mod check;
mod claims;
pub mod follow;
mod json_stream;
mod list_digest;
pub mod monitor;
pub mod package;
mod package_event;
pub mod verdict;

pub use monitor::Monitor;
pub use package::verify;
pub use verdict::{Finding, Outcome, Verdict};
