//! The fields of an event, schema 1.0: the table of the README's section "An event".

/// A field that is part of an event's content, in the order of canonical bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
#[expect(missing_docs, reason = "the names say it all")]
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
    SchemaVersion,
    SessionId,
    Source,
    Timestamp,
}

/// What a field's value has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldType {
    /// Any JSON.
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
    /// Whatever it is, the server sets it.
    ServerSet,
}

/// Names on the wire, and as keys in canonical bytes, by field.
const NAMES: [(&str, &[u8]); 17] = [
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
    ("schema_version", b"\"schema_version\":"),
    ("session_id", b"\"session_id\":"),
    ("source", b"\"source\":"),
    ("timestamp", b"\"timestamp\":"),
];

impl Field {
    /// Every content field, in the order of canonical bytes.
    pub const ALL: [Field; 17] = [
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
        Field::SchemaVersion,
        Field::SessionId,
        Field::Source,
        Field::Timestamp,
    ];

    /// The field's name on the wire.
    pub const fn name(self) -> &'static str {
        NAMES[self as usize].0
    }

    /// The name as it stands in canonical bytes: in quotes, with the colon behind it.
    pub const fn key(self) -> &'static [u8] {
        NAMES[self as usize].1
    }

    /// The field of that name.
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
            b"schema_version" => Field::SchemaVersion,
            b"session_id" => Field::SessionId,
            b"source" => Field::Source,
            b"timestamp" => Field::Timestamp,
            _ => return None,
        })
    }

    /// What the field's value has to be.
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
            Field::CaptureMethod | Field::ReceivedAt | Field::SchemaVersion => FieldType::ServerSet,
            Field::Timestamp => FieldType::Time,
        }
    }
}

/// The length of a UUID in its hyphenated form, in bytes.
pub const UUID_LEN: usize = 36;

/// Fields that stand beside the content of a stored event. Sent by a client, they are ignored with a warning.
pub const BESIDE_CONTENT: [&str; 4] = ["hash", "prev_hash", "sequence", "validation_warnings"];

/// The `action_type` of an event that has none.
pub const ACTION_TYPE: &str = "CUSTOM";

/// The `action_type`s that draw no warning.
pub const ACTION_TYPES: [&str; 6] = ["TOOL_CALL", "TOOL_RESULT", "LLM_CALL", "LLM_RESPONSE", "AGENT_TURN", "CUSTOM"];

/// The `action_status`es that draw no warning.
pub const ACTION_STATUSES: [&str; 3] = ["success", "error", "timeout"];

/// Where unknown top-level fields are kept, inside `metadata`.
pub const UNKNOWN: &str = "_unknown";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_stand_in_canonical_order_and_are_found_by_name() {
        assert!(Field::ALL.windows(2).all(|pair| pair[0].name() < pair[1].name()));
        for (index, field) in Field::ALL.into_iter().enumerate() {
            assert_eq!(field as usize, index);
            assert_eq!(Field::from_name(field.name().as_bytes()), Some(field));
            assert_eq!(field.key(), format!("{:?}:", field.name()).as_bytes());
        }
        assert_eq!(Field::from_name(b"sequence"), None);
    }
}
