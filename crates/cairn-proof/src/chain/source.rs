//! The API that received an event, and the values of fields that follow from it.

use std::fmt;

use super::labels::DefaultLabels;
use super::slots::Slots;

/// What the ids of recorders begin with: the agents whose events the server itself makes. `docs/recorder.md` describes them.
pub const RECORDER_PREFIX: &str = "cairn/";

/// Removes from an event what must not be stored, before it is hashed.
pub trait Redact: fmt::Debug + Sync {
    /// Changes the fields of an event. `slots` are their places in `values`, which are canonical; new values are appended to it
    /// and have to be canonical, too. The values may not be valid for their fields.
    fn redact(&self, values: &mut Vec<u8>, slots: &mut Slots);

    /// Changes a message about an event, which may quote it.
    fn message(&self, message: String) -> String;
}

/// The API that received an event, with the defaults that it sets.
#[derive(Debug, Clone, Copy)]
pub struct EventSource<'l> {
    /// The value of `source` if the client sent none.
    pub source: &'static str,
    /// The value of `capture_method`.
    pub capture_method: &'static str,
    /// The default labels, if there are any.
    pub labels: Option<&'l DefaultLabels>,
    /// Whether the event gets a salt.
    pub has_salt: bool,
    /// What removes secrets, if anything does.
    pub redactor: Option<&'l dyn Redact>,
}

impl<'l> EventSource<'l> {
    /// `POST /v1/events` and `POST /v1/batch`.
    pub const HTTP_API: Self =
        EventSource { source: "sdk", capture_method: "http-api", labels: None, has_salt: false, redactor: None };
    /// `POST /api/v1/capture-session` and `/api/v1/capture-event`.
    pub const AGNOST_API: Self =
        EventSource { source: "agnost", capture_method: "agnost-api", labels: None, has_salt: false, redactor: None };
    /// `POST /v1/traces` and `POST /v1/logs`.
    pub const OTLP: Self =
        EventSource { source: "otlp", capture_method: "otlp", labels: None, has_salt: false, redactor: None };

    /// The server itself.
    pub const RECORDER: Self =
        EventSource { source: "cairn", capture_method: "recorder", labels: None, has_salt: false, redactor: None };

    /// Whether the server itself is the source, so that the agent may be a recorder.
    pub fn is_recorder(self) -> bool {
        self.capture_method == EventSource::RECORDER.capture_method
    }

    /// Adds default labels.
    pub fn with_labels(self, labels: &'l DefaultLabels) -> EventSource<'l> {
        EventSource { labels: Some(labels), ..self }
    }

    /// Gives the event a salt, if `has_salt`.
    pub fn with_salt(self, has_salt: bool) -> EventSource<'l> {
        EventSource { has_salt, ..self }
    }

    /// Removes secrets.
    pub fn with_redactor(self, redactor: &'l dyn Redact) -> EventSource<'l> {
        EventSource { redactor: Some(redactor), ..self }
    }

    /// What an id is derived from: the event without default labels and salt, which may be others when it is sent again.
    pub fn for_ids(self) -> EventSource<'l> {
        EventSource { labels: None, has_salt: false, ..self }
    }

    /// Removes secrets from an event; see [`Redact::redact`].
    pub fn redact(self, values: &mut Vec<u8>, slots: &mut Slots) {
        if let Some(redactor) = self.redactor {
            redactor.redact(values, slots);
        }
    }

    /// Removes secrets from a message about an event; see [`Redact::message`].
    pub fn message(self, message: String) -> String {
        match self.redactor {
            Some(redactor) => redactor.message(message),
            None => message,
        }
    }

    /// Adds the default labels to those of an event; see [`DefaultLabels::add`].
    pub fn add_labels(self, values: &mut Vec<u8>, slots: &mut Slots) -> u16 {
        self.labels.map_or(0, |labels| labels.add(values, slots))
    }
}
