//! Events, their canonical bytes, and the chain that links the events of an agent.
//!
//! The fields of an event and their validation are specified in `docs/events.md`; canonical bytes, hash and chain in
//! `docs/verification.md`, "Rules for events". Canonical bytes are those of RFC 8785 (JSON Canonicalization Scheme)
//! with one difference, described in [`number`].
//!
//! The module has no I/O, no async code, no clock and no randomness; times and ids come from the caller.
//!
//! | modules | content |
//! |---|---|
//! | [`json`], [`string`], [`number`] | canonicalize any JSON text: [`canonicalize`] |
//! | [`scan`], [`canonical`] | read canonical bytes, and check quickly whether bytes are canonical |
//! | [`fields`], [`event`], [`content`], [`labels`], [`source`] | read an event that was received: [`EventReader`] |
//! | [`link`], [`walk`] | hash an event, and verify a chain: [`Hash`], [`Walk`] |
//! | [`stub`] | what remains of an erased event: [`Stub`] |
//! | [`object`], [`time`] | write JSON objects and RFC 3339 times |

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
pub mod stub;
pub mod time;
mod validate;
pub mod walk;

#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

pub use content::{Content, LastValues, Placeholders};
pub use error::EventError;
pub use event::EventReader;
pub use fields::{DEFAULT_ACTION_TYPE, Field};
pub use json::canonicalize;
pub use labels::{DEFAULT_LABELS_MAX, DefaultLabels};
pub use link::{AgentKey, AgentMap, Hash, Sequence};
pub use slots::{Slot, Slots};
pub use source::{EventSource, RECORDER_PREFIX, Redact};
pub use stub::{ErasedBy, Stub};
pub use validate::{field as check_field, is_agent_id};
pub use walk::{Break, BreakKind, Link, Walk};
