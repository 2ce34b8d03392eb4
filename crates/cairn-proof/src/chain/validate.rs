//! What the fields of an event may hold.

use std::borrow::Cow;

use uuid::Uuid;

use super::error::EventError;
use super::fields::{Field, FieldType, UNKNOWN, UUID_LEN};
use super::{scan, time};

/// The longest agent id, in bytes.
const AGENT_ID_MAX: usize = 256;

/// Checks that the canonical `value` is what `field` has to be.
///
/// # Errors
/// Names the field, and what was expected.
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

/// The agent id: 1 to 256 bytes without control characters.
pub fn agent_id(value: &[u8]) -> Result<Cow<'_, str>, EventError> {
    let id = text(Field::AgentId.name(), value)?;
    match id.len() {
        0 => Err(EventError::content("agent_id is required: it is empty")),
        1..=AGENT_ID_MAX if !is_agent_id(&id) => Err(EventError::content("agent_id: expected no control characters")),
        1..=AGENT_ID_MAX => Ok(id),
        len => Err(EventError::content(format!("agent_id: expected at most {AGENT_ID_MAX} bytes, found {len}"))),
    }
}

/// Whether a text can be an agent id.
pub fn is_agent_id(text: &str) -> bool {
    (1..=AGENT_ID_MAX).contains(&text.len()) && !text.chars().any(char::is_control)
}

/// A UUID in its hyphenated form, of any version.
pub fn uuid(value: &[u8]) -> Result<Uuid, EventError> {
    let name = Field::Id.name();
    let text = text(name, value)?;
    let parsed = if text.len() == UUID_LEN { Uuid::try_parse(&text).ok() } else { None };
    parsed.ok_or_else(|| expected(name, "a UUID such as 0198c6b2-7d0e-7cc5-a4ef-1f2b3c4d5e6f", value))
}

/// The canonical object itself.
pub fn object<'v>(name: &str, value: &'v [u8]) -> Result<&'v [u8], EventError> {
    if value.first() == Some(&b'{') { Ok(value) } else { Err(expected(name, "an object", value)) }
}

/// A client may not write where the server keeps what it does not know.
pub fn reserved_unknown() -> EventError {
    EventError::content(format!("metadata.{UNKNOWN}: this name is reserved for unknown fields"))
}

/// A warning if `value` is none of the values that the schema lists for `field`.
pub fn unusual(field: Field, value: &[u8], known: &[&str]) -> Option<String> {
    let text = value.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    // A canonical string has escapes only where it must, and these need none.
    let is_known = known.iter().any(|known| known.as_bytes() == text);
    (!is_known).then(|| format!("{}: {} is none of {}", field.name(), shown(value), known.join(", ")))
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
    EventError::content(format!("{name}: expected {what}, found {}", shown(found)))
}

/// The start of a canonical value, for people.
pub fn shown(value: &[u8]) -> String {
    const SHOWN: usize = 60;
    let text = String::from_utf8_lossy(value);
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.into_owned(),
    }
}
