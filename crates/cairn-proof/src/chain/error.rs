//! The error of an event that is refused.

use std::fmt;

use super::json::{self, Fault};

/// Why an event is refused. Nothing of a refused event is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventError {
    /// The kind of error.
    pub fault: Fault,
    /// The field and what was expected, for the sender of the event.
    pub message: String,
}

impl EventError {
    pub(super) fn content(message: impl Into<String>) -> EventError {
        EventError { fault: Fault::Content, message: message.into() }
    }
}

impl fmt::Display for EventError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for EventError {}

impl From<json::Error> for EventError {
    fn from(error: json::Error) -> EventError {
        EventError { fault: error.fault, message: error.to_string() }
    }
}
