//! What a verifier needs, and nothing else: events, their canonical bytes, and the chain that links them.
//!
//! Everything here is pure. There is no I/O, no async, no clock and no randomness; time and ids come from the
//! caller. The rules are those of RFC 8785 (JSON Canonicalization Scheme) with one difference, described in
//! [`number`], and of the README's section "The rules a verifier needs".

pub mod canonical;
pub mod content;
pub mod error;
pub mod event;
pub mod fields;
pub mod json;
pub mod labels;
pub mod link;
pub mod number;
pub mod object;
pub mod scan;
pub mod slots;
pub mod source;
pub mod string;
pub mod time;
mod validate;
pub mod walk;

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

pub use content::{Content, LastAgent, Placeholders};
pub use error::EventError;
pub use event::EventReader;
pub use fields::{ACTION_TYPE, Field};
pub use json::canonicalize;
pub use labels::{DEFAULT_LABELS_MAX, DefaultLabels};
pub use link::{AgentKey, AgentMap, Hash, Sequence};
pub use slots::{Slot, Slots};
pub use source::EventSource;
pub use validate::{field as check_field, is_agent_id};
pub use walk::{Break, BreakKind, Link, Walk};
