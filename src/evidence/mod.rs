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

pub mod check;
pub mod follow;
pub mod package;
pub mod stream;
pub mod told;
pub mod trail;
pub mod verdict;

/// The version of the format.
pub const VERSION: &str = "1.0";
