//! The API that received an event, and the values of fields that follow from it.

use super::labels::DefaultLabels;
use super::slots::Slots;

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
}

impl<'l> EventSource<'l> {
    /// `POST /v1/events` and `POST /v1/batch`.
    pub const HTTP_API: Self = EventSource { source: "sdk", capture_method: "http-api", labels: None, has_salt: false };
    /// `POST /api/v1/capture-session` and `/api/v1/capture-event`.
    pub const AGNOST_API: Self =
        EventSource { source: "agnost", capture_method: "agnost-api", labels: None, has_salt: false };
    /// `POST /v1/traces` and `POST /v1/logs`.
    pub const OTLP: Self = EventSource { source: "otlp", capture_method: "otlp", labels: None, has_salt: false };

    /// Adds default labels.
    pub fn with_labels(self, labels: &'l DefaultLabels) -> EventSource<'l> {
        EventSource { labels: Some(labels), ..self }
    }

    /// Gives the event a salt, if `has_salt`.
    pub fn with_salt(self, has_salt: bool) -> EventSource<'l> {
        EventSource { has_salt, ..self }
    }

    /// Adds the default labels to those of an event; see [`DefaultLabels::add`].
    pub fn add_labels(self, values: &mut Vec<u8>, slots: &mut Slots) -> u16 {
        self.labels.map_or(0, |labels| labels.add(values, slots))
    }
}
