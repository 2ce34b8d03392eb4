//! How an event arrived, and the values that follow from it.

use super::labels::DefaultLabels;
use super::slots::Slots;

/// How an event came in; sets the fields that say so.
#[derive(Debug, Clone, Copy)]
pub struct EventSource<'l> {
    /// `source` when the client does not say.
    pub source: &'static str,
    /// `capture_method`.
    pub capture_method: &'static str,
    /// `labels` that the client does not say.
    pub labels: Option<&'l DefaultLabels>,
}

impl<'l> EventSource<'l> {
    /// `POST /v1/events` and `POST /v1/batch`.
    pub const HTTP_API: Self = EventSource { source: "sdk", capture_method: "http-api", labels: None };
    /// `POST /api/v1/capture-session` and `/api/v1/capture-event`.
    pub const AGNOST_API: Self = EventSource { source: "agnost", capture_method: "agnost-api", labels: None };
    /// `POST /v1/traces` and `POST /v1/logs`.
    pub const OTLP: Self = EventSource { source: "otlp", capture_method: "otlp", labels: None };

    /// The same with these labels on every event.
    pub fn with_labels(self, labels: &'l DefaultLabels) -> EventSource<'l> {
        EventSource { labels: Some(labels), ..self }
    }

    /// Puts its labels among those of an event, see [`DefaultLabels::add`].
    pub fn add_labels(self, values: &mut Vec<u8>, slots: &mut Slots) -> u16 {
        self.labels.map_or(0, |labels| labels.add(values, slots))
    }
}
