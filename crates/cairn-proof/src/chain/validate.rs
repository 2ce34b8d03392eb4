//! Validates the fields of an event (`docs/events.md`, "Fields that a client sets").

use std::borrow::Cow;

use uuid::Uuid;

use super::error::EventError;
use super::fields::{Field, FieldType, UNKNOWN, UUID_LEN};
use super::{scan, time};

/// The maximum length of an agent id, in bytes.
const MAX_AGENT_ID_LEN: usize = 256;

/// Checks that `value`, which is canonical, is valid for `field`. Fields that the server sets are not checked.
///
/// # Errors
/// When the value is not valid. The message names the field and what was expected.
pub fn field(field: Field, value: &[u8]) -> Result<(), EventError> {
    let name = field.name();
    match field.field_type() {
        FieldType::Any | FieldType::ServerSet => {}
        FieldType::Text if value.first() == Some(&b'"') => {}
        FieldType::Text => return Err(expected(name, "a string", value)),
        FieldType::AgentId => {
            agent_id(value)?;
        }
        FieldType::Uuid => {
            uuid(value)?;
        }
        FieldType::Time => {
            let text = text(name, value)?;
            if time::parse(&text).is_none() {
                return Err(expected(name, "an RFC 3339 time such as 2026-02-17T10:30:00Z", value));
            }
        }
        FieldType::Count => {
            if std::str::from_utf8(value).ok().and_then(|digits| digits.parse::<u64>().ok()).is_none() {
                return Err(expected(name, "an integer from 0 to 18446744073709551615", value));
            }
        }
        FieldType::Labels => labels(object(name, value)?)?,
        FieldType::Object => {
            object(name, value)?;
        }
    }
    Ok(())
}

/// Parses an agent id: 1 to 256 bytes without control characters.
pub fn agent_id(value: &[u8]) -> Result<Cow<'_, str>, EventError> {
    let id = text(Field::AgentId.name(), value)?;
    match id.len() {
        0 => Err(EventError::content("agent_id is required: it is empty")),
        1..=MAX_AGENT_ID_LEN if !is_agent_id(&id) => {
            Err(EventError::content("agent_id: expected no control characters"))
        }
        1..=MAX_AGENT_ID_LEN => Ok(id),
        len => Err(EventError::content(format!("agent_id: expected at most {MAX_AGENT_ID_LEN} bytes, found {len}"))),
    }
}

/// Whether a text is a valid agent id: 1 to 256 bytes without control characters.
pub fn is_agent_id(text: &str) -> bool {
    (1..=MAX_AGENT_ID_LEN).contains(&text.len()) && !text.chars().any(char::is_control)
}

/// Parses a UUID of any version in its hyphenated form.
pub fn uuid(value: &[u8]) -> Result<Uuid, EventError> {
    let name = Field::Id.name();
    let text = text(name, value)?;
    let parsed = if text.len() == UUID_LEN { Uuid::try_parse(&text).ok() } else { None };
    parsed.ok_or_else(|| expected(name, "a UUID such as 0198c6b2-7d0e-7cc5-a4ef-1f2b3c4d5e6f", value))
}

/// Returns `value` if it is an object.
pub fn object<'v>(name: &str, value: &'v [u8]) -> Result<&'v [u8], EventError> {
    if value.first() == Some(&b'{') { Ok(value) } else { Err(expected(name, "an object", value)) }
}

/// The error of an event that sends the member of `metadata` in which the server stores unknown fields.
pub fn reserved_unknown() -> EventError {
    EventError::content(format!("metadata.{UNKNOWN}: this name is reserved for unknown fields"))
}

/// Returns a warning if `value` is not one of the values that the schema lists for `field`.
pub fn unlisted_warning(field: Field, value: &[u8], listed: &[&str]) -> Option<String> {
    let text = value.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    // The listed values need no escapes, so their canonical form is the plain text.
    let is_listed = listed.iter().any(|listed| listed.as_bytes() == text);
    (!is_listed).then(|| format!("{}: {} is not one of {}", field.name(), preview(value), listed.join(", ")))
}

fn labels(object: &[u8]) -> Result<(), EventError> {
    for (key, value) in scan::members(object) {
        if matches!(value.first(), Some(b'{' | b'[' | b'n')) {
            let key = String::from_utf8_lossy(key);
            return Err(expected(&format!("labels.{key}"), "a string, number or boolean", value));
        }
    }
    Ok(())
}

fn text<'v>(name: &str, value: &'v [u8]) -> Result<Cow<'v, str>, EventError> {
    scan::text(value).ok_or_else(|| expected(name, "a string", value))
}

fn expected(name: &str, what: &str, found: &[u8]) -> EventError {
    EventError::content(format!("{name}: expected {what}, found {}", preview(found)))
}

/// Returns the start of a canonical value, for messages.
pub fn preview(value: &[u8]) -> String {
    const MAX_CHARS: usize = 60;
    let text = String::from_utf8_lossy(value);
    match text.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.into_owned(),
    }
}
