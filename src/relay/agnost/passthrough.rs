//! Passes on events that came by the Agnost API as they were sent: all their fields, under the organization that they
//! came with. Missing ids and times are added, and values that ingest redacted stay redacted. Specified in
//! `docs/agnost.md`, section "Events that came by the Agnost API".

use std::borrow::Cow;

use uuid::Uuid;

use crate::relay::config::ContentConfig;
use crate::relay::event::RelayEvent;
use cairn_proof::chain::object::Object;
use cairn_proof::chain::{EventSource, Field, scan};

/// The `action_name` of the event that stores a session.
const SESSION_NAME: &str = "capture-session";
/// The members that are always generated, whatever was sent under these names.
const GENERATED: [&[u8]; 2] = [b"event_id", b"timestamp"];

/// A request of the Agnost API, rebuilt from the stored event.
pub struct PassthroughRequest<'e, 'r> {
    event: &'e RelayEvent<'r>,
    /// The members of the request that are not fields of the event: a canonical object.
    rest: &'r [u8],
}

impl<'e, 'r> PassthroughRequest<'e, 'r> {
    /// The request that an event came by; `None` if it did not come by the Agnost API.
    pub fn of(event: &'e RelayEvent<'r>) -> Option<PassthroughRequest<'e, 'r>> {
        let is_agnost_api =
            event.text(Field::CaptureMethod).is_some_and(|method| method == EventSource::AGNOST_API.capture_method);
        is_agnost_api.then(|| PassthroughRequest { event, rest: event.metadata("agnost").unwrap_or(b"{}") })
    }

    /// Whether the request announced a session.
    pub fn is_session(&self) -> bool {
        let has_session_name = self.event.text(Field::ActionName).is_some_and(|name| name == SESSION_NAME);
        has_session_name && scan::member(self.rest, "primitive_name").is_none()
    }

    /// The organization of the request, if it is a UUID.
    pub fn org(&self) -> Option<Cow<'r, str>> {
        let org = self.event.metadata("org_id").and_then(scan::text)?;
        // Any other value might not be a valid header value.
        Uuid::try_parse(&org).is_ok().then_some(org)
    }

    /// The body of the request, with missing fields added. `session` makes the id of a session without one; `timestamp`
    /// is in ms since 1970.
    pub fn body(&self, content: ContentConfig, session: impl FnOnce() -> Uuid, timestamp: i128) -> Vec<u8> {
        let event = self.event;
        let mut body = Object::with_capacity(event.record.canonical().len() + 128);
        let is_event = !self.is_session();
        for (name, value) in scan::members(self.rest) {
            let is_mapped = name == b"primitive_name" && is_event && event.value(Field::ActionName).is_some();
            if !is_mapped && !GENERATED.contains(&name) {
                body.key(name);
                body.value(value);
            }
        }
        match event.value(Field::SessionId) {
            Some(session) => body.raw("session_id", session),
            None if scan::member(self.rest, "session_id").is_some() => {}
            None => body.text("session_id", session().hyphenated().encode_lower(&mut Uuid::encode_buffer())),
        }
        body.integer("timestamp", timestamp);
        if !is_event {
            return body.close();
        }
        body.raw("event_id", event.value(Field::Id).unwrap_or_default());
        let is_full = content == ContentConfig::Full;
        for (name, field, is_sent) in [
            ("primitive_name", Field::ActionName, true),
            ("args", Field::ActionInput, is_full),
            ("result", Field::ActionOutput, is_full),
            ("latency", Field::DurationMs, true),
        ] {
            match event.value(field) {
                Some(value) if is_sent => body.raw(name, value),
                Some(_) => body.text(name, ""),
                None => {}
            }
        }
        if let Some(status) = event.text(Field::ActionStatus) {
            body.raw("success", if status == "success" { b"true" } else { b"false" });
        }
        body.close()
    }
}
