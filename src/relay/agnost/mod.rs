//! The destination type `agnost`: sends events to Agnost AI by `POST {endpoint}/api/v1/capture-event`, after announcing
//! each session once by `/api/v1/capture-session`. Every request has the header `x-org-id`. The mapping is specified in
//! `docs/agnost.md`, section "What Agnost receives".

use std::borrow::Cow;
use std::collections::HashSet;

use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::config::ContentConfig;
use super::destination::{Destination, SendFuture, SessionKey};
use super::event::RelayEvent;
mod passthrough;
use super::upstream::Upstream;
use cairn_proof::chain::object::Object;
use cairn_proof::chain::{Field, scan, time};
use passthrough::PassthroughRequest;

/// The header with the organization.
pub const ORG_HEADER: &str = "x-org-id";
const EVENT_PATH: &str = "/api/v1/capture-event";
const SESSION_PATH: &str = "/api/v1/capture-session";

/// The names of the label or metadata member with the user of a session, in order of precedence.
const USER_IDS: [&str; 2] = ["user_id", "enduser.id"];

/// A destination: one organization at Agnost.
pub struct Agnost {
    /// The organization, which is also the namespace of the ids of sessions whose `session_id` is not a UUID.
    pub org: Uuid,
    /// Whether inputs and outputs are sent.
    pub content: ContentConfig,
    /// Sends the requests.
    pub upstream: Upstream,
}

impl Destination for Agnost {
    fn session(&self, event: &RelayEvent<'_>) -> SessionKey {
        if let Some(passthrough) = PassthroughRequest::of(event) {
            let org = passthrough.org().unwrap_or_default();
            let digest = Sha256::new().chain_update(event.session_name()).chain_update(org.as_bytes()).finalize();
            return SessionKey(first_bytes(&digest));
        }
        // This is not the session's id at Agnost: events may wait under this key while the operator corrects the
        // organization.
        match session_uuid(event) {
            Some(id) => SessionKey(id.into_bytes()),
            None => SessionKey(first_bytes(&Sha256::digest(event.session_name()))),
        }
    }

    fn announce(&self, first: &RelayEvent<'_>) -> Option<SendFuture> {
        Some(match PassthroughRequest::of(first) {
            Some(passthrough) => self.post_as(&passthrough, SESSION_PATH, self.session_body(first)),
            None => self.upstream.post(SESSION_PATH, self.session_body(first)),
        })
    }

    /// The API takes one event in each request.
    fn send(&self, events: &[RelayEvent<'_>]) -> SendFuture {
        let event = &events[0];
        let Some(passthrough) = PassthroughRequest::of(event) else {
            return self.upstream.post(EVENT_PATH, self.event_body(event));
        };
        let path = if passthrough.is_session() { SESSION_PATH } else { EVENT_PATH };
        let derived = || self.session_id(event).id;
        self.post_as(&passthrough, path, passthrough.body(self.content, derived, timestamp_ms(event)))
    }

    fn announces(&self, event: &RelayEvent<'_>) -> bool {
        PassthroughRequest::of(event).is_some_and(|passthrough| passthrough.is_session())
    }

    fn recipient(&self) -> [u8; 8] {
        let digest = Sha256::new().chain_update(self.org.as_bytes()).chain_update(self.upstream.endpoint()).finalize();
        first_bytes(&digest)
    }
}

/// The first bytes of a hash, used as an identifier.
fn first_bytes<const N: usize>(digest: &[u8]) -> [u8; N] {
    let mut first = [0; N];
    first.copy_from_slice(&digest[..N]);
    first
}

/// The id of a session at Agnost.
struct SessionId {
    id: Uuid,
    /// Whether the id was derived, because the event's `session_id` is not a UUID.
    is_derived: bool,
}

/// Parses a UUID in hyphenated form only; the library also accepts braces and more.
fn uuid(text: &str) -> Option<Uuid> {
    (text.len() == 36).then(|| Uuid::try_parse(text).ok()).flatten()
}

/// The event's `session_id`, if it is a UUID.
fn session_uuid(event: &RelayEvent<'_>) -> Option<Uuid> {
    event.text(Field::SessionId).and_then(|text| uuid(&text))
}

impl Agnost {
    /// Sends an event that came by the Agnost API under the organization that it came with.
    fn post_as(&self, passthrough: &PassthroughRequest<'_, '_>, path: &str, body: Vec<u8>) -> SendFuture {
        match passthrough.org() {
            Some(org) => self.upstream.post_as(ORG_HEADER, &org, path, body),
            None => self.upstream.post(path, body),
        }
    }

    fn session_id(&self, event: &RelayEvent<'_>) -> SessionId {
        match session_uuid(event) {
            Some(id) => SessionId { id, is_derived: false },
            None => SessionId { id: Uuid::new_v5(&self.org, &event.session_name()), is_derived: true },
        }
    }

    fn session_body(&self, event: &RelayEvent<'_>) -> Vec<u8> {
        // null and an empty string are not user names.
        let is_name = |value: &&[u8]| !matches!(*value, b"null" | b"\"\"");
        let user = |name| event.label(name).filter(is_name).or_else(|| event.metadata(name).filter(is_name));
        let user = USER_IDS.into_iter().find_map(user);
        let mut body = Object::new();
        // A session that came by the Agnost API keeps its id, whatever its form.
        match event.value(Field::SessionId).filter(|_| PassthroughRequest::of(event).is_some()) {
            Some(session) => body.raw("session_id", session),
            None => {
                body.text(
                    "session_id",
                    self.session_id(event).id.hyphenated().encode_lower(&mut Uuid::encode_buffer()),
                );
            }
        }
        body.text("client_config", "cairn");
        body.object("user_data", |data| data.string("user_id", user.or_else(|| event.value(Field::AgentId))));
        body.integer("timestamp", timestamp_ms(event));
        body.object("metadata", |metadata| metadata.string("agent_id", event.value(Field::AgentId)));
        body.close()
    }

    fn event_body(&self, event: &RelayEvent<'_>) -> Vec<u8> {
        let session = self.session_id(event);
        let mut buffer = Uuid::encode_buffer();
        let is_success = event.text(Field::ActionStatus).is_none_or(|status| status == "success");
        let (input, output) = match self.content {
            ContentConfig::Full => (event.value(Field::ActionInput), event.value(Field::ActionOutput)),
            ContentConfig::MetadataOnly => (None, None),
        };
        let error = event.value(Field::ErrorMessage).filter(|_| !is_success);
        let is_tool = event.text(Field::ActionType).is_some_and(|kind| kind == "TOOL_CALL" || kind == "TOOL_RESULT");
        // The field is required by Agnost, and an empty name counts as none.
        let name = event.value(Field::ActionName).filter(|name| is_tool && *name != br#""""#);
        let parent = event.metadata("parent_id").and_then(scan::text).and_then(|text| uuid(&text));
        let mut body = Object::with_capacity(event.record.canonical().len() + 512);
        body.string("event_id", event.value(Field::Id));
        body.text("session_id", session.id.hyphenated().encode_lower(&mut buffer));
        body.string("primitive_name", name.or_else(|| event.value(Field::AgentId)));
        body.string("args", input);
        body.string("result", output.or(error));
        body.raw("success", if is_success { b"true" } else { b"false" });
        if let Some(duration) = event.value(Field::DurationMs) {
            body.raw("latency", duration);
        }
        body.integer("timestamp", timestamp_ms(event));
        if let Some(parent) = parent {
            body.text("parent_id", parent.hyphenated().encode_lower(&mut buffer));
        }
        body.object("metadata", |metadata| write_metadata(metadata, event, session.is_derived, parent.is_some()));
        body.close()
    }
}

/// The event's own time in ms since 1970.
fn timestamp_ms(event: &RelayEvent<'_>) -> i128 {
    let timestamp = event.text(Field::Timestamp).and_then(|text| time::parse(&text));
    // Every stored event has a valid timestamp; it was validated at ingest.
    timestamp.unwrap_or_default().div_euclid(1_000_000)
}

fn write_metadata(out: &mut Object, event: &RelayEvent<'_>, with_session: bool, without_parent: bool) {
    let mut used = HashSet::new();
    let mut add = |out: &mut Object, kind, name, value| add_named(out, &mut used, kind, name, value);
    let hash = [b"\"", &event.record.hash().hex()[..], b"\""].concat();
    let sequence = event.record.sequence().to_string();
    add(out, "", b"agent_id", event.value(Field::AgentId).unwrap_or_default());
    add(out, "", b"action_type", event.value(Field::ActionType).unwrap_or_default());
    if event.value(Field::ActionStatus).is_none() {
        // The member `success`, which the API requires, would claim more than was said.
        add(out, "", b"action_status", br#""not stated""#);
    }
    add(out, "", b"sequence", sequence.as_bytes());
    add(out, "", b"hash", &hash);
    if let Some(session) = event.value(Field::SessionId).filter(|_| with_session) {
        add(out, "", b"session_id", session);
    }
    for (name, value) in scan::members(event.value(Field::Labels).unwrap_or_default()) {
        add(out, "label", name, value);
    }
    for (name, value) in scan::members(event.value(Field::Metadata).unwrap_or_default()) {
        if !(without_parent && name == b"parent_id") {
            add(out, "metadata", name, value);
        }
    }
}

/// Adds a member. If its name is used already, the name gets a prefix, so that no member is lost.
fn add_named<'e>(out: &mut Object, used: &mut HashSet<Cow<'e, [u8]>>, kind: &str, name: &'e [u8], value: &[u8]) {
    let mut name = Cow::Borrowed(name);
    while used.contains(&name) {
        name = Cow::Owned([kind.as_bytes(), b".", &name].concat());
    }
    out.key(&name);
    out.write_as_string(Some(value));
    used.insert(name);
}
