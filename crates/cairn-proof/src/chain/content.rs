//! The content of an event: the fields that are hashed, in canonical form.
//!
//! Four values are not known when the content is written: the time of receipt, the salt, and the id and the timestamp if the
//! client sent none. They are written as placeholders of fixed width. The shard fills them in place,
//! so the bytes written here are those that are hashed, stored and answered.

use uuid::Uuid;

use super::error::EventError;
use super::fields::{ACTION_STATUSES, ACTION_TYPES, DEFAULT_ACTION_TYPE, Field, SALT_LEN, UUID_LEN};
use super::json::Fault;
use super::link::AgentKey;
use super::slots::Slots;
use super::source::{EventSource, RECORDER_PREFIX};
use super::{string, time, validate};

/// The content of one event, ready to be written as canonical bytes.
pub struct Content<'r> {
    values: &'r [u8],
    slots: Slots,
    /// The validation warnings (`docs/events.md`, "Warnings").
    pub warnings: &'r [String],
    /// The key of the agent.
    pub agent: AgentKey,
    /// The id that the client sent, if any.
    pub client_id: Option<Uuid>,
    /// The default labels that were added, one bit each; see [`super::DefaultLabels::add`].
    pub added_labels: u16,
    /// The value of `source` if the client sent none.
    source: &'static str,
    capture_method: &'static str,
    has_salt: bool,
    canonical_len: usize,
}

/// The placeholders in canonical bytes that the shard fills. Offsets are in bytes from the start of the canonical
/// bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placeholders {
    /// [`UUID_LEN`] bytes, if the client sent no id.
    pub id: Option<usize>,
    /// [`time::LEN`] bytes.
    pub received_at: usize,
    /// [`SALT_LEN`] bytes, if the event gets a salt.
    pub salt: Option<usize>,
    /// [`time::LEN`] bytes, if the client sent no timestamp. The time of receipt is its default.
    pub timestamp: Option<usize>,
}

/// Caches values of the previous event that are valid, and usually those of the next event, too. Validating and hashing the
/// agent id of each event took 3 % of the CPU time of an event in a batch.
#[derive(Default)]
pub struct LastValues {
    /// The agent id, as a canonical value.
    id: Vec<u8>,
    key: Option<AgentKey>,
    /// The labels, as a canonical value.
    labels: Vec<u8>,
}

impl LastValues {
    fn validate_labels(&mut self, labels: &[u8]) -> Result<(), EventError> {
        if self.labels != labels {
            validate::field(Field::Labels, labels)?;
            self.labels.clear();
            self.labels.extend_from_slice(labels);
        }
        Ok(())
    }

    fn key_of(&mut self, id: &[u8], source: EventSource<'_>) -> Result<AgentKey, EventError> {
        if let Some(key) = self.key
            && self.id == id
        {
            return Ok(key);
        }
        let text = validate::agent_id(id)?;
        if text.starts_with(RECORDER_PREFIX) && !source.is_recorder() {
            return Err(EventError::content(format!(
                "agent_id: ids that begin with {RECORDER_PREFIX} belong to the server's own events, found {:?}",
                &*text
            )));
        }
        let key = AgentKey::of(&text);
        self.id.clear();
        self.id.extend_from_slice(id);
        self.key = Some(key);
        Ok(key)
    }
}

impl<'r> Content<'r> {
    /// Validates the fields of an event.
    ///
    /// `slots` are the places of the fields in `values`, which are canonical already (see [`super::json`]). Warnings
    /// are appended to `warnings`. `limit` is the maximum length of the canonical bytes.
    ///
    /// # Errors
    /// When `agent_id` is missing, a field has an invalid value, or the canonical bytes are longer than `limit`.
    pub fn of(
        values: &'r [u8],
        slots: Slots,
        warnings: &'r mut Vec<String>,
        source: EventSource<'_>,
        limit: usize,
        last: &mut LastValues,
    ) -> Result<Content<'r>, EventError> {
        let value = |field: Field| slots[field as usize].map(|slot| &values[slot.start..slot.end]);
        let client_id = value(Field::Id).map(validate::uuid).transpose()?;
        for field in Field::ALL.into_iter().filter(|field| !matches!(field, Field::AgentId | Field::Id)) {
            match value(field) {
                Some(labels) if field == Field::Labels => last.validate_labels(labels)?,
                Some(value) => validate::field(field, value)?,
                None => {}
            }
        }
        Content::of_valid(values, slots, client_id, warnings, source, limit, last)
    }

    /// The content of an event whose values are valid, because the caller wrote them itself from what it had parsed.
    /// `client_id` is the id among them.
    ///
    /// # Errors
    /// When `agent_id` is missing or invalid, or the canonical bytes are longer than `limit`.
    pub fn of_valid(
        values: &'r [u8],
        slots: Slots,
        client_id: Option<Uuid>,
        warnings: &'r mut Vec<String>,
        source: EventSource<'_>,
        limit: usize,
        last: &mut LastValues,
    ) -> Result<Content<'r>, EventError> {
        let value = |field: Field| slots[field as usize].map(|slot| &values[slot.start..slot.end]);
        let agent_id = value(Field::AgentId).ok_or_else(|| EventError::content("agent_id is required"))?;
        let agent = last.key_of(agent_id, source)?;
        for (field, listed) in [(Field::ActionType, &ACTION_TYPES[..]), (Field::ActionStatus, &ACTION_STATUSES[..])] {
            warnings.extend(value(field).and_then(|value| validate::unlisted_warning(field, value, listed)));
        }
        let EventSource { source, capture_method, has_salt, .. } = source;
        let mut content = Content {
            values,
            slots,
            warnings,
            agent,
            client_id,
            added_labels: 0,
            source,
            capture_method,
            has_salt,
            canonical_len: 0,
        };
        content.canonical_len = content.measure();
        if content.canonical_len > limit {
            let message = format!("the event is longer than {limit} bytes in canonical form");
            return Err(EventError { fault: Fault::TooLong, message });
        }
        Ok(content)
    }

    /// The value of `field` as the client sent it, in canonical form.
    pub fn value(&self, field: Field) -> Option<&[u8]> {
        self.slots[field as usize].map(|slot| &self.values[slot.start..slot.end])
    }

    /// The part of the canonical bytes for `field`: the value sent, a default, a placeholder, or nothing.
    fn part(&self, field: Field) -> Part<'_> {
        if let Some(value) = self.value(field) {
            return Part::Value(value);
        }
        match field {
            Field::ActionType => Part::Text(DEFAULT_ACTION_TYPE),
            Field::CaptureMethod => Part::Text(self.capture_method),
            Field::Id => Part::Placeholder(UUID_LEN),
            Field::ReceivedAt | Field::Timestamp => Part::Placeholder(time::LEN),
            Field::Salt if self.has_salt => Part::Placeholder(SALT_LEN),
            Field::SchemaVersion => Part::Text("1.0"),
            Field::Source => Part::Text(self.source),
            _ => Part::Nothing,
        }
    }

    /// The number of bytes that [`Content::write`] appends.
    pub fn canonical_len(&self) -> usize {
        self.canonical_len
    }

    fn measure(&self) -> usize {
        let member = |field: Field| {
            let value = match self.part(field) {
                Part::Value(value) => value.len(),
                Part::Text(text) => text.len() + 2,
                Part::Placeholder(len) => len + 2,
                Part::Nothing => return 0,
            };
            ",".len() + field.key().len() + value
        };
        1 + Field::ALL.into_iter().map(member).sum::<usize>()
    }

    /// Appends the canonical bytes to `out`, with ASCII zeros in the placeholders.
    pub fn write(&self, out: &mut Vec<u8>) -> Placeholders {
        let start = out.len();
        let mut placeholders = Placeholders { id: None, received_at: 0, salt: None, timestamp: None };
        let mut separator = b'{';
        for field in Field::ALL {
            let part = self.part(field);
            if matches!(part, Part::Nothing) {
                continue;
            }
            out.push(separator);
            separator = b',';
            out.extend_from_slice(field.key());
            match part {
                Part::Value(value) => out.extend_from_slice(value),
                Part::Text(text) => string::write_string(text, out),
                Part::Placeholder(len) => {
                    let at = out.len() + 1 - start;
                    match field {
                        Field::Id => placeholders.id = Some(at),
                        Field::Salt => placeholders.salt = Some(at),
                        Field::Timestamp => placeholders.timestamp = Some(at),
                        _ => placeholders.received_at = at,
                    }
                    out.push(b'"');
                    out.resize(out.len() + len, b'0');
                    out.push(b'"');
                }
                Part::Nothing => {}
            }
        }
        out.push(b'}');
        placeholders
    }
}

enum Part<'a> {
    Value(&'a [u8]),
    Text(&'static str),
    /// The length in bytes, without quotes.
    Placeholder(usize),
    Nothing,
}
