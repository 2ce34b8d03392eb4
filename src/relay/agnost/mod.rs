//! Agnost AI: `POST {endpoint}/api/v1/capture-event`, and `/api/v1/capture-session` once before a session's first
//! event. Both carry the header `x-org-id`. The mapping is the README's section "What Agnost gets".

use std::borrow::Cow;
use std::collections::HashSet;

use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::config::ContentConfig;
use super::destination::{Destination, Sending, SessionKey};
use super::event::RelayEvent;
mod passthrough;
use super::upstream::Upstream;
use cairn_proof::chain::object::Object;
use cairn_proof::chain::{Field, scan, time};
use passthrough::PassthroughRequest;

/// Says who we are.
pub const ORG_HEADER: &str = "x-org-id";
const EVENT_PATH: &str = "/api/v1/capture-event";
const SESSION_PATH: &str = "/api/v1/capture-session";

/// Where the user of a session may be named, the first one first.
const USER_IDS: [&str; 2] = ["user_id", "enduser.id"];

/// One organization at Agnost.
pub struct Agnost {
    /// Who we are there, and the namespace of session ids that are no UUIDs.
    pub org: Uuid,
    /// Inputs and outputs, or not.
    pub content: ContentConfig,
    /// Sends what is mapped.
    pub upstream: Upstream,
}

impl Destination for Agnost {
    fn session(&self, event: &RelayEvent<'_>) -> SessionKey {
        if let Some(passthrough) = PassthroughRequest::of(event) {
            let org = passthrough.org().unwrap_or_default();
            let digest = Sha256::new().chain_update(session_name(event)).chain_update(org.as_bytes()).finalize();
            return SessionKey(first_bytes(&digest));
        }
        // Not the id at Agnost: an event may wait under this key while the operator corrects the organization.
        match session_uuid(event) {
            Some(id) => SessionKey(id.into_bytes()),
            None => SessionKey(first_bytes(&Sha256::digest(session_name(event)))),
        }
    }

    fn announce(&self, first: &RelayEvent<'_>) -> Option<Sending> {
        Some(match PassthroughRequest::of(first) {
            Some(passthrough) => self.post_as(&passthrough, SESSION_PATH, self.session_body(first)),
            None => self.upstream.post(SESSION_PATH, self.session_body(first)),
        })
    }

    fn send(&self, event: &RelayEvent<'_>) -> Sending {
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

/// The first bytes of a hash, to name something with.
fn first_bytes<const N: usize>(digest: &[u8]) -> [u8; N] {
    let mut first = [0; N];
    first.copy_from_slice(&digest[..N]);
    first
}

/// A session's id at Agnost.
struct SessionId {
    id: Uuid,
    /// The event's own is no UUID.
    is_derived: bool,
}

/// A UUID in its hyphenated form. The library would also take braces and more.
fn uuid(text: &str) -> Option<Uuid> {
    (text.len() == 36).then(|| Uuid::try_parse(text).ok()).flatten()
}

/// The event's own session, if that is a UUID.
fn session_uuid(event: &RelayEvent<'_>) -> Option<Uuid> {
    event.text(Field::SessionId).and_then(|text| uuid(&text))
}

/// canonical([agent_id, session_id]), or canonical([agent_id]): names any other session.
fn session_name(event: &RelayEvent<'_>) -> Vec<u8> {
    let mut name = vec![b'['];
    name.extend_from_slice(event.value(Field::AgentId).unwrap_or_default());
    if let Some(session) = event.value(Field::SessionId) {
        name.push(b',');
        name.extend_from_slice(session);
    }
    name.push(b']');
    name
}

impl Agnost {
    /// Sends what came by the Agnost API under the organization that it came with.
    fn post_as(&self, passthrough: &PassthroughRequest<'_, '_>, path: &str, body: Vec<u8>) -> Sending {
        match passthrough.org() {
            Some(org) => self.upstream.post_as(ORG_HEADER, &org, path, body),
            None => self.upstream.post(path, body),
        }
    }

    fn session_id(&self, event: &RelayEvent<'_>) -> SessionId {
        match session_uuid(event) {
            Some(id) => SessionId { id, is_derived: false },
            None => SessionId { id: Uuid::new_v5(&self.org, &session_name(event)), is_derived: true },
        }
    }

    fn session_body(&self, event: &RelayEvent<'_>) -> Vec<u8> {
        // Nobody is called null, and an empty name is none.
        let names = |value: &&[u8]| !matches!(*value, b"null" | b"\"\"");
        let user = |name| event.label(name).filter(names).or_else(|| event.metadata(name).filter(names));
        let user = USER_IDS.into_iter().find_map(user);
        let mut body = Object::new();
        // A session that came by the Agnost API is named as there, whatever its name is.
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
        // The field is required there, and an empty name is none.
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
    let stamp = event.text(Field::Timestamp).and_then(|text| time::parse(&text));
    // Every stored event has one; it was checked on the way in.
    stamp.unwrap_or_default().div_euclid(1_000_000)
}

fn write_metadata(out: &mut Object, event: &RelayEvent<'_>, with_session: bool, without_parent: bool) {
    let mut taken = HashSet::new();
    let mut add = |out: &mut Object, kind, name, value| add_named(out, &mut taken, kind, name, value);
    let hash = [b"\"", &event.record.hash().hex()[..], b"\""].concat();
    let sequence = event.record.sequence().to_string();
    add(out, "", b"agent_id", event.value(Field::AgentId).unwrap_or_default());
    add(out, "", b"action_type", event.value(Field::ActionType).unwrap_or_default());
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

/// Adds a member under a name that is not taken: nothing is dropped because something else has its name.
fn add_named<'e>(out: &mut Object, taken: &mut HashSet<Cow<'e, [u8]>>, kind: &str, name: &'e [u8], value: &[u8]) {
    let mut name = Cow::Borrowed(name);
    while taken.contains(&name) {
        name = Cow::Owned([kind.as_bytes(), b".", &name].concat());
    }
    out.key(&name);
    out.write_as_string(Some(value));
    taken.insert(name);
}
