//! Events that came by the Agnost API go on as they were sent: all their fields, under the organization that they came
//! with. What was missing is added, and secrets stay out, as on the way in.

use std::borrow::Cow;

use uuid::Uuid;

use crate::relay::config::ContentConfig;
use crate::relay::event::RelayEvent;
use cairn_proof::chain::object::Object;
use cairn_proof::chain::{EventSource, Field, scan};

/// What a session's event is called.
const SESSION_NAME: &str = "capture-session";
/// The members that are put together anew, whatever was sent under these names.
const OURS: [&[u8]; 2] = [b"event_id", b"timestamp"];

/// A request of the Agnost API, as it was stored.
pub struct PassthroughRequest<'e, 'r> {
    event: &'e RelayEvent<'r>,
    /// What has no field of its own in an event: a canonical object.
    rest: &'r [u8],
}

impl<'e, 'r> PassthroughRequest<'e, 'r> {
    /// The request that an event came by, if it came by the Agnost API.
    pub fn of(event: &'e RelayEvent<'r>) -> Option<PassthroughRequest<'e, 'r>> {
        let is_one =
            event.text(Field::CaptureMethod).is_some_and(|method| method == EventSource::AGNOST_API.capture_method);
        is_one.then(|| PassthroughRequest { event, rest: event.metadata("agnost").unwrap_or(b"{}") })
    }

    /// Whether it told of a session.
    pub fn is_session(&self) -> bool {
        let is_called_so = self.event.text(Field::ActionName).is_some_and(|name| name == SESSION_NAME);
        is_called_so && scan::member(self.rest, "primitive_name").is_none()
    }

    /// The organization that it came with.
    pub fn org(&self) -> Option<Cow<'r, str>> {
        let org = self.event.metadata("org_id").and_then(scan::text)?;
        // Anything else would make no header.
        Uuid::try_parse(&org).is_ok().then_some(org)
    }

    /// The body, with what was missing. `session` names a session that was not named; `timestamp` is in ms since 1970.
    pub fn body(&self, content: ContentConfig, session: impl FnOnce() -> Uuid, timestamp: i128) -> Vec<u8> {
        let event = self.event;
        let mut body = Object::with_capacity(event.record.canonical().len() + 128);
        let is_event = !self.is_session();
        for (name, value) in scan::members(self.rest) {
            let is_mapped = name == b"primitive_name" && is_event && event.value(Field::ActionName).is_some();
            if !is_mapped && !OURS.contains(&name) {
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
        let shown = content == ContentConfig::Full;
        for (name, field, is_shown) in [
            ("primitive_name", Field::ActionName, true),
            ("args", Field::ActionInput, shown),
            ("result", Field::ActionOutput, shown),
            ("latency", Field::DurationMs, true),
        ] {
            match event.value(field) {
                Some(value) if is_shown => body.raw(name, value),
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
