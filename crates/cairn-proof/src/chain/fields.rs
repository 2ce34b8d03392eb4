//! The fields of an event, schema version 1.0. `docs/events.md` specifies them.

/// A field of the content of an event, in the order of the canonical bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
#[expect(missing_docs, reason = "docs/events.md describes each field by this name")]
pub enum Field {
    ActionInput,
    ActionName,
    ActionOutput,
    ActionStatus,
    ActionType,
    AgentId,
    CaptureMethod,
    DurationMs,
    ErrorMessage,
    Id,
    Labels,
    Metadata,
    ReceivedAt,
    Redactions,
    Salt,
    SchemaVersion,
    SessionId,
    Source,
    Timestamp,
}

/// The type of the value of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldType {
    /// Any JSON value.
    Any,
    /// Any string.
    Text,
    /// A string of 1 to 256 bytes without control characters.
    AgentId,
    /// A UUID in its hyphenated form.
    Uuid,
    /// An RFC 3339 time.
    Time,
    /// An integer from 0 to 2^64 - 1.
    Count,
    /// An object of strings, numbers and booleans.
    Labels,
    /// An object.
    Object,
    /// A value that the server sets. A value that a client sends is ignored.
    ServerSet,
}

/// By field: its name in JSON, and its key in canonical bytes.
const NAMES: [(&str, &[u8]); 19] = [
    ("action_input", b"\"action_input\":"),
    ("action_name", b"\"action_name\":"),
    ("action_output", b"\"action_output\":"),
    ("action_status", b"\"action_status\":"),
    ("action_type", b"\"action_type\":"),
    ("agent_id", b"\"agent_id\":"),
    ("capture_method", b"\"capture_method\":"),
    ("duration_ms", b"\"duration_ms\":"),
    ("error_message", b"\"error_message\":"),
    ("id", b"\"id\":"),
    ("labels", b"\"labels\":"),
    ("metadata", b"\"metadata\":"),
    ("received_at", b"\"received_at\":"),
    ("redactions", b"\"redactions\":"),
    ("salt", b"\"salt\":"),
    ("schema_version", b"\"schema_version\":"),
    ("session_id", b"\"session_id\":"),
    ("source", b"\"source\":"),
    ("timestamp", b"\"timestamp\":"),
];

impl Field {
    /// All fields of the content, in the order of the canonical bytes.
    pub const ALL: [Field; 19] = [
        Field::ActionInput,
        Field::ActionName,
        Field::ActionOutput,
        Field::ActionStatus,
        Field::ActionType,
        Field::AgentId,
        Field::CaptureMethod,
        Field::DurationMs,
        Field::ErrorMessage,
        Field::Id,
        Field::Labels,
        Field::Metadata,
        Field::ReceivedAt,
        Field::Redactions,
        Field::Salt,
        Field::SchemaVersion,
        Field::SessionId,
        Field::Source,
        Field::Timestamp,
    ];

    /// The name of the field in JSON.
    pub const fn name(self) -> &'static str {
        NAMES[self as usize].0
    }

    /// The key as it is written in canonical bytes: the name in quotes, followed by a colon.
    pub const fn key(self) -> &'static [u8] {
        NAMES[self as usize].1
    }

    /// The field with this name, if there is one.
    pub fn from_name(name: &[u8]) -> Option<Field> {
        Some(match name {
            b"action_input" => Field::ActionInput,
            b"action_name" => Field::ActionName,
            b"action_output" => Field::ActionOutput,
            b"action_status" => Field::ActionStatus,
            b"action_type" => Field::ActionType,
            b"agent_id" => Field::AgentId,
            b"capture_method" => Field::CaptureMethod,
            b"duration_ms" => Field::DurationMs,
            b"error_message" => Field::ErrorMessage,
            b"id" => Field::Id,
            b"labels" => Field::Labels,
            b"metadata" => Field::Metadata,
            b"received_at" => Field::ReceivedAt,
            b"redactions" => Field::Redactions,
            b"salt" => Field::Salt,
            b"schema_version" => Field::SchemaVersion,
            b"session_id" => Field::SessionId,
            b"source" => Field::Source,
            b"timestamp" => Field::Timestamp,
            _ => return None,
        })
    }

    /// The type of the value of the field.
    pub const fn field_type(self) -> FieldType {
        match self {
            Field::ActionInput | Field::ActionOutput => FieldType::Any,
            Field::ActionName
            | Field::ActionStatus
            | Field::ActionType
            | Field::ErrorMessage
            | Field::SessionId
            | Field::Source => FieldType::Text,
            Field::AgentId => FieldType::AgentId,
            Field::DurationMs => FieldType::Count,
            Field::Id => FieldType::Uuid,
            Field::Labels => FieldType::Labels,
            Field::Metadata => FieldType::Object,
            Field::CaptureMethod | Field::ReceivedAt | Field::Redactions | Field::Salt | Field::SchemaVersion => {
                FieldType::ServerSet
            }
            Field::Timestamp => FieldType::Time,
        }
    }
}

/// The length of a salt, in bytes: 16 random bytes in base64url (RFC 4648, section 5) without padding.
pub const SALT_LEN: usize = 22;

/// The length of a UUID in its hyphenated form, in bytes.
pub const UUID_LEN: usize = 36;

/// The members of a stored event that are not part of its content. If a client sends them, they are ignored with a
/// warning.
pub const OUTSIDE_CONTENT: [&str; 4] = ["hash", "prev_hash", "sequence", "validation_warnings"];

/// The default of `action_type`.
pub const DEFAULT_ACTION_TYPE: &str = "CUSTOM";

/// The values of `action_type` that cause no warning.
pub const ACTION_TYPES: [&str; 6] = ["TOOL_CALL", "TOOL_RESULT", "LLM_CALL", "LLM_RESPONSE", "AGENT_TURN", "CUSTOM"];

/// The values of `action_status` that cause no warning.
pub const ACTION_STATUSES: [&str; 3] = ["success", "error", "timeout"];

/// The member of `metadata` in which unknown fields of an event are stored.
pub const UNKNOWN: &str = "_unknown";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_in_canonical_order_and_found_by_name() {
        assert!(Field::ALL.windows(2).all(|pair| pair[0].name() < pair[1].name()));
        for (index, field) in Field::ALL.into_iter().enumerate() {
            assert_eq!(field as usize, index);
            assert_eq!(Field::from_name(field.name().as_bytes()), Some(field));
            assert_eq!(field.key(), format!("{:?}:", field.name()).as_bytes());
        }
        assert_eq!(Field::from_name(b"sequence"), None);
    }
}
